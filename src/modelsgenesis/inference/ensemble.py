"""A scan through one model or several: prepared as each expects, their probabilities averaged."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from modelsgenesis.configs import CONTRACTS, BundleConfig, InputContract, PredictionConfig
from modelsgenesis.data import (
    PreparedVolume,
    Volume,
    check_same_grid,
    detect_modality,
    prepare,
    resize_or_crop,
    to_native,
)
from modelsgenesis.errors import ConfigurationError, ScanError
from modelsgenesis.hardware import Hardware, free_memory
from modelsgenesis.inference.sliding_window import check_window, mirrored_passes, segment


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
    first, whats = members[0], ("task", "list of classes", "list of channels")
    for member in members:
        if member.config.task == "restoration":
            raise ConfigurationError(
                f"{member.name}: the model is for restoration: prediction needs one fine-tuned with --task seg or cls"
            )
        for what, mine, other in zip(whats, _answers(member), _answers(first), strict=True):
            if mine != other:
                raise ConfigurationError(
                    f"{member.name}: its {what} {', '.join(mine)} is not the {', '.join(other)} of {first.name}; "
                    "expected models of one task"
                )


def _answers(member: Member) -> tuple[tuple[str, ...], ...]:
    """Return what all members of an ensemble have to share."""
    return (member.config.task,), member.config.labels, member.config.input.channels


def usable_contract(volume: Volume, contract: InputContract) -> tuple[InputContract, str]:
    """Return how a scan is prepared, and a warning where it is of another modality than the model.

    A contract is kept where it can be applied. Hounsfield units of other scans mean nothing: where a model of CT gets
    one, its intensities come from the scan's own percentiles (or mean and deviation).

    Returns:
        The contract, and one line; empty where the scan is, as far as can be told, what the model expects.
    """
    modality = detect_modality(volume)
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


@dataclass(frozen=True, eq=False)
class PreparedFor:
    """A case as some members of an ensemble expect it.

    Attributes:
        members: Those that do.
        image: float32 [channels, *prepared spatial].
        frame: The way back, without voxels.
    """

    members: tuple[Member, ...]
    image: np.ndarray
    frame: PreparedVolume


def prepare_for(members: Sequence[Member], volumes: Sequence[Volume]) -> list[PreparedFor]:
    """Prepare a case in each way that members expect; the scans themselves are not needed after it.

    Raises:
        ConfigurationError: The number of channels is not the models'.
        ScanError: The case cannot be used, or its channels lie on different grids.
    """
    alike: Mapping[InputContract, list[Member]] = defaultdict(list)
    for member in members:
        alike[member.config.input].append(member)
    prepared = []
    for contract, group in alike.items():
        if len(volumes) != len(contract.channels):
            raise ConfigurationError(
                f"received {len(volumes)} files, expected {len(contract.channels)}: {', '.join(contract.channels)}"
            )
        for other in volumes[1:]:
            check_same_grid(volumes[0], other)
        _check_memory(volumes, contract, len(group[0].config.labels))
        channels = [prepare(volume, usable_contract(volume, contract)[0]) for volume in volumes]
        # Of one channel without a copy.
        image = channels[0].array[None] if len(channels) == 1 else np.stack([one.array for one in channels])
        prepared.append(PreparedFor(tuple(group), image, without_voxels(channels[0])))
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


def segment_case(prepared: Sequence[PreparedFor], *, config: PredictionConfig, hardware: Hardware) -> list[SoftAnswer]:
    """Segment a case with every member.

    Args:
        prepared: By `prepare_for`, for segmentation models of the same classes; see `check_members`.
        config: Overlap, flips, where to stitch.
        hardware: Where and how to compute.

    Returns:
        One answer for each way in which members prepare their scans; usually one.

    Raises:
        ScanError: The network answers with NaN.
        ShapeError: Flips along an axis that is not there.
    """
    answers, members = [], sum(len(one.members) for one in prepared)
    for one in prepared:
        total: Any = np.float32(0)
        for member in one.members:
            size, image = member.config.patch_size, torch.from_numpy(one.image)
            soft = segment(member.network, image, patch_size=size, config=config, hardware=hardware).numpy()
            _check_finite(soft[0], one.frame.source)  # of one class is enough: they add up to 1
            total = np.add(soft, total, out=soft)
        answers.append(SoftAnswer(probabilities=np.divide(total, members, out=total), prepared=one.frame))
    return answers


def _check_finite(probabilities: np.ndarray, source: str) -> None:
    """Refuse an answer of NaN, which would become the first class."""
    if not np.isfinite(probabilities).all():
        raise ScanError(f"{source}: the model answers with NaN: its weights are damaged, or the training diverged")


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
    for one in prepare_for(members, volumes):
        for member in one.members:
            size = member.config.patch_size
            if one.image.ndim != len(size) + 1:
                raise ScanError(f"{one.frame.source}: has {one.image.ndim - 1} axes; the model takes {len(size)}")
            check_window(size, one.image.shape[1:], member.network, hardware)
            fit = member.config.provenance.recipe.get("fit", "auto")  # as the images of its training were
            image = torch.from_numpy(resize_or_crop(one.image, size, fit))
            passes = mirrored_passes(config.flips, len(size))
            batch = torch.stack([image.flip([axis + 1 for axis in axes]) for axes in passes])
            with torch.inference_mode(), hardware.autocast():
                logits = member.network(hardware.place(batch)).float()
            soft = logits.sigmoid() if member.config.multilabel else logits.softmax(dim=1)
            results.append(soft.mean(dim=0).cpu().numpy())
            _check_finite(results[-1], one.frame.source)
    return np.mean(results, axis=0)


def native_channel(answers: Sequence[SoftAnswer], index: int) -> np.ndarray:
    """Return the probability of one class, float32 [*scan's shape]; it may be a view of the answer's."""
    channels = [to_native(answer.probabilities[index], answer.prepared, order=1) for answer in answers]
    return channels[0] if len(channels) == 1 else np.sum(channels, axis=0)


def native_labels(answers: Sequence[SoftAnswer]) -> np.ndarray:
    """Return the most probable class of each voxel of the scan.

    Probabilities are brought to the scan's own grid before the classes are compared, which keeps their borders smooth;
    a class at a time gives what all at once would.

    Args:
        answers: Of a case.

    Returns:
        uint8 [*scan's shape]; uint16 for more than 256 classes.
    """
    classes = len(answers[0].probabilities)
    best = native_channel(answers, 0)
    if any(np.may_share_memory(best, answer.probabilities) for answer in answers):
        best = best.copy()
    labels = np.zeros(best.shape, np.uint8 if classes <= 256 else np.uint16)
    for index in range(1, classes):
        channel = native_channel(answers, index)
        higher = channel > best
        labels[higher] = index
        np.copyto(best, channel, where=higher)
        del channel, higher  # before the next one is made
    return labels


def native_probabilities(answers: Sequence[SoftAnswer]) -> np.ndarray:
    """Return the probabilities of all classes, float32 [*scan's shape, classes]: as large as that is."""
    first = native_channel(answers, 0)
    classes = len(answers[0].probabilities)
    result = np.empty((*first.shape, classes), np.float32, order="F")  # as NIfTI stores it
    for index in range(classes):
        result[..., index] = native_channel(answers, index) if index else first
    return result
