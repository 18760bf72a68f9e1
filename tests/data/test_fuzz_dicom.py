"""Damaged DICOM: a scan or an error of this package, within seconds and little memory.

Pixels are decoded in C++, so that all is read by another process, whose memory is limited and whose crash is seen.
"""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dicom_files as dcm
from dicom_files import enhanced, sequence, write_dicom

pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory by Linux's means")

_READ_ALL = """
import resource, sys, time
from pathlib import Path
from modelsgenesis.data import read_volume, scan_sources
from modelsgenesis.data.itk import simpleitk
from modelsgenesis.errors import ScanError
simpleitk("fuzzing")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    start = time.process_time()
    scans, refused = scan_sources(path)
    messages = [one.reason for one in refused]
    for scan in scans[:2]:
        try:
            assert read_volume(scan).array.shape == scan.shape
        except ScanError as error:
            assert path.stem in str(error), error
            messages.append(str(error))
    assert scans or refused
    assert not any("fit into memory" in one or "\\n" in one for one in messages), messages
    assert time.process_time() - start < 10
"""


def damage(contents: list[bytes], folder: Path, count: int, seed: int) -> None:
    """Write damaged copies: bytes and lengths changed in the elements and, less often, the pixels; ends cut off."""
    random = np.random.default_rng(seed)
    for number in range(count):
        content = bytearray(contents[number % len(contents)])
        if random.random() < 0.2:
            content = content[: random.integers(140, len(content))]
        reach = len(content) if random.random() < 0.2 else min(len(content), 4000)
        for _ in range(random.integers(1, 8)):
            place = random.integers(132, max(reach, 133))
            content[place] = random.choice([0, 255, ord("9"), ord("e"), int(random.integers(256))])
        if random.random() < 0.3:  # a piece of one element in the place of another
            start, to = random.integers(132, max(reach - 40, 133), 2)
            content[to : to + 20] = content[start : start + 20]
        (folder / f"{number:05d}.dcm").write_bytes(content)


def read_in_another_process(folder: Path) -> None:
    """Read every file of a folder with 600 MB of memory; a crash names the file that it happened at."""
    command = [sys.executable, "-c", _READ_ALL, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, f"{run.stdout.splitlines()[-1:]}: {run.stderr[-2000:]}"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One file of each kind: classic, implicit, big-endian, enhanced, colour, compressed."""
    folder = tmp_path_factory.mktemp("originals")
    pixels = np.random.default_rng(0).integers(0, 3000, (5, 12, 10)).astype(np.uint16)
    nested = sequence(0x00081140, [(0x00081150, "UI", "1.2"), sequence(0x00081199, [(0x00081150, "UI", "1.3")])])
    frames = enhanced(*([(dcm.POSITION, "DS", (0.0, 0.0, 2.0 * z)), (dcm.SLOPE, "DS", 1.0 + z)] for z in range(5)))
    clip = np.zeros((4, 6, 8, 3), np.uint8)
    jpeg = {"syntax": "1.2.840.10008.1.2.4.50", "pieces": [struct.pack(">HH", 0xFFD8, 0xFFD9)] * 4}
    files = [
        write_dicom(folder / "classic", pixels[0], extra=(*dcm.HOUNSFIELD, nested, (dcm.PADDING, "US", 0))),
        write_dicom(folder / "implicit", pixels[0], modality="DX", syntax=dcm.IMPLICIT),
        write_dicom(folder / "clip", clip, modality="US", position=None, extra=((dcm.FRAMES, "IS", 4),)),
        write_dicom(folder / "jpeg", clip, modality="US", position=None, extra=((dcm.FRAMES, "IS", 4),), **jpeg),
    ]
    for number, syntax in enumerate((dcm.EXPLICIT, dcm.IMPLICIT, dcm.BIG)):
        path = folder / f"enhanced{number}"
        files.append(write_dicom(path, pixels, modality="MR", position=None, syntax=syntax, extra=frames))
    return [path.read_bytes() for path in files]


def test_damaged_dicom(tmp_path: Path, originals: list[bytes]) -> None:
    damage(originals, tmp_path, 300, seed=0)
    read_in_another_process(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_much_damaged_dicom(tmp_path: Path, originals: list[bytes], seed: int) -> None:
    damage(originals, tmp_path, 7000, seed)
    read_in_another_process(tmp_path)


@pytest.mark.slow
@pytest.mark.shared
def test_damaged_real_dicom(tmp_path: Path, shared_data: Path) -> None:
    files = [next((shared_data / "dicom" / "ct_abdomen").iterdir()), *(shared_data / "dicom").glob("*.dcm")]
    damage([path.read_bytes() for path in files], tmp_path, 300, seed=0)
    read_in_another_process(tmp_path)
