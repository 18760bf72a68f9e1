"""Damaged files: never a crash, a hang, or memory beyond what the header's true size explains.

Real CT in every format, with bytes changed and ends cut off. Whatever comes out is a volume or an error of
this package.
"""

import gzip
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
