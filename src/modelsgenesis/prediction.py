"""Predict one scan, from its file or from memory, or all that a folder holds."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import nibabel as nib
import numpy as np

from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import SkippedScan, nifti_image, skipped_notes, write_nifti
from modelsgenesis.data.memory import Scan
from modelsgenesis.data.predictions import is_prediction, labels_record, written_files
from modelsgenesis.errors import DataError, ScanError, counted, require
from modelsgenesis.files import read_json, reason_of, write_csv, write_json
from modelsgenesis.hardware import choose_hardware, predicting_hardware
from modelsgenesis.inference.cases import Case, find_case, find_cases, output_paths, preview_of
from modelsgenesis.inference.ensemble import Ensemble, Prepared, Segmentation, to_scan
from modelsgenesis.inference.label_tables import write_label_tables
from modelsgenesis.inference.stages import Stages, each_case
from modelsgenesis.metrics.measures import CLASS_SEPARATOR, chosen_classes
from modelsgenesis.models import Download, GenesisModel, load, public_name
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports.previews import Entry, draw_preview, structure_legend

if TYPE_CHECKING:
    from monai.transforms.compose import Compose

Paths = str | Path | Sequence[str | Path]
Model = str | Path | GenesisModel
Models = Model | Sequence[Model]
_UNITS = {"mL": "volume_ml", "mm²": "area_mm2"}
SIZES = ("voxels", *_UNITS.values())
"""What is said of the size of each segmented structure, by the names of JSON and of the columns of tables."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction:
    """The prediction of one case.

    Attributes:
        name: Name of the case.
        file: Its file as tables name it, relative to the folder that was searched.
        path: The label map that was written, of a classification the table; None where nothing was written.
        voxels: Of a segmentation: number of voxels by class name, the background left out.
        volume_ml: Of a segmented volume: millilitres by class name.
        area_mm2: Of a segmented plane that has a pixel size: square millimetres by class name.
        predicted: Of a classification: the most probable class; of one whose classes are independent all of at least
            0.5.
        scores: Of a classification: probability by class name.
        preview: PNG of the scan with the prediction, where one was asked for.
        segmentation: Label map and probabilities in memory; None where `predict_all` wrote them.
    """

    name: str
    file: str
    path: Path | None = None
    voxels: dict[str, int] = field(default_factory=dict)
    volume_ml: dict[str, float] = field(default_factory=dict)
    area_mm2: dict[str, float] = field(default_factory=dict)
    predicted: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    preview: Path | None = None
    segmentation: Segmentation | None = None

    @property
    def image(self) -> nib.Nifti1Image:
        """The label map in the scan's own shape, affine and orientation, for `nib.save` or a viewer.

        Raises:
            DataError: It is the prediction of a classification.
        """
        if self.segmentation is not None:
            return nifti_image(self.segmentation.labels, self.segmentation.geometry)
        is_map = self.path and self.path.is_file() and self.path.suffix != ".csv"
        require(is_map, DataError, f"{self.name}: was classified, or not predicted, so it has no label map")
        return nib.Nifti1Image.from_filename(str(self.path))

    @property
    def probabilities(self) -> nib.Nifti1Image | None:
        """Those of a segmentation on the same grid, classes along the last axis; None if they were not asked for."""
        if self.segmentation is not None:
            soft = self.segmentation.probabilities
            return None if soft is None else nifti_image(soft, self.segmentation.geometry)
        soft_path = self.path and written_files(self.path)[2]
        return nib.Nifti1Image.from_filename(str(soft_path)) if soft_path and soft_path.is_file() else None

    @property
    def labels(self) -> np.ndarray:
        """The label map: class indices in the scan's own shape."""
        return np.asanyarray(self.image.dataobj) if self.segmentation is None else self.segmentation.labels

    @property
    def lines(self) -> list[str]:
        """What was found, a class a line."""
        if self.scores:
            scores = [f"{name} {score:.3f}" for name, score in self.scores.items()]
            return [" + ".join(self.predicted) or "none", *scores]
        return [f"{name}: {', '.join(sizes)}" for name, sizes in self.sizes.items()]

    @property
    def sizes(self) -> dict[str, list[str]]:
        """What is told of the size of each structure: its voxels or pixels, and mL or mm² where these are known."""
        counted = "voxels" if self.volume_ml else "pixels"
        told = {name: [f"{count:,} {counted}"] for name, count in self.voxels.items()}
        for unit, what in _UNITS.items():
            for name, size in getattr(self, what).items():
                told.setdefault(name, []).append(f"{four_digits(size)} {unit}")
        return told

    def to_dict(self) -> dict[str, Any]:
        """Return as JSON values its names, and its sizes or probabilities."""
        found = {what: getattr(self, what) for what in SIZES if getattr(self, what)}
        if self.scores:
            found = {"predicted": list(self.predicted), "probabilities": self.scores}
        found |= {"preview": str(self.preview)} if self.preview else {}
        return {"file": self.file, "case": self.name, "path": self.path and str(self.path), **found}

    def __repr__(self) -> str:
        return f"Prediction({self.name}; {'; '.join(self.lines)})"

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(self.name)}</b><br>{'<br>'.join(map(html.escape, self.lines))}"


def four_digits(size: float) -> str:
    """Return a size as people write it: 0.1234, 12.34, 12,345."""
    return f"{size:,.0f}" if size >= 1000 else f"{size:.4g}"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What `predict_all` wrote.

    Attributes:
        task: `"segmentation"` or `"classification"`.
        predictions: One for each case that could be predicted.
        skipped: Scans that could not, with the reason; and what was left aside on purpose, which is not bad.
        kept: Label maps that were there already, where those are kept.
        table: A row for each case with its sizes or probabilities; None for the label map of one scan.
        about: What predicted: the model, its classes, overlap, flips, number format and device.
    """

    task: str
    predictions: tuple[Prediction, ...]
    skipped: tuple[SkippedScan, ...] = ()
    kept: tuple[Path, ...] = ()
    table: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[SkippedScan, ...]:
        """Scans that should have been predicted."""
        return tuple(scan for scan in self.skipped if scan.bad)


def predict(
    model: Models,
    scan: Scan | Sequence[Scan],
    *,
    affine: Any = None,
    output: str | Path | None = None,
    probabilities: bool = False,
    config: PredictionConfig | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    **download: Unpack[Download],
) -> Prediction:
    """Predict one scan; see `predict_all` for many.

    Args:
        model: One or several; see `predict_all`.
        scan: A file, or a folder with one DICOM series; a nibabel image; an array or a tensor, [*spatial] or
            [channels, *spatial]. Or a list of these, one for each channel.
        affine: Of an array, (4, 4), from voxel indices to mm in RAS+; a volume needs one.
        output: NIfTI to write, or a folder; of a classification a CSV file, or a folder. By default nothing is written.
        probabilities: Compute, and write, the class probabilities of a segmentation as well.
        config: Overlap, flips, where windows are put together.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        reporter: Receives downloads, and a warning of a scan that does not suit the model.
        download: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as of `load`.

    Returns:
        The prediction; `.image` is the label map in the scan's own geometry.

    Raises:
        ConfigurationError: The model does not predict, or the source holds several scans.
        ScanError: The scan cannot be read or used.
        DataError: There is no such file, or the output cannot be written.

    Example:
        prediction = modelsgenesis.predict("runs/hippocampus", nib.load("scan.nii.gz"))
        prediction.volume_ml  # {'Anterior': 1.723, 'Posterior': 1.502}
        nib.save(prediction.image, "scan_seg.nii.gz")
    """
    reporter = reporter or Reporter()
    ensemble, about = load_ensemble(model, config, device, reporter, **download)
    dims = len(ensemble.members[0][1].config.patch_size)
    case, path = find_case(scan, ensemble.channels, dims=dims, affine=affine, reporter=reporter), None
    if output is not None:
        [(_, path)], _ = output_paths([case], Path(output), task=ensemble.task, many=False)
    finish = partial(_finish_case, ensemble, about, probabilities)
    [found], _ = _predict_each([(case, path)], ensemble, finish, strict=True, reporter=reporter)
    if path is not None:
        if ensemble.task == "segmentation":
            write_label_tables(written_files(path), ensemble.labels)
        else:
            _write_table(path, [found], about)
    return found


def predict_all(
    model: Models,
    source: Paths,
    *,
    output: str | Path | None = None,
    probabilities: bool = False,
    preview: bool = False,
    config: PredictionConfig | None = None,
    device: str = "auto",
    skip_existing: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **download: Unpack[Download],
) -> Predictions:
    """Predict every scan of a source.

    Label maps are written in each scan's own shape, affine and orientation, with a JSON file beside them that names
    the classes and their sizes; of several scans, and of classes, a table. Names and colours of the labels are written
    for 3D Slicer (`.ctbl`) and ITK-SNAP (`_labels.txt`), once for all. A scan that cannot be used is reported and
    costs the others nothing. Files that are there already are replaced, but never a scan.

    Args:
        model: A run, a folder, or `org/repo`; a folder of folds, `fold0`, `fold1` …; what `from_pretrained` returned;
            or several of these. The probabilities of several are averaged.
        source: A file, a folder searched to any depth, a DICOM series, a glob, or several of these. As many files as
            the model has channels are one case; in folders nnU-Net's `_0000` tells channels.
        output: Where to; see `output_paths`.
        probabilities: Write the class probabilities of a segmentation as well, float32 and as large as that is.
        preview: Draw each prediction, too: `<scan>_preview.png` shows three planes through the largest structure, and
            names and sizes of all; of a classification the scan with its probabilities.
        config: Overlap, flips, where windows are put together.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        skip_existing: Keep label maps that are there already, to resume a run that was interrupted.
        strict: A bad scan ends the run instead of being skipped.
        dry_run: Predict and write nothing: the predictions that are returned have names and paths alone.
        reporter: Receives the progress.
        download: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as of `load`.

    Raises:
        ConfigurationError: The model does not predict, models do not agree, or an option cannot be.
        ScanError: A scan cannot be used and `strict` is set.
        DataError: The source does not exist or holds nothing, or the output cannot be written.

    Example:
        found = modelsgenesis.predict_all("runs/hippocampus", "imagesTs", output="predicted")
        [(one.path, one.volume_ml) for one in found.predictions], found.failed
    """
    reporter = reporter or Reporter()
    ensemble, about = load_ensemble(model, config, device, reporter, **download)
    segments = ensemble.task == "segmentation"
    cases, skipped = find_cases(source, ensemble.channels, single=False, reporter=reporter)
    for told in skipped_notes([scan for scan in skipped if not scan.bad]):
        reporter.note(told)
    many = len(cases) + sum(scan.bad for scan in skipped) > 1
    # Nothing is computed before every path is known to be free: hours of work must not end at a full name.
    target = None if output is None else Path(output)
    keep = skip_existing and segments
    outputs, table = output_paths(cases, target, task=ensemble.task, many=many, keep=keep, preview=preview)
    if strict and (bad := [scan for scan in skipped if scan.bad]):
        raise ScanError(f"{bad[0].source}: {bad[0].reason}")
    kept = tuple(path for _, path in outputs if keep and path.exists())
    asked = [(case, path) for case, path in outputs if path not in kept]
    drawn = {case.name: preview_of(case, path) for case, path in asked if preview}
    names = [{"name": case.name, "file": case.file, "path": path} for case, path in asked]
    predictions, failed = [Prediction(**one, preview=drawn.get(one["name"])) for one in names], []
    if not dry_run:
        finish = partial(_finish_case, ensemble, about, probabilities, keep=False, preview=preview)
        predictions, failed = _predict_each(asked, ensemble, finish, strict=strict, reporter=reporter)
        earlier = [_saved_prediction(case, path, about, reporter) for case, path in outputs if path in kept]
        table = table if predictions or earlier else None
        if table:
            _write_table(table, sorted([*predictions, *earlier], key=attrgetter("name")), about)
        if segments and predictions:
            write_label_tables(written_files(table or outputs[0][1]), ensemble.labels)
    return Predictions(
        task=ensemble.task,
        predictions=tuple(predictions),
        skipped=(*skipped, *failed),
        kept=kept,
        table=table,
        about=about,
    )


def _predict_each(
    asked: Sequence[tuple[Case, Path | None]],
    ensemble: Ensemble,
    finish: Callable[[Any, Any], Prediction],
    *,
    strict: bool,
    reporter: Reporter,
) -> tuple[list[Prediction], list[SkippedScan]]:
    def prepare(asked: tuple[Case, Path | None]) -> list[Prepared]:
        return ensemble.prepare([image.read() for image in asked[0].images])

    named = [(case.images[0].source, (case, path)) for case, path in asked]
    stages, title = Stages(prepare, ensemble.compute, finish), f"predicting {counted(len(named), 'scan')}"
    return each_case(named, stages, title=title, strict=strict, reporter=reporter)


def _finish_case(
    ensemble: Ensemble,
    about: dict[str, Any],
    soft: bool,
    asked: tuple[Case, Path | None],
    computed: Any,
    *,
    keep: bool = True,
    preview: bool = False,
) -> Prediction:
    """Return what was found; of a segmentation write the label map, beside it what its values mean and what made it."""
    case, path = asked
    names: dict[str, Any] = {"name": case.name, "file": case.file, "path": path}
    if ensemble.task == "classification":
        chosen = compress(ensemble.labels, chosen_classes(computed, multilabel=ensemble.multilabel))
        named = dict(zip(ensemble.labels, computed.tolist(), strict=True))
        result = Prediction(**names, predicted=tuple(chosen), scores=named)
        return replace(result, **_draw(ensemble, case, result, preview=preview)) if path else result
    found = to_scan(computed, probabilities=soft)
    sizes = _sizes(found, ensemble.labels)
    if path is not None:
        files = written_files(path)
        files.probabilities.unlink(missing_ok=True)  # of a prediction which this one replaces
        if found.probabilities is not None:
            write_nifti(files.probabilities, found.probabilities, found.geometry)
        write_json(files.about, {**about, **sizes}, DataError)
        names |= _draw(ensemble, case, Prediction(**names, **sizes), found.labels, preview=preview)
        write_nifti(path, found.labels, found.geometry)  # last: where it is, everything is
    return Prediction(**names, **sizes, segmentation=found if keep else None)


def _draw(
    ensemble: Ensemble, case: Case, found: Prediction, labels: np.ndarray | None = None, *, preview: bool
) -> dict[str, Path]:
    """Draw a prediction beside it, if asked to, in the place of an earlier one's picture.

    A picture that cannot be drawn is a warning, and no end of a job over many scans.
    """
    path, classes = preview_of(case, cast("Path", found.path)), ensemble.labels
    if is_prediction(path):  # else it is somebody else's
        path.unlink()
    if not preview:
        return {}
    if labels is None:
        legend = [Entry(f"{name} {score:.3f}", bold=name in found.predicted) for name, score in found.scores.items()]
    else:  # mL or mm² where these are known
        legend = structure_legend(classes, {name: told[-1] for name, told in found.sizes.items() if found.voxels[name]})
    try:
        return {"preview": draw_preview(path, case.name, case.images[0].read(), legend, labels, len(classes) - 1)}
    except Exception as problem:  # any at all: the prediction is there
        ensemble.reporter.note(f"warning: {path} could not be drawn: {reason_of(problem)}")
        return {}


def _sizes(found: Segmentation, labels: Sequence[str]) -> dict[str, Any]:
    """Return the voxels of each class, and mL or mm² where the scan has a voxel size."""
    # Not np.bincount, which takes eight bytes per voxel.
    voxels = {name: int(np.count_nonzero(found.labels == index)) for index, name in enumerate(labels) if index}
    unit, size = found.geometry.unit
    told = {name: float(f"{count * size:.6g}") for name, count in voxels.items()}
    return {"voxels": voxels} | ({_UNITS[unit]: told} if unit in _UNITS else {})


def _saved_prediction(case: Case, path: Path, about: Mapping[str, Any], reporter: Reporter) -> Prediction:
    """Return what the JSON file beside a label map that is kept says of it; nothing where that is somebody else's."""
    content = read_json(written_files(path)[1], DataError) if is_prediction(path) else {}
    if content and content.get("model") != about["model"]:
        reporter.note(f"warning: {path} is kept, but of another model: {content.get('model')}")
    sizes = {what: content[what] for what in SIZES if isinstance(content.get(what), dict)}
    return Prediction(name=case.name, file=case.file, path=path, **sizes)


def _write_table(path: Path, predictions: Sequence[Prediction], about: dict[str, Any]) -> None:
    """Write a row for each case, and beside it what made the predictions; `file` and `case` join with other tables."""
    rows = []
    for one in predictions:
        row: dict[str, Any] = {"file": one.file, "case": one.name}
        if one.scores:
            row["predicted"] = CLASS_SEPARATOR.join(one.predicted)
            row |= {f"prob_{name}": score for name, score in one.scores.items()}
        row |= {f"{what}_{name}": size for what in SIZES for name, size in getattr(one, what).items()}
        rows.append(row)
    write_json(written_files(path)[1], about, DataError)
    write_csv(path, rows, DataError, ["file", "case"])


def load_ensemble(
    model: Models, config: PredictionConfig | None, device: str, reporter: Reporter, **download: Unpack[Download]
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
    is_open = config.precision == "auto"
    hardware = choose_hardware(device, "float32" if is_open else config.precision)
    hardware = predicting_hardware(hardware.device) if is_open else hardware
    members = []
    for name in model_folders(model):
        bundle = load(name, progress=reporter.download, **download)
        hardware.place(bundle.network)
        members.append((public_name(name), bundle))
    if len(members) > 1:
        reporter.note(f"averaging {len(members)} models: {', '.join(name for name, _ in members)}")
    names = [public_name(one) for one in ([model] if isinstance(model, Model) else model)]
    ensemble = Ensemble(members, config, hardware, reporter)
    about = {
        **labels_record(ensemble.labels),
        "model": names[0] if len(names) == 1 else names,
        "members": len(members),
        "flips": config.to_dict()["flips"],
        "overlap": config.overlap,
        "precision": hardware.precision,
        "device": hardware.device.type,
    }
    return ensemble, about


def model_folders(model: Models) -> list[Model]:
    """Return one model or several as a list, in which the folds of a folder, `fold0`, `fold1` …, take its place."""
    found: list[Model] = []
    for one in model if isinstance(model, (list, tuple)) else [cast("Model", model)]:
        folds: list[Path] = []
        if isinstance(one, (str, Path)) and not (Path(one) / CONFIG_NAME).exists():
            folds = [path.parent for path in Path(one).glob(f"fold*/{CONFIG_NAME}") if path.parent.name[4:].isdecimal()]
        found += sorted(folds, key=lambda fold: int(fold.name[4:])) or [one]
    return found


def monai_transforms(
    model: Model, *, image: str = "image", label: str = "label", **download: Unpack[Download]
) -> "Compose":
    """Return the preparation of a model's scans as transforms of MONAI's, for dictionaries.

    They read, orient, resample, scale and pad as `GenesisModel.preprocess` does, to the same values, and bring a label
    map to the same grid. What augments or crops comes after them.

    Args:
        model: A name, a folder, or what `from_pretrained` returned.
        image: Key of the scan: a path, a nibabel image, an array with its affine under the key `affine`; or a list of
            these, one for each channel.
        label: Key of its label map, where a dictionary has one: a path, a nibabel image, or an array. Classes of a
            classification stay as they are.
        download: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as of `load`.

    Returns:
        Of a dictionary the same with tensors that carry an affine: float32 [channels, *spatial], int32 [1, *spatial].

    Raises:
        HubError: No model has this name, or the Hub or the download failed.

    Example:
        transforms = Compose([modelsgenesis.monai_transforms(model), RandFlipd(["image", "label"], 0.5)])
        loader = DataLoader(Dataset([{"image": "a.nii.gz", "label": "a_seg.nii.gz"}], transforms), batch_size=1)
    """
    from monai.transforms.compose import Compose

    from modelsgenesis.inference.transforms import PrepareScand

    known = model if isinstance(model, GenesisModel) else load(model, **download)
    return Compose([PrepareScand(known.config, cast("Any", known.network).size_divisor, image, label)])
