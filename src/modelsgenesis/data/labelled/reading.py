"""Which layout a labelled data set has, and reading it."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from modelsgenesis.configs.bundle import Modality
from modelsgenesis.data.labelled.cases import LabelledData, LabelledTask
from modelsgenesis.data.labelled.decathlon import read_decathlon
from modelsgenesis.errors import ConfigurationError, DataError, nearest

_TASKS: dict[str, LabelledTask] = {
    "seg": "segmentation",
    "segmentation": "segmentation",
    "cls": "classification",
    "classification": "classification",
}


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
    """Read a labelled data set, in whichever of the known layouts it is.

    Args:
        source: A folder with a `dataset.json` in the Decathlon's layout, or that file.
        task: `"seg"` or `"cls"`; None takes what the data is for.
        modality: What the images are; None takes what the data set says.
        patient_pattern: A regular expression on a file's name whose first group is the patient.

    Returns:
        The data set.

    Raises:
        DataError: The layout is not known, or the data set cannot be used, or is for another task.
        ConfigurationError: Task or modality is unknown.

    Example:
        data = read_labelled("Task04_Hippocampus")
        len(data.cases), data.labels  # 195, ('background', 'Anterior', 'Posterior')
    """
    wanted = None if task is None else find_task(task)
    if modality is not None and modality not in get_args(Modality):
        raise ConfigurationError(f"modality: received {modality!r}; {nearest(modality, get_args(Modality))}")
    data = read_decathlon(source)
    if wanted not in (None, data.task):
        raise DataError(f"{data.name}: its labels are for {data.task}, {wanted} was asked for")
    return data if modality is None else replace(data, modality=modality)
