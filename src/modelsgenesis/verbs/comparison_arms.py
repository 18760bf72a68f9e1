"""Arms of a comparison made ready: names become weights, shapes, input contracts and digests."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from modelsgenesis.checkpoints import load_bundle, save_bundle
from modelsgenesis.comparison.trials import Arm
from modelsgenesis.configs import FinetuningConfig, apply_settings
from modelsgenesis.configs.comparison import ArmConfig, file_name
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config
from modelsgenesis.training.task_networks import initial_model


def make_ready(
    arms: Sequence[ArmConfig],
    data: LabelledData,
    config: FinetuningConfig,
    folder: Path,
    *,
    token: str | None,
    reporter: Reporter,
) -> dict[str, Arm]:
    """Load what the arms start from; scratch takes shape and input contract of the first of them, its control.

    Args:
        arms: What to compare.
        data: The labelled data.
        config: Training that all share.
        folder: Gets the weights, for the processes that train.
        token: Of the Hub.
        reporter: Receives what is adapted.

    Returns:
        The arms by name, in their order.

    Raises:
        ConfigurationError: An arm cannot see the data.
    """
    weights: dict[str, Path] = {}
    dims: dict[str, int] = {}
    for arm in arms:
        if not arm.scratch:
            bundle = load(arm.init, token=token, progress=announce(reporter))
            weights[arm.name] = save_bundle(folder / file_name(arm.name), bundle)
            dims[arm.name] = bundle.config.network.unet.dims
    ready = {arm.name: _arm(arm, data, config, weights, dims, reporter) for arm in arms}
    for key in ("steps", "batch_size"):  # said before hours of training
        values = {name: getattr(arm.config, key) for name, arm in ready.items()}
        if len(set(values.values())) > 1:
            own = ", ".join(f"{value} for {name}" for name, value in values.items())
            reporter.note(f"the arms have unequal budgets: {key} is {own}; a difference may come of that")
    return ready


def _arm(
    arm: ArmConfig,
    data: LabelledData,
    config: FinetuningConfig,
    weights: Mapping[str, Path],
    dims: Mapping[str, int],
    reporter: Reporter,
) -> Arm:
    own = apply_settings(config, arm.settings)
    source = arm.name
    if arm.scratch:  # its shape is its own, or that of the first weights of its dimensions, else of the first
        fitting = [name for name, known in dims.items() if arm.dims in (None, known)]
        reshaped = any(setting.startswith("network.") for setting in arm.settings)
        source = "" if reshaped else next(iter([*fitting, *dims]), "")
    chosen = arm.dims or dims.get(source, data.dims)
    if chosen != data.dims and not (chosen == 2 and data.task == "segmentation"):  # a scan's slices share its label
        raise ConfigurationError(
            f"{arm.name}: is for images of {chosen} dimensions, those of {data.name} have {data.dims}; start from "
            "other weights or say --dims"
        )
    own = own.override(dims=chosen)
    bundle = load_bundle(weights[source]) if source else None
    digest = None if bundle is None or arm.scratch else weights_digest(bundle.network)
    name = arm.name if arm.scratch else public_name(arm.init)
    begun = initial_model(
        bundle, data, own.override(from_scratch=bundle is not None and arm.scratch), name=name, reporter=reporter
    )
    return Arm(
        name=arm.name,
        init=begun.init,
        weights=weights[source] if source else None,
        digest=digest,
        shape=network_config(begun.network),
        divisor=begun.network.size_divisor,  # pyright: ignore[reportArgumentType] - every network of this package has one
        parameters=sum(parameter.numel() for parameter in begun.network.parameters()),
        contract=begun.contract,
        config=own,
        settings=arm.settings,
    )


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's tensors, names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
