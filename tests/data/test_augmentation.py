from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data.meta_obj import get_track_meta

from modelsgenesis.configs import ClassificationConfig, SegmentationConfig
from modelsgenesis.data.augmentation import LabelledImages, LabelledPatches, class_weights
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


@pytest.mark.parametrize(("shape", "patch"), [((20, 18, 16), (12, 8, 8)), ((20, 18, 16), (12, 8)), ((20, 18), (12, 8))])
def test_patches_of_volumes_of_slices_and_of_planes(shape, patch):
    config = SegmentationConfig(patch_size=patch, samples_per_scan=3)
    patches = LabelledPatches([labelled(shape), labelled(shape, seed=1)], config)
    assert len(patches) == 6
    for item in range(12):
        image, label = patches[item]
        assert (image.shape, label.shape) == ((2, *patch), (1, *patch))
        assert (image.dtype, label.dtype) == (torch.float32, torch.int64)
        assert type(image) is type(label) is torch.Tensor
    assert get_track_meta()  # by MONAI, for others


def test_channels_and_label_move_together():
    config = SegmentationConfig(patch_size=(12, 12, 8), augment=True, flip=True, foreground_share=1.0)
    patches = LabelledPatches([labelled()], config)
    for image, label in map(patches.__getitem__, range(20)):
        bright = image[:1] - image[1:]
        inside, outside = bright[label == 2], bright[label == 0]
        if len(inside) and len(outside):
            assert inside.mean() > outside.mean() + 0.5


def test_an_item_is_a_function_of_seed_and_item_alone():
    cases, config = [labelled()], SegmentationConfig(patch_size=(12, 8, 8), flip=True)
    first, second = LabelledPatches(cases, config), LabelledPatches(cases, config)
    torch.manual_seed(1)
    expected = [first[item][0] for item in range(6)]
    np.random.seed(3)
    for item in reversed(range(6)):
        assert torch.equal(second[item][0], expected[item])
    assert not torch.equal(expected[0], expected[4])
    assert not torch.equal(LabelledPatches(cases, config.override(seed=1))[0][0], expected[0])


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
    image, target = images[13]
    assert (image.shape, image.dtype, type(image)) == ((1, *config.patch_size), torch.float32, torch.Tensor)
    assert (target.tolist(), target.dtype, target.shape) == (0, torch.int64, ())
    assert torch.equal(images[13][0], image)
    assert not torch.equal(images[3][0], image)
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
