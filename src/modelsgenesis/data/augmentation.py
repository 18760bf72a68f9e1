"""Random sub-volumes of labelled scans, augmented by MONAI."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from modelsgenesis.configs import SegmentationConfig, require_patch_size
from modelsgenesis.data.labelled.cases import PreparedCase, require_label


class LabelledPatches(Dataset[tuple[Tensor, Tensor]]):
    """Sub-volumes of labelled scans; item `epoch * len + index` is a function of seed and item alone.

    Args:
        cases: Prepared scans, kept in memory.
        config: Patch size, samples a scan, share of the foreground, augmentation, seed.

    Each item is an image, float32 [channels, *patch], and its label, int64 [1, *patch].
    """

    def __init__(self, cases: Sequence[PreparedCase], config: SegmentationConfig) -> None:
        self.cases, self.config = list(cases), config
        self.transform = patch_transform(config)
        self.voxels = [_voxel_indices(require_label(case)) for case in self.cases]

    def __len__(self) -> int:
        return len(self.cases) * self.config.samples_per_scan

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        case = item % len(self) // self.config.samples_per_scan
        place, change = np.random.SeedSequence([self.config.seed, item]).generate_state(2).tolist()
        structures, background = self.voxels[case]
        sample: dict[str, Any] = {
            "image": torch.from_numpy(self.cases[case].image),
            "label": torch.from_numpy(require_label(self.cases[case])[None]),
            "foreground": structures[place % len(structures)],  # each as often: small ones are not forgotten
            "background": background,
        }
        self.transform.set_random_state(seed=change)
        result = self.transform(sample)
        result = result[0] if isinstance(result, list) else result
        return result["image"].as_tensor().contiguous(), result["label"].as_tensor().long().contiguous()


def _voxel_indices(label: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the flat indices of each structure's voxels and of the background's; all voxels where there is none."""
    flat = label.ravel()
    structures = [np.flatnonzero(flat == value) for value in np.unique(flat) if value]
    background = np.flatnonzero(flat == 0)
    everything = np.arange(flat.size)
    return structures or [everything], background if background.size else everything


def patch_transform(config: SegmentationConfig) -> Any:
    """Return the composed MONAI transform from a whole scan to an augmented sub-volume.

    Raises:
        ConfigurationError: The configuration leaves the patch size open.
    """
    from monai.transforms.compose import Compose
    from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld, SpatialPadd
    from monai.transforms.intensity.dictionary import (
        RandGaussianNoised,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )
    from monai.transforms.spatial.dictionary import RandAffined, RandFlipd

    patch_size = require_patch_size(config)
    keys, dims = ("image", "label"), len(patch_size)
    share = config.foreground_share
    steps: list[Any] = [
        RandCropByPosNegLabeld(
            keys,
            label_key="label",
            spatial_size=patch_size,
            pos=share,
            neg=1 - share,
            num_samples=1,
            fg_indices_key="foreground",
            bg_indices_key="background",
            allow_smaller=True,  # what is smaller than a patch is padded next
        ),
        SpatialPadd(keys, patch_size),
    ]
    if config.augment:
        angle = np.deg2rad(15)
        steps += [
            RandAffined(
                keys,
                prob=0.5,
                rotate_range=(angle,) * (3 if dims == 3 else 1),
                scale_range=(0.15,) * dims,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandScaleIntensityd("image", factors=0.2, prob=0.3),
            RandShiftIntensityd("image", offsets=0.1, prob=0.3),
            RandGaussianNoised("image", std=0.05, prob=0.2),
        ]
    if config.flip:
        steps += [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(dims)]
    return Compose(steps)
