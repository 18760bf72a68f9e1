"""The adaptation plan that lies beside OpenMind's checkpoints, read and written."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.configs import (
    RESENC_L,
    InputContract,
    PlainUNetConfig,
    ResidualUNetConfig,
    UNetConfig,
)
from modelsgenesis.errors import CheckpointError, nearest

PLAN_KEY = "nnssl_adaptation_plan"
"""Where in a checkpoint the plan is."""

PLAN_NAME = "adaptation_plan.json"
"""The file beside the checkpoint."""

_PACKAGE = "dynamic_network_architectures.architectures.unet"
_NAMED = {"resencl": RESENC_L}
_CLASSES = {"plainconvunet": PlainUNetConfig, "residualencoderunet": ResidualUNetConfig}
_INTENSITY = {"ZScoreNormalization": "zscore"}
_KEYS = {
    "the architecture's name": ("arch_class_name", "network_class_name", "architecture"),
    "spacing": ("spacing", "target_spacing"),
    "patch size": ("patch_size", "recommended_downstream_patchsize"),
    "normalisation": ("normalization_schemes", "normalization"),
}


@dataclass(frozen=True)
class AdaptationPlan:
    """What a plan says, as far as it is needed.

    Attributes:
        values: The whole of it.
        where: What a message calls it.
    """

    values: Mapping[str, Any]
    where: str

    def _get(self, what: str) -> Any:
        for key in _KEYS[what]:
            for value in _find(self.values, key):
                return value
        expected = " or ".join(_KEYS[what])
        raise CheckpointError(
            f"{self.where}: says nothing of {what}; it has the keys {', '.join(map(str, self.values)) or 'none'},"
            f" expected {expected} among them; give the plan that came with the checkpoint"
        )

    def _numbers(self, what: str) -> tuple[float, ...]:
        value = self._get(what)
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if not numbers or not all(isinstance(n, (int, float)) and n > 0 for n in numbers):
            raise CheckpointError(f"{self.where}: {what} is {value!r}, expected positive numbers, one an axis")
        return tuple(numbers)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Voxels of the patches of pretraining."""
        return tuple(int(side) for side in self._numbers("patch size"))

    def input_contract(self) -> InputContract:
        """Return the input that pretraining saw; arrays lie as SimpleITK reads them: z, y, x.

        Raises:
            CheckpointError: The plan lacks the spacing or the normalisation, or the latter is not known here.
        """
        schemes = self._get("normalisation")
        scheme = schemes[0] if isinstance(schemes, (list, tuple)) and schemes else schemes
        if scheme not in _INTENSITY:
            raise CheckpointError(
                f"{self.where}: normalisation is {scheme!r}; {nearest(str(scheme), _INTENSITY)}"
            )
        spacing = tuple(float(size) for size in self._numbers("spacing"))
        return InputContract(
            modality="mri",
            dims=len(spacing),  # pyright: ignore[reportArgumentType] - checked there
            intensity=_INTENSITY[scheme],  # pyright: ignore[reportArgumentType]
            spacing=spacing,
            orientation="SPL",
        )

    def check(self, network: UNetConfig) -> None:
        """Refuse a network that is not the architecture named in the plan.

        Raises:
            CheckpointError: The name is missing, unknown, or that of another network.
        """
        name = self._get("the architecture's name")
        short = re.sub(r"[^a-z0-9]", "", str(name).rpartition(".")[2].lower())
        if short in _CLASSES:
            fits = isinstance(network, _CLASSES[short])
        elif short in _NAMED:
            named = _NAMED[short]
            fits = network == named.override(
                in_channels=network.in_channels, out_channels=network.out_channels
            )
        else:
            raise CheckpointError(
                f"{self.where}: architecture {name!r} is unknown; {nearest(short, [*_NAMED, *_CLASSES])}"
            )
        if not fits:
            raise CheckpointError(
                f"{self.where}: names the architecture {name!r}, but the tensors are those of {network.kind} with"
                f" widths {network.widths}; give the plan that came with the checkpoint"
            )


def _find(values: Any, key: str) -> Iterator[Any]:
    """Go through the values of `key` at any depth, the shallowest first; None is no value."""
    level = [values]
    while level:
        deeper = []
        for item in level:
            if isinstance(item, Mapping):
                if item.get(key) is not None and not isinstance(item[key], Mapping):
                    yield item[key]
                deeper += item.values()
        level = deeper


def read_plan(path: Path) -> AdaptationPlan:
    """Read `adaptation_plan.json`.

    Raises:
        CheckpointError: It cannot be read, or is no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}; download it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, expected a JSON object")
    return AdaptationPlan(values, str(path))


def make_plan(network: UNetConfig, contract: InputContract, patch_size: tuple[int, ...]) -> dict[str, Any]:
    """Describe a network of the nnU-Net family as a plan, with all that nnU-Net v2 needs to build it."""
    class_name = "ResidualEncoderUNet" if isinstance(network, ResidualUNetConfig) else "PlainConvUNet"
    return {
        "architecture_plans": {
            "arch_class_name": f"{_PACKAGE}.{class_name}",
            "arch_kwargs": architecture_arguments(network),
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "pretrain_plan": {
            "spacing": None if contract.spacing is None else list(contract.spacing),
            "patch_size": list(patch_size),
            "normalization_schemes": [contract.intensity],
        },
        "recommended_downstream_patchsize": list(patch_size),
        "pretrain_num_input_channels": network.in_channels,
    }
