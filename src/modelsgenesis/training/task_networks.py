"""The network to fine-tune: pretrained, or random in some shape; how its images are prepared; and its patch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import (
    ClassificationConfig,
    ClassifierConfig,
    FinetuningConfig,
    InputContract,
    NetworkConfig,
    require_patch_size,
)
from modelsgenesis.data import LabelledData, PreparedCase, data_contract
from modelsgenesis.data.finding import channel_order
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.inference.cases import other_channels
from modelsgenesis.inference.sliding_window import window_size
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config

Made = TypeVar("Made")

PATCH_VOXELS = 64 * 64 * 32
"""Voxels of the largest patch that is chosen for a segmentation."""

IMAGE_VOXELS = {2: 256 * 256, 3: 64 * 64 * 64}
"""Voxels of the largest image that is chosen for a classification, by dimensions."""

_STEP = 8  # sides of a chosen patch are multiples of it: three poolings, and fast kernels


@dataclass(frozen=True)
class InitialModel:
    """A task network before training.

    Attributes:
        network: With the head of the task.
        contract: How its images are prepared.
        init: What a card may call its origin; None for random weights.
        pretrained: Names of its tensors that came from there.
    """

    network: nn.Module
    contract: InputContract
    init: str | None = None
    pretrained: tuple[str, ...] = ()


def initial_model(
    bundle: Bundle | None,
    data: LabelledData,
    config: FinetuningConfig,
    *,
    name: str = "",
    reporter: Reporter | None = None,
) -> InitialModel:
    """Return the network to train on labelled data; what is new in it is drawn from the configuration's seed.

    Args:
        bundle: Weights, which are used up; None for the configuration's network with random weights.
        data: The data set, which decides task, classes, channels and dimensions.
        config: Network without weights, head of a classification, seed of what is new; with `from_scratch` only the
            shape and the input contract of the weights are taken.
        name: What a card may call the weights.
        reporter: Receives what is adapted.

    Raises:
        ConfigurationError: The weights, or `dims` of the configuration, are for images of other dimensions.
        DataError: The modality of the data is not known, and there are no weights to tell it.
    """
    reporter = reporter or Reporter()
    dims = config.dims or data.dims
    if dims > data.dims or (dims < data.dims and data.task != "segmentation"):  # the slices of a scan share its class
        raise ConfigurationError(
            f"dims: received {dims}, but the images of {data.name} have {data.dims} dimensions; leave it out"
        )
    # The new head is drawn from the seed, and so the same for every initialisation that is compared.
    if bundle is None:
        shape, contract = _task_shape(config, data, dims), _sliced(data_contract(data), dims)
        return InitialModel(seeded(config.seed, lambda: build_network(shape)), contract)
    options: dict[str, Any] = {"task": data.task, "num_classes": len(data.labels), "in_channels": len(data.channels)}
    options |= {"encoder_only": config.encoder_only, "rescale": config.rescale, "copy": False}
    unet = bundle.config.network.unet
    if config.dims is None and unet.dims != data.dims:
        raise ConfigurationError(
            f"{name} is for images of {unet.dims} dimensions, those of {data.name} have {data.dims}: start from "
            f"weights for {data.dims}, or say --set dims={min(data.dims, unet.dims)}"
        )
    if dims != unet.dims:
        options["dims"] = dims
    if isinstance(config, ClassificationConfig):
        options |= {"hidden": config.hidden, "levels": config.levels}
        if getattr(unet, "statistics", None) == "batch":
            options["statistics"] = "running"
            reporter.note(
                "batch norm: running averages in evaluation instead of the batch's own, so that the answer for an "
                "image does not depend on the others"
            )
    network, report = seeded(config.seed, lambda: adapt(bundle.network, **options))
    contract = _sliced(_input_contract(name, bundle.config.input, data, reporter), dims)
    if config.from_scratch:
        shape = network_config(network)
        reporter.note(f"random weights in the shape of {name}")
        return InitialModel(seeded(config.seed, lambda: build_network(shape)), contract)
    reporter.note(f"{name}: {report.summary()}")
    return InitialModel(network, contract, name, (*report.loaded, *report.adapted))


def seeded(seed: int, make: Callable[[], Made]) -> Made:
    """Return what `make` makes with a global generator of this seed, which initialisation draws from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def _task_shape(config: FinetuningConfig, data: LabelledData, dims: int) -> NetworkConfig:
    """Return the configuration's network with these dimensions, and the channels and classes of the data."""
    unet = config.network if config.network.dims == dims else config.network.with_dims(dims)  # pyright: ignore[reportArgumentType]
    unet = unet.override(in_channels=len(data.channels))
    if isinstance(config, ClassificationConfig):
        return ClassifierConfig(encoder=unet, num_classes=len(data.labels), hidden=config.hidden, levels=config.levels)
    return unet.override(out_channels=len(data.labels), output="linear")


def _sliced(contract: InputContract, dims: int) -> InputContract:
    """Return the contract for a network of these dimensions; one of 2 sees slices of volumes, in their spacing."""
    if contract.dims == dims:
        return contract
    if dims > contract.dims:
        return contract.override(dims=dims, spacing=None, orientation=contract.orientation or "RAS")
    return contract.override(dims=dims, spacing=contract.spacing and contract.spacing[:dims])


def _input_contract(name: str, contract: InputContract, data: LabelledData, reporter: Reporter) -> InputContract:
    """Return how images are prepared: as the weights expect, unless they were trained on something else."""
    if contract.dims > data.dims:
        contract = contract.override(dims=data.dims, spacing=None, orientation=None)
    if data.modality is None:
        reporter.note(f"{data.name} does not say what its images are: preparing them as {contract.modality}")
    elif data.modality != contract.modality:
        reporter.note(
            f"{name}: the weights were trained on {contract.modality}, the data is {data.modality}: preparing it as "
            f"{data.modality}; expect less from them than from weights of the same modality"
        )
        # Hounsfield units of an MRI mean nothing: its own scaling, but the order of the weights' channels.
        contract = data_contract(data).override(channels=contract.channels)
    if len(data.channels) == 1 or len(data.channels) != len(contract.channels):
        return contract.override(channels=data.channels)
    if channel_order(data.channels, contract.channels) is None:
        reporter.note(f"warning: {other_channels(data.name, data.channels, contract.channels)}")
        return contract.override(channels=data.channels)
    if data.channels != contract.channels:
        reporter.note(f"{data.name}: channels by name in the order of {name}, {', '.join(contract.channels)}")
    return contract  # whose order `prepare_case` brings them to


def choose_patch_size(
    shapes: Sequence[tuple[int, ...]], divisor: Sequence[int] = (), voxels: int = PATCH_VOXELS
) -> tuple[int, ...]:
    """Return the median shape in steps of 8, or of what a network needs, its longest sides shortened to a size.

    Args:
        shapes: [*spatial] of each image.
        divisor: What each side must divide by; empty for 8.
        voxels: Voxels of the largest patch.

    Example:
        >>> choose_patch_size([(35, 50, 36), (33, 49, 40), (36, 52, 31)])
        (40, 56, 40)
    """
    # The median and not the largest: half of the scans fit whole, and the memory of a step is bounded.
    median = np.median(shapes, axis=0)
    steps = [math.lcm(_STEP, step) for step in divisor or (1,) * len(median)]
    sides = [math.ceil(side / step) * step for side, step in zip(median, steps, strict=True)]
    while math.prod(sides) > voxels:
        able = [axis for axis, side in enumerate(sides) if side > steps[axis]]
        if not able:
            break
        # The longest side loses least of its context.
        longest = max(able, key=lambda axis: sides[axis])
        sides[longest] -= steps[longest]
    return tuple(sides)


def resolve_patch_size(
    config: FinetuningConfig, network: nn.Module, training: Sequence[PreparedCase], reporter: Reporter
) -> FinetuningConfig:
    """Return the configuration with a patch: its own if the network can take it, else chosen by the training images.

    Raises:
        ConfigurationError: The patch has other dimensions than the network, or sides that do not divide.
    """
    dims, divisor = network_config(network).unet.dims, cast("tuple[int, ...]", network.size_divisor)
    if config.patch_size is None:
        shapes = [case.image.shape[1 : 1 + dims] for case in training]
        voxels = IMAGE_VOXELS[dims] if isinstance(config, ClassificationConfig) else PATCH_VOXELS
        config = config.override(patch_size=choose_patch_size(shapes, divisor, voxels))
        sides = " × ".join(map(str, require_patch_size(config)))
        reporter.note(f"patch of {sides} {'pixels' if dims == 2 else 'voxels'}, by the median image")
    patch = require_patch_size(config)
    if len(patch) != dims:
        raise ConfigurationError(f"patch_size: received {patch}, expected {dims} sides for a network of as many axes")
    if (fitting := window_size(patch, divisor)) != patch:
        raise ConfigurationError(
            f"patch_size: received {patch}, expected sides that divide by {divisor}, such as {fitting}"
        )
    return config
