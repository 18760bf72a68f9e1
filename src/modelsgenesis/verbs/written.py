"""Predictions that are written already: label maps in a folder, classes in a table."""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.data import LabelledCase, LabelledData, file_stem, read_volume
from modelsgenesis.data.labelled import label_indices
from modelsgenesis.errors import DataError, ScanError
from modelsgenesis.verbs.measuring import Measure, Measured, classification_row, segmentation_row
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
            if case.name not in table:
                raise ScanError(f"{path}: has no row of it")
            return classification_row(case, data, table[case.name])

        return look_up
    files = _by_name(path)

    def compare(case: LabelledCase) -> Measured:
        found = files.get(case.name, [])
        if len(found) != 1:
            shown = " and ".join(str(file) for file in found) or "none"
            raise ScanError(f"{path}: {shown} called {case.name}.nii.gz; expected one")
        answer = read_volume(found[0])
        return segmentation_row(case, data, written_indices(answer.array, found[0], data), answer)

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
    if not beside.is_file():
        return label_indices(values, data, str(path))
    try:
        names = {int(value): str(name) for value, name in json.loads(beside.read_text())["labels"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ScanError(
            f"{beside}: names no labels of {path.name} ({error!r}); expected what predict writes"
        ) from error
    indices = np.zeros(values.shape, np.uint8)
    for value in np.unique(values).tolist():
        if names.get(int(value)) not in data.labels:
            raise ScanError(f"{path}: value {value:g}, {names.get(int(value), 'unnamed')}, is no class of {data.name}")
        indices[values == value] = data.labels.index(names[int(value)])
    return indices


def read_table(path: Path, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the probabilities that `predict_all` wrote: [classes] by the case's name.

    Raises:
        DataError: The file cannot be read, or lacks a class.
    """
    try:
        text = path.read_text()
        if path.suffix.lower() == ".json":
            rows = {case["case"]: case["probabilities"] for case in json.loads(text)["cases"]}
            return {name: np.array([float(row[label]) for label in labels]) for name, row in rows.items()}
        table = csv.DictReader(text.splitlines())
        return {row["case"]: np.array([float(row[f"probability {label}"]) for label in labels]) for row in table}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read as predictions of {', '.join(labels)} ({error!r}); expected what predict writes"
        ) from error
