"""A scan through one model or several: prepared as each expects, probabilities averaged, back in its own grid.

Labelled cases are measured here as well: one way for `finetune`, `evaluate` and `compare`, on each scan's own grid.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import InputContract, PredictionConfig
from modelsgenesis.data import Geometry, PreparedVolume, SkippedScan, Volume, detect_modality, to_native
from modelsgenesis.data.cases import (
    LabelledCase,
    LabelledData,
    check_same_grid,
    fit_to_patch,
    label_indices,
    prepare_channels,
    read_mask,
)
from modelsgenesis.data.finding import channel_order
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, ShapeError, counted, require
from modelsgenesis.hardware import Hardware
from modelsgenesis.inference.sliding_window import check_memory, fit_window, sliding_window
from modelsgenesis.inference.stages import Stages, each_case
from modelsgenesis.metrics.measures import UNIT, Row, classification_row, measure_segmentation
from modelsgenesis.reporting import Reporter

Prepared = tuple[list[Bundle], np.ndarray, PreparedVolume]
"""A case as some members expect it: these, the image [channels, *spatial], and the way back."""

Predicted = tuple[LabelledCase, LabelledData, np.ndarray, Volume | None]
"""A predicted case: the arguments of `measure_case`."""

Keep = Callable[[LabelledCase, LabelledData, np.ndarray, Volume | None], object]
"""Receives what was measured, with the same arguments."""

_NAN = "the model predicts NaN: its weights are damaged, or the training diverged"
_ROWS = 8  # of an image whose probabilities are computed together


class Segmentation(NamedTuple):
    """A segmented case in the scan's own grid.

    Attributes:
        labels: The most probable class of each voxel, uint8 [*scan's shape]; uint16 for more than 256 classes.
        geometry: The scan's frame.
        probabilities: float32 [*scan's shape, classes] where they were asked for.
    """

    labels: np.ndarray
    geometry: Geometry
    probabilities: np.ndarray | None = None


@dataclass(eq=False)
class Ensemble:
    """Models of one task whose probabilities are averaged; most ensembles have one.

    Attributes:
        members: What messages call each, and the model: its network on the hardware's device, in evaluation mode. Task,
            classes and channels are the same; they may prepare scans differently.
        config: Overlap, flips, where to stitch.
        hardware: Where and how to compute.
        reporter: Receives a warning of a scan that does not suit a model.

    Raises:
        ConfigurationError: There is no model, one restores, or task, classes or channels differ.
        ShapeError: Flips along an axis that is not there.
    """

    members: Sequence[tuple[str, Bundle]]
    config: PredictionConfig
    hardware: Hardware
    reporter: Reporter = field(default_factory=Reporter)

    def __post_init__(self) -> None:
        require(self.members, ConfigurationError, "received no model; expected one or more")
        self.name, first = self.members[0][0], self.members[0][1].config
        self.task, self.labels, self.channels = first.task, first.labels, first.input.channels
        self.multilabel, flips = first.multilabel, self.config.flips
        self.passes: dict[int, list[tuple[int, ...]]] = {}
        ours = "; ".join((self.task, ", ".join(self.labels), ", ".join(self.channels)))
        for name, config in ((name, member.config) for name, member in self.members):
            remedy = "prediction needs one fine-tuned with --task seg or cls"
            require(config.task != "restoration", ConfigurationError, f"{name}: the model is for restoration: {remedy}")
            theirs = "; ".join((config.task, ", ".join(config.labels), ", ".join(config.input.channels)))
            alike = "expected one task and the same classes and channels"
            require(theirs == ours, ConfigurationError, f"{name}: predicts {theirs}, but {self.name} {ours}; {alike}")
            dims = len(config.patch_size)
            missing = f"flips along axes {flips}: the image has {dims}, numbered from 0"
            require(flips == "all" or max(flips, default=0) < dims, ShapeError, missing)
            # The axes that each pass mirrors, the plain pass first: n axes make 2^n passes.
            axes = range(dims) if flips == "all" else sorted(set(flips))
            self.passes[dims] = [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]

    def prepare(self, volumes: Sequence[Volume]) -> list[Prepared]:
        """Return for each way of preparing a case its members, the image [channels, *spatial], and the way back.

        The latter's array has the shape, but no memory.

        Args:
            volumes: One for each channel.

        Raises:
            ConfigurationError: The number of channels is not the models'.
            ScanError: The case cannot be used.
        """
        expected = f"expected {len(self.channels)}: {', '.join(self.channels)}"
        require(len(volumes) == len(self.channels), ConfigurationError, f"received {len(volumes)} channels, {expected}")
        # The folds of a run share their contract: their scans are prepared once.
        alike: dict[InputContract, list[Bundle]] = defaultdict(list)
        for _, member in self.members:
            alike[member.config.input].append(member)
        prepared, source, modality = [], volumes[0].source, detect_modality(volumes[0])
        for contract, members in alike.items():
            if modality not in (None, contract.modality) and contract.modality != "shape":
                how = "its file says" if volumes[0].modality else "its values look like"
                warning = f"warning: {source}: {how} {modality}, the model was trained on {contract.modality}"
                self.reporter.note(f"{warning}; expect a poor prediction, or use a model of its modality")
            voxels, sizes = volumes[0].array.size, volumes[0].spacing or ()
            if contract.spacing is not None:
                voxels *= math.prod(old / new for old, new in zip(sizes, contract.spacing, strict=False))
            least = 4 * voxels * (len(volumes) + len(self.labels))  # the prepared channels, the probabilities
            what, remedy = f"{source}: with {len(self.labels)} classes it", "a model of coarser voxels"
            check_memory(least, torch.device("cpu"), ScanError, what, remedy)
            image, first = prepare_channels(volumes, contract)
            frame = replace(first, array=np.broadcast_to(np.float32(0), image.shape[1:]))
            prepared.append((members, image, frame))
        return prepared

    def compute(self, prepared: Sequence[Prepared]) -> Any:
        """Run every member over a case that `prepare` returned: what waits for the network, and nothing else.

        Returns:
            Of a segmentation what `to_scan` takes. Of a classification float32 [classes], the mean over members and
            mirrored passes; they add up to 1 unless the classes are independent of one another.

        Raises:
            ScanError: The network predicts NaN, or the case has other axes than the model.
            ConfigurationError: The memory does not hold a window.
        """
        with torch.inference_mode():
            return self._segment(prepared) if self.task == "segmentation" else self._classify(prepared)

    def _segment(self, prepared: Sequence[Prepared]) -> list[tuple[np.ndarray, PreparedVolume]]:
        parts = []
        options: dict[str, Any] = {"config": self.config, "hardware": self.hardware, "reporter": self.reporter}
        for members, image, frame in prepared:
            total: Any = None
            passes = [(one, axes) for one in members for axes in self.passes[len(one.config.patch_size)]]
            for member, axes in passes:
                turned = torch.from_numpy(image).flip([axis + 1 for axis in axes])
                soft = sliding_window(member.network, turned, patch_size=member.config.patch_size, **options)
                # In place and a few rows at a time: this is the largest array of a prediction.
                for rows in soft.split(_ROWS, dim=1):
                    rows.copy_(rows.softmax(dim=0))
                if total is None:  # the first pass, which is not mirrored
                    total = soft
                    continue
                for index, one in enumerate(soft):  # a class at a time: a mirrored copy of one, not of all
                    total[index] += one.flip(axes).to(total.device)  # memory may have sent one pass to the CPU
            # NaN compares as lower than anything: it would become the first class. One class tells of all, and once
            # for all passes: a look at what a device computed waits for it.
            require(total[0].isfinite().all(), ScanError, f"{frame.source}: {_NAN}")
            share = len(passes) * len(self.members) / len(members)
            parts.append((total.div_(share).cpu().numpy(), frame))
        return parts

    def _classify(self, prepared: Sequence[Prepared]) -> np.ndarray:
        results = []
        for members, image, frame in prepared:
            for member in members:
                size = member.config.patch_size
                fit_window(size, image.shape[1:], member.network, self.hardware)
                fitted = torch.from_numpy(fit_to_patch(image, member.config, frame.source))
                batch = torch.stack([fitted.flip([axis + 1 for axis in axes]) for axes in self.passes[len(size)]])
                with self.hardware.autocast():
                    logits = member.network(self.hardware.place(batch)).float()
                soft = logits.sigmoid() if self.multilabel else logits.softmax(dim=1)
                results.append(soft.mean(dim=0).cpu())
                require(results[-1].isfinite().all(), ScanError, f"{frame.source}: {_NAN}")
        return torch.stack(results).mean(dim=0).numpy()


def to_scan(parts: Sequence[tuple[np.ndarray, PreparedVolume]], *, probabilities: bool = False) -> Segmentation:
    """Bring class probabilities to the scan's own grid, and choose the most probable class of each voxel there.

    A class at a time: besides the probabilities on the prepared grid only a few volumes of one class are in memory,
    however many classes there are and however fine the scan's own grid is. Classes are compared after resampling, which
    keeps their borders smooth.

    Args:
        parts: One for each way in which members prepare their scans, usually one: float32 [classes, *prepared spatial],
            the sum of the members that share it, and the way back. Over all parts they add up to 1.
        probabilities: Return those of all classes, too.
    """
    geometry, classes = parts[0][1].geometry, len(parts[0][0])
    best = np.full(geometry.shape, -1, np.float32)
    labels = np.zeros(geometry.shape, np.uint8 if classes <= 256 else np.uint16)
    # Fortran's order is how NIfTI stores it.
    kept = np.empty((*geometry.shape, classes), np.float32, order="F") if probabilities else None
    for index in range(classes):
        channel = reduce(np.add, (to_native(soft[index], frame, order=1) for soft, frame in parts))
        higher = channel > best  # on ties the first class, as argmax takes it
        labels[higher] = index
        np.copyto(best, channel, where=higher)
        if kept is not None:
            kept[..., index] = channel
        del channel, higher  # before the next one is made
    return Segmentation(labels, geometry, kept)


def measure_cases(
    ensemble: Ensemble,
    cases: Sequence[LabelledCase],
    data: LabelledData,
    *,
    strict: bool,
    reporter: Reporter,
    keep: Keep | None = None,
) -> tuple[list[Row], list[SkippedScan]]:
    """Predict labelled cases and measure each prediction in the scan's own voxels.

    Not on the prepared grid, which two models need not share and where a mask has lost its thin parts: so figures of
    any two models compare, and are those of the label map that a user gets.

    Args:
        ensemble: One model or several.
        cases: With their files; they are read anew.
        data: Their data set. Its classes and channels may come in another order than the model's.
        strict: As of `each_case`, and so its errors.
        reporter: Receives the progress.
        keep: Receives each prediction.

    Returns:
        A row for each case, see `measure_case`; and what was skipped.

    Raises:
        ConfigurationError: The model is for another task or other classes.
        ScanError: A case cannot be used, or its mask lies on another grid, and `strict` is set.

    Example:
        ensemble = Ensemble([("run", load_bundle("runs/chest"))], PredictionConfig(), hardware)
        rows, skipped = measure_cases(ensemble, data.cases, data, strict=False, reporter=Reporter())
        summarize_rows(rows, data.labels, task=data.task)["dice"]
    """
    name, labels = ensemble.name, ensemble.labels
    if (ensemble.task, sorted(labels)) != (data.task, sorted(data.labels)):
        ours, theirs = (f"{one.task} of {', '.join(one.labels)}" for one in (ensemble, data))
        raise ConfigurationError(f"{name}: is for {ours}, but {data.name} for {theirs}; expected the same classes")
    classes = np.array([labels.index(label) for label in data.labels])  # of each class of the data its index here

    def read(case: LabelledCase) -> tuple[list[Prepared], Volume]:
        order = channel_order(data.channels, ensemble.channels) or range(len(case.images))
        volumes = [case.images[index].read() for index in order]
        return ensemble.prepare(volumes), volumes[0]

    def predict(case: LabelledCase, computed: tuple[Any, Volume]) -> Predicted:
        found, scan = computed
        if data.task == "classification":
            return case, data, found[classes], None
        labels = to_scan(found).labels
        # argsort inverts the order of the classes: from the model's indices to the data's.
        return case, data, np.argsort(classes).astype(labels.dtype)[labels], scan

    stages = Stages(read, lambda ready: (ensemble.compute(ready[0]), ready[1]), predict)
    return measure_each(cases, stages, strict=strict, reporter=reporter, keep=keep)


def measure_each(
    cases: Sequence[LabelledCase],
    stages: Stages[Predicted],
    *,
    strict: bool,
    reporter: Reporter,
    keep: Keep | None = None,
) -> tuple[list[Row], list[SkippedScan]]:
    """Measure labelled cases as of `each_case`; that none of them can be measured is an error."""

    def measure(case: LabelledCase, computed: Any) -> Row:
        predicted = stages.finish(case, computed)
        row = measure_case(*predicted)
        if keep is not None:
            keep(*predicted)
        return row

    named, measuring = [(case.name, case) for case in cases], Stages(stages.prepare, stages.compute, measure)
    title = f"evaluating {counted(len(cases), 'case')}"
    rows, skipped = each_case(named, measuring, title=title, strict=strict, reporter=reporter)
    if cases and not rows:
        raise DataError(
            f"none of {len(cases)} cases could be measured; the first: {skipped[0].source}: {skipped[0].reason}"
        )
    return rows, skipped


def measure_case(case: LabelledCase, data: LabelledData, predicted: np.ndarray, scan: Volume | None = None) -> Row:
    """Measure the prediction of a case.

    Args:
        case: With its mask or its classes.
        data: The data set of the case, which tells what the values of the mask mean.
        predicted: Class indices of the data, [*spatial]; of a classification the probabilities of the data's classes.
        scan: What a label map lies on.

    Returns:
        `file`, `case`, `patient`, and what `measure_segmentation`, with the unit of its distances, or
        `classification_row` returns; see `summarize_rows`.

    Raises:
        ScanError: There is no mask, it cannot be used, or it lies on another grid.
    """
    first = case.images[0].path if case.images else Path(case.mask or "")
    file = (PurePosixPath(case.name).parent / first.name).as_posix()  # as a table of files names it
    row = {"file": file, "case": case.name, "patient": case.patient}
    if scan is None:
        return row | classification_row(case.classes, predicted, data.labels, multilabel=data.multilabel)
    return row | _segmentation_row(case, data, predicted, scan)


def _segmentation_row(case: LabelledCase, data: LabelledData, predicted: np.ndarray, scan: Volume) -> Row:
    if case.mask is None:
        raise ScanError(f"{case.name}: has no mask; expected a case of a segmentation")
    mask = read_mask(case.mask)
    check_same_grid(scan, mask)
    truth = label_indices(mask.array, data, str(case.mask))
    spacing = mask.spacing or (1.0,) * mask.array.ndim  # pictures such as PNG have none
    unit = "mm" if mask.spacing else "pixels" if mask.array.ndim == 2 else "voxels"
    return {UNIT: unit, **measure_segmentation(predicted, truth, data.labels, spacing)}
