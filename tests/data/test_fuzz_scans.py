"""Damaged files of every format: an error of this package, or the right values where the format can tell.

A piece of a real CT and DICOM of several kinds with bytes changed, words of headers replaced and ends cut off, read by
another process with little memory: parsers in C++ may crash, and a crash must not end the tests without a word.
"""

import gzip
import struct
import subprocess
import sys
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own customary name
from PIL import Image

import dicom_files as dcm
from dicom_files import enhanced, sequence, write_dicom

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory by Linux's means")

Files = dict[str, bytes]  # of a scan: what is read by its first name

NAMES = ("x.nii", "x.nii.gz", "two.nii.gz", "x.hdr", "p.hdr", "a.hdr", "x.mgh", "x.mgz", "x.png", "x.jpg", "x.tif")
NAMES += ("x.bmp", "x.mha", "z.mha", "x.mhd", "z.mhd", "x.nrrd", "z.nrrd", "x.nhdr", "z.nhdr")
BESIDE = {"x.hdr": "x.img", "a.hdr": "a.img", "p.hdr": "p.img.gz", "x.mhd": "x.raw", "z.mhd": "z.zraw"}
BESIDE |= {"x.nhdr": "x.raw", "z.nhdr": "z.raw.gz"}
HEADERS = {"z.mha": b"LOCAL\n", "z.nrrd": b"\n\n"}  # how those end that no checksum covers
SEALED = ("x.nii.gz", "two.nii.gz", "x.mgz", "p.img.gz", "z.zraw", "z.raw.gz", *HEADERS)
WORDS = b"-1,0,1,3,99999999999999999999,4294967297,nan,inf,1e300,MET_LONG,MET_STRING,LIST,T,LOCAL,domain".split(b",")
WORDS += b"list,none,block,(),gzip,raw,double,../../etc/passwd,x%d,left-posterior-superior,\n,=,:, ,\0".split(b",")
WORDS += [b"x" * 300, b"1 " * 200]

READ_ALL = """
import hashlib, resource, sys, time, warnings
from pathlib import Path
from modelsgenesis.data import read_volume, scan_sources
from modelsgenesis.data.itk import simpleitk
from modelsgenesis.errors import GenesisError
simpleitk()
warnings.simplefilter("ignore")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)
with open(sys.argv[2], "w") as outcomes:
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        print(folder.name, end=" ", file=outcomes, flush=True)
        start, said, values = time.process_time(), [], hashlib.sha256()
        scans, skipped = scan_sources(folder)
        for scan in scans[:2]:
            try:
                volume = read_volume(scan)
                assert volume.array.shape == scan.shape and volume.array.ndim in (2, 3)
                values.update(volume.array.tobytes())
            except GenesisError as error:
                said.append(str(error))
        said += [f"{one.source} {one.reason}" for one in skipped]
        assert all(folder.name in one and "\\n" not in one and "fit into memory" not in one for one in said), said
        assert time.process_time() - start < 10
        print("refused" if said else values.hexdigest(), file=outcomes, flush=True)
"""


def read_in_another_process(cases: dict[str, Files], folder: Path) -> dict[str, str]:
    """Return what becomes of each case: `refused`, or a digest of its voxels."""
    for case, files in cases.items():
        (folder / "cases" / case).mkdir(parents=True)
        for name, content in files.items():
            (folder / "cases" / case / name).write_bytes(content)
    command = [sys.executable, "-c", READ_ALL, folder / "cases", folder / "outcomes"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    lines = (folder / "outcomes").read_text().splitlines()
    assert run.returncode == 0, f"{lines[-1:]}: {run.stderr[-2000:]}"
    return dict(line.split() for line in lines)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """The piece in every format: the files that it consists of, by the name of the first."""
    folder = tmp_path_factory.mktemp("originals")
    sample = Path(str(resources.files("modelsgenesis"))) / "sample" / "images" / "c04_ts_abdomen_slab.nii.gz"
    crop = np.asanyarray(nib.load(sample).dataobj)[60:84, 70:90]
    affine = np.diag([-3, -3, 3, 1])
    for name in ("x.nii", "x.nii.gz", "x.hdr", "p.hdr", "a.hdr", "x.mgh", "x.mgz"):
        kind = {"x.hdr": nib.Nifti1Pair, "p.hdr": nib.Nifti1Pair, "a.hdr": nib.AnalyzeImage}.get(name, nib.Nifti1Image)
        nib.save((nib.MGHImage if "mg" in name else kind)(crop, affine), folder / name)
    nib.save(nib.Nifti2Image(np.stack([crop, crop], -1), affine), folder / "two.nii.gz")
    (folder / "p.img.gz").write_bytes(gzip.compress((folder / "p.img").read_bytes()))
    image = sitk.GetImageFromArray(crop.T)
    for name in NAMES[-8:]:
        sitk.WriteImage(image, str(folder / name), useCompression=name[0] == "z")
    grey = Image.fromarray((crop[..., 6].clip(-200, 300) / 2 + 100).astype(np.uint8))
    for name in NAMES[8:12]:
        grey.save(folder / name)
    return {name: {part: (folder / part).read_bytes() for part in (name, BESIDE.get(name)) if part} for name in NAMES}


def damaged(random: np.random.Generator, content: bytes, start: int, words: bool) -> bytes:
    """Change bytes or words from `start` on, most of them near it, and cut the end off now and then."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        near = random.random() < 0.6
        place = int(random.integers(start, min(len(changed), start + 450) if near else len(changed)))
        if words and random.random() < 0.6:
            end = next((at for at in range(place, len(changed)) if changed[at] in b" \n=:"), place)
            changed[place:end] = WORDS[random.integers(len(WORDS))]
        else:
            changed[place] = random.choice([0, 255, 1 << random.integers(8), random.integers(256)])
    return bytes(changed[: random.integers(start, len(changed))] if random.random() < 0.2 else changed)


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 10), *(pytest.param(seed, 100, marks=pytest.mark.slow) for seed in range(1, 11))]
)
def test_damaged_scans(originals: dict[str, Files], tmp_path: Path, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    cases = {f"right-{name}": files for name, files in originals.items()}
    for number in range(count):
        for name, files in originals.items():
            part = list(files)[random.integers(len(files))]
            end = HEADERS.get(part)
            start = files[part].index(end) + len(end) if end and random.random() < 0.5 else 0
            sealed = part in SEALED and bool(start or not end)
            text = part == name and not start and name.endswith(("mha", "mhd", "nrrd", "nhdr"))
            change = damaged(random, files[part], start, words=text)
            cases[f"{'sealed' if sealed else 'open'}-{number:04d}-{name}"] = files | {part: change}
        name = ("x.nii.gz", "x.mgz")[number % 2]  # damage within a stream whose checksum is right
        change = damaged(random, gzip.decompress(originals[name][name]), 0, words=False)
        cases[f"open-{number:04d}-inside-{name}"] = {name: gzip.compress(change, 1)}
    outcomes = read_in_another_process(cases, tmp_path)
    assert "refused" not in [outcomes[f"right-{name}"] for name in originals]
    for case, outcome in outcomes.items():
        if case.startswith("sealed"):
            assert outcome in ("refused", outcomes[f"right-{case[len('sealed-0000-') :]}"]), case


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One file of each kind: classic, implicit, big-endian, enhanced, colour, compressed."""
    folder = tmp_path_factory.mktemp("dicom")
    pixels = np.random.default_rng(0).integers(0, 3000, (5, 12, 10)).astype(np.uint16)
    nested = sequence(0x00081140, [sequence(0x00081199, [(0x00081150, "UI", "1.3")])])
    frames = enhanced(*([(dcm.POSITION, "DS", (0.0, 0.0, 2.0 * z)), (dcm.SLOPE, "DS", 1.0 + z)] for z in range(5)))
    clip: dict = {"pixels": np.zeros((4, 6, 8, 3), np.uint8), "modality": "US", "extra": ((dcm.FRAMES, "IS", 4),)}
    jpeg = {"syntax": "1.2.840.10008.1.2.4.50", "pieces": [struct.pack(">HH", 0xFFD8, 0xFFD9)] * 4}
    several = {"pixels": pixels, "modality": "MR", "position": None, "extra": frames}
    files = [clip, clip | jpeg, *({**several, "syntax": syntax} for syntax in (dcm.EXPLICIT, dcm.IMPLICIT, dcm.BIG))]
    files.append({"pixels": pixels[0], "extra": (*dcm.HOUNSFIELD, nested, (dcm.PADDING, "US", 0))})
    files.append({"pixels": pixels[0], "modality": "DX", "syntax": dcm.IMPLICIT})
    return [write_dicom(folder / str(number), **tags).read_bytes() for number, tags in enumerate(files)]


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 300), *(pytest.param(seed, 7000, marks=pytest.mark.slow) for seed in range(1, 4))]
)
def test_damaged_dicom(dicom: list[bytes], tmp_path: Path, seed: int, count: int) -> None:
    """Copies with bytes and lengths changed, most of them in the first elements; ends cut off."""
    random = np.random.default_rng(seed)
    cases: dict[str, Files] = {}
    for number in range(count):
        content = bytearray(damaged(random, dicom[number % len(dicom)], 132, words=False))
        if random.random() < 0.3:  # a piece of one element in the place of another
            start, to = random.integers(132, max(min(len(content), 4000) - 40, 133), 2)
            content[to : to + 20] = content[start : start + 20]
        cases[f"{number:05d}"] = {"x.dcm": bytes(content)}
    read_in_another_process(cases, tmp_path)
