"""Predictions that are written already: label maps in a folder, classes in a table."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.data import LabelledCase, LabelledData, file_stem, read_volume
from modelsgenesis.data.labelled import label_indices
from modelsgenesis.errors import DataError, ScanError
from modelsgenesis.evaluation.cases import as_unicode
from modelsgenesis.files import parsing, read_csv, read_json
from modelsgenesis.verbs.answers import output_name
from modelsgenesis.verbs.measuring import Measure, Measured, measure_classes, measure_labels
from modelsgenesis.verbs.members import Models, expand_folds


def written_predictions(model: Models) -> Path | None:
    """Return the folder or table of predictions that a "model" is; None where it is a model.

    Example:
        written_predictions("answers")  # a folder with case1.nii.gz, case2.nii.gz …
    """
    if not isinstance(model, (str, Path)):
        return None
    path = Path(model)
    if path.is_file() and path.suffix.lower() in (".csv", ".json"):
        return path
    if not path.is_dir() or (path / CONFIG_NAME).exists() or expand_folds(path) != [path]:
        return None
    if (path / "predictions.csv").exists():
        return path / "predictions.csv"
    return path if any(path.rglob("*.nii*")) else None


def measure_written(path: Path, data: LabelledData) -> Measure:
    """Return what finds the answer to a case and measures it.

    Raises:
        DataError: The predictions cannot be read.
    """
    if data.task == "classification":
        table = read_table(path, data.labels)

        def look_up(case: LabelledCase) -> Measured:
            if as_unicode(case.name) not in table:
                raise ScanError(f"{path}: has no row of it")
            return measure_classes(case, data, table[as_unicode(case.name)])

        return look_up
    files = _by_name(path)

    def compare(case: LabelledCase) -> Measured:
        name = output_name(case.name).name
        found = files.get(name, [])
        if len(found) != 1:
            shown = " and ".join(str(file) for file in found) or "none"
            raise ScanError(f"{path}: {shown} called {name}.nii.gz; expected one")
        answer = read_volume(found[0])
        return measure_labels(case, data, written_indices(answer.array, found[0], data), answer)

    return compare


def _by_name(folder: Path) -> Mapping[str, list[Path]]:
    """Return the label maps of a folder by their names, `_seg` left out."""
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of label maps")
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.nii*")):
        stem = file_stem(path)
        if not stem.endswith("_probabilities"):
            files[stem.removesuffix("_seg")].append(path)
    return files


def written_indices(values: np.ndarray, path: Path, data: LabelledData) -> np.ndarray:
    """Turn the values of a label map into class indices of the data.

    What they mean says the JSON file beside it, as `predict_all` writes it; without one they mean what they mean in
    the data's masks.

    Raises:
        ScanError: A value means no class of the data.
    """
    beside = path.with_name(f"{file_stem(path)}.json")
    if beside.is_file():
        content = read_json(beside, ScanError)
        with parsing(beside, ScanError, what="as the labels of a label map", remedy="expected what predict writes"):
            names = {int(value): str(name) for value, name in content["labels"].items()}
        for value in np.rint(np.unique(values).astype(float)).tolist():
            if names.get(value, data.labels[0]) not in data.labels:
                raise ScanError(f"{path}: value {value:g}, {names[value]}, is not a class of {data.name}")
        values_of = ([value for value, name in names.items() if name == label] for label in data.labels)
        data = replace(data, values=tuple(map(tuple, values_of)), others_are_background=False)
    return label_indices(values, data, str(path))


def read_table(path: Path, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the probabilities that `predict_all` wrote: [classes] by the case's name.

    Raises:
        DataError: The file cannot be read, lacks a class or a probability, or names a case twice.
    """
    content = read_json(path, DataError) if path.suffix.lower() == ".json" else read_csv(path, DataError)
    what, remedy = f"as predictions of {', '.join(labels)}", "expected what predict writes"
    with parsing(path, DataError, what=what, remedy=remedy):
        if isinstance(content, dict):
            rows = [(row["case"], [row["probabilities"][label] for label in labels]) for row in content["cases"]]
        else:
            rows = [(row["case"], [row[f"probability {label}"] for label in labels]) for row in content]
        table = {name: np.array(list(map(float, soft))) for name, soft in rows}
    if len(table) < len(rows) or not all(np.isfinite(soft).all() for soft in table.values()):
        raise DataError(f"{path}: cannot be read {what}: a case twice, or a number that is not finite; {remedy}")
    return table
