"""Where answers go and what is written beside them."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis._version import __version__
from modelsgenesis.configs import PredictionConfig
from modelsgenesis.data import SkippedScan
from modelsgenesis.data.reading import READERS
from modelsgenesis.errors import ConfigurationError, DataError, printable
from modelsgenesis.files import open_regular, write_csv, write_json
from modelsgenesis.hardware import Hardware
from modelsgenesis.inference.cases import Case, as_unicode, is_answer
from modelsgenesis.metrics.classification import CLASS_SEPARATOR

FOLDER = Path("predictions")
"""Where the answers to several scans go by default."""

_NIFTI = (".nii.gz", ".nii")
_TABLES = (".csv", ".json")
_OTHERS = tuple(suffix for reader in READERS for suffix in reader.SUFFIXES)
_LONGEST = 255 - len("_probabilities.nii.gz")  # bytes that a name may have before the longest ending


@dataclass(frozen=True)
class Place:
    """Where the answer to a case goes.

    Attributes:
        case: What is answered.
        path: The label map, a NIfTI file; or the table that all cases share.
    """

    case: Case
    path: Path

    @property
    def labels(self) -> Path:
        """The JSON file that names the classes."""
        return self._beside(".json")

    @property
    def probabilities(self) -> Path:
        """The 4D NIfTI file of the class probabilities."""
        return self._beside("_probabilities.nii.gz")

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(re.sub(r"\.nii(\.gz)?$", ending, self.path.name, flags=re.IGNORECASE))


def output_name(name: str) -> Path:
    r"""Return the file of a case's answer, without an ending: every file system takes it, and it leads nowhere else.

    What a name has to lose, such as control characters, and what is beyond 234 bytes, is made up for by a few digits of
    its SHA-256: two names stay two.

    Example:
        >>> str(output_name("../patient 1/scan")), str(output_name("a\tb"))
        ('patient 1/scan', 'a_b_894891f8')
    """
    parts = [part for part in as_unicode(name).split("/") if part not in ("", ".", "..")]
    return Path(*map(_file_name, parts or ["_"]))


def _file_name(part: str) -> str:
    plain = "".join(one if printable(one) == one != "\\" else "_" for one in part)
    if plain == part and len(part.encode()) <= _LONGEST:
        return part
    return f"{plain.encode()[: _LONGEST - 9].decode(errors='ignore')}_{hashlib.sha256(part.encode()).hexdigest()[:8]}"


def place_answers(
    cases: Sequence[Case], output: Path | None, *, many: bool, inputs: Iterable[Path] = (), keep: bool = False
) -> tuple[list[Place], list[SkippedScan]]:
    """Choose the files of every answer, before the first is written.

    One scan: `output` where it ends in .nii.gz or .nii, else `<output>/<name>.nii.gz`; without an output
    `<name>_seg.nii.gz` in the working folder. Several: `<output>/<name>.nii.gz`, without an output in
    `predictions/`; the folders of a searched folder stay in the name.

    Args:
        cases: To be answered.
        output: As it was asked for.
        many: Whether several scans were given, though some may have been refused.
        inputs: Files that no answer may replace.
        keep: Whether label maps that are there already are kept.

    Returns:
        The places, and the cases whose answers would be one another's.

    Raises:
        ConfigurationError: One file for several answers, or a file that is no NIfTI.
        DataError: An answer would replace a scan or a file of somebody else, lie outside of the output, or cannot be
            written.
    """
    name = output.name.lower() if output is not None else ""
    if output is not None and name.endswith(_NIFTI):
        if many:
            raise ConfigurationError(f"{output}: one file for the answers to several scans; name a folder")
        folder, places = output.parent, [Place(case, output) for case in cases]
    elif name.endswith((*_OTHERS, *_TABLES)):
        raise ConfigurationError(f"{output}: label maps are written as NIfTI; name a file.nii.gz, or a folder")
    elif output is None and not many:
        folder, places = Path(), [Place(case, Path(f"{output_name(case.name).name}_seg.nii.gz")) for case in cases]
    else:
        folder = FOLDER if output is None else output
        places = [Place(case, folder / f"{output_name(case.name)}.nii.gz") for case in cases]
    check_outputs([file for place in places for file in _files(place)], folder, inputs)
    for place in places:
        there = [file for file in _files(place) if file.exists()]
        if there and not is_answer(place.path) and not (keep and place.path in there):
            raise DataError(f"{there[0]}: is there already, and no answer of this package; choose another output")
    return _apart(places)


def _files(place: Place) -> tuple[Path, ...]:
    """Return all that an answer may consist of."""
    return place.path, place.labels, place.probabilities


def _apart(places: Sequence[Place]) -> tuple[list[Place], list[SkippedScan]]:
    """Return the answers that share no file with another, and why the others are none.

    File systems that take capital and small letters, or two ways to write an accent, for the same are counted on.
    """

    def keys(place: Place) -> set[str]:
        return {unicodedata.normalize("NFC", os.path.normpath(file.absolute())).casefold() for file in _files(place)}

    owners = Counter(key for place in places for key in keys(place))
    free, refused = [], []
    for place in places:
        if any(owners[key] > 1 for key in keys(place)):
            reason = f"its answer {place.path} would be that of another scan; rename one of them"
            refused.append(SkippedScan(source=place.case.images[0].source, reason=reason))
        else:
            free.append(place)
    return free, refused


def place_table(output: Path | None, inputs: Iterable[Path] = ()) -> Path:
    """Choose the file of a classification's table: `output` where it ends in .csv or .json, else in that folder.

    Raises:
        ConfigurationError: It ends in something else that is a file's.
        DataError: It would replace an input or a file of somebody else, or cannot be written.
    """
    name = output.name.lower() if output is not None else ""
    if name.endswith((*_OTHERS, *_NIFTI)):
        raise ConfigurationError(f"{output}: classes are written as a table; name a file.csv or file.json, or a folder")
    path = output if output and name.endswith(_TABLES) else (output or Path()) / FOLDER.with_suffix(".csv")
    check_outputs((path, _exact(path)), path.parent, inputs)
    for file in (path, _exact(path)):
        if file.exists() and not _is_table(file):
            raise DataError(f"{file}: is there already, and no table of this package; choose another output")
    return path


def _exact(table: Path) -> Path:
    """Return the JSON file beside a table, or the table where it is one."""
    return table if table.suffix.lower() == ".json" else table.with_suffix(".json")


def _is_table(path: Path) -> bool:
    """Tell whether a file is a table that this package wrote, by its beginning: it may be large."""
    with open_regular(path, DataError) as file:
        head = file.read(1 << 16)
    return head.startswith(b"case,predicted") or (head.startswith(b'{\n  "labels": [') and b'"modelsgenesis"' in head)


def _identities(files: Iterable[Path]) -> set[tuple[int, int]]:
    """Return what a file is, whatever it is called: links to it are the same."""
    states = (file.stat() for file in files if file.is_file())
    return {(state.st_dev, state.st_ino) for state in states}


def check_outputs(paths: Sequence[Path], folder: Path, inputs: Iterable[Path]) -> None:
    """Refuse files that cannot be written, lie outside of a folder, or are an input, before any work.

    Raises:
        DataError: A path is a folder or an input, leads out of the folder, or cannot be made or written.
    """
    protected = _identities(inputs)
    for path in paths:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; expected the name of a file to write")
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path}: a link leads out of {folder}; choose another output folder")
        if path.exists() and _identities([path]) & protected:
            raise DataError(f"{path}: the answer would replace the scan itself; choose another output folder")
        parent = next(place for place in path.absolute().parents if place.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise DataError(f"{path}: cannot be written in {parent}; choose another folder")


def write_labels(place: Place, labels: Sequence[str], model: Mapping[str, Any]) -> Path:
    """Write what the values of a label map mean, and which model chose them; nothing that names a file or a patient.

    Raises:
        DataError: The file cannot be written.
    """
    return write_json(
        place.labels, {"labels": {str(index): name for index, name in enumerate(labels)}, **model}, DataError
    )


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
        path: CSV, to six digits and with an exact JSON file beside it; or that file alone.
        rows: Name, predicted classes, probability by class.
        labels: Class names in order.
        model: Which model predicted; for JSON.

    Raises:
        DataError: The file cannot be written.
    """
    cases = [{"case": name, "predicted": list(found), "probabilities": dict(soft)} for name, found, soft in rows]
    write_json(_exact(path), {"labels": list(labels), **model, "cases": cases}, DataError)
    if path == _exact(path):
        return path
    columns = ["case", "predicted", *(f"probability {label}" for label in labels)]
    table = [[name, CLASS_SEPARATOR.join(found), *(f"{soft[one]:.6g}" for one in labels)] for name, found, soft in rows]
    return write_csv(path, [dict(zip(columns, row, strict=True)) for row in table], DataError, columns)
