"""The layout of the Medical Segmentation Decathlon: a `dataset.json` that lists images with labels."""

import json
from pathlib import Path
from typing import Any

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.names import modality_of
from modelsgenesis.data.labelled.sources import FileImage
from modelsgenesis.data.volume import file_stem
from modelsgenesis.errors import DataError


def read_decathlon(folder: str | Path) -> LabelledData:
    """Read the `dataset.json` of a data set in the layout of the Medical Segmentation Decathlon.

    Args:
        folder: Holds `dataset.json`, `imagesTr` and `labelsTr`; or the path of `dataset.json` itself.

    Returns:
        The cases of its `training` list; each is its own patient. Where `modality` names several channels, they are
        the volumes of one file.

    Raises:
        DataError: The folder or file is missing, is no JSON, or lacks a key; or it lists files that are not there.

    Example:
        data = read_decathlon("Task04_Hippocampus")
        data.labels  # ('background', 'Anterior', 'Posterior')
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / "dataset.json"
    content = read_description(path)
    try:
        names = {int(value): str(name) for value, name in content["labels"].items()}
        pairs = [(path.parent / item["image"], path.parent / item["label"]) for item in content["training"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path}: expected keys labels (value to name) and training (list of image and label); {error!r}"
        ) from error
    if 0 not in names:
        raise DataError(f"{path}: labels has no value 0 for the background")
    missing = [str(file) for pair in pairs for file in pair if not file.exists()]
    if missing:
        raise DataError(f"{path}: lists {len(missing)} files that are not there, such as {missing[0]}")
    if not pairs:
        raise DataError(f"{path}: its training list is empty")
    values, channels = tuple(sorted(names)), _channels(content.get("modality"))
    return LabelledData(
        name=str(content.get("name", path.parent.name)),
        task="segmentation",
        cases=tuple(_case(image, label, len(channels)) for image, label in pairs),
        labels=tuple(names[value] for value in values),
        values=tuple((value,) for value in values),
        modality=modality_of(channels),
        channels=channels,
    )


def read_description(path: Path) -> dict[str, Any]:
    """Read a `dataset.json`.

    Raises:
        DataError: The folder or file is missing, or is no JSON object.
    """
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder")
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path.parent}: no dataset.json; expected the layout of the Decathlon") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as a dataset.json: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected keys labels and training")
    return content


def _case(image: Path, label: Path, channels: int) -> LabelledCase:
    """Return one case; several channels are the volumes of its file."""
    indices = [None] if channels == 1 else list(range(channels))
    name = file_stem(image)
    return LabelledCase(
        name=name, patient=name, images=tuple(FileImage(path=image, index=index) for index in indices), mask=label
    )


def _channels(content: object) -> tuple[str, ...]:
    """Return the names of the channels in the order of their numbers."""
    if isinstance(content, dict) and content:
        ordered = sorted(content, key=lambda key: (len(str(key)), str(key)))
        return tuple(str(content[key]) for key in ordered)
    return (str(content) if content else "image",)
