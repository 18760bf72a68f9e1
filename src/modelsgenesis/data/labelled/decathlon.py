"""The layout of the Medical Segmentation Decathlon: a `dataset.json` that lists images with labels."""

import json
from pathlib import Path
from typing import Any

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.names import OWN_PATIENT, find_patients, modality_of
from modelsgenesis.data.labelled.nnunet import is_nnunet, is_nnunet_one, read_nnunet
from modelsgenesis.data.labelled.sources import FileImage
from modelsgenesis.data.volume import file_stem
from modelsgenesis.errors import DataError


def read_decathlon(folder: str | Path, pattern: str | None = None) -> LabelledData:
    """Read the data set that a `dataset.json` describes, the Decathlon's or nnU-Net's.

    Args:
        folder: Holds `dataset.json`, `imagesTr` and `labelsTr`; or the path of `dataset.json` itself.
        pattern: Tells the patient from a file's name; by default each case is its own.

    Returns:
        The cases of its `training` list. Where `modality` names several channels, they are the volumes of one file.

    Raises:
        DataError: The folder or file is missing, is no JSON, or lacks a key; or it lists files that are not there.

    Example:
        data = read_decathlon("Task04_Hippocampus")
        data.labels  # ('background', 'Anterior', 'Posterior')
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / "dataset.json"
    content = _description(path)
    if is_nnunet(path, content):
        return read_nnunet(path, content, pattern)
    names, pairs = _listed(path, content)
    if is_nnunet_one(path, pairs):
        return read_nnunet(path, content, pattern)
    if 0 not in names:
        raise DataError(f"{path}: labels has no value 0 for the background")
    missing = [str(file) for pair in pairs for file in pair if not file.exists()]
    if missing:
        raise DataError(f"{path}: lists {len(missing)} files that are not there, such as {missing[0]}")
    if not pairs:
        raise DataError(f"{path}: its training list is empty")
    channels, values = _channels(content.get("modality")), tuple(sorted(names))
    patients, rule = find_patients([file_stem(image) for image, _ in pairs], pattern, numbered=False)
    return LabelledData(
        name=str(content.get("name", path.parent.name)),
        task="segmentation",
        cases=tuple(
            _case(image, label, patient, len(channels)) for (image, label), patient in zip(pairs, patients, strict=True)
        ),
        labels=tuple(names[value] for value in values),
        values=tuple((value,) for value in values),
        modality=modality_of(channels),
        channels=channels,
        notes=() if rule == OWN_PATIENT else (rule,),
    )


def _description(path: Path) -> dict[str, Any]:
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder")
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path.parent}: no dataset.json; expected the layout of the Decathlon") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as a dataset.json: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected keys labels and training, received a {type(content).__name__}")
    return content


def _listed(path: Path, content: dict[str, Any]) -> tuple[dict[int, str], list[tuple[Path, Path]]]:
    """Return the name of each value, and the image and label of each case."""
    try:
        names = {int(value): str(name) for value, name in content["labels"].items()}
        return names, [(path.parent / item["image"], path.parent / item["label"]) for item in content["training"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path}: expected keys labels (value to name) and training (list of image and label); {error!r}"
        ) from error


def _case(image: Path, label: Path, patient: str, channels: int) -> LabelledCase:
    """Return one case; several channels are the volumes of its file."""
    indices = [None] if channels == 1 else list(range(channels))
    return LabelledCase(
        name=file_stem(image),
        patient=patient,
        images=tuple(FileImage(path=image, index=index) for index in indices),
        mask=label,
    )


def _channels(content: object) -> tuple[str, ...]:
    """Return the names of the channels in the order of their numbers."""
    if isinstance(content, dict) and content:
        ordered = sorted(content, key=lambda key: (len(str(key)), str(key)))
        return tuple(str(content[key]) for key in ordered)
    return (str(content) if content else "image",)
