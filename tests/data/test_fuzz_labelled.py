"""Whatever a table, a description or a mask holds, the only errors are this package's, in one line."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from labelled_files import mask, picture, save, volume
from modelsgenesis.data import scan_sources
from modelsgenesis.data.cases import data_contract, prepare_case, read_mask
from modelsgenesis.data.finding import find_patients, is_label_map
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import GenesisError, printable

NAMES = ["a.nii.gz", "./b.nii.gz", "a_seg.nii.gz", "a.nii.gz;b.nii.gz", "a.png", "../x", "/dev/zero", ".", "a\0"]
NAMES += ["b" * 400]
FIELDS = st.sampled_from(["0", "1", "x", "²", "background", "image", "images", "label"])
ODD = st.recursive(
    st.sampled_from([*NAMES, None, True, -1, 2, 1.5, float("nan"), "", "²", "CT", ".nii.gz", "/"])
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=8,
)
KEYS = ["name", "labels", "modality", "channel_names", "test", "dataset", "file_ending", "numTraining"]
DESCRIPTIONS = st.fixed_dictionaries({"training": st.lists(ODD, max_size=3) | ODD}, optional=dict.fromkeys(KEYS, ODD))
COLUMNS = st.sampled_from(["image", "label", "mask", "patient", "split", "seriesuid", "coordX", "class"])
CELLS = st.sampled_from([*NAMES, "1", "train"]) | st.text(max_size=8)
TABLES = st.builds(
    lambda columns, rows, sign: "\n".join(map(sign.join, (columns, *rows))).encode(),
    st.lists(COLUMNS, max_size=5),
    st.lists(st.lists(CELLS, max_size=5), max_size=4),
    st.sampled_from(",;\t"),
)
CASES = [{"image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz"} for name in "ab"]
DESCRIPTION = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "x", "2": "y"}, "training": CASES}
TABLE = b"image,mask,label\na.nii.gz,a_seg.nii.gz,x;y\nb.nii.gz,b_seg.nii.gz,x;y\n"


@st.composite
def damaged(draw: st.DrawFn, *contents: bytes) -> bytes:
    """Bytes with others at a few places, and with their end cut off."""
    content = bytearray(draw(st.sampled_from(contents)))
    for place, value in draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)):
        content[int(place * (len(content) - 1))] = value
    return bytes(content[: round(draw(st.just(1.0) | st.floats(0, 1)) * len(content))])


def fuzz(strategy: st.SearchStrategy, check: Callable) -> None:
    """Run a check on many inputs, the same in every run: it ends well or in an error of this package."""

    @settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(content):
        message = ""
        try:
            with warnings.catch_warnings(action="ignore"):  # of decoders, about what they are about to refuse
                check(content)
        except GenesisError as error:
            message = str(error)
        assert printable(message) == message

    run()


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("dataset.json", DESCRIPTIONS.map(json.dumps).map(str.encode)),
        ("dataset.json", damaged(json.dumps(DESCRIPTION).encode())),
        ("x.csv", TABLES),
        ("x.csv", damaged(TABLE)),
    ],
)
def test_descriptions_and_tables(tmp_path, name, contents):
    for case in ("a", "b"):
        save(tmp_path / f"{case}.nii.gz", volume(0))
        save(tmp_path / f"{case}_seg.nii.gz", mask(1, 2))
        picture(tmp_path / f"{case}.png", 1)

    def check(content):
        (tmp_path / name).write_bytes(content)
        scan_sources(tmp_path)
        data = read_labelled(tmp_path / name)
        for case in data.cases[:2]:
            prepare_case(case, data, data_contract(data))

    fuzz(contents, check)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_damaged_masks(tmp_path, suffix):
    path, numbers, contents = tmp_path / f"x.{suffix}", Image.frombytes("P", (16, 16), bytes(range(256))), []
    numbers.putpalette(bytes(range(256)) * 3)
    for image in (numbers, numbers.convert("L"), numbers.convert("RGB")):
        image.save(path)
        contents.append(path.read_bytes())

    def check(content):
        path.write_bytes(content)
        found = read_mask(path).array
        assert (found.dtype.kind in "iu", found.ndim) == (True, 2)

    fuzz(damaged(*contents), check)


def test_names():
    def check(names):
        assert all(isinstance(is_label_map(name), bool) for name in names)
        for classes in (None, [len(name) % 2 for name in names]):
            patients, rule = find_patients(list(map(Path, names)), classes=classes)
            assert (len(patients), bool(rule)) == (len(names), True)

    letters = st.characters(exclude_characters="\0") | st.sampled_from("sub-01_t1/.")
    fuzz(st.lists(st.text(letters, max_size=12)), check)
