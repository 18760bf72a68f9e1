"""Where answers go and what is written beside them."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis import __version__
from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data.reading import READERS
from modelsgenesis.errors import CheckpointError, ConfigurationError, DataError
from modelsgenesis.evaluation import Case
from modelsgenesis.files import write_atomically
from modelsgenesis.hardware import Hardware

FOLDER = Path("predictions")
"""Where the answers to several scans go by default."""

_NIFTI = (".nii.gz", ".nii")
_TABLES = (".csv", ".json")
_OTHERS = tuple(suffix for reader in READERS for suffix in reader.SUFFIXES)


@dataclass(frozen=True)
class Place:
    """Where the answer to a case goes.

    Attributes:
        case: What is answered.
        path: The label map, a NIfTI file.
    """

    case: Case
    path: Path

    @property
    def stem(self) -> str:
        """The name of its file without the ending."""
        return next(self.path.name[: -len(end)] for end in _NIFTI if self.path.name.lower().endswith(end))

    @property
    def labels(self) -> Path:
        """The JSON file that names the classes."""
        return self.path.with_name(f"{self.stem}.json")

    @property
    def probabilities(self) -> Path:
        """The 4D NIfTI file of the class probabilities."""
        return self.path.with_name(f"{self.stem}_probabilities.nii.gz")


def place_answers(cases: Sequence[Case], output: Path | None, *, many: bool) -> list[Place]:
    """Choose a file for each label map.

    One scan: `output` where it ends in .nii.gz or .nii, else `<output>/<name>.nii.gz`; without an output
    `<name>_seg.nii.gz` in the working folder. Several: `<output>/<name>.nii.gz`, without an output in
    `predictions/`; the folders of a searched folder stay in the name.

    Args:
        cases: To be answered.
        output: As it was asked for.
        many: Whether several scans were given, though some may have been refused.

    Raises:
        ConfigurationError: One file for several answers, or a file that is no NIfTI.
        DataError: An answer would replace its own scan, or cannot be written.
    """
    name = output.name.lower() if output is not None else ""
    if output is not None and name.endswith(_NIFTI):
        if many:
            raise ConfigurationError(f"{output}: one file for the answers to several scans; name a folder")
        places = [Place(case, output) for case in cases]
    elif name.endswith((*_OTHERS, *_TABLES)):
        raise ConfigurationError(f"{output}: label maps are written as NIfTI; name a file.nii.gz, or a folder")
    elif output is None and not many:
        places = [Place(case, Path(f"{Path(case.name).name}_seg.nii.gz")) for case in cases]
    else:
        folder = FOLDER if output is None else output
        places = [Place(case, folder / f"{case.name}.nii.gz") for case in cases]
    for place in places:
        _check_inputs(place)
    check_writable([place.path for place in places])
    return places


def place_table(output: Path | None) -> Path:
    """Choose the file of a classification's table: `output` where it ends in .csv or .json, else in that folder.

    Raises:
        ConfigurationError: It ends in something else that is a file's.
        DataError: It cannot be written.
    """
    name = output.name.lower() if output is not None else ""
    if name.endswith((*_OTHERS, *_NIFTI)):
        raise ConfigurationError(f"{output}: classes are written as a table; name a file.csv or file.json, or a folder")
    path = (
        Path("predictions.csv")
        if output is None
        else output
        if name.endswith(_TABLES)
        else output / FOLDER.with_suffix(".csv")
    )
    check_writable([path])
    return path


def _check_inputs(place: Place) -> None:
    """Refuse an answer in the place of what it is made from."""
    answers = {place.path.absolute(), place.probabilities.absolute()}
    for file in place.case.files:
        if file.absolute() in answers or file.resolve() in answers:
            raise DataError(f"{file}: the answer would replace the scan itself; choose another output folder")


def check_writable(paths: Sequence[Path]) -> None:
    """Refuse places that cannot be written, before any work.

    Raises:
        DataError: A folder cannot be made or written, or a path is a folder.
    """
    for path in paths:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; expected the name of a file to write")
        parent = next(place for place in path.absolute().parents if place.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise DataError(f"{path}: cannot be written in {parent}; choose another folder")


def write_labels(place: Place, labels: Sequence[str], model: Mapping[str, Any]) -> Path:
    """Write what the values of a label map mean, and which model chose them; nothing that names a file or a patient.

    Raises:
        DataError: The file cannot be written.
    """
    content = {"labels": {str(index): name for index, name in enumerate(labels)}, **model}
    return write_text(place.labels, json.dumps(content, indent=2) + "\n")


def describe_model(names: Sequence[str], members: int, config: PredictionConfig, hardware: Hardware) -> dict[str, Any]:
    """Return which model predicted, how, and in which numbers on which kind of device."""
    return {
        "model": names[0] if len(names) == 1 else list(names),
        "members": members,
        "flips": config.to_dict()["flips"],
        "overlap": config.overlap,
        **hardware.recorded(),
        "library_name": "modelsgenesis",
        "library_version": __version__,
    }


def write_table(
    path: Path,
    rows: Sequence[tuple[str, Sequence[str], Mapping[str, float]]],
    labels: Sequence[str],
    model: Mapping[str, Any],
) -> Path:
    """Write a row a case: its name, the classes predicted, and the probability of each class.

    Args:
        path: CSV, or JSON by its ending.
        rows: Name, predicted classes, probability by class.
        labels: Class names in order.
        model: Which model predicted; for JSON.

    Raises:
        DataError: The file cannot be written.
    """
    if path.suffix.lower() == ".json":
        cases = [{"case": name, "predicted": list(found), "probabilities": dict(soft)} for name, found, soft in rows]
        return write_text(path, json.dumps({"labels": list(labels), **model, "cases": cases}, indent=2) + "\n")
    header = ["case", "predicted", *(f"probability {label}" for label in labels)]
    body = [[name, ";".join(found), *(f"{soft[label]:.6g}" for label in labels)] for name, found, soft in rows]
    return write_text(path, csv_text([header, *body]))


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> Path:
    """Write a file so that a crash leaves either the old one or the new one.

    Raises:
        DataError: It cannot be written.
    """
    try:
        write_atomically(path, text.encode())
    except CheckpointError as error:
        raise DataError(str(error)) from error
    return path
