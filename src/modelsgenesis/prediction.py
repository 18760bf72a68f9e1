"""Predict one scan, or all that a folder holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import SkippedScan, Volume, read_volume, write_nifti
from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.files import write_csv, write_json
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.inference.cases import Case, find_cases
from modelsgenesis.inference.ensemble import Ensemble, Member, each_case
from modelsgenesis.inference.outputs import OutputPaths, describe_model, output_paths
from modelsgenesis.metrics.classification import CLASS_SEPARATOR, chosen_classes
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.reporting import Reporter

Models = str | Path | Sequence[str | Path]
Source = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction of one case.

    Attributes:
        name: Name of the case.
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
        predictions: One for each case that could be predicted.
        skipped: Scans that could not, with the reason; and what was left aside on purpose, which is not bad.
        kept: Label maps that were there already, where those are kept.
    """

    task: str
    predictions: tuple[Prediction, ...]
    skipped: tuple[SkippedScan, ...] = ()
    kept: tuple[Path, ...] = ()

    @property
    def failed(self) -> tuple[SkippedScan, ...]:
        """Scans that should have been predicted."""
        return tuple(scan for scan in self.skipped if scan.bad)


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
        scan: A file, a folder with one DICOM series, or one file for each channel.
        output: NIfTI to write, or a folder; by default `<scan>_seg.nii.gz` in the working folder. Of a classification
            a CSV file, by default `predictions.csv`.
        probabilities: Write the class probabilities of a segmentation as well.
        config: Overlap, flips, where windows are put together.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        token: Hub token.
        reporter: Receives downloads, and a warning of a scan that does not suit the model.

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
    return found.predictions[0]


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
        output: Where to; see `output_paths`.
        probabilities: Write the class probabilities of a segmentation as well, float32 and as large as that is.
        config: Overlap, flips, where windows are put together.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        skip_existing: Keep label maps that are there already, to resume a run that was interrupted.
        strict: A bad scan ends the run instead of being skipped.
        single: Refuse a source of several scans.
        token: Hub token.
        reporter: Receives the progress.

    Raises:
        ConfigurationError: The model does not predict, models do not agree, or an option cannot be.
        ScanError: A scan cannot be used and `strict` is set.
        DataError: The source does not exist or holds nothing, or the output cannot be written.

    Example:
        found = modelsgenesis.predict_all("runs/hippocampus", "imagesTs", output="predicted")
        [(one.path, one.voxels) for one in found.predictions], found.failed
    """
    reporter = reporter or Reporter()
    ensemble = load_ensemble(model, config, device, token=token, reporter=reporter)
    output = None if output is None else Path(output)
    cases, skipped = find_cases(source, ensemble.channels)
    sources = [Path(one) for one in _listed(source)]
    shown, count = ", ".join(map(str, sources[:3])), len(cases) + sum(scan.bad for scan in skipped)
    if count == 0:
        raise ScanError(f"{shown}: no scan to predict in it")
    # Skipped scans count: a folder of two, one of them broken, was not meant as one scan.
    if single and count > 1:
        raise ConfigurationError(f"{shown}: holds {count} scans, expected one; see predict_all for many")
    for warning in dict.fromkeys(case.warning for case in cases if case.warning):
        reporter.note(f"warning: {warning}")
    # Nothing is computed before every path is known to be free: hours of work must not end at a full name.
    inputs = [*sources, *(file for case in cases for file in case.files)]
    task: dict[str, Any] = {"task": ensemble.task, "many": count > 1}
    paths, collided = output_paths(cases, output, **task, inputs=inputs, keep=skip_existing)
    skipped += collided
    if strict and (bad := [scan for scan in skipped if scan.bad]):
        raise ScanError(f"{bad[0].source}: {bad[0].reason}")
    segments = ensemble.task == "segmentation"
    names = {str(index): name for index, name in enumerate(ensemble.labels)}
    beside = {"labels": names, **describe_model(model_names(model), ensemble)}
    kept = [one.path for one in paths if segments and skip_existing and one.path.exists()]

    def work(one: OutputPaths) -> Prediction:
        if segments:
            return _segment(ensemble, one, beside, reporter, probabilities=probabilities)
        return _classify(ensemble, one, reporter)

    named = [(one.case.images[0].source, one) for one in paths if one.path not in kept]
    predictions, failed = each_case(named, work, title="predicting", strict=strict, reporter=reporter)
    if paths and not segments:
        scores = [{f"probability {label}": score for label, score in one.scores.items()} for one in predictions]
        rows = [
            {"case": one.name, "predicted": CLASS_SEPARATOR.join(one.predicted), **soft}
            for one, soft in zip(predictions, scores, strict=True)
        ]
        write_json(paths[0].labels, beside, DataError)
        write_csv(paths[0].path, rows, DataError, ["case", "predicted"])
    return Predictions(
        task=ensemble.task, predictions=tuple(predictions), skipped=(*skipped, *failed), kept=tuple(kept)
    )


def _segment(
    ensemble: Ensemble, paths: OutputPaths, beside: dict[str, Any], reporter: Reporter, *, probabilities: bool
) -> Prediction:
    """Write a label map, and beside it what its values mean and which model predicted."""
    soft = ensemble.segment(_read(ensemble, paths.case, reporter))
    labels = soft.labels()
    if probabilities:
        write_nifti(paths.probabilities, soft.probabilities(), soft.geometry)
    write_json(paths.labels, beside, DataError)
    write_nifti(paths.path, labels, soft.geometry)  # last: where it is, everything is
    # Not np.bincount, which takes eight bytes per voxel.
    voxels = {name: int(np.count_nonzero(labels == index)) for index, name in enumerate(ensemble.labels) if index}
    written = paths.probabilities if probabilities else None
    return Prediction(name=paths.case.name, path=paths.path, voxels=voxels, probabilities=written)


def _classify(ensemble: Ensemble, paths: OutputPaths, reporter: Reporter) -> Prediction:
    """Return what belongs into the table."""
    soft = ensemble.classify(_read(ensemble, paths.case, reporter))
    scores = dict(zip(ensemble.labels, soft.tolist(), strict=True))
    chosen = zip(ensemble.labels, chosen_classes(soft, multilabel=ensemble.multilabel), strict=True)
    predicted = tuple(name for name, holds in chosen if holds)
    return Prediction(name=paths.case.name, path=paths.path, predicted=predicted, scores=scores)


def _read(ensemble: Ensemble, case: Case, reporter: Reporter) -> list[Volume]:
    """Read the channels, and say where they do not suit the model."""
    volumes = [image.read() for image in case.images]
    for warning in ensemble.warnings(volumes[0]):
        reporter.note(f"warning: {warning}")
    return volumes


def load_ensemble(
    model: Models, config: PredictionConfig | None, device: str, *, token: str | None, reporter: Reporter
) -> Ensemble:
    """Load one model or several, a folder of folds being as many as it holds.

    Raises:
        ConfigurationError: They do not predict, or not the same.
        CheckpointError: One is not a sound model.
        HubError: The Hub or a download failed.
    """
    config = config or PredictionConfig()
    hardware: Hardware = choose_hardware(device, config.precision)
    members = []
    for name in model_folders(model):
        bundle = load(name, token=token, progress=announce(reporter))
        network = hardware.place_network(bundle.network).eval()
        members.append(Member(name=public_name(name), network=network, config=bundle.config))
    if len(members) > 1:
        reporter.note(f"averaging {len(members)} models: {', '.join(member.name for member in members)}")
    return Ensemble(members, config, hardware)


def model_folders(model: Models) -> list[str | Path]:
    """Return one model or several as a list, in which the folds of a folder take its place."""
    return [fold for one in _listed(model) for fold in expand_folds(one)]


def expand_folds(model: str | Path) -> list[str | Path]:
    """Return the folds of a folder that holds `fold0`, `fold1` … and is not a model itself; else the model alone."""
    folder = Path(model)
    if not folder.is_dir() or (folder / CONFIG_NAME).exists():
        return [model]
    folds = {int(path.name[4:]): path for path in folder.glob("fold*") if path.name[4:].isdigit()}
    return [folds[fold] for fold in sorted(folds) if (folds[fold] / CONFIG_NAME).exists()] or [model]


def model_names(model: Models) -> list[str]:
    """Return what predictions may call models: no path."""
    return [public_name(one) for one in _listed(model)]


def _listed(one_or_more: Models | Source) -> Sequence[str | Path]:
    return [one_or_more] if isinstance(one_or_more, (str, Path)) else one_or_more
