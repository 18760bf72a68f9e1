"""What supervised training sees: random patches, or whole images, and a batch of them augmented on its device."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torch.utils.data import Dataset

from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, SegmentationConfig, require_patch_size
from modelsgenesis.data.cases import LabelledCase, PreparedCase, resize_or_crop
from modelsgenesis.errors import DataError, require

_CHANCES = (0.5, 0.3, 0.3, 0.2)  # of moving, of another contrast, of another brightness, of noise
_ANGLE, _SCALE = np.deg2rad(15), 0.15  # at most, about each axis and along it
_GAIN, _OFFSET, _NOISE = 0.2, 0.1, 0.05  # at most, of a range of intensities of 1


class Change(NamedTuple):
    """What augmentation does to a sample, drawn where that is loaded; in a batch each has an axis of samples in front.

    Attributes:
        moved: Whether the patch is rotated and scaled, bool [].
        places: From where a voxel lies to where its value is taken, float32 [d, d]: the columns in the order of the
            axes, the rows in that of `grid_sample`, both from -1 to 1 between the borders.
        intensity: Factor and summand of the intensities, float32 [2].
        noise: What is added to them, float32 [channels, *patch].
    """

    moved: Tensor
    places: Tensor
    intensity: Tensor
    noise: Tensor


Sample = tuple[Tensor, Tensor, *tuple[Change, ...]]
"""An image, what holds for it, and how it is to be augmented, if at all."""


class LabelledPatches(Dataset[Sample]):
    """Patches of labelled scans; item `epoch * len + index` is a function of seed and item alone.

    Of a volume a patch of two sides is a part of a slice across the last axis.

    Args:
        cases: Prepared scans, kept in memory.
        config: Patch size, samples a scan, share of the foreground, augmentation, seed.

    Each item is an image, float32 [channels, *patch], its label, uint8 [1, *patch], and with augmentation the change
    for `augment`.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: SegmentationConfig) -> None:
        self.cases, self.config = list(cases), config
        self.patch_size = require_patch_size(config)
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

    def __getitem__(self, item: int) -> Sample:
        index = item % len(self) // self.config.samples_per_scan
        random, case = np.random.default_rng([self.config.seed, item]), self.cases[index]
        structures, background = self.voxels[index]
        centres = background
        if random.random() < self.config.foreground_share:
            centres = structures[random.integers(len(structures))]  # each as often: small ones are not forgotten
        shape = case.label.shape
        centre = np.unravel_index(centres[random.integers(len(centres))], shape)
        window = (*self.patch_size, 1)[: len(centre)]  # of a volume one slice may be seen
        # As near to the centre as the border lets it; what is smaller than a patch is padded on both sides.
        inside = tuple(
            slice(start := min(max(at - side // 2, 0), max(length - side, 0)), start + side)
            for at, side, length in zip(centre, window, shape, strict=True)
        )
        flips = _flips(random, self.config, len(self.patch_size))
        image, label = (
            _padded(array[(slice(None), *inside)], window, flips).reshape(len(array), *self.patch_size)
            for array in (case.image, case.label[None])
        )
        change = (_draw_change(random, image.shape),) if self.config.augment else ()
        return torch.from_numpy(image), torch.from_numpy(label), *change


class LabelledImages(Dataset[Sample]):
    """Whole images with their classes; item `epoch * len + index` is a function of seed and item alone.

    Args:
        cases: Prepared images; brought to the patch size once and kept in memory.
        config: Patch size, how images are brought to it, balance of the classes, augmentation, seed.
        classes: Number of classes.
        multilabel: Whether several may hold.

    Each item is an image, float32 [channels, *patch], its class: an int64 scalar, or with `multilabel` float32
    [classes] of 0 and 1; and with augmentation the change for `augment`.

    Raises:
        DataError: The classes are to be balanced, and one has no case.

    Example:
        images = LabelledImages(cases, ClassificationConfig(patch_size=(128, 128)), classes=2)
        image, target, change = images[0]  # [1, 128, 128], tensor(1)
    """

    def __init__(
        self, cases: Sequence[PreparedCase], config: ClassificationConfig, *, classes: int, multilabel: bool = False
    ) -> None:
        size = require_patch_size(config)
        self.config, self.classes = config, classes
        self.images = [resize_or_crop(case.image, size, config.fit) for case in cases]
        held = [torch.tensor(case.classes, dtype=torch.int64) for case in cases]
        self.targets = [torch.zeros(classes).index_fill(0, one, 1) if multilabel else one[0] for one in held]
        self.members = [[n for n, case in enumerate(cases) if index in case.classes] for index in range(classes)]
        message = f"{self.members.count([])} of {classes} classes have no example, so classes cannot be balanced"
        require(not config.balance or all(self.members), DataError, message)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> Sample:
        random, case = np.random.default_rng([self.config.seed, item]), item % len(self)
        if self.config.balance:  # a class is drawn first, then one of its cases
            members = self.members[random.integers(self.classes)]
            case = members[random.integers(len(members))]
        image = self.images[case]
        if flips := _flips(random, self.config, image.ndim - 1):
            image = np.flip(image, flips).copy()
        change = (_draw_change(random, image.shape),) if self.config.augment else ()
        return torch.from_numpy(image), self.targets[case], *change


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


def augment(image: Tensor, truth: Tensor, change: Change) -> tuple[Tensor, Tensor]:
    """Apply what was drawn to a batch, on its device and without waiting for that.

    Args:
        image: float32 [b, channels, *patch]; may be changed in place.
        truth: [b, 1, *patch] of labels, which move with the image, perhaps in place; or classes, which stay.
        change: Of each sample, on the same device.

    Returns:
        The image and the truth. A voxel from beyond the border takes the value there, a label that of the nearest.

    Example:
        image, label, change = next(iter(DataLoader(patches, batch_size=2)))
        image, label = augment(image, label, Change(*change))
    """
    # A CPU saves the time of what is not moved; of a GPU it could not be asked without a wait.
    rows = change.moved.nonzero()[:, 0] if image.device.type == "cpu" else None
    places, sides = change.places if rows is None else change.places[rows], image.shape[2:]
    grid = torch.zeros((), device=image.device)
    # Not by `affine_grid`: autocast and TF32 would round its matrix product, and with it places of voxels.
    for axis, side in enumerate(sides):
        centres = torch.linspace(1 / side - 1, 1 - 1 / side, side, device=image.device)
        column = places[:, :, axis].reshape(-1, *[1] * len(sides), len(sides))  # [b, 1 …, d]
        grid = torch.addcmul(grid, column, centres.view(-1, *[1] * (len(sides) - axis)))

    def move(batch: Tensor, mode: str) -> Tensor:
        part = (batch if rows is None else batch[rows]).float()
        taken = grid_sample(part, grid, mode=mode, padding_mode="border", align_corners=False).to(batch.dtype)
        return taken if rows is None else batch.index_copy_(0, rows, taken)

    if len(places):
        image = move(image, "bilinear")
        truth = move(truth, "nearest") if truth.ndim == image.ndim else truth
    factor, summand = change.intensity.view(-1, *[1] * (image.ndim - 1), 2).unbind(-1)
    return image.mul_(factor).add_(summand).add_(change.noise), truth


def _flips(random: np.random.Generator, config: FinetuningConfig, dims: int) -> tuple[int, ...]:
    """Return the axes of [channels, *spatial] along which a sample is mirrored, each in half of the samples."""
    return tuple(axis + 1 for axis in range(dims) if random.random() < 0.5) if config.flip else ()


def _padded(array: np.ndarray, sides: Sequence[int], flips: tuple[int, ...]) -> np.ndarray:
    """Return a mirrored copy of [channels, *spatial], brought to these sides by zeros around it."""
    padded = np.zeros((len(array), *sides), array.dtype)
    starts = [(side - length) // 2 for side, length in zip(sides, array.shape[1:], strict=True)]
    padded[(slice(None), *map(slice, starts, np.add(starts, array.shape[1:])))] = np.flip(array, flips)
    return padded


def _draw_change(random: np.random.Generator, shape: tuple[int, ...]) -> Change:
    """Draw how a sample of [channels, *patch] is augmented."""
    sides = np.array(shape[1:])
    moved, scaled, shifted, noisy = random.random(len(_CHANCES)) < _CHANCES
    places = np.eye(len(sides))
    if moved:
        for plane in reversed([*combinations(range(len(sides)), 2)]):
            angle, turn = random.uniform(-_ANGLE, _ANGLE), np.eye(len(sides))
            turn[np.ix_(plane, plane)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            places = places @ turn
        places = places * random.uniform(1 - _SCALE, 1 + _SCALE, len(sides))
    factor = 1 + random.uniform(-_GAIN, _GAIN) * scaled
    summand = random.uniform(-_OFFSET, _OFFSET) * shifted
    noise = torch.zeros(()).expand(shape)  # without memory
    if noisy:
        noise = torch.from_numpy(random.standard_normal(shape, np.float32)) * random.uniform(0, _NOISE)
    places = torch.from_numpy((places * sides / sides[:, None])[::-1].astype(np.float32))
    return Change(torch.tensor(bool(moved)), places, torch.tensor((factor, summand), dtype=torch.float32), noise)
