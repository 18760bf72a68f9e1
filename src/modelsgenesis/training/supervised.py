"""Supervised training: the network to begin with, its patch, and the objectives of segmentation and classification."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import ClassificationConfig, ClassifierConfig, InputContract, NetworkConfig, PredictionConfig
from modelsgenesis.configs.training import FinetuningConfig, SegmentationConfig, require_patch_size
from modelsgenesis.data.augmentation import Change, LabelledImages, LabelledPatches, augment, class_weights
from modelsgenesis.data.cases import LabelledData, PreparedCase, data_contract, resize_or_crop
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.hardware import Hardware
from modelsgenesis.inference.cases import match_channels
from modelsgenesis.inference.sliding_window import sliding_window
from modelsgenesis.metrics.measures import auc, chosen_classes, dice, mean_ignoring_nan
from modelsgenesis.networks import Network, adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.bundles import network_config, seeded
from modelsgenesis.training.trainer import Objective

PATCH_VOXELS = 64 * 64 * 32
"""Voxels of the largest patch that is chosen for a segmentation."""

IMAGE_VOXELS = {2: 256 * 256, 3: 64 * 64 * 64}
"""Voxels of the largest image that is chosen for a classification, by dimensions."""

_PLANES = 2**20  # pixels of planes that are validated together
_SLAB = 32  # slices whose probabilities are in memory at once
_STEP = 8  # sides of a chosen patch are multiples of it: three poolings, and fast kernels


@dataclass(frozen=True)
class InitialModel:
    """A task network before training.

    Attributes:
        network: With the head of the task.
        contract: How its images are prepared.
        init: What a card may call its origin; None for random weights.
        pretrained: Names of its tensors that came from there.
        remarks: What is to be known beside the results.
    """

    network: Network
    contract: InputContract
    init: str | None = None
    pretrained: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def initial_model(
    bundle: Bundle | None, data: LabelledData, config: FinetuningConfig, reporter: Reporter, *, name: str = ""
) -> InitialModel:
    """Return the network to train on labelled data; what is new in it is drawn from the configuration's seed.

    Args:
        bundle: Weights, which are used up; None for the configuration's network with random weights.
        data: The data set, which decides task, classes, channels and dimensions.
        config: Network without weights, head of a classification, seed of what is new; with `from_scratch` only the
            shape and the input contract of the weights are taken.
        reporter: Receives what is adapted.
        name: What a card may call the weights.

    Raises:
        ConfigurationError: The weights, or `dims` of the configuration, are for images of other dimensions.
        DataError: The modality of the data is not known, and there are no weights to tell it.
    """
    dims = config.dims or data.dims
    if dims > data.dims or (dims < data.dims and data.task != "segmentation"):  # the slices of a scan share its class
        told = f"dims: received {dims}, but the images of {data.name} have {data.dims} dimensions; leave it out"
        raise ConfigurationError(told)
    # The new head is drawn from the seed, and so the same for every initialisation that is compared.
    if bundle is None:
        shape = _task_shape(config, data, dims)
        return InitialModel(seeded(config.seed, lambda: build_network(shape)), data_contract(data).with_dims(dims))
    unet = bundle.config.network.unet
    if config.dims is None and unet.dims != data.dims:
        raise ConfigurationError(
            f"{name} is for images of {unet.dims} dimensions, those of {data.name} have {data.dims}: start from "
            f"weights for {data.dims}, or say --set dims={min(data.dims, unet.dims)}"
        )
    options: dict[str, Any] = {"task": data.task, "num_classes": len(data.labels), "in_channels": len(data.channels)}
    options |= {"encoder_only": config.encoder_only, "rescale": config.rescale, "copy": False}
    restores = bundle.config.task == "restoration"  # the norms of a finished classifier are what it learnt
    options |= {"fresh_norms": config.fresh_norms and restores and not config.freeze_encoder}
    options |= {"dims": dims} if dims != unet.dims else {}
    if isinstance(config, ClassificationConfig):
        options |= {"hidden": config.hidden, "levels": config.levels}
        if getattr(unet, "statistics", None) == "batch":
            options["statistics"] = "running"
            reporter.note("batch norm: running averages, so that what is predicted does not depend on other images")
    network, report = seeded(config.seed, lambda: adapt(bundle.network, **options))
    contract = _input_contract(name, bundle.config.input, data, reporter).with_dims(dims)
    if config.from_scratch:
        shape = network_config(network)
        reporter.note(f"random weights in the shape of {name}")
        return InitialModel(seeded(config.seed, lambda: build_network(shape)), contract)
    reporter.note(f"{name}: {report.summary()}")
    trained = bundle.config.input.modality
    unlike = f"the weights were trained on {trained}, the data is {contract.modality}"
    remarks = (unlike,) if contract.modality != trained else ()
    return InitialModel(network, contract, name, (*report.loaded, *report.adapted), remarks)


def _task_shape(config: FinetuningConfig, data: LabelledData, dims: int) -> NetworkConfig:
    """Return the configuration's network with these dimensions, and the channels and classes of the data."""
    unet = config.network if config.network.dims == dims else config.network.with_dims(dims)  # pyright: ignore[reportArgumentType]
    unet = unet.override(in_channels=len(data.channels))
    if isinstance(config, ClassificationConfig):
        return ClassifierConfig(encoder=unet, num_classes=len(data.labels), hidden=config.hidden, levels=config.levels)
    return unet.override(out_channels=len(data.labels), output="linear")


def _input_contract(name: str, contract: InputContract, data: LabelledData, reporter: Reporter) -> InputContract:
    """Return how images are prepared: as the weights expect, unless they were trained on something else."""
    if contract.dims > data.dims:
        contract = contract.override(dims=data.dims, spacing=None, orientation=None)
    if data.modality is None:
        reporter.note(f"{data.name} does not say what its images are: preparing them as {contract.modality}")
    elif data.modality != contract.modality:
        unlike = f"{name}: the weights were trained on {contract.modality}, the data is {data.modality}"
        reporter.note(f"{unlike}, and prepared as such; expect less than from weights of the same modality")
        # Hounsfield units of an MRI mean nothing: its own scaling, but the order of the weights' channels.
        contract = data_contract(data).override(channels=contract.channels)
    matched = len(data.channels) == len(contract.channels) > 1
    if not matched or match_channels(data.name, data.channels, contract.channels, reporter) is None:
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
    while math.prod(sides) > voxels and (able := [axis for axis, side in enumerate(sides) if side > steps[axis]]):
        longest = max(able, key=sides.__getitem__)  # the longest side loses least of its context
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
    fitting = tuple(-(-side // step) * step for side, step in zip(patch, divisor, strict=True))
    if fitting != patch:
        raise ConfigurationError(f"patch_size: received {patch}, expected sides that divide by {divisor}: {fitting}")
    return config


@dataclass(kw_only=True)
class SupervisedObjective(Objective):
    """Learns from labels.

    Attributes:
        training: Cases to learn from.
        validation: Cases that decide which network is kept; without any the last one is.
        config: Budget, patch, augmentation.
        data: The data set, whose classes are learnt.
        hardware: Where to compute.
        frozen: Part of the network that stays as it is: no gradient, and batch norms as in evaluation.
        criterion: The loss of float32 logits and what holds.
        notes: What a person should know of the labels before training.
        remarks: What is wrong with them, without names of cases: for the results and the card.

    Raises:
        DataError: There is nothing to learn.
    """

    training: Sequence[PreparedCase]
    validation: Sequence[PreparedCase]
    config: FinetuningConfig
    data: LabelledData
    hardware: Hardware
    frozen: nn.Module | None = None
    criterion: Callable[[Tensor, Tensor], Tensor] = field(init=False)
    notes: list[str] = field(default_factory=list, init=False)
    remarks: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.patch_size, self.labels = require_patch_size(self.config), self.data.labels
        if self.frozen is not None:
            self.frozen.requires_grad_(False)  # neither memory nor time goes into gradients of it

    def begin(self, network: Network) -> None:
        """Make a network ready for its first step."""

    def _names(self, classes: Iterable[int]) -> str:
        return ", ".join(self.labels[index] for index in sorted(classes))

    def loss(self, network: nn.Module, batch: Any, items: Sequence[int]) -> Tensor:
        """Return the loss of images [b, c, *patch], what holds for them, and how to augment them, if at all."""
        # Metal resamples no volumes.
        hardware = Hardware(torch.device("cpu")) if self.hardware.device.type == "mps" else self.hardware
        image, truth, *changes = batch
        image, truth = map(hardware.place, (image, truth))
        for change in changes:
            image, truth = augment(image, truth, Change(*map(hardware.place, change)))
        if self.frozen is not None:
            self.frozen.eval()  # the loop put it into training mode with the rest
        return self.criterion(network(self.hardware.place(image)).float(), truth.to(self.hardware.device))


class Segmentation(SupervisedObjective):
    """Segment patches under Dice and cross-entropy."""

    config: SegmentationConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        """Make the training patches; refuse masks without a single labelled voxel."""
        super().__post_init__()
        from monai.losses.dice import DiceCELoss

        held = {case.name: set(np.unique(case.label).tolist()) - {0} for case in self.training}
        empty = sorted(name for name, values in held.items() if not values)
        if len(empty) == len(held):
            raise DataError(f"none of {len(held)} training masks has a labelled voxel; there is nothing to learn")
        if empty:
            self.notes.append(f"a training mask without a labelled voxel: {empty[0]}")
            self.remarks.append(f"{len(empty)} of {len(held)} training masks are empty: treated as all background")
        absent = set(range(1, len(self.labels))).difference(*held.values())
        if absent:
            self.remarks.append(f"no training mask has {self._names(absent)}: the network cannot learn it")
        validated = (np.unique(case.label).tolist() for case in self.validation)
        unseen = set(range(1, len(self.labels))).difference(absent, *validated)
        if unseen and self.validation:
            self.remarks.append(f"no validation case has {self._names(unseen)}: it has no say in which network is kept")
        self.dataset = LabelledPatches(self.training, self.config)
        self.notes += self.dataset.notes()
        # Dice over the whole batch: a small structure is absent from many patches, where its Dice would be 0 or 1.
        self.criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    @torch.no_grad()
    def begin(self, network: Network) -> None:
        """Let the new head expect each class as often as it is: to unlearn one half takes Adam a hundred steps."""
        counts = sum(np.bincount(case.label.ravel(), minlength=len(self.labels)) for case in self.training)
        frequencies = torch.from_numpy(counts / np.sum(counts)).clamp_min(1e-6)
        for name, parameter in network.named_parameters():
            if name.startswith(network.head_prefix) and name.endswith("bias"):
                parameter.copy_(frequencies.log())

    def validate(self, network: nn.Module) -> tuple[float, dict[str, float]]:
        """Return the mean Dice of each structure over the validation cases, and their mean: `dice`; and their loss.

        It only ranks the networks of one run, and so stays on the prepared grid: the way back to each scan's own could
        take as long as the network. What is reported at the end is measured there, by `measure_case`.
        """
        if not self.validation:
            return -math.inf, {}  # the newest network is kept
        config, rows = PredictionConfig(overlap=self.config.overlap), []
        loss = _PooledLoss(len(self.labels))
        for cases in self._groups(network):
            image, label = cases[0].image, cases[0].label
            if image.ndim == 3:  # planes of one shape are seen as the slices of a volume, many at once
                image, label = np.stack([one.image for one in cases], 1), np.stack([one.label for one in cases])
                image, label = np.moveaxis(image, 1, -1), np.moveaxis(label, 0, -1)
            whole, truth = torch.from_numpy(image), torch.from_numpy(label)
            logits = sliding_window(network, whole, patch_size=self.patch_size, config=config, hardware=self.hardware)
            logits = logits.cpu()
            loss.add(logits, truth)
            found, is_plane = logits.argmax(dim=0).numpy(), cases[0].image.ndim == 3
            pairs = [(found[..., n], label[..., n]) for n in range(len(cases))] if is_plane else [(found, label)]
            for ours, theirs in pairs:
                # A class at a time: one-hot, a hundred structures would take a hundred volumes of memory.
                rows.append([dice(ours == index, theirs == index) for index in range(1, len(self.labels))])
        # The mean over cases first, then over structures: a rare structure counts as much as one in every scan.
        means = [mean_ignoring_nan(column) for column in zip(*rows, strict=True)]
        each = {f"dice {name}": mean for name, mean in zip(self.labels[1:], means, strict=True)}
        overall = mean_ignoring_nan(means)
        # Where it is undefined every network is as good, and the newest is kept.
        return -math.inf if math.isnan(overall) else -overall, {"dice": overall, **each, "loss": loss.value()}

    def _groups(self, network: nn.Module) -> Iterator[list[PreparedCase]]:
        """Yield the validation cases; planes of one shape together, a few of which leave a GPU idle."""
        mixing = getattr(network_config(network).unet, "statistics", None) == "batch"  # a plane would change the others
        groups: dict[Any, list[PreparedCase]] = {}
        for number, case in enumerate(self.validation):
            groups.setdefault(number if mixing or case.label.ndim > 2 else case.label.shape, []).append(case)
        for group in groups.values():
            count = max(_PLANES // group[0].label.size, 1)
            yield from (group[first : first + count] for first in range(0, len(group), count))


class _PooledLoss:
    """The criterion of `Segmentation` over all voxels of many cases, as if they were one batch.

    Counted a slab at a time: the probabilities of a hundred structures would take a hundred volumes of memory.
    """

    def __init__(self, classes: int) -> None:
        self.overlaps, self.volumes = torch.zeros(2, classes, dtype=torch.float64)
        self.entropy, self.voxels = 0.0, 0

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """Count a case: logits [classes, *spatial] and class indices [*spatial]."""
        classes = len(logits)
        for slab, labels in zip(logits.split(_SLAB, dim=1), truth.long().split(_SLAB), strict=True):
            logarithms = slab.float().log_softmax(dim=0).flatten(1)  # [classes, voxels]
            held = labels.flatten()
            chosen = logarithms.gather(0, held[None])[0]
            self.entropy -= chosen.sum(dtype=torch.float64).item()
            self.voxels += len(held)
            self.overlaps += torch.bincount(held, chosen.exp().double(), minlength=classes)
            self.volumes += logarithms.exp().sum(dim=1, dtype=torch.float64) + torch.bincount(held, minlength=classes)

    def value(self) -> float:
        """Return cross-entropy and one minus the soft Dice of the structures, smoothed as MONAI does."""
        soft = (2 * self.overlaps + 1e-5) / (self.volumes + 1e-5)
        return self.entropy / self.voxels + float(1 - soft[1:].mean())


class Classification(SupervisedObjective):
    """Classify whole images under cross-entropy: exclusive classes, or each label by itself."""

    config: ClassificationConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        """Make the training images; refuse a class without a training example."""
        super().__post_init__()
        known = {index for case in self.training for index in case.classes}
        absent = [name for index, name in enumerate(self.labels) if index not in known]
        if absent:
            raise DataError(
                f"no training example of {', '.join(map(repr, absent))}: take more labels or another split_seed, leave "
                "the class out, or tell its patients apart with --patient"
            )
        options: dict[str, Any] = {"classes": len(self.labels), "multilabel": self.data.multilabel}
        self.dataset = LabelledImages(self.training, self.config, **options)
        weights = class_weights(self.training, **options) if self.config.class_weights else None
        multilabel = self.data.multilabel
        loss = nn.BCEWithLogitsLoss(pos_weight=weights) if multilabel else nn.CrossEntropyLoss(weight=weights)
        self.criterion = loss.to(self.hardware.device)
        if weights is not None:
            each = zip(self.labels, weights.tolist(), strict=True)
            self.notes.append("weights of the classes: " + ", ".join(f"{name} {weight:.3g}" for name, weight in each))
        held = [[index in case.classes for index in range(len(self.labels))] for case in self.validation]
        self.truth = np.array(held, dtype=bool).reshape(-1, len(self.labels))  # also without cases
        ranked = np.flatnonzero(self.truth.any(axis=0) & ~self.truth.all(axis=0)).tolist()
        # With two exclusive classes, the AUC of one is that of the other.
        self.ranked: list[int] = [1] if len(ranked) == len(self.labels) == 2 and not multilabel else ranked
        unseen = np.flatnonzero(~self.truth.any(axis=0)).tolist()
        if len(self.validation) and not ranked:
            alike = f"all {len(self.validation)} validation cases are of one class"
            self.remarks.append(f"{alike}, which have no AUC: their loss decides which network is kept")
        elif len(self.validation) and unseen:
            names = self._names(unseen)
            self.remarks.append(f"no validation case is of the class {names}: it has no say in which network is kept")

    def validate(self, network: nn.Module) -> tuple[float, dict[str, float]]:
        """Return the mean AUC of the classes over the validation cases, their loss, and the accuracy."""
        if not self.validation:
            return -math.inf, {}  # the newest network is kept
        found, size = [], self.config.batch_size
        for start in range(0, len(self.validation), size):
            batch = self.validation[start : start + size]
            image = np.stack([resize_or_crop(case.image, self.patch_size, self.config.fit) for case in batch])
            with self.hardware.autocast():
                found.append(network(self.hardware.place(torch.from_numpy(image))).float())
        logits, truth, multilabel = torch.cat(found), self.truth, self.data.multilabel
        soft = (logits.sigmoid() if multilabel else logits.softmax(dim=1)).cpu().numpy()
        target = torch.from_numpy(truth.astype(np.float32) if multilabel else truth.argmax(axis=1))
        right = chosen_classes(soft, multilabel=multilabel) == truth
        each = [auc(soft[:, index], truth[:, index]) for index in self.ranked]
        loss = float(self.criterion(logits, target.to(logits.device)))
        metrics = {"auc": mean_ignoring_nan(each)} if each else {}  # what decides comes first
        metrics |= {"loss": loss, "accuracy": float(right.mean() if multilabel else right.all(axis=1).mean())}
        return -metrics["auc"] if each else loss, metrics


def make_objective(data: LabelledData, **options: Any) -> SupervisedObjective:
    """Return the objective of a data set's task; arguments and errors as of `SupervisedObjective`."""
    return (Classification if data.task == "classification" else Segmentation)(data=data, **options)
