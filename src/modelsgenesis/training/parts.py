"""The parts of a split in memory, and the patch that suits them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import nn

from modelsgenesis.configs import (
    ClassificationConfig,
    FinetuningConfig,
    InputContract,
    require_patch_size,
)
from modelsgenesis.data import LabelledCase, LabelledData, PreparedCase, prepare_cases
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.inference.sliding_window import window_size
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config
from modelsgenesis.training.splits import Split
from modelsgenesis.training.task_networks import unet_of

Parts = Mapping[str, Sequence[PreparedCase]]
"""Prepared cases by `training`, `validation` and `test`."""

PATCH_VOXELS = 64 * 64 * 32
"""Of the largest patch that is chosen for a segmentation."""

IMAGE_VOXELS = {2: 256 * 256, 3: 64 * 64 * 64}
"""By dimensions: of the largest image that is chosen for a classification."""

_STEP = 8  # of the sides of a chosen patch


def prepare_named(
    cases: Sequence[LabelledCase],
    data: LabelledData,
    contract: InputContract,
    config: FinetuningConfig,
    *,
    strict: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, PreparedCase]:
    """Read and prepare cases as training needs them, by name; bad ones are left out and said.

    Args:
        cases: Of the data set.
        data: Tells what the values of masks mean.
        contract: How they are prepared.
        config: Of a classification with a patch size: images are brought to it at once, which saves memory.
        strict: A bad case is an error.
        reporter: Receives what is left out.

    Raises:
        DataError: No case is usable.
        ScanError: A case is not usable and `strict` is set.
    """
    size, fit = (config.patch_size, config.fit) if isinstance(config, ClassificationConfig) else (None, "auto")
    prepared, refused = prepare_cases(cases, data, contract, strict=strict, size=size, fit=fit)
    for refusal in refused:
        (reporter or Reporter()).note(f"left out {refusal.source}: {refusal.reason}")
    return {case.name: case for case in prepared}


def pick_parts(split: Split, prepared: Mapping[str, PreparedCase]) -> dict[str, list[PreparedCase]]:
    """Return the parts of a split out of cases that are in memory; cases that preparation refused are not there.

    Args:
        split: Names of the cases.
        prepared: Cases by name.

    Raises:
        DataError: A part has no case in memory.
    """
    parts: dict[str, list[PreparedCase]] = {}
    for part, names in asdict(split).items():
        parts[part] = [prepared[name] for name in names if name in prepared]
        if names and not parts[part]:
            raise DataError(f"none of the {len(names)} {part} cases is usable, such as {names[0]}")
    return parts


def slices_of(case: PreparedCase) -> list[PreparedCase]:
    """Return the slices of a volume along its last axis as cases of two dimensions; an image is its own only slice."""
    if case.image.ndim == 3:
        return [case]
    label = case.label
    return [
        PreparedCase(
            name=f"{case.name} slice {index}",
            patient=case.patient,
            image=np.ascontiguousarray(case.image[..., index]),
            label=None if label is None else np.ascontiguousarray(label[..., index]),
            classes=case.classes,
        )
        for index in range(case.image.shape[-1])
    ]


def recorded_data(split: Split, parts: Parts) -> dict[str, Any]:
    """Return what `run.json` says of the data: names by part, and as many digests, "" of a case that was left out."""
    names = {part: list(listed) for part, listed in asdict(split).items()}
    digests = {case.name: case.digest for cases in parts.values() for case in cases}
    return {
        "split": names,
        "digests": {part: [digests.get(name, "") for name in listed] for part, listed in names.items()},
    }


def choose_patch_size(
    shapes: Sequence[tuple[int, ...]], divisor: Sequence[int] = (), voxels: int = PATCH_VOXELS
) -> tuple[int, ...]:
    """Return the median shape in steps of 8, or of what a network needs, its longest sides shortened to a size.

    Args:
        shapes: [*spatial] of each image.
        divisor: What each side must divide by; empty for 8.
        voxels: Of the largest patch.

    Example:
        >>> choose_patch_size([(35, 50, 36), (33, 49, 40), (36, 52, 31)])
        (40, 56, 40)
    """
    median = np.median(shapes, axis=0)
    steps = [math.lcm(_STEP, step) for step in divisor or (1,) * len(median)]
    sides = [math.ceil(side / step) * step for side, step in zip(median, steps, strict=True)]
    while math.prod(sides) > voxels:
        able = [axis for axis, side in enumerate(sides) if side > steps[axis]]
        if not able:
            break
        longest = max(able, key=lambda axis: sides[axis])
        sides[longest] -= steps[longest]
    return tuple(sides)


def settle_patch_size(
    config: FinetuningConfig, network: nn.Module, training: Sequence[PreparedCase], reporter: Reporter
) -> FinetuningConfig:
    """Return the configuration with a patch: its own if the network can take it, else chosen by the training images.

    Raises:
        ConfigurationError: The patch has other dimensions than the network, or sides that do not divide.
    """
    dims = unet_of(network_config(network)).dims
    divisor: tuple[int, ...] = network.size_divisor  # pyright: ignore[reportAssignmentType]
    if config.patch_size is None:
        shapes = [case.image.shape[1 : 1 + dims] for case in training]
        voxels = IMAGE_VOXELS[dims] if isinstance(config, ClassificationConfig) else PATCH_VOXELS
        config = config.override(patch_size=choose_patch_size(shapes, divisor, voxels))
        sides = " × ".join(map(str, require_patch_size(config)))
        reporter.note(f"patch of {sides} {'pixels' if dims == 2 else 'voxels'}, by the median image")
    patch = require_patch_size(config)
    if len(patch) != dims:
        raise ConfigurationError(f"patch_size: received {patch}, expected {dims} sides for a network of as many axes")
    fitting = window_size(patch, divisor)
    if fitting != patch:
        raise ConfigurationError(
            f"patch_size: received {patch}, expected sides that divide by {divisor}, such as {fitting}"
        )
    return config
