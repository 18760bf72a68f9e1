"""Labels are numbers of structures: rounded or refused, never truncated, and never photographs."""

import numpy as np
import pytest
from PIL import Image

from labelled_files import AFFINE, save, volume
from modelsgenesis.data import Volume
from modelsgenesis.data.cases import LabelledData, check_same_grid, label_indices, read_mask
from modelsgenesis.errors import DataError, ScanError


def data(**changes):
    facts = {"labels": ("background", "a", "b"), "values": ((0,), (3,), (255, 7))}
    return LabelledData(name="set", task="segmentation", cases=(), **(facts | changes))


def test_values_become_indices():
    indices = label_indices(np.array([[0, 3], [255, 7]]), data(), "x")
    assert (indices.dtype, indices.tolist()) == (np.uint8, [[0, 1], [2, 2]])
    with pytest.raises(ScanError, match=r"x: label values \[-1, 4\]"):
        label_indices(np.array([0, 4, -1]), data(), "x")
    assert label_indices(np.array([0, 4, 3]), data(others_are_background=True), "x").tolist() == [0, 0, 1]


@pytest.mark.parametrize("value", [0.5, 0.998, -0.01, np.nan, -np.inf, 1e30, 2.0**31])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_whole_is_refused_with_its_value(tmp_path, value, dtype):
    values = np.array([[0, 0.9991], [-1.0009, 254.9999]], dtype)[..., None]
    assert read_mask(save(tmp_path / "mask.nii", values)).array.ravel().tolist() == [0, 1, -1, 255]
    values[0, 0] = value
    with pytest.raises(ScanError, match=r"mask\.nii: 1 voxels are not labels, such as "):
        read_mask(save(tmp_path / "mask.nii", values))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("background", "a", "A"), "'a' names several classes"),
        (("background", "a", "b\x1b[2J"), "cannot be printed"),
        (tuple(map(str, range(300))), "299 structures"),
    ],
)
def test_a_data_set_whose_labels_cannot_be_is_refused(labels, message):
    with pytest.raises(DataError, match=message):
        data(labels=labels, values=())


INDICES = np.array([[0, 1], [16, 2]], np.uint8).repeat(4, 0).repeat(4, 1)
PALETTE = Image.frombytes("P", INDICES.shape, INDICES.tobytes())
PALETTE.putpalette([50] * 768)  # all of one colour


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("x.png", PALETTE, INDICES),
        ("x.tif", PALETTE, INDICES),
        ("x.bmp", PALETTE, INDICES),
        ("x.png", Image.fromarray(INDICES), INDICES),
        ("x.png", Image.fromarray(INDICES.astype(np.uint16) * 300), INDICES.astype(int) * 300),
        ("x.png", Image.fromarray(INDICES == 1), INDICES == 1),
        ("x.tif", Image.fromarray(INDICES.astype(np.float32) + np.float32(1e-5)), INDICES),
        ("x.png", PALETTE.convert("RGB"), "PNG of mode RGB is a picture"),
        ("x.png", Image.fromarray(INDICES).convert("LA"), "mode LA is a picture"),
        ("x.jpg", Image.fromarray(INDICES), "JPEG of mode L is a picture"),
        ("x.tif", Image.fromarray(INDICES.astype(np.float32) / 2), "are not labels"),
    ],
)
def test_a_mask_is_read_by_its_numbers(tmp_path, name, image, expected):
    image.save(tmp_path / name)
    if isinstance(expected, str):
        with pytest.raises(ScanError, match=rf"x\.{name[2:]}: .*{expected}"):
            read_mask(tmp_path / name)
    else:
        np.testing.assert_array_equal(read_mask(tmp_path / name).array, expected)


def test_a_picture_is_known_by_its_content_and_its_compression(tmp_path):
    Image.fromarray(INDICES).save(tmp_path / "x.png", "JPEG")
    Image.fromarray(INDICES).save(tmp_path / "x.tif", compression="jpeg")
    Image.fromarray(INDICES).save(tmp_path / "y.tif", save_all=True, append_images=[Image.fromarray(INDICES)])
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"][1] = 200
    for path in (tmp_path / "x.png", tmp_path / "x.tif", tmp_path / "y.tif", save(tmp_path / "x.nii.gz", colours)):
        with pytest.raises(ScanError, match=r"picture|in colour"):
            read_mask(path)


def test_grids_are_compared_with_a_tolerance():
    def shifted(by, scale=1.0):
        affine = AFFINE @ np.diag([scale, 1, 1, 1])
        affine[0, 3] += by
        return Volume(array=volume(0), affine=affine, source=f"shifted by {by}")

    image = shifted(0)
    unplaced = Volume(array=image.array, affine=np.eye(4), source="", has_spacing=False)
    for near in (shifted(0.15), shifted(0, 1.005), unplaced):
        check_same_grid(image, near)
    for far in (shifted(0.25), shifted(0, 1.02), shifted(0, -1), shifted(np.nan)):
        with pytest.raises(ScanError, match=r"shifted by .* mm away from its image"):
            check_same_grid(image, far)
    with pytest.raises(ScanError, match=r"shape \(10, 9\)"):
        check_same_grid(image, Volume(array=image.array[..., 0], affine=AFFINE, source=""))
