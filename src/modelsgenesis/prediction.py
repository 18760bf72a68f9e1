"""Predict one scan, or all that a folder holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis._version import __version__
from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import SkippedScan, read_volume, write_nifti
from modelsgenesis.errors import DataError, ScanError
from modelsgenesis.files import write_csv, write_json
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.inference.cases import Case, find_cases, output_paths, written_files
from modelsgenesis.inference.ensemble import Ensemble, each_case
from modelsgenesis.metrics.measures import CLASS_SEPARATOR, chosen_classes
from modelsgenesis.models import load, public_name
from modelsgenesis.reporting import Reporter

Paths = str | Path | Sequence[str | Path]


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
    model: Paths,
    scan: Paths,
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
    return predict_all(model, scan, **options, token=token, reporter=reporter, strict=True, single=True).predictions[0]


def predict_all(
    model: Paths,
    source: Paths,
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
        source: A file, a folder searched to any depth, a DICOM series, a glob, or several of these. As many files as
            the model has channels are one case; in folders nnU-Net's `_0000` tells channels.
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
    ensemble, about = load_ensemble(model, config, device, token=token, reporter=reporter)
    about = {"labels": {str(index): name for index, name in enumerate(ensemble.labels)}, **about}
    segments = ensemble.task == "segmentation"
    cases, skipped = find_cases(source, ensemble.channels, single=single, reporter=reporter)
    many = len(cases) + sum(scan.bad for scan in skipped) > 1
    # Nothing is computed before every path is known to be free: hours of work must not end at a full name.
    target = None if output is None else Path(output)
    outputs = output_paths(cases, target, task=ensemble.task, many=many, keep=skip_existing and segments)
    if strict and (bad := [scan for scan in skipped if scan.bad]):
        raise ScanError(f"{bad[0].source}: {bad[0].reason}")
    kept = tuple(path for _, path in outputs if segments and skip_existing and path.exists())
    named = [(case.images[0].source, (case, path)) for case, path in outputs if path not in kept]
    work = partial(_predict_case, ensemble, about, probabilities)
    predictions, failed = each_case(named, work, title="predicting", strict=strict, reporter=reporter)
    if outputs and not segments:
        table, beside, _ = written_files(outputs[0][1])
        rows = []
        for one in predictions:
            scores = {f"probability {label}": score for label, score in one.scores.items()}
            rows.append({"case": one.name, "predicted": CLASS_SEPARATOR.join(one.predicted), **scores})
        write_json(beside, about, DataError)
        write_csv(table, rows, DataError, ["case", "predicted"])
    return Predictions(task=ensemble.task, predictions=tuple(predictions), skipped=(*skipped, *failed), kept=kept)


def _predict_case(ensemble: Ensemble, about: dict[str, Any], soft: bool, asked: tuple[Case, Path]) -> Prediction:
    """Predict a case; of a segmentation write the label map, and beside it what its values mean and what made it."""
    case, path = asked
    if ensemble.task == "classification":
        scores = ensemble.classify([image.read() for image in case.images])
        chosen = compress(ensemble.labels, chosen_classes(scores, multilabel=ensemble.multilabel))
        named = dict(zip(ensemble.labels, scores.tolist(), strict=True))
        return Prediction(name=case.name, path=path, predicted=tuple(chosen), scores=named)
    found = ensemble.segment([image.read() for image in case.images], probabilities=soft)
    _, beside, soft_path = written_files(path)
    if found.probabilities is not None:
        write_nifti(soft_path, found.probabilities, found.geometry)
    write_json(beside, about, DataError)
    write_nifti(path, found.labels, found.geometry)  # last: where it is, everything is
    # Not np.bincount, which takes eight bytes per voxel.
    voxels = {name: int(np.count_nonzero(found.labels == index)) for index, name in enumerate(ensemble.labels) if index}
    return Prediction(name=case.name, path=path, voxels=voxels, probabilities=soft_path if soft else None)


def load_ensemble(
    model: Paths, config: PredictionConfig | None, device: str, *, token: str | None, reporter: Reporter
) -> tuple[Ensemble, dict[str, Any]]:
    """Load one model or several, a folder of folds being as many as it holds.

    Returns:
        The ensemble; and which model it is, how it predicts, and in which numbers on which kind of device. Nothing in
        that names a file or a patient: it may be published beside the predictions.

    Raises:
        ConfigurationError: They do not predict, or not the same.
        CheckpointError: One is not a sound model.
        HubError: The Hub or a download failed.
    """
    config = config or PredictionConfig()
    hardware = choose_hardware(device, config.precision)
    members = []
    for name in model_folders(model):
        bundle = load(name, token=token, progress=reporter.download)
        hardware.place(bundle.network)
        members.append((public_name(name), bundle))
    if len(members) > 1:
        reporter.note(f"averaging {len(members)} models: {', '.join(name for name, _ in members)}")
    names = [public_name(one) for one in ([model] if isinstance(model, (str, Path)) else model)]
    about = {
        "model": names[0] if len(names) == 1 else names,
        "members": len(members),
        "flips": config.to_dict()["flips"],
        "overlap": config.overlap,
        "precision": hardware.precision,
        "device": hardware.device.type,
        "library_name": "modelsgenesis",
        "library_version": __version__,
    }
    return Ensemble(members, config, hardware, reporter), about


def model_folders(model: Paths) -> list[str | Path]:
    """Return one model or several as a list, in which the folds of a folder, `fold0`, `fold1` …, take its place."""
    found: list[str | Path] = []
    for one in [model] if isinstance(model, (str, Path)) else model:
        folds = [path.parent for path in Path(one).glob(f"fold*/{CONFIG_NAME}") if path.parent.name[4:].isdecimal()]
        is_model = (Path(one) / CONFIG_NAME).exists()
        found += [one] if is_model or not folds else sorted(folds, key=lambda fold: int(fold.name[4:]))
    return found
