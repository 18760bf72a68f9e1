"""nnU-Net's raw layout: a file a channel, `imagesTr/case_0000.nii.gz`, and `labelsTr/case.nii.gz`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.names import OWN_PATIENT, find_patients, modality_of
from modelsgenesis.data.labelled.sources import FileImage
from modelsgenesis.errors import DataError


def is_nnunet(path: Path, content: Mapping[str, Any]) -> bool:
    """Return whether a `dataset.json` is nnU-Net's: version 2 by its keys, version 1 by the names of its files."""
    if "channel_names" in content or "file_ending" in content:
        return True
    listed = content.get("training")
    return not isinstance(listed, list) and (path.parent / "imagesTr").is_dir()


def is_nnunet_one(path: Path, pairs: list[tuple[Path, Path]]) -> bool:
    """Return whether a list of images in the Decathlon's manner leaves out nnU-Net's `_0000`."""
    image = pairs[0][0] if pairs else path
    return not image.exists() and image.with_name(re.sub(r"(\.nii(\.gz)?)$", r"_0000\1", image.name)).exists()


def read_nnunet(path: Path, content: Mapping[str, Any], pattern: str | None = None) -> LabelledData:
    """Read a data set in nnU-Net's raw layout.

    Args:
        path: Its `dataset.json`, of version 1 (`modality`, `labels` from value to name) or 2 (`channel_names`,
            `labels` from name to value, `file_ending`).
        content: What that holds.
        pattern: Tells the patient from a case's name; by default each case is its own.

    Raises:
        DataError: A key is missing or of another kind, labels are regions, or files are not there.

    Example:
        data = read_labelled("nnUNet_raw/Dataset001_BrainTumour")
        data.channels, len(data.cases[0].images)  # ('FLAIR', 'T1w', 't1gd', 'T2w'), 4
    """
    ending = str(content.get("file_ending", ".nii.gz"))
    channels = _channels(path, content)
    labels = _labels(path, content)
    files = _files(path, content, len(channels), ending)
    names = list(files)
    patients, rule = find_patients(names, pattern, numbered=False)
    notes = () if rule == OWN_PATIENT else (rule,)
    count = content.get("numTraining")
    if isinstance(count, int) and count != len(names):
        notes = (*notes, f"{path.name} says {count} training cases, {len(names)} were found")
    values = tuple(sorted(labels))
    return LabelledData(
        name=str(content.get("name", path.parent.name)),
        task="segmentation",
        cases=tuple(
            LabelledCase(
                name=name,
                patient=patient,
                images=tuple(FileImage(path=file) for file in files[name][0]),
                mask=files[name][1],
            )
            for name, patient in zip(names, patients, strict=True)
        ),
        labels=tuple(labels[value] for value in values),
        values=tuple((value,) for value in values),
        modality=modality_of(channels),
        channels=channels,
        notes=notes,
    )


def _channels(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    named = content.get("channel_names") or content.get("modality")
    if not isinstance(named, dict) or not named:
        raise DataError(f"{path}: expected channel_names (or modality), from number to name")
    try:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except ValueError as error:
        raise DataError(f"{path}: channel_names has keys {', '.join(named)}; expected numbers") from error


def _labels(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each value; version 2 has them the other way about."""
    listed = content.get("labels")
    if not isinstance(listed, dict) or not listed:
        raise DataError(f"{path}: expected labels, from name to value (or from value to name)")
    regions = [name for name, value in listed.items() if isinstance(value, list)]
    if regions:
        raise DataError(
            f"{path}: labels {', '.join(regions)} are regions of several values, which may overlap; expected one value "
            "a label: write the parts as labels of their own"
        )
    if "ignore" in listed:
        raise DataError(
            f"{path}: has an ignore label, which training here knows nothing of; give it a class or remove it"
        )
    try:
        turned = all(str(name).isdecimal() for name in listed)
        names = {int(name if turned else value): str(value if turned else name) for name, value in listed.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: labels {listed}: expected whole numbers as values") from error
    if 0 not in names or len(names) < len(listed):
        raise DataError(f"{path}: labels {listed}: expected a value of its own each, 0 for the background")
    return names


def _files(path: Path, content: Mapping[str, Any], channels: int, ending: str) -> dict[str, tuple[list[Path], Path]]:
    """Return the channels and the mask of each case by its name."""
    folder = path.parent
    listed = content.get("dataset")
    if isinstance(listed, dict):
        try:
            files = {
                str(name): ([folder / image for image in case["images"]], folder / case["label"])
                for name, case in listed.items()
            }
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: dataset: expected images and label of each case; {error!r}") from error
    else:
        masks = sorted(mask for mask in (folder / "labelsTr").glob(f"*{ending}") if not mask.name.startswith("."))
        stems = {mask.name.removesuffix(ending): mask for mask in masks}
        files = {
            name: ([folder / "imagesTr" / f"{name}_{channel:04d}{ending}" for channel in range(channels)], mask)
            for name, mask in stems.items()
        }
    if not files:
        raise DataError(f"{path}: no labels in {folder / 'labelsTr'} that end in {ending}")
    missing = [str(file) for images, mask in files.values() for file in (*images, mask) if not file.exists()]
    if missing:
        raise DataError(f"{path}: {len(missing)} files are not there, such as {missing[0]}; {channels} channels a case")
    wrong = [name for name, (images, _) in files.items() if len(images) != channels]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} lists {len(files[wrong[0]][0])} images; expected {channels} channels")
    return files
