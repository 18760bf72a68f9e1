"""Prediction: one scan, or all that a folder holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import SkippedScan, Volume, read_volume, write_nifti
from modelsgenesis.errors import ConfigurationError, ScanError
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.inference.cases import Case, find_cases
from modelsgenesis.inference.ensemble import (
    Member,
    check_members,
    classify_case,
    native_labels,
    native_probabilities,
    prepare_for,
    segment_case,
    usable_contract,
)
from modelsgenesis.inference.measuring import each_case
from modelsgenesis.inference.outputs import Place, describe_model, place_answers, place_table, write_labels, write_table
from modelsgenesis.metrics.classification import chosen_classes
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.reporting import Reporter

Models = str | Path | Sequence[str | Path]
Source = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to one case.

    Attributes:
        name: Of the case.
        path: The label map; of a classification the table that all cases share.
        voxels: Of a segmentation: number of voxels by class name, the background left out.
        probabilities: Of a segmentation: the file of probabilities, None if not asked for.
        predicted: Of a classification: the most probable class; of one whose classes are independent all of at least
            0.5.
        scores: Of a classification: probability by class name.
    """

    name: str
    path: Path
    voxels: dict[str, int] = field(default_factory=dict)
    probabilities: Path | None = None
    predicted: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """The label map, read from its file: class indices in the scan's own shape."""
        return read_volume(self.path).array


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What `predict_all` wrote.

    Attributes:
        task: `"segmentation"` or `"classification"`.
        answers: One a case that could be predicted.
        refused: Scans that could not, with the reason; and what was left aside on purpose, which is not bad.
        skipped: Answers that were there already, where those are kept.
    """

    task: str
    answers: tuple[Prediction, ...]
    refused: tuple[SkippedScan, ...] = ()
    skipped: tuple[Path, ...] = ()

    @property
    def failed(self) -> tuple[SkippedScan, ...]:
        """Scans that should have got an answer."""
        return tuple(refusal for refusal in self.refused if refusal.bad)


def predict(
    model: Models,
    scan: Source,
    *,
    output: str | Path | None = None,
    probabilities: bool = False,
    config: PredictionConfig | None = None,
    device: str = "auto",
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Prediction:
    """Predict one scan; see `predict_all` for many, and for the arguments.

    Args:
        model: One or several; see `predict_all`.
        scan: A file, a folder with one DICOM series, or one file a channel.
        output: NIfTI to write, or a folder; by default `<scan>_seg.nii.gz` in the working folder. Of a classification
            a CSV or JSON file, by default `predictions.csv`.
        probabilities: Write the class probabilities of a segmentation as well.
        config: Overlap, flips, where windows are put together.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        token: Of the Hub.
        reporter: Is told of downloads, and of a scan that does not suit the model.

    Returns:
        The answer.

    Raises:
        ConfigurationError: The model does not predict, or the source holds several scans.
        ScanError: The scan cannot be read or used.
        DataError: There is no such file, or the output cannot be written.

    Example:
        prediction = modelsgenesis.predict("runs/hippocampus", "scan.nii.gz")
        prediction.voxels  # {'Anterior': 1723, 'Posterior': 1502}
    """
    options = {"output": output, "probabilities": probabilities, "config": config, "device": device}
    found = predict_all(model, scan, **options, token=token, reporter=reporter, strict=True, single=True)
    return found.answers[0]


def predict_all(
    model: Models,
    source: Source,
    *,
    output: str | Path | None = None,
    probabilities: bool = False,
    config: PredictionConfig | None = None,
    device: str = "auto",
    skip_existing: bool = False,
    strict: bool = False,
    single: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Predictions:
    """Predict every scan of a source.

    Label maps are written in each scan's own shape, affine and orientation, with a JSON file beside them that names
    the classes; classes as one table. A scan that cannot be used is reported and costs the others nothing. Files
    that are there already are replaced, but never a scan.

    Args:
        model: A run, a folder, or `org/repo`; a folder of folds, `fold0`, `fold1` …; or several of these. The
            probabilities of several are averaged.
        source: A file, a folder searched to any depth, a DICOM series, a glob, MedMNIST's `.npz`, or several of
            these. As many files as the model has channels are one case; in folders nnU-Net's `_0000` tells channels.
        output: Where to; see `place_answers` and `place_table`.
        probabilities: Write the class probabilities of a segmentation as well, float32 and as large as that is.
        config: Overlap, flips, where windows are put together.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        skip_existing: Keep label maps that are there already, to go on with a run that was interrupted.
        strict: A bad scan ends the run instead of being left out.
        single: Refuse a source of several scans.
        token: Of the Hub.
        reporter: Is told the progress.

    Returns:
        The answers, and what was refused.

    Raises:
        ConfigurationError: The model does not predict, models do not agree, or an option cannot be.
        ScanError: A scan cannot be used and `strict` is set.
        DataError: The source does not exist or holds nothing, or the output cannot be written.

    Example:
        found = modelsgenesis.predict_all("runs/hippocampus", "imagesTs", output="answers")
        [(answer.path, answer.voxels) for answer in found.answers], found.failed
    """
    reporter, config = reporter or Reporter(), config or PredictionConfig()
    hardware = choose_hardware(device, config.precision)
    members = load_members(model, hardware, token=token, reporter=reporter)
    task, output = members[0].config.task, None if output is None else Path(output)
    cases, refused = find_cases(source, members[0].config.input.channels)
    sources = [Path(one) for one in ([source] if isinstance(source, (str, Path)) else source)]
    shown, count = ", ".join(map(str, sources[:3])), len(cases) + sum(refusal.bad for refusal in refused)
    if count == 0:
        raise ScanError(f"{shown}: no scan to predict in it")
    if single and count > 1:
        raise ConfigurationError(f"{shown}: holds {count} scans, expected one; see predict_all for many")
    for warning in dict.fromkeys(case.warning for case in cases if case.warning):
        reporter.note(f"warning: {warning}")
    inputs = [*sources, *(file for case in cases for file in case.files)]
    if task == "classification":
        places, kept = [Place(case, place_table(output, inputs)) for case in cases], []
    else:
        keep = skip_existing
        places, wrong = place_answers(cases, output, many=count > 1, inputs=inputs, keep=keep)
        refused += wrong
        kept = [place.path for place in places if keep and place.path.exists()]
    if strict and (bad := [refusal for refusal in refused if refusal.bad]):
        raise ScanError(f"{bad[0].source}: {bad[0].reason}")
    about = describe_model(model_names(model), len(members), config, hardware)
    work = _Work(members, config, hardware, reporter, probabilities, about)
    named = [(place.case.images[0].source, place) for place in places if place.path not in kept]
    answer = work.classify if task == "classification" else work.segment
    answers, wrong = each_case(named, answer, title="predicting", strict=strict, reporter=reporter)
    if task == "classification" and places:
        rows = [(one.name, one.predicted, one.scores) for one in answers]
        write_table(places[0].path, rows, members[0].config.labels, about)
    return Predictions(task=task, answers=tuple(answers), refused=(*refused, *wrong), skipped=tuple(kept))


@dataclass(frozen=True)
class _Work:
    """Answers one case after the other."""

    members: list[Member]
    config: PredictionConfig
    hardware: Hardware
    reporter: Reporter
    probabilities: bool
    model: dict[str, Any]

    def segment(self, place: Place) -> Prediction:
        """Write a label map."""
        prepared = prepare_for(self.members, self._read(place.case))
        geometry, classes = prepared[0].frame.geometry, self.members[0].config.labels
        answers = segment_case(prepared, config=self.config, hardware=self.hardware)
        del prepared  # not needed any more, and large
        labels = native_labels(answers)
        if self.probabilities:
            write_nifti(place.probabilities, native_probabilities(answers), geometry)
        write_labels(place, classes, self.model)
        write_nifti(place.path, labels, geometry)  # last: where it is, everything is
        # Not np.bincount, which takes eight bytes a voxel.
        voxels = {name: int(np.count_nonzero(labels == index)) for index, name in enumerate(classes) if index}
        written = place.probabilities if self.probabilities else None
        return Prediction(name=place.case.name, path=place.path, voxels=voxels, probabilities=written)

    def classify(self, place: Place) -> Prediction:
        """Return what belongs into the table."""
        soft = classify_case(self.members, self._read(place.case), config=self.config, hardware=self.hardware)
        config = self.members[0].config
        scores = dict(zip(config.labels, soft.tolist(), strict=True))
        chosen = zip(config.labels, chosen_classes(soft, multilabel=config.multilabel), strict=True)
        predicted = tuple(name for name, holds in chosen if holds)
        return Prediction(name=place.case.name, path=place.path, predicted=predicted, scores=scores)

    def _read(self, case: Case) -> list[Volume]:
        """Read the channels, and say where they do not suit the model."""
        volumes = [image.read() for image in case.images]
        warnings = [usable_contract(volumes[0], member.config.input)[1] for member in self.members]
        for warning in dict.fromkeys(filter(None, warnings)):
            self.reporter.note(f"warning: {warning}")
        return volumes


def load_members(model: Models, hardware: Hardware, *, token: str | None, reporter: Reporter) -> list[Member]:
    """Load one model or several, a folder of folds being as many as it holds.

    Raises:
        ConfigurationError: They do not predict, or not the same.
        CheckpointError: One is no sound model.
        HubError: The Hub or a download failed.
    """
    members = []
    for name in model_folders(model):
        bundle = load(name, token=token, progress=announce(reporter))
        network = hardware.place_network(bundle.network).eval()
        members.append(Member(name=public_name(name), network=network, config=bundle.config))
    check_members(members)
    if len(members) > 1:
        reporter.note(f"the mean of {len(members)} models: {', '.join(member.name for member in members)}")
    return members


def model_folders(model: Models) -> list[str | Path]:
    """Return one model or several as a list, in which the folds of a folder take its place."""
    return [fold for one in _listed(model) for fold in expand_folds(one)]


def expand_folds(model: str | Path) -> list[str | Path]:
    """Return the folds of a folder that holds `fold0`, `fold1` … and is no model itself; else the model alone."""
    folder = Path(model)
    if not folder.is_dir() or (folder / CONFIG_NAME).exists():
        return [model]
    folds = {int(path.name[4:]): path for path in folder.glob("fold*") if path.name[4:].isdigit()}
    return [folds[fold] for fold in sorted(folds) if (folds[fold] / CONFIG_NAME).exists()] or [model]


def model_names(model: Models) -> list[str]:
    """Return what answers may call models: no path."""
    return [public_name(one) for one in _listed(model)]


def _listed(model: Models) -> Sequence[str | Path]:
    return [model] if isinstance(model, (str, Path)) else model
