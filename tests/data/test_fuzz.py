"""Damaged files: never a crash, a hang, or memory beyond what the header's true size explains.

Real CT in every format, with bytes changed and ends cut off. Whatever comes out is a volume or an error of
this package. DICOM's pixels are decoded in C++, so its files are read by another process with little memory.
"""

import gzip
import subprocess
import sys
import time
import tracemalloc
import warnings
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dicom_files import HOUNSFIELD, sequence, write_dicom
from modelsgenesis.data import survey
from modelsgenesis.errors import ScanError

NAMES = (
    "x.nii",
    "x.nii.gz",
    "x.hdr",
    "x.mgz",
    "x.mha",
    "z.mha",
    "x.nrrd",
    "z.nrrd",
    "x.png",
    "x.tif",
    "x.jpg",
)
_MEMORY = 64 * 2**20
_TIMES = 1032  # what a compressed byte can stand for


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    """A piece of a real CT, int16 [24, 20, 13]."""
    folder = Path(str(resources.files("modelsgenesis"))) / "sample" / "images"
    return np.asanyarray(nib.load(folder / "c04_ts_abdomen_slab.nii.gz").dataobj)[60:84, 70:90]


class Files(dict[str, bytes]):
    """Contents by name, shown by their number in a failing example."""

    def __repr__(self) -> str:
        return f"{len(self)} files"


@pytest.fixture(scope="module")
def originals(crop: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The crop in every format, by the name of its file."""
    sitk = pytest.importorskip("SimpleITK")
    folder = tmp_path_factory.mktemp("originals")
    affine = np.diag([-3, -3, 3, 1])
    for name in NAMES[:2]:
        nib.save(nib.Nifti1Image(crop, affine), folder / name)
    nib.save(nib.Nifti1Pair(crop, affine), folder / "x.hdr")
    nib.save(nib.MGHImage(crop.astype(np.float32), affine), folder / "x.mgz")
    for name in NAMES[4:8]:
        sitk.WriteImage(sitk.GetImageFromArray(crop.T), str(folder / name), useCompression=name[0] == "z")
    grey = Image.fromarray((crop[..., 6].clip(-200, 300) / 2 + 100).astype(np.uint8))
    for name in NAMES[8:]:
        grey.save(folder / name)
    return Files({path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture(scope="module")
def folder(originals: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "x.img").write_bytes(originals["x.img"])
    return folder


DAMAGE = st.tuples(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.booleans()), min_size=1, max_size=8),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)


def damaged(content: bytes, damage: tuple) -> bytes:
    """Change bytes, half of the time within the first 500, where headers are, and cut the end off."""
    changes, kept = damage
    content = bytearray(content)
    for place, value, early in changes:
        reach = min(len(content), 500) if early else len(content)
        content[min(int(place * reach), reach - 1)] = value
    return bytes(content[: int(kept * len(content))])


def read_or_refuse(path: Path) -> None:
    """Read a file within the time and memory that its size explains."""
    start = time.monotonic()
    tracemalloc.start()
    messages = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders, about what they are about to refuse
        scans, refused = survey(path)
        assert scans or refused or not path.suffix
        messages += [f"{one.source}: {one.reason}" for one in refused]
        for scan in scans[:3]:
            try:
                volume = scan.read()
            except ScanError as error:
                messages.append(str(error))
            else:
                assert volume.array.shape == scan.shape
                assert volume.array.ndim in (2, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for message in messages:
        assert path.stem in message
        assert "\n" not in message
    assert peak < _MEMORY + 5 * _TIMES * path.stat().st_size
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(damage=DAMAGE)
def test_damaged_files(name: str, originals: Files, folder: Path, damage: tuple) -> None:
    (folder / name).write_bytes(damaged(originals[name], damage))
    read_or_refuse(folder / name)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.mgz"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(damage=DAMAGE)
def test_damaged_headers_in_sound_streams(name: str, originals: Files, folder: Path, damage: tuple) -> None:
    (folder / name).write_bytes(gzip.compress(damaged(gzip.decompress(originals[name]), damage), 1))
    read_or_refuse(folder / name)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    suffix=st.sampled_from([".nii", ".hdr", ".mgh", ".mha", ".mhd", ".nrrd", ".png", ".dcm", ""]),
    junk=st.binary(),
)
def test_junk(folder: Path, suffix: str, junk: bytes) -> None:
    path = folder / f"junk{suffix}"
    path.write_bytes({".nrrd": b"NRRD0004\n", "": bytes(128) + b"DICM"}.get(suffix, b"") + junk)
    read_or_refuse(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fields=st.dictionaries(
        st.sampled_from(["NDims", "DimSize", "ElementType", "ElementSpacing", "ElementNumberOfChannels", "HeaderSize"]),
        st.sampled_from(["0", "-1", "3", "1 1 1", "9999999 9999999 9999999", "nan nan nan", "1e9 1 1", "", "x", "2 2"]),
    )
)
def test_metaimage_headers_of_any_values(originals: Files, folder: Path, fields: dict) -> None:
    head, local, voxels = originals["x.mha"].partition(b"ElementDataFile")
    lines = "".join(f"{name} = {value}\n" for name, value in fields.items()).encode()
    path = folder / "values.mha"
    path.write_bytes(head + lines + local + voxels)
    read_or_refuse(path)


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
