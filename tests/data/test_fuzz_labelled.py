"""Whatever a table, a description or a mask holds, the only errors are this package's, in one line."""

import json
import tracemalloc
import warnings
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

many = pytest.mark.parametrize("count", [30, pytest.param(4000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])


def fuzz(count, strategy, check):
    """Run a check on many inputs: within 1 GB it ends well or in an error of this package."""

    # Fresh examples when slow; the same ones in a quick run, whose verdict is not to change.
    @settings(
        max_examples=count,
        derandomize=count < 100,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(content):
        message = ""
        tracemalloc.start()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of decoders, about what they are about to refuse
                check(content)
        except GenesisError as error:
            message = str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert printable(message) == message
        assert peak < 1 << 30

    run()


def changed(content: bytes, damage: list[tuple[float, int]], kept: float) -> bytes:
    """Overwrite bytes at relative places, and cut the end off."""
    content = bytearray(content)
    for place, value in damage:
        content[int(place * (len(content) - 1))] = value
    return bytes(content[: round(kept * len(content))])


DAMAGE = st.builds(
    lambda damage, kept: lambda content: changed(content, damage, kept),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)


def use(path: Path) -> None:
    """Do with a data set what fine-tuning does first."""
    scan_sources(path.parent)
    data = read_labelled(path)
    for case in data.cases[:2]:
        prepare_case(case, data, data_contract(data))


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.nii.gz", volume(0))
        save(tmp_path / f"{name}_seg.nii.gz", mask(1, 2))
        picture(tmp_path / f"{name}.png", 1)
    return tmp_path


NAMES = ["a.nii.gz", "./b.nii.gz", "a_seg.nii.gz", "a.nii.gz;b.nii.gz", "a.png", "../x", "/dev/zero", ".", "a\0"]
NAMES += ["b" * 400]
ODD = st.recursive(
    st.sampled_from([*NAMES, None, True, -1, 2, 1.5, float("nan"), "", "²", "CT", ".nii.gz", "/"])
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["0", "1", "x", "²", "background", "image", "images", "label"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
KEYS = ["name", "labels", "modality", "channel_names", "test", "dataset", "file_ending", "numTraining"]
DESCRIPTIONS = st.fixed_dictionaries({"training": st.lists(ODD, max_size=3) | ODD}, optional=dict.fromkeys(KEYS, ODD))
COLUMNS = st.sampled_from(["image", "label", "mask", "patient", "split", "seriesuid", "coordX", "class"])
ROWS = st.lists(st.lists(st.sampled_from([*NAMES, "1", "train"]) | st.text(max_size=8), max_size=5), max_size=4)
TABLES = st.builds(
    lambda columns, rows, sign: "\n".join(map(sign.join, (columns, *rows))),
    st.lists(COLUMNS, max_size=5),
    ROWS,
    st.sampled_from(",;\t"),
)
CASES = [{"image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz"} for name in "ab"]
DESCRIPTION = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "x", "2": "y"}, "training": CASES}
TABLE = b"image,mask,label\na.nii.gz,a_seg.nii.gz,x;y\nb.nii.gz,b_seg.nii.gz,x;y\n"


@many
@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("dataset.json", DESCRIPTIONS.map(json.dumps).map(str.encode)),
        ("x.csv", TABLES.map(str.encode)),
        ("dataset.json", DAMAGE.map(lambda damage: damage(json.dumps(DESCRIPTION).encode()))),
        ("x.csv", DAMAGE.map(lambda damage: damage(TABLE))),
    ],
)
def test_descriptions_and_tables(folder, count, name, contents):
    def check(content):
        (folder / name).write_bytes(content)
        use(folder / name)

    fuzz(count, contents, check)


@many
def test_damaged_masks(tmp_path, count):
    numbers = Image.frombytes("P", (16, 16), bytes(range(256)))
    numbers.putpalette(bytes(range(256)) * 3)
    contents = []
    for number, image in enumerate((numbers, numbers.convert("L"), numbers.convert("RGB"))):
        for suffix in ("png", "tif"):
            image.save(tmp_path / f"{number}.{suffix}")
            contents.append((suffix, (tmp_path / f"{number}.{suffix}").read_bytes()))

    def check(chosen):
        (suffix, content), damage = chosen
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(damage(content))
        found = read_mask(path)
        assert found.array.dtype.kind in "iu"
        assert found.array.ndim == 2

    fuzz(count, st.tuples(st.sampled_from(contents), DAMAGE), check)


@many
def test_names(count):
    letters = st.characters(exclude_characters="\0") | st.sampled_from("sub-01_t1/.")

    def check(names):
        assert all(isinstance(is_label_map(name), bool) for name in names)
        for classes in (None, [len(name) % 2 for name in names]):
            patients, rule = find_patients(list(map(Path, names)), classes=classes)
            assert (len(patients), bool(rule)) == (len(names), True)

    fuzz(count, st.lists(st.text(letters, max_size=12)), check)
