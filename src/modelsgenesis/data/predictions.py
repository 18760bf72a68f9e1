"""What a prediction of this package consists of on disk, and how it is told from scans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modelsgenesis._version import __version__
from modelsgenesis.data.reading import file_stem
from modelsgenesis.errors import DataError, ScanError
from modelsgenesis.files import parsing, read_json

PREVIEW, OWN = "_preview.png", "modelsgenesis"
"""The ending of a picture of a prediction, and the software that it names in itself."""

EARLIER = "an earlier prediction of this package"
"""Why it is left aside among scans."""


def is_prediction(path: Path) -> bool:
    """Tell whether a file is a label map, its probabilities, or a table of this package, by the JSON file beside it.

    A preview says so itself, for that of a classification has no such file.
    """
    beside = written_files(path.with_name(path.name.replace("_probabilities.", "."))).about
    try:
        if path.name.endswith(PREVIEW):
            from PIL import Image

            with parsing(path, DataError), Image.open(path) as picture:
                return picture.info.get("Software") == OWN
        content = read_json(beside, DataError)
    except DataError:  # there is none, or somebody else's
        return False
    is_own = isinstance(content, dict) and content.get("library_name") == OWN
    return is_own and isinstance(content.get("labels"), dict)


def labels_record(labels: Sequence[str]) -> dict[str, Any]:
    """Return what the JSON file beside a label map or a table says of its classes, and of whom it is."""
    named = {str(index): name for index, name in enumerate(labels)}
    return {"labels": named, "library_name": OWN, "library_version": __version__}


def names_beside(path: Path) -> dict[int, str]:
    """Return what the JSON file beside a label map calls each value; nothing without one, or where it is a scan's.

    Raises:
        ScanError: It is damaged.
    """
    beside = written_files(path).about
    content = read_json(beside, ScanError) if beside.is_file() else None
    if not isinstance(content, dict) or "labels" not in content:
        return {}
    with parsing(beside, ScanError, what="as the labels of a label map", remedy="expected what predict writes"):
        return {int(value): str(name) for value, name in content["labels"].items()}


class WrittenFiles(NamedTuple):
    """A label map or a table, and what belongs beside it.

    Attributes:
        path: The label map or the table.
        about: JSON of classes and model.
        probabilities: NIfTI of class probabilities.
        preview: PNG of the scan with the label map.
        slicer: Names and colours of the labels for 3D Slicer.
        itksnap: The same for ITK-SNAP.
    """

    path: Path
    about: Path
    probabilities: Path
    preview: Path
    slicer: Path
    itksnap: Path


def written_files(path: Path) -> WrittenFiles:
    """Return a label map or a table, and what is, or may be, written beside it.

    Example:
        >>> [file.name for file in written_files(Path("scan.nii.gz"))[1:]]
        ['scan.json', 'scan_probabilities.nii.gz', 'scan_preview.png', 'scan.ctbl', 'scan_labels.txt']
    """
    stem = path.stem if path.suffix.lower() == ".csv" else file_stem(path)
    endings = (".json", "_probabilities.nii.gz", PREVIEW, ".ctbl", "_labels.txt")
    return WrittenFiles(path, *(path.with_name(f"{stem}{ending}") for ending in endings))
