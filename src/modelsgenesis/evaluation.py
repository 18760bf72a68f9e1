"""Measure a model, or predictions that are saved already, on labelled data."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import SkippedScan, dataset_json, file_stem
from modelsgenesis.data.cases import LabelledCase, LabelledData, label_indices, read_mask
from modelsgenesis.data.finding import bare_name, find_patients, holds_images
from modelsgenesis.data.labelled import lists_images, read_labelled
from modelsgenesis.data.predictions import names_beside
from modelsgenesis.data.reading import reader_of
from modelsgenesis.errors import DataError, ScanError, printable, require, some
from modelsgenesis.files import parsing, read_csv, read_json, write_csv, write_json
from modelsgenesis.inference.cases import TABLE, check_outputs, match_channels, output_name
from modelsgenesis.inference.ensemble import Keep, Predicted, measure_cases, measure_each
from modelsgenesis.inference.stages import Stages
from modelsgenesis.metrics.measures import Row, Summary, explanations, flat, summarize_rows
from modelsgenesis.metrics.tables import ResultsTable, basis_of, results_table
from modelsgenesis.models import Download, public_name
from modelsgenesis.prediction import Models, load_ensemble, model_folders
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import write_report
from modelsgenesis.reports.cases import PREDICTIONS, KeptCases
from modelsgenesis.reports.pretraining import write_refused
from modelsgenesis.training.run import RUN_NAME
from modelsgenesis.training.splits import Split, check_split, read_split

RESULTS_NAME, CASES_NAME = "results.json", "cases.csv"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured.

    Attributes:
        folder: Holds `results.json`, its table as `results.csv`, `results.md` and `results.tex`, `cases.csv`, the page
            `report.html`, and the predictions in `predictions/`.
        summary: By metric its value and 95% interval over patients; see `Summary`.
        table: The same as a table.
        rows: One for each case.
        skipped: Cases that could not be measured, with the reason.
    """

    folder: Path
    summary: Summary
    table: ResultsTable
    rows: tuple[Row, ...]
    skipped: tuple[SkippedScan, ...] = ()

    @property
    def values(self) -> dict[str, float]:
        """The values that are defined, by metric."""
        return flat(self.summary)


def evaluate(
    model: Models,
    data: str | Path | LabelledData,
    *,
    output: str | Path = "evaluation",
    split: str | Path | Split | None = None,
    config: PredictionConfig | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    specificity: float = 0.9,
    device: str = "auto",
    strict: bool = False,
    reporter: Reporter | None = None,
    **download: Unpack[Download],
) -> Evaluation:
    """Predict the cases of a labelled data set and measure each prediction in its scan's own grid.

    Args:
        model: One or several; see `predict_all`. Or a folder of label maps, or a table of classes, as `predict_all`
            writes them: then nothing is predicted, and cases are matched by their names.
        data: A labelled data set in any known layout; its classes are the model's, in any order. For a folder of label
            maps a folder of the true ones is enough, with files of the same names.
        output: Folder of `results.json`, its table as CSV, Markdown and LaTeX, `cases.csv`, `report.html`, and
            `predictions/`, the label maps in each scan's own grid.
        split: A split, or its file: its test cases are measured; by default all.
        config: Overlap, flips, where windows are put together.
        bootstrap: Resamples of the patients for the intervals.
        seed: Random seed of them.
        specificity: Of a classification, at which the sensitivity is given.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        strict: A bad case ends the run instead of being skipped.
        reporter: Receives the progress.
        download: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as of `load`.

    Returns:
        Metrics with intervals over patients, and a row for each case.

    Raises:
        ConfigurationError: Model and data do not fit each other.
        DataError: The data cannot be used, no case could be measured, or the output cannot be written.
        ScanError: A case cannot be used and `strict` is set.

    Example:
        found = modelsgenesis.evaluate("runs/hippocampus", "Task04_Hippocampus", split="runs/hippocampus/split.json")
        found.summary["dice"]  # {'value': 0.88, 'low': 0.87, 'high': 0.89}
    """
    reporter, folder, saved = reporter or Reporter(), Path(output), saved_predictions(model)
    results, table = folder / RESULTS_NAME, folder / CASES_NAME
    outputs = (results, table, *(folder / f"results.{ending}" for ending in ("csv", "md", "tex")))
    check_outputs(outputs, folder, [one for one in (saved, split) if isinstance(one, Path)])
    existing = read_json(results, DataError) if results.exists() else {}
    if (results.exists() or table.exists()) and "metrics" not in existing:  # such as of the run that is measured
        raise DataError(f"{results}: exists and is not an evaluation; choose another output folder")
    if not isinstance(data, LabelledData):
        data = (saved and read_label_maps(Path(data), saved, reporter)) or read_labelled(data)
    cases = data.cases
    if split is not None:
        split = split if isinstance(split, Split) else read_split(split)
        check_split(Split((), (), split.test), data)
        require(split.test, DataError, "the split has no test cases; expected some to measure")
        test = set(split.test)
        cases = [case for case in cases if case.name in test]
    # Copies within the folder that is measured would be found as predictions of their own the next time.
    apart = saved is None or saved.is_file() or not (folder / PREDICTIONS).resolve().is_relative_to(saved.resolve())
    kept = KeptCases(folder, data, reporter) if apart else None
    if kept:
        kept.check(cases)
    keep = kept and kept.add
    if saved is not None:
        rows, skipped = measure_saved(saved, cases, data, strict=strict, reporter=reporter, keep=keep)
        about = {"predictions": public_name(saved)}
    else:
        ensemble, about = load_ensemble(model, config, device, reporter, **download)
        if len(data.channels) == len(ensemble.channels) > 1:
            match_channels(data.name, data.channels, ensemble.channels, reporter)
        _warn_of_training(model, cases, reporter)
        rows, skipped = measure_cases(ensemble, cases, data, strict=strict, reporter=reporter, keep=keep)
    options: dict[str, Any] = {"specificity": specificity} if data.task == "classification" else {}
    kind: dict[str, Any] = {"task": data.task, "multilabel": data.multilabel, **options}
    summary = summarize_rows(rows, data.labels, **kind, resamples=bootstrap, seed=seed)
    patients = len({row["patient"] for row in rows})
    notes = [basis_of(patients, len(rows)), *explanations(summary)]
    shown = results_table({(): summary}, alone=data.labels[-1], specificity=options.get("specificity"), notes=notes)
    content = {
        "task": data.task,
        "multilabel": data.multilabel,
        "data": data.name,
        **about,
        "part": "test" if split else "all",
    }
    content |= {"labels": list(data.labels), "patients": patients, "cases": len(rows)}
    if kept:
        kept.finish(rows)
    content |= {"refused": len(skipped), "bootstrap": bootstrap, "seed": seed, **options, "metrics": summary}
    write_csv(table, rows, DataError)
    write_json(results, content, DataError)
    shown.write(folder)
    write_refused(folder, skipped)
    write_report(folder, reporter=reporter)
    return Evaluation(folder=folder, summary=summary, table=shown, rows=tuple(rows), skipped=tuple(skipped))


def _warn_of_training(model: Models, cases: Sequence[LabelledCase], reporter: Reporter) -> None:
    """Say so where a run is measured on what it was trained on."""
    # A run keeps its split beside its weights; a model from the Hub has none, and nothing can be said.
    measured = {case.name for case in cases}
    for run in (one for one in model_folders(model) if isinstance(one, (str, Path))):
        file = Path(run) / "split.json"
        if seen := measured & set(read_split(file).training) if file.is_file() else None:
            told = f"warning: {public_name(run)} was trained on {len(seen)} of the {len(measured)} cases"
            reporter.note(f"{told}; the results will be optimistic; evaluate its test part alone with --split {file}")


def saved_predictions(model: Models) -> Path | None:
    """Return the folder or table of predictions that a "model" is; None where it is a model.

    Example:
        saved_predictions("predicted")  # a folder with case1.nii.gz, case2.nii.gz …
    """
    if not isinstance(model, (str, Path)):
        return None
    path = Path(model)
    if path.is_file() and path.suffix.lower() == ".csv":
        return path
    if not path.is_dir() or (path / CONFIG_NAME).exists() or model_folders(path) != [path]:
        return None
    # Neither a model nor folds of one: what predict wrote, by its table or its label maps.
    if (path / TABLE).exists():
        return path
    return path if _label_maps(path) and not (path / RUN_NAME).exists() else None


def _label_maps(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder that may be label maps, by the names that predictions and labels have in common."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        place, stem = file.relative_to(folder), file_stem(file)
        left_aside = any(part.startswith(".") for part in place.parts) or stem.endswith(("_probabilities", "_preview"))
        if not left_aside and reader_of(file) not in (None, "dicom"):
            found[str(place.with_name(bare_name(stem, images=False).removesuffix("_0000") or stem))].append(file)
    return found


def read_label_maps(
    folder: Path, predicted: Path, reporter: Reporter, patient_pattern: str | None = None
) -> LabelledData | None:
    """Read a folder of true label maps for one of predicted ones; None where either is something else.

    The JSON file beside a label map, as `predict_all` writes it, names the structures; else their values do.

    Raises:
        DataError: Both are the same folder, or no label map has the name of a prediction.
        ScanError: A label map whose values are looked up cannot be used.
    """
    tables = (one for name in (dataset_json.NAME, "*.csv") for one in folder.glob(name))
    if not (folder.is_dir() and predicted.is_dir()) or any(map(lists_images, tables)):
        return None
    truth, ours = _label_maps(folder), _label_maps(predicted)
    if not ours or not truth or any(len(files) > 1 for files in truth.values()):  # such as images beside their masks
        return None
    require(
        not folder.samefile(predicted), DataError, f"{folder}: predictions and labels are the same folder; give both"
    )
    both = [name for name in truth if name in ours]
    if not both and any(holds_images(one.name) for one in folder.iterdir()):
        return None
    if not both:
        first = f"{next(iter(ours.values()))[0]} and {next(iter(truth.values()))[0]}"
        raise DataError(f"{folder}: no file has the name of a prediction in {predicted}; name them alike: {first}")
    if extra := sorted(ours.keys() - truth.keys()):
        reporter.note(f"predictions ignored, as no label map in {folder} has the name: {some(extra)}")
    paired = [path for name in both for path in (truth[name][0], ours[name][0])]
    names = next(filter(None, map(names_beside, paired)), None)
    if names is None:
        names = {int(value): str(value) for path in paired for value in np.unique(read_mask(path).array)}
        names = {0: "background"} | {value: names[value] for value in sorted(names) if value}
    told = ", ".join(f"{value} {name}" if name != str(value) else name for value, name in names.items() if value)
    reporter.note(f"structures by the values of the label maps: {told}")
    patients, rule = find_patients([files[0] for files in truth.values()], patient_pattern)
    reporter.note(rule)
    cases = [
        LabelledCase(name=name, patient=patient, images=(), mask=files[0])
        for patient, (name, files) in zip(patients, truth.items(), strict=True)
    ]
    values = tuple((value,) for value in names)
    name, labels = folder.resolve().name, tuple(names.values())
    return LabelledData(name=name, task="segmentation", cases=tuple(cases), labels=labels, values=values)


def measure_saved(
    path: Path,
    cases: Sequence[LabelledCase],
    data: LabelledData,
    *,
    strict: bool,
    reporter: Reporter,
    keep: Keep | None = None,
) -> tuple[list[Row], list[SkippedScan]]:
    """Measure saved predictions: label maps of a folder, or the classes of a table, matched by the names of cases.

    Raises:
        DataError: The predictions cannot be read.
        ScanError: A case cannot be used and `strict` is set.
    """
    if data.task == "classification":
        table = read_table(path / TABLE if path.is_dir() else path, data.labels)

        def predict(case: LabelledCase) -> Predicted:
            name = printable(case.name)
            require(name in table, ScanError, f"no row for {name} in {path}")
            return case, data, table[name], None
    else:
        require(path.is_dir(), DataError, f"{path}: expected a folder of label maps")
        maps = _label_maps(path)
        files: dict[str, list[Path]] = defaultdict(list)
        for file in sorted(path.rglob("*.nii*")):
            files[file_stem(file).removesuffix("_seg")].append(file)

        def predict(case: LabelledCase) -> Predicted:
            # Without images the case was named by its label map.
            name = output_name(case.name).name if case.images else case.name
            found = (files if case.images else maps).get(name, [])
            require(found, ScanError, f"no prediction of {name} in {path}")
            require(len(found) == 1, ScanError, f"predictions of {name}: {' and '.join(map(str, found))}; keep one")
            volume = read_mask(found[0])
            predicted = label_indices(volume.array, _told_beside(found[0], data, volume.array), str(found[0]))
            truth = data if case.images or case.mask is None else _told_beside(case.mask, data)
            return case, truth, predicted, volume

    stages = Stages(predict, lambda found: found, lambda _, found: found)
    return measure_each(cases, stages, strict=strict, reporter=reporter, keep=keep)


def _told_beside(path: Path, data: LabelledData, array: np.ndarray | tuple[()] = ()) -> LabelledData:
    """Return the data with the values of a label map, by the JSON file beside it; without one they are the data's.

    Raises:
        ScanError: A value of the array means no class of the data.
    """
    names = names_beside(path)
    if not names:
        return data
    for value in np.unique(array).tolist():
        if names.get(value, data.labels[0]) not in data.labels:
            raise ScanError(f"{path}: value {value}, {names[value]}, is not a class of {data.name}")
    values_of = ([value for value, name in names.items() if name == label] for label in data.labels)
    return replace(data, values=tuple(map(tuple, values_of)), others_are_background=False)


def read_table(path: Path, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the probabilities that `predict_all` wrote: [classes] by the case's name.

    Raises:
        DataError: The file cannot be read, lacks a class or a probability, or names a case twice.
    """
    rows, what = read_csv(path, DataError), f"as predictions of {', '.join(labels)}"
    remedy = "expected what predict writes"
    with parsing(path, DataError, what=what, remedy=remedy):
        table = {row["case"]: np.array([float(row[f"prob_{label}"]) for label in labels]) for row in rows}
    if len(table) < len(rows) or not all(np.isfinite(soft).all() for soft in table.values()):
        raise DataError(f"{path}: cannot be read {what}: a case twice, or a number that is not finite; {remedy}")
    return table
