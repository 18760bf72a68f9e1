"""What a task network starts from: a Genesis, its shape alone, or a shape of its own; and how images are prepared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from modelsgenesis.evaluation.cases import other_channels
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config
from modelsgenesis.verbs.models import announce, load, public_name, seeded


@dataclass(frozen=True)
class Start:
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


def start(
    init: str | Path | None,
    data: LabelledData,
    config: FinetuningConfig,
    *,
    from_scratch: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Start:
    """Return the network to train on labelled data.

    Args:
        init: Weights: a name, `org/repo` or a folder; None for the configuration's network with random weights.
        data: Task, classes, channels and dimensions.
        config: Shape without `init`, the head of a classification, the seed of what is new.
        from_scratch: Take the shape and the input contract of `init`, but random weights.
        token: Of the Hub.
        reporter: Is told what is adapted.

    Raises:
        ConfigurationError: The weights are for images of other dimensions.
        DataError: The modality of the data is not known, and there are no weights to tell it.
    """
    reporter = reporter or Reporter()
    if init is None:
        shape = _task_shape(config, data)
        return Start(seeded(config.seed, lambda: build_network(shape)), data_contract(data))
    bundle = load(init, token=token, progress=announce(reporter))
    name = public_name(init)
    _check_dims(name, bundle, data)
    options = adaptation_options(bundle.config.network, data, config)
    if "statistics" in options:
        reporter.note(
            "batch norm: running averages in evaluation instead of the batch's own, so that the answer for an image "
            "does not depend on the others"
        )
    options |= {"encoder_only": config.encoder_only, "rescale": config.rescale, "copy": False}
    network, report = seeded(config.seed, lambda: adapt(bundle.network, **options))
    contract = input_contract(name, bundle.config.input, data, reporter)
    if from_scratch:
        shape = network_config(network)
        reporter.note(f"random weights in the shape of {name}")
        return Start(seeded(config.seed, lambda: build_network(shape)), contract)
    reporter.note(f"{name}: {report.summary()}")
    return Start(network, contract, name, (*report.loaded, *report.adapted))


def _task_shape(config: FinetuningConfig, data: LabelledData) -> NetworkConfig:
    """Return the configuration's network with the dimensions, channels and classes of the data."""
    unet = config.network if config.network.dims == data.dims else config.network.with_dims(data.dims)
    unet = unet.override(in_channels=len(data.channels))
    if isinstance(config, ClassificationConfig):
        return ClassifierConfig(encoder=unet, num_classes=len(data.labels), hidden=config.hidden, levels=config.levels)
    return unet.override(out_channels=len(data.labels), output="linear")


def unet_of(shape: NetworkConfig) -> UNetConfig:
    """Return the encoder and decoder of a shape, whatever its task."""
    return shape.encoder if isinstance(shape, ClassifierConfig) else shape


def adaptation_options(shape: NetworkConfig, data: LabelledData, config: FinetuningConfig) -> dict[str, Any]:
    """Return the options of `adapt` that make a network of this shape one for the data."""
    options: dict[str, Any] = {"task": data.task, "num_classes": len(data.labels), "in_channels": len(data.channels)}
    if isinstance(config, ClassificationConfig):
        options |= {"hidden": config.hidden, "levels": config.levels}
        if getattr(unet_of(shape), "statistics", None) == "batch":
            options["statistics"] = "running"  # the answer for an image must not depend on the others in its batch
    return options


def input_contract(name: str, contract: InputContract, data: LabelledData, reporter: Reporter) -> InputContract:
    """Return how images are prepared: as the weights expect, unless they were trained on something else.

    Args:
        name: Of the weights.
        contract: Theirs.
        data: The labelled data.
        reporter: Is told what the data does not say, and where weights and data are of two kinds.
    """
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


def _check_dims(name: str, bundle: Bundle, data: LabelledData) -> None:
    dims = unet_of(bundle.config.network).dims
    if dims != data.dims:
        raise ConfigurationError(
            f"{name} is for images of {dims} dimensions, those of {data.name} have {data.dims}: start from weights for "
            f"{data.dims}, or make some with modelsgenesis.from_pretrained({name!r}, task='restoration', "
            f"dims={data.dims}) and save_pretrained"
        )
