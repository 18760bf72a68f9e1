"""Which layout a labelled data set has, and reading it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from modelsgenesis.configs.bundle import Modality
from modelsgenesis.data.finding import survey
from modelsgenesis.data.labelled import luna
from modelsgenesis.data.labelled.cases import LabelledData, LabelledTask
from modelsgenesis.data.labelled.decathlon import read_decathlon
from modelsgenesis.data.labelled.folders import read_folders
from modelsgenesis.data.labelled.medmnist import read_medmnist
from modelsgenesis.data.labelled.sources import FileImage
from modelsgenesis.data.labelled.table import read_rows, read_table
from modelsgenesis.data.modality import choose_contract
from modelsgenesis.data.reading import describe
from modelsgenesis.data.volume import ScanReference
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, nearest

_TASKS: dict[str, LabelledTask] = {
    "seg": "segmentation",
    "segmentation": "segmentation",
    "cls": "classification",
    "classification": "classification",
}
_LAYOUTS = (
    "expected a Decathlon or nnU-Net dataset.json, a CSV with a column image, LUNA16's candidates.csv, a MedMNIST "
    ".npz, or a folder a class"
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
    if task not in _TASKS:
        raise ConfigurationError(f"task: received {task!r}; {nearest(task, ('seg', 'cls'))}")
    return _TASKS[task]


def read_labelled(
    source: str | Path,
    *,
    task: str | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
) -> LabelledData:
    r"""Read a labelled data set, in whichever of the known layouts it is.

    Args:
        source: A Decathlon or nnU-Net folder or its `dataset.json`; a CSV of images with labels; LUNA16's
            `candidates.csv` or its folder; a MedMNIST `.npz`; or a folder with a folder of images a class.
        task: `"seg"` or `"cls"`; None takes what the data is for.
        modality: What the images are; None takes what the data set says or its values tell.
        patient_pattern: A regular expression on a file's name whose first group is the patient, such as `(\d+)_`.

    Returns:
        The data set; its `notes` say what was decided for it.

    Raises:
        DataError: The layout is not known, or the data set cannot be used, or is for another task.
        ConfigurationError: Task, modality or pattern cannot be.
        ScanError: A file that tells dimensions or modality cannot be read.

    Example:
        data = read_labelled("Task04_Hippocampus")
        len(data.cases), data.labels  # 195, ('background', 'Anterior', 'Posterior')
    """
    wanted = None if task is None else find_task(task)
    if modality is not None and modality not in get_args(Modality):
        raise ConfigurationError(f"modality: received {modality!r}; {nearest(modality, get_args(Modality))}")
    data = _read(Path(source).expanduser(), patient_pattern)
    if wanted not in (None, data.task):
        raise DataError(f"{data.name}: its labels are for {data.task}; {wanted} was asked for")
    twice = [name for name, count in Counter(case.name for case in data.cases).items() if count > 1]
    if twice:
        raise DataError(
            f"{data.name}: {len(twice)} names stand for several cases, such as {twice[0]!r}; rename the files"
        )
    return _described(data, modality)


def _read(path: Path, pattern: str | None) -> LabelledData:
    """Read by the ending of a file or by what a folder holds."""
    if path.is_dir():
        return _read_folder(path, pattern)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_decathlon(path, pattern)
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; {_LAYOUTS}")
    if suffix == ".csv":
        candidates = {"seriesuid", "class"} <= set(read_rows(path, ())[0])
        return luna.read_luna(path) if candidates else read_table(path, pattern)
    if suffix == ".npz":
        return read_medmnist(path)
    raise DataError(f"{path}: of no known layout; {_LAYOUTS}")


def _read_folder(folder: Path, pattern: str | None) -> LabelledData:
    if (folder / "dataset.json").exists():
        return read_decathlon(folder, pattern)
    names = [name for name in luna.NAMES if (folder / name).exists()]
    files = [folder / names[0]] if names else sorted((*folder.glob("*.csv"), *folder.glob("*.npz")))
    if len(files) > 1:
        raise DataError(f"{folder}: holds {files[0].name} and {files[1].name}; name the one to read")
    if files:
        return _read(files[0], pattern)
    if not any(place.is_dir() and not place.name.startswith(".") for place in folder.iterdir()):
        raise DataError(f"{folder}: no dataset.json, CSV, .npz or folders in it; {_LAYOUTS}")
    return read_folders(folder, pattern)


def _described(data: LabelledData, modality: str | None) -> LabelledData:
    """Add dimensions and modality where headers and values tell them."""
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
    """Return what a header says of a file; None for what is no file of its own, or cannot be read."""
    if isinstance(image, ScanReference):
        return image
    if not isinstance(image, FileImage):
        return None
    if image.path.is_dir():
        scans, _ = survey(image.path)
        return scans[0] if len(scans) == 1 else None
    try:
        return describe(image.path)[image.index or 0]
    except (ScanError, IndexError):
        return None  # preparation refuses it by name
