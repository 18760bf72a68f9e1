"""Images and label maps in folders of their own, or beside each other, paired by their names."""

import os
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from modelsgenesis.data import finding
from modelsgenesis.data.cases import LabelledCase, LabelledData, LabelledTask, structure_values
from modelsgenesis.data.finding import bare_name, holds_images, is_label_map, part_of
from modelsgenesis.data.reading import file_stem
from modelsgenesis.data.volume import ScanReference, SkippedScan
from modelsgenesis.errors import DataError, counted, some

# Whether the folders count, and whether an image's name ends in its channel, as p1_0000 or p1_t1; the surest first.
_READINGS = ((True, False), (True, True), (False, False), (False, True))
_REMEDY = (
    "name them alike, such as images/p1.nii.gz and labels/p1.nii.gz, or p1.nii.gz and p1_seg.nii.gz, or list them in a "
    "CSV with the columns image,mask"
)

Images = dict[str, list[ScanReference]]
Pairs = dict[str, tuple[Images, list[Path]]]
"""By what their names share: images by their channels, and label maps."""


def read_pairs(folder: Path, pattern: str | None, wanted: LabelledTask | None) -> LabelledData | str:
    """Read label maps with the images of their names.

    Args:
        folder: Holds folders such as `images` and `labels`, or `imagesTr` and `labelsTr`; or images with label maps
            beside them, such as `p1.nii.gz` and `p1_seg.nii.gz`. To any depth, with several channels a case.
        pattern: Regular expression of the patient in the name of a case; see `find_patients`.
        wanted: The task that was asked for.

    Returns:
        The segmentation. Where there are no label maps, or the folders are classes: what is to be said of it, or "".

    Raises:
        DataError: No label map can be paired.
        ScanError: A label map cannot be used.
    """
    places, skipped = finding.files_within(folder)
    masks = [path for path in places if _is_mask(path.relative_to(folder))]
    if not masks:
        return ""
    scans, unusable = finding.scan_sources(sorted({*places} - {*masks}))
    pairs = max((_pair(folder, scans, masks, *reading) for reading in _READINGS), key=len)
    alone = {*scans}.difference(scan for images, _ in pairs.values() for found in images.values() for scan in found)
    # Where each image has a label map, folders are rather patients, sites or parts than classes.
    if (alone if wanted is None else wanted == "classification") and _are_classes(folder, scans):
        paired = len(scans) - len(alone)
        masked = f"{counted(paired, 'image')} {'has' if paired == 1 else 'have'} label maps"
        told = f"warning: the folders are taken for classes although {masked}; --task seg takes them as a segmentation"
        return told if paired and wanted is None else ""
    if not pairs:
        names = f"images such as {scans[0].path.relative_to(folder)}" if scans else "no image"
        names += f", label maps such as {masks[0].relative_to(folder)}"
        raise DataError(f"{folder}: no label map has the name of an image: {names}; {_REMEDY}")
    channels = Counter(tuple(sorted(images)) for images, _ in pairs.values()).most_common(1)[0][0]
    left = [(scan.source, "no label map has the name of this image") for scan in alone]
    unpaired = {*masks}.difference(*(paths for _, paths in pairs.values()))
    left += [(str(path), "no image has the name of this label map") for path in unpaired]
    for key, (images, paths) in list(pairs.items()):
        if reason := _misfit(folder, images, paths, channels):
            left.append((key, reason))
            del pairs[key]
    if not pairs:
        raise DataError(f"{folder}: {': '.join(left[-1])}")
    skipped += unusable + [SkippedScan.because(*one, bad=False) for one in sorted(left)]
    inside = [replace(one, source=one.source.removeprefix(f"{folder}{os.sep}")) for one in skipped]
    return _labelled(folder, pairs, channels, pattern, inside)


def _misfit(folder: Path, images: Images, paths: list[Path], channels: tuple[str, ...]) -> str:
    """Return why the images and label maps of one name are no pair; "" where they are."""
    if images.keys() < {*channels}:
        return f"lacks {', '.join(one for one in channels if one not in images)}"
    scans = [scan.path for several in images.values() for scan in several]
    if images.keys() == {*channels} and (len(scans), len(paths)) == (len(channels), 1):
        return ""
    names = some([str(path.relative_to(folder)) for path in (*scans, *paths)])
    expected = f"one image for each of {', '.join(channels)}" if len(channels) > 1 else "one image"
    return f"{names} have one name; expected one label map and {expected}"


def _labelled(
    folder: Path, pairs: Pairs, channels: tuple[str, ...], pattern: str | None, skipped: list[SkippedScan]
) -> LabelledData:
    """Return the data set of the pairs: its structures by their values, its patients by names or the tags of DICOM."""
    paths = [folder / key for key in pairs]
    images = [[found[one][0] for one in channels] for found, _ in pairs.values()]
    patients, rule = [several[0].group for several in images], "patients by the tags of DICOM"
    if pattern is not None or any(several[0].format != "DICOM" for several in images):
        # Pictures of a patient are numbered, as 7_1.png and 7_2.png; of volumes each is taken for a patient.
        pictures = all(several[0].spacing is None for several in images)
        patients, rule = finding.find_patients(paths, pattern, classes=[()] * len(paths) if pictures else None)
    masks = [mask for _, (mask,) in pairs.values()]
    cases = []
    for name, patient, several, mask in zip(finding.unique_names(paths, folder), patients, images, masks, strict=True):
        folders = _place(several[0]).relative_to(folder).parts[:-1]
        part = next(filter(None, map(part_of, map(bare_name, folders))), None)  # that a folder names, such as `test`
        cases.append(LabelledCase(name=name, patient=patient, images=tuple(several), mask=mask, part=part))
    values, count = structure_values(masks), len(channels)
    named = some([str(value) for value in values[1:]]) or "none"
    modality = finding.modality_of(channels)
    numbered = ("image",) if count == 1 else tuple(f"channel {number}" for number in range(count))
    return LabelledData(
        name=folder.resolve().name,
        task="segmentation",
        cases=tuple(cases),
        labels=("background", *map(str, values[1:])),
        values=tuple((value,) for value in values),
        modality=modality,
        channels=channels if modality else numbered,
        notes=(
            f"{counted(len(cases), 'pair')} of image and label map, by their names",
            f"structures by their values in the label maps: {named}; a dataset.json or a CSV can name them",
            rule,
            *finding.skipped_notes(skipped),
        ),
    )


def _is_mask(path: Path) -> bool:
    """Tell whether a file's own name says that it holds labels, else that of the nearest folder that says anything."""
    told = (name for name in reversed(path.parts[:-1]) if holds_images(name) or is_label_map(name))
    return is_label_map(path.name) or is_label_map(next(told, ""))


def _place(scan: ScanReference) -> Path:
    """Return what people name: the file, of a series its folder."""
    return scan.path.parent if scan.format == "DICOM" and len(scan.files) > 1 else scan.path


def _pair(folder: Path, scans: list[ScanReference], masks: list[Path], by_folder: bool, by_channel: bool) -> Pairs:
    """Return what has both images and label maps by one reading of their names."""
    found: Pairs = defaultdict(lambda: (defaultdict(list), []))
    for mask in masks:
        found[_key(mask.relative_to(folder), by_folder)[0]][1].append(mask)
    for scan in scans:
        key, channel = _key(_place(scan).relative_to(folder), by_folder, by_channel)
        if key in found:
            found[key][0][channel if scan.index is None else f"{channel} {scan.index:04d}"].append(scan)
    pairs: Pairs = {}
    for key, (images, paths) in found.items():
        channel = next(iter(images), "")
        # One image is the image, whatever its folders are called; a channel is T1 or 0000.
        alone = len(images) == 1 and not finding.CHANNEL_ENDING.fullmatch(channel)
        if images:
            pairs[key] = ({"": images[channel]} if alone else images, paths)
    return pairs


def _key(path: Path, by_folder: bool, by_channel: bool = False) -> tuple[str, str]:
    """Return what the names of a case share, without the words of images and labels; and the channel."""
    folders, stem = list(filter(None, map(bare_name, path.parts[:-1]))), bare_name(file_stem(path))
    ending = finding.CHANNEL_ENDING.search(stem) if by_channel else None
    shared, channel = (folders, []) if by_folder else ([], folders)
    if ending:
        stem, channel = stem[: ending.start()], [*channel, ending.group(1)]
    return "/".join([*shared, stem]), " ".join(channel)


def _are_classes(folder: Path, scans: list[ScanReference]) -> bool:
    """Tell whether folders hold images as classes do: several, and not as patients, parts and channels do."""
    held: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        path = _place(scan).relative_to(folder)
        place, stem = path.parent.name, finding.CHANNEL_ENDING.sub("", file_stem(path))
        patient = re.search(r"\d", place) and stem.startswith(place)  # patient001/patient001_frame01.nii.gz
        others = patient or part_of(place) or finding.CHANNEL_ENDING.fullmatch(place)
        if place and not others and not any(map(holds_images, path.parts[:-1])):
            held[place].add(stem)
    return len(held) > 1 and any(len(stems) > 1 for stems in held.values())
