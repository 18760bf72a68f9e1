from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld
from monai.transforms.spatial.array import Affine
from monai.transforms.utils import create_rotate, create_scale
from torch.utils.data import default_collate

from fake_device import Counting, fake_cuda
from modelsgenesis.configs import ClassificationConfig, SegmentationConfig
from modelsgenesis.data.augmentation import Change, LabelledImages, LabelledPatches, augment, class_weights
from modelsgenesis.data.cases import PreparedCase, resize_or_crop
from modelsgenesis.errors import DataError, ShapeError


def labelled(shape=(20, 18, 16), channels=2, seed=0):
    """The label is where the first channel is bright; the second channel is its negative."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[4:9, 5:10] = 1
    label[12:14, 12:14] = 2
    image = np.stack([label / 2 + 0.01 * random.random(shape)] * channels).astype(np.float32)
    image[1:] = 1 - image[1:]
    return PreparedCase(name=f"case {seed}", patient=str(seed), image=image, label=label)


def classified(shape=(24, 24)):
    """Ten images, of which the first two are of class 1."""
    images = np.random.default_rng(0).random((10, 1, *shape)).astype(np.float32)
    return [
        PreparedCase(name=str(i), patient=str(i), image=image, classes=(int(i < 2),)) for i, image in enumerate(images)
    ]


def augmented(dataset, items):
    """Items as training sees them: a batch, augmented."""
    image, truth, change = default_collate([dataset[item] for item in items])
    return augment(image, truth, Change(*change))


def changes(sides, count):
    """Changes of as many patches of these sides, in a batch."""
    config = SegmentationConfig(patch_size=sides, samples_per_scan=count)
    return default_collate(
        [change for _, _, change in map(LabelledPatches([labelled(sides)], config).__getitem__, range(count))]
    )


@pytest.mark.parametrize(("shape", "patch"), [((20, 18, 16), (12, 8, 8)), ((20, 18, 16), (12, 8)), ((20, 18), (12, 8))])
def test_patches_of_volumes_of_slices_and_of_planes(shape, patch):
    config = SegmentationConfig(patch_size=patch, samples_per_scan=3)
    patches = LabelledPatches([labelled(shape), labelled(shape, seed=1)], config)
    assert len(patches) == 6
    for item in range(12):
        image, label, _ = patches[item]
        assert (image.shape, label.shape) == ((2, *patch), (1, *patch))
        assert (image.dtype, label.dtype) == (torch.float32, torch.uint8)


def test_channels_and_label_move_together():
    config = SegmentationConfig(patch_size=(12, 12, 8), augment=True, flip=True, foreground_share=1.0)
    patches = LabelledPatches([labelled()], config)
    for image, label in zip(*augmented(patches, range(20)), strict=True):
        bright = image[:1] - image[1:]
        inside, outside = bright[label == 2], bright[label == 0]
        if len(inside) and len(outside):
            assert inside.mean() > outside.mean() + 0.5


def test_an_item_is_a_function_of_seed_and_item_alone():
    cases, config = [labelled()], SegmentationConfig(patch_size=(12, 8, 8), flip=True)
    first, second = LabelledPatches(cases, config), LabelledPatches(cases, config)
    expected, labels = augmented(first, range(6))
    np.random.seed(3)
    for item in reversed(range(6)):  # whatever else is in its batch
        image, label = augmented(second, [item, 7])
        assert torch.equal(image[0], expected[item])
        assert torch.equal(label[0], labels[item])
    assert not torch.equal(expected[0], expected[4])
    assert not torch.equal(LabelledPatches(cases, config.override(seed=1))[0][0], first[0][0])


def test_patches_lie_where_those_of_monai_do():
    case, config = (
        labelled((20, 18, 16)),
        SegmentationConfig(patch_size=(7, 6, 18), augment=False, samples_per_scan=400),
    )
    place = np.arange(20 * 18 * 16, dtype=np.float32).reshape(1, 20, 18, 16) + 1
    patches = LabelledPatches([replace(case, image=place)], config)
    ours = [tuple(np.unravel_index(int(patches[item][0][0, 0, 0, 1]) - 1, (20, 18, 16))) for item in range(400)]
    crop = RandCropByPosNegLabeld(
        ("image", "label"), "label", (7, 6, 18), pos=1, neg=1, num_samples=400, allow_smaller=True
    )
    crop.set_random_state(0)
    cut = crop({"image": torch.from_numpy(place), "label": torch.from_numpy(case.label[None] == 1).float()})
    theirs = [tuple(np.unravel_index(int(one["image"][0, 0, 0, 0]) - 1, (20, 18, 16))) for one in cut]
    assert {at[2] for at in ours} == {at[2] for at in theirs} == {0}
    for axis in range(2):
        assert {at[axis] for at in ours} == {at[axis] for at in theirs} == set(range((14, 13)[axis]))
    on_structure = sum(case.label[x : x + 7, y : y + 6].any() for x, y, _ in ours)
    assert 250 < on_structure < 400


@pytest.mark.parametrize("sides", [(24, 30), (16, 20, 12)])
def test_patches_are_moved_as_monai_moves_them(sides):
    change, dims = changes(sides, 12), len(sides)
    random = np.random.default_rng(0)
    image = torch.from_numpy(random.random((12, 2, *sides), np.float32))
    label = torch.from_numpy(random.integers(0, 3, (12, 1, *sides), np.uint8))
    still = change._replace(intensity=torch.tensor([[1.0, 0.0]] * 12), noise=torch.zeros_like(image))
    moved, labels = augment(image.clone(), label.clone(), still)
    for index, places in enumerate(change.places.double().numpy()):
        sizes = np.array(sides)
        matrix = np.eye(dims + 1)
        matrix[:dims, :dims] = places[::-1] * sizes[:, None] / sizes  # in voxels, in the order of the axes
        scales = np.linalg.norm(matrix[:dims, :dims], axis=0)
        assert ((abs(scales - 1) < 0.1501) & ((scales != 1) | ~change.moved[index].numpy())).all()
        angles = np.arccos(np.clip((matrix[:dims, :dims] / scales).diagonal(), -1, 1))
        assert (angles < 2 * np.deg2rad(15)).all()
        theirs = Affine(affine=matrix, padding_mode="border")(image[index])[0]
        torch.testing.assert_close(moved[index], theirs, rtol=0, atol=2e-5)
        nearest = Affine(affine=matrix, padding_mode="border", mode="nearest")(label[index].float())[0]
        assert (labels[index] == nearest).float().mean() > 0.999
        if not change.moved[index]:
            assert torch.equal(moved[index], image[index])
    # A GPU moves all of them: what is not to be moved stays to rounding.
    everywhere, labels_too = augment(
        image.clone(), label.clone(), still._replace(moved=torch.ones(12, dtype=torch.bool))
    )
    torch.testing.assert_close(everywhere, moved, rtol=0, atol=2e-5)
    assert torch.equal(labels_too, labels)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_move_turns_about_each_axis_and_then_scales_as_that_of_monai(dims):
    change = next(
        one
        for one in map(
            LabelledImages(
                classified((16,) * dims), ClassificationConfig(patch_size=(16,) * dims), classes=2
            ).__getitem__,
            range(20),
        )
        if one[2].moved
    )[2]
    matrix = change.places.double().numpy()[::-1]
    scales = np.linalg.norm(matrix, axis=0)
    turned = matrix / scales
    angles = [np.arctan2(turned[1, 0], turned[0, 0])]
    if dims == 3:
        angles = [
            np.arctan2(-turned[1, 2], turned[2, 2]),
            np.arcsin(turned[0, 2]),
            np.arctan2(-turned[0, 1], turned[0, 0]),
        ]
    assert (np.abs(angles) < np.deg2rad(15)).all()
    expected = create_rotate(dims, angles) @ create_scale(dims, scales)
    np.testing.assert_allclose(matrix, np.asarray(expected)[:dims, :dims], atol=1e-6)


def test_how_often_and_how_far_a_batch_is_changed():
    change = changes((6, 6, 6), 2000)
    factor, summand = change.intensity.unbind(1)
    noisy = change.noise.flatten(1).std(1)
    for changed, chance in ((change.moved, 0.5), (factor != 1, 0.3), (summand != 0, 0.3), (noisy > 0, 0.2)):
        assert abs(changed.float().mean() - chance) < 0.035
    for values, middle, most in ((factor[factor != 1], 1, 0.2), (summand[summand != 0], 0, 0.1)):
        assert (values - middle).abs().max() <= most
        assert abs(values.mean() - middle) < 0.1 * most
        assert abs(values.std() - most / 3**0.5) < 0.05 * most  # uniform
    spread = noisy[noisy > 0]
    assert abs(spread.mean() - 0.025) < 0.0025
    assert spread.max() < 0.06
    assert abs(change.noise.mean()) < 1e-3
    image = torch.full((2000, 2, 6, 6, 6), 0.5)
    seen, classes = augment(image.clone(), torch.arange(2000), change)
    expected = 0.5 * factor.view(-1, 1, 1, 1, 1) + summand.view(-1, 1, 1, 1, 1) + change.noise
    torch.testing.assert_close(seen, expected)
    assert torch.equal(classes, torch.arange(2000))


def test_a_scan_smaller_than_the_patch_is_padded_and_an_empty_mask_has_patches_too():
    config = SegmentationConfig(patch_size=(24, 24, 24), augment=False)
    patches = LabelledPatches([labelled()], config)
    assert patches.notes() == ["1 of 1 scans are smaller than the patch of 24×24×24 and are padded"]
    assert LabelledPatches([labelled()], config.override(patch_size=(20, 18))).notes() == []
    image, label = patches[0]
    assert (image.shape, set(label.unique().tolist())) == ((2, 24, 24, 24), {0, 1, 2})
    empty = replace(labelled(), label=np.zeros((20, 18, 16), np.uint8))
    assert LabelledPatches([empty], config)[0][1].sum() == 0


def test_the_share_of_patches_on_structures():
    config = SegmentationConfig(patch_size=(1, 1, 1), augment=False, foreground_share=1.0, samples_per_scan=60)
    patches = LabelledPatches([labelled()], config)
    drawn = np.bincount([int(patches[item][1]) for item in range(60)], minlength=3)
    assert drawn[0] == 0
    assert drawn[2] > 15  # as often as the first, which is three times as large


@pytest.mark.parametrize("shape", [(30, 24), (24, 24, 20)])
def test_images_are_brought_to_the_patch_size_and_change_in_each_epoch_if_augmented(shape):
    config = ClassificationConfig(patch_size=(16, 16, 16)[: len(shape)], flip=True)
    images = LabelledImages(classified(shape=shape), config, classes=2)
    image, target, _ = images[13]
    assert (image.shape, image.dtype, type(image)) == ((1, *config.patch_size), torch.float32, torch.Tensor)
    assert (target.tolist(), target.dtype, target.shape) == (0, torch.int64, ())
    assert torch.equal(images[13][0], image)
    assert not torch.equal(augmented(images, [3])[0], augmented(images, [13])[0])
    plain = LabelledImages(classified(), ClassificationConfig(patch_size=(24, 24), augment=False), classes=2)
    for item in (3, 13):
        assert torch.equal(plain[item][0], torch.from_numpy(classified()[3].image))


def test_classes_can_be_drawn_as_often_and_weighed():
    config = ClassificationConfig(patch_size=(24, 24), augment=False, balance=True)
    images = LabelledImages(classified(), config, classes=2)
    assert 80 < sum(int(images[item][1]) for item in range(200)) < 120
    torch.testing.assert_close(class_weights(classified(), 2), torch.tensor([10 / 16, 10 / 4]))
    torch.testing.assert_close(class_weights(classified(), 2, multilabel=True), torch.tensor([2 / 8, 8 / 2]))
    with pytest.raises(DataError, match="class 2 of 3 has no example, so it cannot be weighed"):
        class_weights(classified(), 3)
    with pytest.raises(DataError, match="1 of 3 classes have no example"):
        LabelledImages(classified(), config, classes=3)


def test_fitting_resizes_planes_and_crops_volumes():
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    np.testing.assert_allclose(resize_or_crop(image, (4, 4)).mean(), image.mean(), rtol=1e-5)
    volume = np.arange(6 * 4 * 5, dtype=np.float32).reshape(1, 6, 4, 5) + 7
    fitted = resize_or_crop(volume, (2, 8, 5))
    np.testing.assert_array_equal(fitted[:, :, 2:6], volume[:, 2:4])
    assert fitted[0, 0, 0, 0] == 7
    assert resize_or_crop(volume, (3, 3, 3), "resize").shape == (1, 3, 3, 3)
    np.testing.assert_array_equal(resize_or_crop(image, (4, 4), "crop"), image[:, 2:6, 2:6])
    with pytest.raises(ShapeError, match=r"image of shape \(1, 8, 8\): expected \[channels, 3 spatial axes\]"):
        resize_or_crop(image, (4, 4, 4))


def test_a_batch_on_a_gpu_takes_few_operators_and_no_wait():
    sides = (16, 16, 16)
    with fake_cuda() as empty, Counting() as counted:
        label, change = empty(4, 1, *sides, dtype=torch.uint8), (empty(4, 3, 3), empty(4, 2), empty(4, 2, *sides))
        image, label = augment(empty(4, 2, *sides), label, Change(empty(4, dtype=torch.bool), *change))
    assert (image.shape, label.shape, label.dtype) == ((4, 2, *sides), (4, 1, *sides), torch.uint8)
    assert 0 < counted.operators.total() <= 16
