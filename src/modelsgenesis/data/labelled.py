"""Labelled scans for segmentation: the Medical Segmentation Decathlon's layout and the embedded sample."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from modelsgenesis.configs import InputContract
from modelsgenesis.data.preparation import PreparedVolume, prepare, prepare_label
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.volume import Refusal, Volume, file_stem
from modelsgenesis.errors import DataError, GenesisError, ScanError

_MODALITIES = {
    "ct": "ct",
    "mri": "mri",
    "mr": "mri",
    "t1": "mri",
    "t2": "mri",
    "flair": "mri",
    "xray": "xray",
}


@dataclass(frozen=True, kw_only=True)
class LabelledCase:
    """A scan with its segmentation.

    Attributes:
        name: What a message and a prediction's file name call it.
        image: File of the scan.
        label: File of the segmentation, on the scan's own grid.
    """

    name: str
    image: Path
    label: Path


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """A labelled data set.

    Attributes:
        name: What reports call it.
        cases: Its scans with labels; one case a patient.
        labels: Class names, the background first.
        values: The values of each class in the label files.
        others_are_background: Whether other values count as background; else they are an error.
        modality: As the data set says, or None.
    """

    name: str
    cases: tuple[LabelledCase, ...]
    labels: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    others_are_background: bool = False
    modality: str | None = None


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """A labelled scan in memory, as the network sees it.

    Attributes:
        name: Of the case.
        image: Prepared scan.
        label: Class indices on the prepared grid, uint8 [*spatial].
    """

    name: str
    image: PreparedVolume
    label: np.ndarray


def read_decathlon(folder: str | Path) -> LabelledData:
    """Read the `dataset.json` of a data set in the layout of the Medical Segmentation Decathlon.

    Args:
        folder: Holds `dataset.json`, `imagesTr` and `labelsTr`; or the path of `dataset.json` itself.

    Returns:
        The cases of its `training` list.

    Raises:
        DataError: The folder or file is missing, is no JSON, or lacks a key; or it lists files that are not there.

    Example:
        data = read_decathlon("Task04_Hippocampus")
        data.labels  # ('background', 'Anterior', 'Posterior')
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / "dataset.json"
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder")
    try:
        content = json.loads(path.read_text())
        names = {int(value): str(name) for value, name in content["labels"].items()}
        pairs = [(path.parent / item["image"], path.parent / item["label"]) for item in content["training"]]
    except FileNotFoundError as error:
        raise DataError(f"{path.parent}: no dataset.json; expected the layout of the Decathlon") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a dataset.json: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
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
    values = tuple(sorted(names))
    return LabelledData(
        name=str(content.get("name", path.parent.name)),
        cases=tuple(LabelledCase(name=file_stem(image), image=image, label=label) for image, label in pairs),
        labels=tuple(names[value] for value in values),
        values=tuple((value,) for value in values),
        modality=_modality(content.get("modality")),
    )


def sample_data() -> LabelledData:
    """Return the embedded sample: two patients of TotalSegmentator's test files with three organs.

    The scans are at 3 mm; a model drew the labels, not people. One patient is an abdominal slab of 13 slices.
    """
    folder = sample_folder()
    organs = {"background": (0,), "liver": (5,), "spleen": (1,), "back muscles": (86, 87)}
    cases = [
        LabelledCase(name=file_stem(image), image=image, label=folder / "labels" / image.name)
        for image in sorted((folder / "images").iterdir())
        if (folder / "labels" / image.name).exists()
    ]
    return LabelledData(
        name="embedded sample of CT",
        cases=tuple(cases),
        labels=tuple(organs),
        values=tuple(organs.values()),
        others_are_background=True,
        modality="ct",
    )


def sample_folder() -> Path:
    """Return the folder of the embedded scans."""
    return Path(str(resources.files("modelsgenesis"))) / "sample"


def _modality(content: object) -> str | None:
    """Return the modality of the first channel as this package calls it, or None."""
    first = next(iter(content.values()), "") if isinstance(content, dict) else content
    return _MODALITIES.get(str(first).lower().replace("-", ""))


def check_same_grid(image: Volume, other: Volume) -> None:
    """Refuse a label, or another channel, that does not lie on its image.

    Raises:
        ScanError: Shapes or affines differ.
    """
    if image.array.shape != other.array.shape:
        raise ScanError(
            f"{other.source}: shape {other.array.shape} is not the {image.array.shape} of its image {image.source}"
        )
    offset = np.abs(image.affine - other.affine).max()
    if image.measured and other.measured and offset > 1e-2:
        raise ScanError(f"{other.source}: its affine is up to {offset:.3g} mm away from its image's, {image.source}")


def label_indices(values: np.ndarray, data: LabelledData, source: str) -> np.ndarray:
    """Turn the values of a label file into class indices, uint8.

    Raises:
        ScanError: A value is none of the data set's labels.
    """
    known = {value for group in data.values for value in group}
    unknown = sorted(set(np.unique(values).tolist()) - known)
    if unknown and not data.others_are_background:
        raise ScanError(f"{source}: label values {unknown[:5]} are not among {sorted(known)} of the data set")
    indices = np.zeros(values.shape, np.uint8)
    for index, group in enumerate(data.values[1:], start=1):
        indices[np.isin(values, group)] = index
    return indices


def prepare_case(case: LabelledCase, data: LabelledData, contract: InputContract) -> PreparedCase:
    """Read and prepare a scan and its label.

    Raises:
        ScanError: A file cannot be read or used, the label is on another grid, or it has unknown values.
    """
    scan, label = read_volume(case.image), read_volume(case.label)
    check_same_grid(scan, label)
    indices = replace(label, array=label_indices(label.array, data, str(case.label)))
    prepared = prepare_label(indices, contract)
    return PreparedCase(name=case.name, image=prepare(scan, contract), label=prepared.array.astype(np.uint8))


def prepare_cases(
    cases: Sequence[LabelledCase], data: LabelledData, contract: InputContract, *, strict: bool = False
) -> tuple[list[PreparedCase], list[Refusal]]:
    """Prepare many cases; a bad one is refused and reported, unless `strict`.

    Raises:
        DataError: None is usable.
        ScanError: One is not usable and `strict` is set.
    """
    prepared: list[PreparedCase] = []
    refused: list[Refusal] = []
    for case in cases:
        try:
            prepared.append(prepare_case(case, data, contract))
        except GenesisError as error:
            if strict:
                raise
            refused.append(Refusal(source=case.name, reason=str(error)))
    if cases and not prepared:
        raise DataError(f"{data.name}: none of {len(cases)} cases is usable; the first: {refused[0].reason}")
    return prepared, refused
