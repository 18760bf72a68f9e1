"""A scan through one model or several: prepared as each expects, their probabilities averaged."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from modelsgenesis.configs import CONTRACTS, BundleConfig, InputContract, PredictionConfig
from modelsgenesis.data import PreparedVolume, Volume, check_same_grid, fit_image, prepare, told_modality
from modelsgenesis.errors import ConfigurationError, ScanError
from modelsgenesis.evaluation.inference import check_window, mirrored_passes, segment
from modelsgenesis.hardware import Hardware, free_memory


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
    return segment_prepared(prepare_for(members, volumes), config=config, hardware=hardware)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedFor:
    """A case as some members of an ensemble expect it.

    Attributes:
        members: Those that do.
        weight: Of each in the mean over all members.
        image: float32 [channels, *prepared spatial].
        frame: The way back, without voxels.
    """

    members: tuple[Member, ...]
    weight: float
    image: np.ndarray
    frame: PreparedVolume


def prepare_for(members: Sequence[Member], volumes: Sequence[Volume]) -> list[PreparedFor]:
    """Prepare a case in each way that members expect; the scans themselves are not needed after it.

    Raises:
        ConfigurationError: The number of channels is not the models'.
        ScanError: The case cannot be used.
    """
    alike: Mapping[InputContract, list[Member]] = defaultdict(list)
    for member in members:
        alike[member.config.input].append(member)
    prepared = []
    for contract, group in alike.items():
        _check_memory(volumes, contract, len(group[0].config.labels))
        channels = prepare_channels(volumes, contract)
        frame, weight = without_voxels(channels[0]), 1 / len(members)
        prepared.append(PreparedFor(members=tuple(group), weight=weight, image=_stacked(channels), frame=frame))
    return prepared


def _check_memory(volumes: Sequence[Volume], contract: InputContract, classes: int) -> None:
    """Refuse a case whose prepared channels and probabilities memory does not hold, before it is prepared."""
    voxels, sizes = volumes[0].array.size, volumes[0].spacing or ()
    if contract.spacing is not None:
        voxels *= math.prod(old / new for old, new in zip(sizes, contract.spacing, strict=False))
    least, free = 4 * voxels * (len(volumes) + classes), free_memory(torch.device("cpu"))
    if free is not None and least > free:
        raise ScanError(
            f"{volumes[0].source}: with {classes} classes it takes more than {least / 1e9:.1f} GB, "
            f"{max(free, 0) / 1e9:.1f} GB are free; take a machine with more memory, or a model of coarser voxels"
        )


def segment_prepared(
    prepared: Sequence[PreparedFor], *, config: PredictionConfig, hardware: Hardware
) -> list[SoftAnswer]:
    """Segment a prepared case; see `segment_case`."""
    answers = []
    for one in prepared:
        image, total = torch.from_numpy(one.image), None
        for member in one.members:
            soft = segment(
                member.network, image, patch_size=member.config.patch_size, config=config, hardware=hardware
            ).numpy()
            if not np.isfinite(soft[0]).all():  # of one class is enough: they add up to 1
                raise ScanError(f"{one.frame.source}: {member.name} answers with NaN; its weights are damaged")
            total = soft if total is None else np.add(total, soft, out=total)
        if total is not None:
            probabilities = total if one.weight == 1 else np.multiply(total, np.float32(one.weight), out=total)
            answers.append(SoftAnswer(probabilities=probabilities, prepared=one.frame))
    return answers


def _stacked(channels: Sequence[PreparedVolume]) -> np.ndarray:
    """Return [channels, *spatial]; of one channel without a copy."""
    return channels[0].array[None] if len(channels) == 1 else np.stack([channel.array for channel in channels])


def without_voxels(prepared: PreparedVolume) -> PreparedVolume:
    """Return a prepared volume that only knows the way back: its array has the shape and no memory."""
    return replace(prepared, array=np.broadcast_to(np.float32(0), prepared.array.shape))


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
        array = _stacked(prepare_channels(volumes, member.config.input))
        size = member.config.patch_size
        if array.ndim != len(size) + 1:
            raise ScanError(f"{volumes[0].source}: has {array.ndim - 1} axes; the model takes {len(size)}")
        fit = member.config.provenance.recipe.get("fit", "auto")  # as the images of its training were
        check_window(size, array.shape[1:], member.network, hardware)
        image = torch.from_numpy(fit_image(array, size, fit))
        batch = torch.stack(
            [image.flip([axis + 1 for axis in axes]) for axes in mirrored_passes(config.flips, len(size))]
        )
        results.append(classify(member, batch, hardware).mean(dim=0))
    soft = torch.stack(results).mean(dim=0).numpy()
    if not np.isfinite(soft).all():
        raise ScanError(f"{volumes[0].source}: the model answers with NaN; its weights are damaged")
    return soft


def classify(member: Member, batch: torch.Tensor, hardware: Hardware) -> torch.Tensor:
    """Return the probabilities of prepared images: [b, c, *patch] to float32 [b, classes] on the CPU."""
    with torch.inference_mode():
        with hardware.autocast():
            logits = member.network(hardware.place(batch)).float()
        return (logits.sigmoid() if member.config.multilabel else logits.softmax(dim=1)).cpu()
