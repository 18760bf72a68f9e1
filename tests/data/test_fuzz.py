"""Damaged DICOM: never a crash, a hang, or memory beyond what the header's true size explains.

Whatever comes out is a volume or an error of this package. Pixels are decoded in C++, so the files are read by another
process with little memory. Other formats: `test_fuzz_scans.py`.
"""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_files import HOUNSFIELD, sequence, write_dicom


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    """A piece of a real CT, int16 [24, 20, 13]."""
    folder = Path(str(resources.files("modelsgenesis"))) / "sample" / "images"
    return np.asanyarray(nib.load(folder / "c04_ts_abdomen_slab.nii.gz").dataobj)[60:84, 70:90]


_READ_ALL = """
import resource, sys, time
from pathlib import Path
from modelsgenesis.data import survey
from modelsgenesis.data.dicom import simpleitk
from modelsgenesis.errors import GenesisError
simpleitk()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    start = time.monotonic()
    scans, refused = survey(path)
    for scan in scans[:2]:
        try:
            assert scan.read().array.shape == scan.shape
        except GenesisError as error:
            assert "fit into memory" not in str(error), error
    assert all("fit into memory" not in one.reason for one in refused), refused
    assert time.monotonic() - start < 20
"""


def read_in_another_process(folder: Path) -> None:
    """Read every file of a folder with 600 MB of memory; a crash names the file that it happened at."""
    run = subprocess.run(
        [sys.executable, "-c", _READ_ALL, str(folder)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout.splitlines()[-1:]}: {run.stderr[-2000:]}"


def damage_many(folder: Path, contents: list[bytes], count: int, seed: int) -> None:
    """Write damaged copies whose changes reach into the elements and, less often, the pixels."""
    random = np.random.default_rng(seed)
    for number in range(count):
        content = bytearray(contents[number % len(contents)])
        if random.random() < 0.3:
            content = content[: random.integers(140, len(content))]
        reach = len(content) if random.random() < 0.2 else min(len(content), 4000)
        for _ in range(random.integers(1, 8)):
            content[random.integers(132, max(reach, 133))] = random.choice([0, 255, random.integers(256)])
        (folder / f"{number:04d}.dcm").write_bytes(content)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory by Linux's means")
def test_damaged_dicom(tmp_path: Path, crop: np.ndarray) -> None:
    pixels = (crop[..., 0].astype(int) + 1100).astype(np.uint16)
    nested = sequence(0x00081140, [(0x00081150, "UI", "1.2"), sequence(0x00081199, [(0x00081150, "UI", "1.3")])])
    sources = [
        write_dicom(tmp_path / "one", pixels, extra=(*HOUNSFIELD, nested)),
        write_dicom(tmp_path / "two", pixels, modality="DX", syntax="1.2.840.10008.1.2"),
        write_dicom(tmp_path / "clip", np.zeros((4, 6, 8, 3), np.uint8), modality="US", position=None),
    ]
    (tmp_path / "damaged").mkdir()
    damage_many(tmp_path / "damaged", [path.read_bytes() for path in sources], 200, seed=0)
    read_in_another_process(tmp_path / "damaged")


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("seed", range(4))
def test_damaged_real_dicom(tmp_path: Path, shared_data: Path, seed: int) -> None:
    files = [next((shared_data / "dicom" / "ct_abdomen").iterdir()), *(shared_data / "dicom").glob("*.dcm")]
    damage_many(tmp_path, [path.read_bytes() for path in files], 100, seed)
    read_in_another_process(tmp_path)
