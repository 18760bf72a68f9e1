"""Whatever a table, a description, an archive or a mask holds, the only errors are this package's, in one line."""

import io
import json
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from labelled_files import mask, picture, save, volume
from modelsgenesis.data import data_contract, prepare_case, read_labelled, read_mask, survey
from modelsgenesis.data.names import find_patients, is_label_map
from modelsgenesis.errors import GenesisError, printable

many = pytest.mark.parametrize("count", [30, pytest.param(4000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])


def fuzz(count, strategy, check):
    """Run a check on many inputs: within 10 s and 1 GB it ends well or in an error of this package."""

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(content):
        start, message = time.monotonic(), ""
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
        assert time.monotonic() - start < 10

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
    survey(path.parent)
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("01ab.", max_size=3), inner, max_size=3),
    max_leaves=6,
)
PATHS = (
    st.sampled_from(["a.nii.gz", "./b.nii.gz", "a_seg.nii.gz", "../x.nii.gz", "/dev/zero", ".", "a\0", "b" * 400])
    | JSON
)
ENTRIES = PATHS | st.fixed_dictionaries(
    {"image": PATHS}, optional={"label": PATHS, "images": st.lists(PATHS, max_size=2)}
)
NUMBERED = st.dictionaries(st.sampled_from(["0", "1", "2", "x", "²"]), st.text(max_size=5) | JSON, max_size=3)
KEYS = {
    "name": JSON,
    "labels": NUMBERED | st.dictionaries(st.text(max_size=3), st.integers(-1, 4) | JSON, max_size=3) | JSON,
    "modality": NUMBERED | JSON,
    "channel_names": NUMBERED | JSON,
    "test": st.lists(ENTRIES, max_size=2) | JSON,
    "dataset": st.dictionaries(st.text("ab/.", max_size=4), ENTRIES, max_size=2) | JSON,
    "file_ending": st.sampled_from([".nii.gz", ".png", "", "/", "[", ".*"]) | JSON,
    "numTraining": JSON,
}
DESCRIPTIONS = st.fixed_dictionaries({"training": st.lists(ENTRIES, max_size=3) | JSON}, optional=KEYS)


WHOLE = {
    "dataset.json": json.dumps(
        {
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "x", "2": "y"},
            "training": [{"image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz"} for name in "ab"],
        }
    ),
    "x.csv": "image,mask,label\na.nii.gz,a_seg.nii.gz,x;y\nb.nii.gz,b_seg.nii.gz,x;y\n",
}


COLUMNS = st.lists(
    st.sampled_from(["image", "label", "mask", "patient", "split", "seriesuid", "coordX", "class"]), max_size=5
)
CELLS = st.sampled_from(["a.nii.gz", "b.nii.gz", "a.nii.gz;b.nii.gz", "a_seg.nii.gz", "a.png", "1", "train"]) | st.text(
    max_size=8
)
TABLES = st.builds(
    lambda columns, rows, sign: "\n".join(map(sign.join, (columns, *rows))),
    COLUMNS,
    st.lists(st.lists(CELLS, max_size=5), max_size=4),
    st.sampled_from(",;\t"),
)


@many
@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("dataset.json", DESCRIPTIONS.map(json.dumps).map(str.encode)),
        ("x.csv", TABLES.map(str.encode)),
        *((name, DAMAGE.map(lambda damage, whole=whole: damage(whole.encode()))) for name, whole in WHOLE.items()),
    ],
)
def test_descriptions_and_tables(folder, count, name, contents):
    def check(content):
        (folder / name).write_bytes(content)
        use(folder / name)

    fuzz(count, contents, check)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@many
def test_damaged_archives(tmp_path, count):
    """The archive itself is damaged, or an array in a sound one, which its checksum does not show."""
    arrays = {
        "train_images": npy(np.arange(128, dtype=np.uint8).reshape(2, 8, 8)),
        "train_labels": npy(np.eye(2, dtype=int)),
    }

    def check(content):
        outer, inner = content
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
            for name, array in arrays.items():
                file.writestr(f"{name}.npy", inner(array))
        (tmp_path / "x.npz").write_bytes(outer((tmp_path / "x.npz").read_bytes()))
        data = read_labelled(tmp_path / "x.npz", modality="xray")
        prepare_case(data.cases[0], data, data_contract(data))

    fuzz(count, st.tuples(DAMAGE | st.just(bytes), DAMAGE | st.just(bytes)), check)


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
    def check(names):
        paths = [Path(name) for name in names]
        assert all(isinstance(is_label_map(path.name), bool) for path in paths)
        for classes in (None, [len(name) % 2 for name in names]):
            patients, rule = find_patients(paths, classes=classes)
            assert (len(patients), bool(rule)) == (len(paths), True)

    fuzz(
        count,
        st.lists(st.text(st.characters(exclude_characters="\0"), max_size=12) | st.text("sub-01_t1/.", max_size=9)),
        check,
    )
