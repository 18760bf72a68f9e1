"""Arms of a comparison made ready: names become weights, shapes, input contracts and digests."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from modelsgenesis.checkpoints import Bundle, save_bundle
from modelsgenesis.comparison.trials import Arm
from modelsgenesis.configs import FinetuningConfig, InputContract, apply_settings
from modelsgenesis.configs.comparison import ArmConfig, file_name
from modelsgenesis.data import LabelledData, data_contract
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config
from modelsgenesis.verbs.models import announce, load, public_name
from modelsgenesis.verbs.task_networks import adaptation_options, input_contract, unet_of


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
        reporter: Is told what is adapted.

    Returns:
        The arms by name, in their order.
    """
    bundles = {arm.name: load(arm.init, token=token, progress=announce(reporter)) for arm in arms if not arm.scratch}
    ready: dict[str, Arm] = {}
    for arm in arms:
        own = apply_settings(config, arm.settings)
        if arm.scratch:
            ready[arm.name] = _scratch(arm, own, _control(arm, bundles), data, reporter)
        else:
            ready[arm.name] = _pretrained(arm, own, bundles[arm.name], data, folder, reporter)
        _check_dims(ready[arm.name], data)
    _note_budgets(ready, reporter)
    return ready


def _note_budgets(arms: Mapping[str, Arm], reporter: Reporter) -> None:
    """Say before hours of training that what is compared is not the start alone."""
    for key in ("steps", "batch_size"):
        values = {name: getattr(arm.config, key) for name, arm in arms.items()}
        if len(set(values.values())) > 1:
            own = ", ".join(f"{value} for {name}" for name, value in values.items())
            reporter.note(f"the arms have unequal budgets: {key} is {own}; a difference may come of that")


def _check_dims(arm: Arm, data: LabelledData) -> None:
    """Refuse an arm that cannot see the data: cubes of images, or slices of volumes that have one label in all.

    Raises:
        ConfigurationError: The dimensions do not fit.
    """
    if arm.dims == data.dims or (arm.dims == 2 and data.task == "segmentation"):
        return
    raise ConfigurationError(
        f"{arm.name}: is for images of {arm.dims} dimensions, those of {data.name} have {data.dims}; start from other "
        "weights or say --dims"
    )


def _control(arm: ArmConfig, bundles: Mapping[str, Bundle]) -> Bundle | None:
    """Return the weights whose shape scratch takes: the first of its dimensions, else the first."""
    if any(setting.startswith("network.") for setting in arm.settings):
        return None  # a shape of its own was asked for
    fitting = [bundle for bundle in bundles.values() if arm.dims in (None, unet_of(bundle.config.network).dims)]
    return next(iter([*fitting, *bundles.values()]), None)


def _scratch(
    arm: ArmConfig, config: FinetuningConfig, control: Bundle | None, data: LabelledData, reporter: Reporter
) -> Arm:
    network = build_network(config.network) if control is None else control.network
    dims = arm.dims or (data.dims if control is None else None)
    options = _adaptation(network, data, config, dims)
    contract = data_contract(data) if control is None else _contract(control, data, arm.name, reporter)
    shape = network_config(adapt(network, **options)[0])
    return Arm(
        name=arm.name,
        init=None,
        weights=None,
        digest=None,
        shape=shape,
        contract=contract,
        config=config,
        settings=arm.settings,
    )


def _pretrained(
    arm: ArmConfig,
    config: FinetuningConfig,
    bundle: Bundle,
    data: LabelledData,
    folder: Path,
    reporter: Reporter,
) -> Arm:
    options = _adaptation(bundle.network, data, config, arm.dims)
    network, report = adapt(bundle.network, **options)
    reporter.note(f"{arm.name}: {report.summary()}")
    return Arm(
        name=arm.name,
        init=public_name(arm.init),
        weights=save_bundle(folder / file_name(arm.name), bundle),
        digest=weights_digest(bundle.network),
        shape=network_config(network),
        contract=_contract(bundle, data, arm.name, reporter),
        config=config,
        settings=arm.settings,
        adaptation=options,
    )


def _adaptation(network: nn.Module, data: LabelledData, config: FinetuningConfig, dims: int | None) -> dict[str, Any]:
    """Return the options of `adapt` that make a network one for the data, in other dimensions where that was asked."""
    shape = network_config(network)
    options = adaptation_options(shape, data, config)
    return options if dims in (None, unet_of(shape).dims) else {**options, "dims": dims}


def _contract(bundle: Bundle, data: LabelledData, name: str, reporter: Reporter) -> InputContract:
    contract = bundle.config.input
    if contract.dims > data.dims:
        contract = contract.override(dims=data.dims, spacing=None, orientation=None)
    return input_contract(name, contract, data, reporter)


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's tensors, names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
