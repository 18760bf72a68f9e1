"""Class folders: the name of a folder is the class of the images below it."""

from collections.abc import Sequence
from pathlib import Path

from modelsgenesis.data.finding import find_scans
from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.names import OWN_PATIENT, class_order, find_patients, image_stem, part_of
from modelsgenesis.data.volume import Refusal, ScanReference
from modelsgenesis.errors import DataError

_Found = list[tuple[str | None, str, ScanReference]]


def read_folders(folder: Path, pattern: str | None = None) -> LabelledData:
    """Read a folder of classes, or folders `train`, `val`, `test` of classes.

    Args:
        folder: Holds a folder a class.
        pattern: Tells the patient from a file's name; by default that of DICOM, else `sub-…` of BIDS, else the part of
            the names before the last `_`, as in `00001280_004.png`.

    Raises:
        DataError: There is one class alone, or a class without an image.

    Example:
        data = read_labelled("chestxray8", modality="xray")
        data.labels  # ('no_finding', 'pneumonia')
    """
    places = _places(folder)
    labels = class_order([name for _, name, _ in places])
    if len(labels) < 2:
        raise DataError(
            f"{folder}: images of {', '.join(labels) or 'no class'} alone; expected a folder a class, two or more"
        )
    found: _Found = []
    refused: list[Refusal] = []
    for part, name, place in places:
        scans, bad = find_scans(place)
        found += [(part, name, scan) for scan in scans]
        refused += [refusal for refusal in bad if refusal.bad]
    patients, rule = _patients([scan for *_, scan in found], pattern)
    notes = [rule, *(f"left out {refusal.source}: {refusal.reason}" for refusal in refused)]
    return LabelledData(
        name=folder.resolve().name,
        task="classification",
        cases=tuple(
            LabelledCase(name=case, patient=patient, images=(scan,), classes=(labels.index(name),), part=part)
            for case, patient, (part, name, scan) in zip(_names(folder, found), patients, found, strict=True)
        ),
        labels=labels,
        notes=tuple(notes),
    )


def _places(folder: Path) -> list[tuple[str | None, str, Path]]:
    """Return part, class and folder of each folder of images."""
    inner = _subfolders(folder)
    if inner and all(part_of(place.name) for place in inner):
        return [(part_of(place.name), last.name, last) for place in inner for last in _subfolders(place)]
    return [(None, place.name, place) for place in inner]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))


def _patients(scans: Sequence[ScanReference], pattern: str | None) -> tuple[list[str], str]:
    """Return the patient of each image; DICOM files know theirs."""
    stems = [image_stem(scan.path) for scan in scans]
    if pattern is None and all(scan.format == "DICOM" for scan in scans):
        return [scan.group for scan in scans], "patients by the tags of DICOM"
    patients, rule = find_patients(stems, pattern, numbered=True)
    return patients, f"warning: {rule}" if rule == OWN_PATIENT else rule


def _names(folder: Path, found: _Found) -> list[str]:
    """Return the stems of the files, with their folders where stems repeat."""
    stems = [image_stem(scan.path) for *_, scan in found]
    if len(set(stems)) == len(stems):
        return stems
    paths = [(scan.path.relative_to(folder).as_posix(), scan.index) for *_, scan in found]
    return [path if index is None else f"{path}[{index}]" for path, index in paths]
