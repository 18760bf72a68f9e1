"""Output paths of predictions, all chosen before the first is written, and what is recorded beside them."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis._version import __version__
from modelsgenesis.data import SkippedScan
from modelsgenesis.data.reading import READERS
from modelsgenesis.errors import ConfigurationError, DataError, printable
from modelsgenesis.inference.cases import Case, as_unicode, is_prediction
from modelsgenesis.inference.ensemble import Ensemble

FOLDER, TABLE = Path("predictions"), Path("predictions.csv")
"""Where the predictions of several scans go by default; and those of a classification."""

_NIFTI = (".nii.gz", ".nii")
_NOT_FOLDERS = (*_NIFTI, ".csv", ".json", *(suffix for suffixes in READERS.values() for suffix in suffixes))
_LONGEST = 255 - len("_probabilities.nii.gz")  # bytes that a name may have before the longest ending


@dataclass(frozen=True)
class OutputPaths:
    """The files of one predicted case.

    Attributes:
        case: What is predicted.
        path: The label map, a NIfTI file; or the table that all cases share.
    """

    case: Case
    path: Path

    @property
    def labels(self) -> Path:
        """The JSON file that names the classes and the model."""
        return self._beside(".json")

    @property
    def probabilities(self) -> Path:
        """The 4D NIfTI file of the class probabilities."""
        return self._beside("_probabilities.nii.gz")

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """All that may be written."""
        return self.path, self.labels, self.probabilities

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(re.sub(r"\.(nii|nii\.gz|csv)$", ending, self.path.name, flags=re.IGNORECASE))


def output_name(name: str) -> Path:
    r"""Return the file of a case's prediction, without ending: every file system takes it, and it leads nowhere else.

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


def output_paths(
    cases: Sequence[Case],
    output: Path | None,
    *,
    task: str,
    many: bool,
    inputs: Sequence[Path] = (),
    keep: bool = False,
) -> tuple[list[OutputPaths], list[SkippedScan]]:
    """Choose the files of every prediction, before the first is written.

    Of one scan `output` where it ends in .nii.gz or .nii, else `<output>/<name>.nii.gz`; without an output
    `<name>_seg.nii.gz` in the working folder. Of several `<output>/<name>.nii.gz`, without an output in
    `predictions/`; the folders of a searched folder stay in the name. Of a classification one table: `output` where it
    ends in .csv, else `predictions.csv` in that folder.

    Args:
        cases: To be predicted.
        output: As it was asked for.
        task: `"segmentation"` or `"classification"`.
        many: Whether several scans were given, though some may have been skipped.
        inputs: Files that no prediction may replace.
        keep: Whether label maps that are there already are kept.

    Returns:
        The paths, and the cases whose predictions would be one another's.

    Raises:
        ConfigurationError: One file for several label maps, or a file of another kind.
        DataError: A prediction would replace a scan or a file of somebody else, lie outside of the output, or cannot
            be written.
    """
    segments, name = task == "segmentation", output.name.lower() if output else ""
    is_file = bool(output) and name.endswith(_NIFTI if segments else ".csv")
    if name.endswith(_NOT_FOLDERS) and not is_file:
        kind = "label maps are written as NIfTI; name a .nii.gz" if segments else "classes as a table; name a .csv"
        raise ConfigurationError(f"{output}: {kind}, or a folder")
    if is_file and segments and many:
        raise ConfigurationError(f"{output}: one file for the predictions of several scans; name a folder")
    folder = output.parent if output and is_file else output or (FOLDER if segments and many else Path())

    def path_of(case: Case) -> Path:
        if output and is_file:
            return output
        if not segments:
            return folder / TABLE
        name = output_name(case.name)
        return folder / f"{name}.nii.gz" if output or many else Path(f"{name.name}_seg.nii.gz")

    paths = [OutputPaths(case, path_of(case)) for case in cases]
    check_outputs(dict.fromkeys(file for one in paths for file in one.files), folder, inputs)
    for one in {one.path: one for one in paths}.values():
        there = [file for file in one.files if file.exists()]
        if there and not is_prediction(one.path) and not (keep and one.path in there):
            raise DataError(
                f"{there[0]}: is there already, and not a prediction of this package; choose another output"
            )
    # Two scans whose label maps would be one file are both skipped: neither is the right one to write.
    owners = Counter(key for one in paths for key in _keys(one))
    collided = [one for one in paths if segments and any(owners[key] > 1 for key in _keys(one))]
    reason = "its prediction {} would be that of another scan; rename one of them"
    skipped = [SkippedScan(source=one.case.images[0].source, reason=reason.format(one.path)) for one in collided]
    return [one for one in paths if one not in collided], skipped


def _keys(paths: OutputPaths) -> set[str]:
    """Return what a file system may tell files by: some ignore case, some the two ways to write an accent."""
    return {unicodedata.normalize("NFC", os.path.normpath(file.absolute())).casefold() for file in paths.files}


def check_outputs(paths: Iterable[Path], folder: Path, inputs: Iterable[Path]) -> None:
    """Refuse files that cannot be written, lie outside of a folder, or are an input, before any work.

    Raises:
        DataError: A path is a folder or an input, leads out of the folder, or cannot be made or written.
    """
    # By device and inode: a link to a scan is the scan, whatever it is called.
    states = [file.stat() for file in inputs if file.is_file()]
    protected = {(state.st_dev, state.st_ino) for state in states}
    for path in paths:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; expected the name of a file to write")
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path}: a link leads out of {folder}; choose another output folder")
        if path.exists() and (path.stat().st_dev, path.stat().st_ino) in protected:
            raise DataError(f"{path}: the prediction would replace the scan itself; choose another output folder")
        parent = next(place for place in path.absolute().parents if place.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise DataError(f"{path}: cannot be written in {parent}; choose another folder")


def describe_model(names: Sequence[str], ensemble: Ensemble) -> dict[str, Any]:
    """Return which model predicts, how, and in which numbers on which kind of device.

    Nothing in it names a file or a patient: it may be published beside the predictions.
    """
    return {
        "model": names[0] if len(names) == 1 else list(names),
        "members": len(ensemble.members),
        "flips": ensemble.config.to_dict()["flips"],
        "overlap": ensemble.config.overlap,
        **ensemble.hardware.recorded(),
        "library_name": "modelsgenesis",
        "library_version": __version__,
    }
