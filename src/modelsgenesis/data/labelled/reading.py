"""Which layout a labelled data set has, and reading it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import dataset_json
from modelsgenesis.data.finding import scan_sources
from modelsgenesis.data.labelled.cases import LabelledData, LabelledTask
from modelsgenesis.data.labelled.images import FileImage
from modelsgenesis.data.labelled.layouts import read_folders, read_listed, read_medmnist, read_table
from modelsgenesis.data.reading import choose_contract
from modelsgenesis.data.volume import ScanReference
from modelsgenesis.errors import ConfigurationError, DataError, did_you_mean, printable
from modelsgenesis.files import parsing

_TASKS: dict[str, LabelledTask] = {"seg": "segmentation", "cls": "classification"}
_LAYOUTS = (
    "expected a Decathlon or nnU-Net dataset.json, a CSV with a column image, a MedMNIST .npz, or one folder per class"
)
_LOOKED_AT = 8  # images whose headers and values tell dimensions and modality


def find_task(task: str) -> LabelledTask:
    """Return the task by its long or short name.

    Raises:
        ConfigurationError: It is unknown.

    Example:
        >>> find_task("seg")
        'segmentation'
    """
    for short, long in _TASKS.items():
        if task in (short, long):
            return long
    raise ConfigurationError(f"task: received {task!r}; {did_you_mean(task, _TASKS)}")


def read_labelled(
    source: str | Path,
    *,
    task: str | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
) -> LabelledData:
    r"""Read a labelled data set, in whichever of the known layouts it is.

    Args:
        source: A Decathlon or nnU-Net folder or its `dataset.json`; a CSV of images with labels, or its folder; a
            MedMNIST `.npz`; or a folder with one folder of images per class.
        task: `"seg"` or `"cls"`; None takes what the data is for.
        modality: What the images are; None takes what the data set says or its values tell.
        patient_pattern: A regular expression on a file's name, else its path, whose first group is the patient, such
            as `(\d+)_`.

    Returns:
        The data set; its `notes` say what was decided for it.

    Raises:
        DataError: The layout is not known, or the data set cannot be used, or is for another task.
        ConfigurationError: Task, modality or pattern cannot be.
        ScanError: A file that tells structures, dimensions or modality cannot be read.

    Example:
        data = read_labelled("Task04_Hippocampus")
        len(data.cases), data.labels  # 195, ('background', 'Anterior', 'Posterior')
    """
    wanted = None if task is None else find_task(task)
    if modality is not None and modality not in CONTRACTS:
        raise ConfigurationError(f"modality: received {modality!r}; {did_you_mean(modality, CONTRACTS)}")
    with parsing(source, DataError, what="as labelled data", remedy="check the path"):
        data = _read(Path(source).expanduser(), patient_pattern)
    if wanted not in (None, data.task):
        raise DataError(f"{data.name}: its labels are for {data.task}; {wanted} was asked for")
    # A split, the tables and the digests know a case by its name alone.
    twice = [name for name, count in Counter(case.name for case in data.cases).items() if count > 1]
    if twice:
        raise DataError(f"{data.name}: {twice[0]!r} names several cases; list each image once, or rename the files")
    notes = tuple(map(printable, data.notes))
    return _described(replace(data, notes=notes), modality)


def _read(path: Path, pattern: str | None) -> LabelledData:
    """Read by the ending of a file, or by what a folder holds."""
    if not dataset_json.is_there(path):
        raise DataError(f"{path}: no such folder or file; {_LAYOUTS}")
    inside = sorted(one for one in path.iterdir() if not one.name.startswith(".")) if path.is_dir() else []
    listed = [one for one in inside if one.name == dataset_json.NAME]
    tables = listed or [one for one in inside if one.suffix.lower() in (".csv", ".npz")] or [path]
    if len(tables) > 1:
        raise DataError(f"{path}: holds {tables[0].name} and {tables[1].name}; name the one to read")
    # A folder without a table of its own is one of classes.
    if tables == [path] and any(one.is_dir() for one in inside):
        return read_folders(path, pattern)
    match tables[0].suffix.lower():
        case ".json":
            return read_listed(tables[0], pattern)
        case ".csv":
            return read_table(tables[0], pattern)
        case ".npz":
            return read_medmnist(tables[0])
    raise DataError(f"{path}: of no known layout, or empty; {_LAYOUTS}")


def _described(data: LabelledData, modality: str | None) -> LabelledData:
    """Add dimensions and modality where headers and values tell them."""
    # Spread over the whole set: the first cases may all come from one scanner.
    chosen = [data.cases[index] for index in np.linspace(0, len(data.cases) - 1, _LOOKED_AT).round().astype(int)]
    scans = [scan for case in chosen if (scan := _reference(case.images[0])) is not None]
    if scans:
        axes = {len(scan.shape) for scan in scans}
        if len(axes) > 1:
            raise DataError(f"{data.name}: planes and volumes in one set; keep them apart")
        data = replace(data, dims=2 if axes == {2} else 3)
    if modality is not None:
        return replace(data, modality=modality)
    if data.modality is None and scans:
        try:
            contract, why = choose_contract(scans)
        except DataError:
            return data  # whoever needs the modality asks for it; see `data_contract`
        return replace(data, modality=contract.modality, notes=(*data.notes, why))
    return data


def _reference(image: object) -> ScanReference | None:
    """Return what a header says of a file; None for what is not a file of its own, or cannot be read."""
    if isinstance(image, ScanReference):
        return image
    scans = scan_sources(image.path)[0] if isinstance(image, FileImage) else []
    return next(iter(scans[getattr(image, "index", 0) or 0 :]), None)  # what is not there, preparation refuses
