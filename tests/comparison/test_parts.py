"""The prepared parts of a comparison."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from labelled_cases import masked, prepared
from modelsgenesis.comparison.parts import Parts
from modelsgenesis.comparison.payload import read_cases, write_cases
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import read_labelled, resize_or_crop
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split


def test_cases_come_back_mapped_and_a_change_stays_private(tmp_path):
    cases = [masked(0), prepared(1, (1,))]
    write_cases(tmp_path / "cases", cases)
    found = read_cases(tmp_path / "cases")
    for before, after in zip(cases, found, strict=True):
        np.testing.assert_array_equal(before.image, after.image)
        assert (after.name, after.classes, after.digest) == (before.name, before.classes, before.digest)
        assert after.image.flags.aligned
        assert after.image.flags.writeable  # torch warns of arrays that are not
    np.testing.assert_array_equal(found[0].label, cases[0].label)
    found[0].image[:] = 0
    read_cases.cache_clear()
    np.testing.assert_array_equal(read_cases(tmp_path / "cases")[0].image, cases[0].image)


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_images_are_brought_to_their_size_as_asked(tmp_path, fit):
    random = np.random.default_rng(0)
    for name in ("dark", "light"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (16, 16)).astype(np.uint8)).save(
            tmp_path / "classes" / name / f"{name}.png"
        )
    data = read_labelled(tmp_path / "classes")
    arm = SimpleNamespace(contract=CONTRACTS["xray"])
    split = Split(training=tuple(case.name for case in data.cases), validation=(), test=())
    images = []
    for size in (None, (8, 8)):
        folder = tmp_path / str(size)
        folder.mkdir()
        parts = Parts(data, split, folder, size=size, fit=fit, strict=True, reporter=Reporter())
        parts.prepare("training", [arm])
        images.append([case.image for case in read_cases(parts.files({"arm": arm})["arm"]["training"])])
    for whole, small in zip(*images, strict=True):
        np.testing.assert_array_equal(small, resize_or_crop(whole, (8, 8), fit))
