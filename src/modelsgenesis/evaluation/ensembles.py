"""A scan through one model or several: prepared as each expects, their probabilities averaged."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from modelsgenesis.configs import CONTRACTS, BundleConfig, InputContract, PredictionConfig
from modelsgenesis.data import PreparedVolume, Volume, check_same_grid, fit_image, prepare, told_modality
from modelsgenesis.errors import ConfigurationError, ScanError
from modelsgenesis.evaluation.inference import mirrored_passes, segment
from modelsgenesis.hardware import Hardware


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A model of an ensemble; most ensembles have one.

    Attributes:
        name: What messages call it.
        network: On the hardware's device, in evaluation mode.
        config: Its bundle's configuration: task, input contract, labels, patch size.
    """

    name: str
    network: nn.Module
    config: BundleConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftAnswer:
    """Class probabilities on a prepared grid, those of all members that share it.

    Attributes:
        probabilities: float32 [classes, *prepared spatial]; over all answers of a case they add up to 1.
        prepared: The way back into the scan's own frame.
    """

    probabilities: np.ndarray
    prepared: PreparedVolume


def check_members(members: Sequence[Member]) -> None:
    """Refuse models that do not predict, or not the same.

    Raises:
        ConfigurationError: A model restores, or task, classes or channels differ.
    """
    if not members:
        raise ConfigurationError("received no model; expected one or more")
    first = members[0]
    for member in members:
        task = member.config.task
        if task == "restoration":
            raise ConfigurationError(
                f"{member.name}: the model is for restoration: prediction needs one fine-tuned with --task seg or cls"
            )
        for what, mine, other in (
            ("task", task, first.config.task),
            ("list of classes", member.config.labels, first.config.labels),
            ("list of channels", member.config.input.channels, first.config.input.channels),
        ):
            if mine != other:
                raise ConfigurationError(
                    f"{member.name}: its {what} {_shown(mine)} is not the {_shown(other)} of {first.name}; "
                    "expected models of one task"
                )


def _shown(value: object) -> str:
    return value if isinstance(value, str) else ", ".join(value)  # pyright: ignore[reportArgumentType, reportCallIssue]


def check_channels(volumes: Sequence[Volume], contract: InputContract) -> None:
    """Refuse a case of other channels than the model's, or channels that do not lie on one another.

    Raises:
        ConfigurationError: Their number is wrong.
        ScanError: They lie on different grids.
    """
    if len(volumes) != len(contract.channels):
        raise ConfigurationError(
            f"received {len(volumes)} files, expected {len(contract.channels)}: {', '.join(contract.channels)}"
        )
    for other in volumes[1:]:
        check_same_grid(volumes[0], other)


def usable_contract(volume: Volume, contract: InputContract) -> tuple[InputContract, str]:
    """Return how a scan is prepared, and a warning where it is of another modality than the model.

    A contract is kept where it can be applied. Hounsfield units of other scans mean nothing: where a model of CT gets
    one, its intensities come from the scan's own percentiles (or mean and deviation).

    Returns:
        The contract, and one line; empty where the scan is, as far as can be told, what the model expects.
    """
    modality = told_modality(volume)
    if modality is None or contract.modality in (modality, "shape"):
        return contract, ""
    how = "its file says" if volume.modality else "its values look like"
    warning = f"{volume.source}: {how} {modality}, the model was trained on {contract.modality}"
    if contract.modality == "ct" and contract.intensity != "percentiles":
        intensity = "percentiles" if contract.intensity == "window" else "zscore"
        percentiles = CONTRACTS["mri"].percentiles
        contract = contract.override(modality=modality, intensity=intensity, percentiles=percentiles)
        how = "percentiles" if intensity == "percentiles" else "mean and deviation"
        warning += f"; prepared by its own {how} instead of Hounsfield units"
    return contract, warning + "; expect a poor answer, or use a model of its modality"


def prepare_channels(volumes: Sequence[Volume], contract: InputContract) -> list[PreparedVolume]:
    """Prepare the channels of a case.

    Raises:
        ConfigurationError: Their number is not the model's.
        ScanError: One cannot be used, or lies on another grid.
    """
    check_channels(volumes, contract)
    return [prepare(volume, usable_contract(volume, contract)[0]) for volume in volumes]


def segment_case(
    members: Sequence[Member], volumes: Sequence[Volume], *, config: PredictionConfig, hardware: Hardware
) -> list[SoftAnswer]:
    """Segment a case with every member.

    Args:
        members: Segmentation models of the same classes; see `check_members`.
        volumes: One a channel.
        config: Overlap, flips, where to stitch.
        hardware: Where and how to compute.

    Returns:
        One answer for each way in which members prepare their scans; usually one.

    Raises:
        ConfigurationError: The number of channels is not the models'.
        ScanError: The case cannot be used.
        ShapeError: Flips along an axis that is not there.
    """
    alike: Mapping[InputContract, list[Member]] = defaultdict(list)
    for member in members:
        alike[member.config.input].append(member)
    answers = []
    for contract, group in alike.items():
        channels = prepare_channels(volumes, contract)
        image = torch.from_numpy(np.stack([channel.array for channel in channels]))
        total: Any = None
        for member in group:
            soft = segment(
                member.network, image, patch_size=member.config.patch_size, config=config, hardware=hardware
            ).numpy()
            total = soft if total is None else np.add(total, soft, out=total)
        if len(members) > 1:
            total /= len(members)
        answers.append(SoftAnswer(probabilities=total, prepared=channels[0]))
    return answers


def classify_case(
    members: Sequence[Member], volumes: Sequence[Volume], *, config: PredictionConfig, hardware: Hardware
) -> np.ndarray:
    """Classify a case with every member.

    Args:
        members: Classification models of the same classes; see `check_members`.
        volumes: One a channel.
        config: Its flips.
        hardware: Where and how to compute.

    Returns:
        float32 [classes], the mean over members and mirrored passes; they add up to 1 unless the classes are
        independent of one another.

    Raises:
        ConfigurationError: The number of channels is not the models'.
        ScanError: The case cannot be used.
        ShapeError: The image has other axes than the model.
    """
    results = []
    for member in members:
        arrays = [channel.array for channel in prepare_channels(volumes, member.config.input)]
        size = member.config.patch_size
        if arrays[0].ndim != len(size):
            raise ScanError(f"{volumes[0].source}: has {arrays[0].ndim} axes; the model takes {len(size)}")
        image = torch.from_numpy(fit_image(np.stack(arrays), size))
        batch = torch.stack(
            [image.flip([axis + 1 for axis in axes]) for axes in mirrored_passes(config.flips, len(size))]
        )
        results.append(classify(member, batch, hardware).mean(dim=0))
    return torch.stack(results).mean(dim=0).numpy()


def classify(member: Member, batch: torch.Tensor, hardware: Hardware) -> torch.Tensor:
    """Return the probabilities of prepared images: [b, c, *patch] to float32 [b, classes] on the CPU."""
    with torch.inference_mode():
        with hardware.autocast():
            logits = member.network(hardware.place(batch)).float()
        return (logits.sigmoid() if member.config.multilabel else logits.softmax(dim=1)).cpu()
