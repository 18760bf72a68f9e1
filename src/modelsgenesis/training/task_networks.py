"""What a task network starts from: a Genesis, its shape alone, or a shape of its own; and how images are prepared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import (
    ClassificationConfig,
    ClassifierConfig,
    FinetuningConfig,
    InputContract,
    NetworkConfig,
    UNetConfig,
)
from modelsgenesis.data import LabelledData, data_contract
from modelsgenesis.data.names import channel_order
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.inference.cases import other_channels
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config

Made = TypeVar("Made")


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
    from_scratch: bool = False,
    reporter: Reporter | None = None,
) -> InitialModel:
    """Return the network to train on labelled data; what is new in it is drawn from the configuration's seed.

    Args:
        bundle: Weights, which are used up; None for the configuration's network with random weights.
        data: Task, classes, channels and dimensions.
        config: Shape without weights, the head of a classification, the seed of what is new.
        name: What a card may call the weights.
        from_scratch: Take the shape and the input contract of the weights, but random ones.
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
    if bundle is None:
        shape, contract = _task_shape(config, data, dims), _sliced(data_contract(data), dims)
        return InitialModel(seeded(config.seed, lambda: build_network(shape)), contract)
    options: dict[str, Any] = {"task": data.task, "num_classes": len(data.labels), "in_channels": len(data.channels)}
    options |= {"encoder_only": config.encoder_only, "rescale": config.rescale, "copy": False}
    unet = unet_of(bundle.config.network)
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
    if from_scratch:
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


def unet_of(shape: NetworkConfig) -> UNetConfig:
    """Return the encoder and decoder of a shape, whatever its task."""
    return shape.encoder if isinstance(shape, ClassifierConfig) else shape


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
        contract = data_contract(data).override(channels=contract.channels)
    if len(data.channels) == 1 or len(data.channels) != len(contract.channels):
        return contract.override(channels=data.channels)
    if channel_order(data.channels, contract.channels) is None:
        reporter.note(f"warning: {other_channels(data.name, data.channels, contract.channels)}")
        return contract.override(channels=data.channels)
    if data.channels != contract.channels:
        reporter.note(f"{data.name}: channels by name in the order of {name}, {', '.join(contract.channels)}")
    return contract  # whose order `prepare_case` brings them to
