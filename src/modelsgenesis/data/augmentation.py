"""What supervised training sees: random patches, or whole images, augmented by MONAI."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, SegmentationConfig, require_patch_size
from modelsgenesis.data.cases import LabelledCase, PreparedCase, resize_or_crop
from modelsgenesis.errors import DataError, require

_ANGLE = np.deg2rad(15)


class LabelledPatches(Dataset[tuple[Tensor, Tensor]]):
    """Patches of labelled scans; item `epoch * len + index` is a function of seed and item alone.

    Of a volume a patch of two sides is a part of a slice across the last axis.

    Args:
        cases: Prepared scans, kept in memory.
        config: Patch size, samples a scan, share of the foreground, augmentation, seed.

    Each item is an image, float32 [channels, *patch], and its label, int64 [1, *patch].
    """

    def __init__(self, cases: Sequence[PreparedCase], config: SegmentationConfig) -> None:
        from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld

        self.cases, self.config = list(cases), config
        self.patch_size = require_patch_size(config)
        self.sliced = bool(cases) and cases[0].image.ndim == len(self.patch_size) + 2
        self.crop: Any = RandCropByPosNegLabeld(
            ("image", "label"),
            label_key="label",
            spatial_size=(*self.patch_size, 1) if self.sliced else self.patch_size,
            pos=config.foreground_share,
            neg=1 - config.foreground_share,
            num_samples=1,
            fg_indices_key="foreground",
            bg_indices_key="background",
            allow_smaller=True,  # what is smaller than a patch is padded next
        )
        self.augment = _augmentation(config, ("image", "label"), pad=True)
        # The flat indices of each structure's voxels and of the background's; all voxels where there is none.
        self.voxels: list[tuple[list[np.ndarray], np.ndarray]] = []
        for flat in (case.label.ravel() for case in self.cases):
            structures = [np.flatnonzero(flat == value).astype(np.int32) for value in np.unique(flat) if value]
            background, everything = np.flatnonzero(flat == 0).astype(np.int32), np.arange(flat.size, dtype=np.int32)
            self.voxels.append((structures or [everything], background if background.size else everything))

    def __len__(self) -> int:
        return len(self.cases) * self.config.samples_per_scan

    def notes(self) -> list[str]:
        """Return how many scans are smaller than a patch, so that they are padded with zeros; nothing if none is."""
        sides = [case.image.shape[1 : 1 + len(self.patch_size)] for case in self.cases]
        small = sum(any(np.less(side, self.patch_size)) for side in sides)
        patch = "×".join(map(str, self.patch_size))
        return [f"{small} of {len(sides)} scans are smaller than the patch of {patch} and are padded"] if small else []

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        case = item % len(self) // self.config.samples_per_scan
        place, crop, change = np.random.SeedSequence([self.config.seed, item]).generate_state(3).tolist()
        structures, background = self.voxels[case]
        sample: dict[str, Any] = {
            "image": torch.from_numpy(self.cases[case].image),
            "label": torch.from_numpy(self.cases[case].label[None]),
            "foreground": structures[place % len(structures)],  # each as often: small ones are not forgotten
            "background": background,
        }
        drawn = _apply(self.crop, sample, crop)[0]
        pair = {key: drawn[key] for key in ("image", "label")}
        if self.sliced:
            pair = {key: rearrange(array, "channels x y 1 -> channels x y") for key, array in pair.items()}
        pair = _apply(self.augment, pair, change)
        return pair["image"].contiguous(), pair["label"].long().contiguous()


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Whole images with their classes; item `epoch * len + index` is a function of seed and item alone.

    Args:
        cases: Prepared images; brought to the patch size once and kept in memory.
        config: Patch size, how images are brought to it, balance of the classes, augmentation, seed.
        classes: Number of classes.
        multilabel: Whether several may hold.

    Each item is an image, float32 [channels, *patch], and its class: an int64 scalar, or with `multilabel` float32
    [classes] of 0 and 1.

    Raises:
        DataError: The classes are to be balanced, and one has no case.

    Example:
        images = LabelledImages(cases, ClassificationConfig(patch_size=(128, 128)), classes=2)
        image, target = images[0]  # [1, 128, 128], tensor(1)
    """

    def __init__(
        self, cases: Sequence[PreparedCase], config: ClassificationConfig, *, classes: int, multilabel: bool = False
    ) -> None:
        size = require_patch_size(config)
        self.config, self.classes = config, classes
        self.images = [resize_or_crop(case.image, size, config.fit) for case in cases]
        held = [torch.tensor(case.classes, dtype=torch.int64) for case in cases]
        self.targets = [torch.zeros(classes).index_fill(0, one, 1) if multilabel else one[0] for one in held]
        self.augment = _augmentation(config, ("image",))
        self.members = [[n for n, case in enumerate(cases) if index in case.classes] for index in range(classes)]
        message = f"{self.members.count([])} of {classes} classes have no example, so classes cannot be balanced"
        require(not config.balance or all(self.members), DataError, message)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        draw, change = np.random.SeedSequence([self.config.seed, item]).generate_state(2).tolist()
        case = item % len(self)
        if self.config.balance:  # a class is drawn first, then one of its cases
            members = self.members[draw % self.classes]
            case = members[draw // self.classes % len(members)]
        image = _apply(self.augment, {"image": torch.from_numpy(self.images[case])}, change)["image"]
        return image.contiguous(), self.targets[case]


def class_weights(cases: Sequence[PreparedCase | LabelledCase], classes: int, *, multilabel: bool = False) -> Tensor:
    """Return the weight of each class in a loss, float32 [classes].

    Of exclusive classes the inverse of their frequency with a mean of 1 over the cases; with `multilabel` how many
    cases lack a class for each that has it, as `pos_weight` of binary cross-entropy expects.

    Raises:
        DataError: A class has no case.

    Example:
        class_weights(cases, classes=2)  # of 90 and 10 cases: tensor([0.5556, 5.0000])
    """
    counts = np.bincount([index for case in cases for index in case.classes], minlength=classes).astype(np.float32)
    if not counts.all():
        raise DataError(f"class {int(counts.argmin())} of {classes} has no example, so it cannot be weighed")
    weights = (len(cases) - counts) / counts if multilabel else len(cases) / (classes * counts)
    return torch.from_numpy(weights.astype(np.float32))


def _apply(transform: Any, sample: dict[str, Any], seed: int) -> Any:
    """Apply a random transform of MONAI without affines and history, whose tracking takes longer than a small patch."""
    from monai.data.meta_obj import get_track_meta, set_track_meta

    tracked = get_track_meta()
    set_track_meta(False)
    try:
        return transform.set_random_state(seed=seed)(sample)
    finally:
        set_track_meta(tracked)


def _augmentation(config: FinetuningConfig, keys: tuple[str, ...], *, pad: bool = False) -> Any:
    """Return the composed MONAI transform of an image, and of the label that lies on it."""
    from monai.transforms.compose import Compose
    from monai.transforms.croppad.dictionary import SpatialPadd
    from monai.transforms.intensity.dictionary import RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd
    from monai.transforms.spatial.dictionary import RandAffined, RandFlipd

    size = require_patch_size(config)
    steps: list[Any] = [SpatialPadd(keys, size)] if pad else []
    if config.augment:
        steps += [
            RandAffined(
                keys,
                mode=("bilinear", "nearest")[: len(keys)],  # labels stay whole numbers
                prob=0.5,
                rotate_range=(_ANGLE,) * (3 if len(size) == 3 else 1),
                scale_range=(0.15,) * len(size),
                padding_mode="border",
                spatial_size=size,
                cache_grid=True,
            ),
            RandScaleIntensityd("image", factors=0.2, prob=0.3),
            RandShiftIntensityd("image", offsets=0.1, prob=0.3),
            RandGaussianNoised("image", std=0.05, prob=0.2),
        ]
    if config.flip:
        steps += [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(len(size))]
    return Compose(steps)
