"""Find the cases to predict, each with a name: files, folders, globs, series and arrays."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath, normpath, relpath
from pathlib import Path

from modelsgenesis.data import ImageSource, ScanReference, SkippedScan, file_stem, scan_sources
from modelsgenesis.data.finding import channel_order
from modelsgenesis.data.labelled.images import ArrayImage, array_names, read_array
from modelsgenesis.errors import DataError
from modelsgenesis.files import read_json

_CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net's names: case_0000.nii.gz, case_0001.nii.gz

_SAME = "has the name of {} others, and so would its prediction"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What gets one prediction.

    Attributes:
        name: Name of the prediction, without ending; the folders of a searched folder stay in it.
        images: One for each channel, in the order of the model's.
        warning: Where its data set calls the channels otherwise than the model does; empty where all is well.
    """

    name: str
    images: tuple[ImageSource, ...]
    warning: str = ""

    @property
    def files(self) -> set[Path]:
        """What it is read from, which a prediction must not replace."""
        parts = (image.files if isinstance(image, ScanReference) else (image.path,) for image in self.images)
        return {file for files in parts for file in files if file}


def find_cases(
    source: str | Path | Sequence[str | Path], channels: Sequence[str] = ("image",)
) -> tuple[list[Case], list[SkippedScan]]:
    """Find what a prediction is asked for.

    Args:
        source: A file, a folder searched to any depth, a DICOM series, a glob, a list of files, MedMNIST's `.npz`, or
            several of these. As many files as there are channels are one case, in their order.
        channels: Of the model. With several, the files of a case are told by nnU-Net's names, `case_0000`,
            `case_0001`; or are the volumes of one file. Where a `dataset.json` names them, they are matched by name.

    Returns:
        The cases in the order of their paths, and what was skipped with its reason.

    Raises:
        DataError: The source does not exist, or is a list that cannot be read.
        MissingExtraError: A scan's format needs an optional dependency.

    Example:
        cases, skipped = find_cases("imagesTs", channels=("T1", "T2", "FLAIR", "T1w"))
        cases[0].name  # 'BRATS_485', of BRATS_485_0000.nii.gz to BRATS_485_0003.nii.gz
    """
    sources = [Path(one).expanduser() for one in ([source] if isinstance(source, (str, Path)) else source)]
    archives = [path for path in sources if path.suffix.lower() == ".npz" and path.is_file()]
    cases = [case for path in archives for case in array_cases(path, len(channels))]
    sources = [path for path in sources if path not in archives]
    scans, skipped = scan_sources(sources)
    if not all(path.is_file() for path in sources):  # a folder that was predicted in place can be predicted again
        predicted = {path for path in {scan.path: None for scan in scans} if is_prediction(path)}
        reason = "an earlier prediction, by the JSON file beside it"
        skipped += [SkippedScan(source=str(path), reason=reason, bad=False) for path in sorted(predicted)]
        scans = [scan for scan in scans if scan.path not in predicted]
    elif len(channels) > 1 and len(scans) == len(sources) == len(channels):
        scans = sorted(scans, key=lambda scan: sources.index(scan.path))
        return [*cases, Case(name=as_unicode(_CHANNEL.sub("", file_stem(scans[0].path))), images=tuple(scans))], skipped
    declared: dict[Path, tuple[str, ...]] = {}
    for name, found in _groups(scans, _root(sources, scans), len(channels)).items():
        reason, group = _check(name, found, len(channels))
        if reason:
            skipped.append(SkippedScan(source=group[0].source, reason=reason))
            continue
        folder = group[0].path.parent
        if len(channels) > 1 and folder not in declared:
            declared[folder] = _declared_channels(folder)
        names, warning = declared.get(folder, ()), ""
        if len(names) == len(group):
            order = channel_order(names, channels)
            warning = "" if order else other_channels("its data set", names, channels)
            group = [group[index] for index in order] if order else group
        cases.append(Case(name=name, images=tuple(group), warning=warning))
    names = Counter(case.name for case in cases)
    double = [case for case in cases if names[case.name] > 1]  # images of two archives
    skipped += [SkippedScan(source=one.images[0].source, reason=_SAME.format(names[one.name] - 1)) for one in double]
    return [case for case in cases if names[case.name] == 1], skipped


def as_unicode(name: str) -> str:
    r"""Return a file's name as text: bytes that are not UTF-8, as on old shares, are read as Latin-1.

    Example:
        >>> as_unicode("M\udcfcller")
        'Müller'
    """
    return re.sub("[\udc80-\udcff]", lambda byte: chr(ord(byte.group()) - 0xDC00), name)


def array_cases(path: Path, channels: int) -> list[Case]:
    """Return a case for each image in the arrays `images` or `…_images` of an `.npz` file, as MedMNIST names them.

    Raises:
        DataError: There is no such array, or its images do not have the model's channels.
        ScanError: It is not an `.npz` file.
    """
    held = array_names(path)
    keys = [key for key in held if key == "images" or key.endswith("_images")]
    if not keys:
        raise DataError(f"{path}: holds {', '.join(held) or 'no array'}; expected images, or test_images and so on")
    cases = []
    for key in keys:
        shape = read_array(path, key).shape
        if channels > 1 and shape[-1] != channels:
            raise DataError(f"{path}: {key} is {shape}; the model takes {channels} channels, expected them last")
        part, digits = key.removesuffix("images"), len(str(shape[0] - 1))
        for index in range(shape[0]):
            colours = range(channels) if channels > 1 else [None]
            images = tuple(ArrayImage(path=path, key=key, index=index, channel=channel) for channel in colours)
            cases.append(Case(name=f"{part}{index:0{digits}d}", images=images))
    return cases


def is_prediction(path: Path) -> bool:
    """Tell whether a file is a label map, its probabilities, or a table of this package, by the JSON file beside it."""
    beside = path.with_name(f"{file_stem(path).removesuffix('_probabilities')}.json")
    try:
        content = read_json(beside, DataError)
    except DataError:  # there is none, or somebody else's
        return False
    own = isinstance(content, dict) and content.get("library_name") == "modelsgenesis"
    return own and isinstance(content.get("labels"), dict)


def _root(sources: Sequence[Path], scans: Sequence[ScanReference]) -> str:
    """Return the folder that names are relative to: the one that was searched, or what all files share.

    It holds every scan, so that no name leads out of it: links are not followed, `..` is.
    """
    folders = [normpath(scan.path.parent.absolute()) for scan in scans]
    if len(sources) == 1 and sources[0].is_dir():
        folders.append(normpath(sources[0].absolute()))
    return commonpath(folders) if folders else ""


def _groups(scans: Sequence[ScanReference], root: str, channels: int) -> dict[str, list[ScanReference]]:
    """Put together what may be one case: the volumes of a file, or channels by nnU-Net's names."""
    series = Counter(scan.path.parent for scan in scans if scan.format == "DICOM" and len(scan.files) > 1)
    # Single-channel data sets of nnU-Net end in _0000 throughout; one such name among others is just a name.
    numbered = all(file_stem(scan.path).endswith("_0000") for scan in scans)
    seen: Counter[Path] = Counter()
    groups: dict[str, list[ScanReference]] = defaultdict(list)
    for scan in scans:
        folder, name = scan.path.parent, file_stem(scan.path)
        if scan.format == "DICOM" and len(scan.files) > 1:
            seen[folder] += 1
            several = f"_{seen[folder]}" if series[folder] > 1 else ""
            # The files of a series have numbers for names; what people call it is the folder.
            folder, name = folder.absolute().parent, folder.absolute().name + several
        elif scan.format == "DICOM" and scan.index is not None:
            name = f"{name}_{scan.index}"
        elif channels > 1 or numbered:
            name = _CHANNEL.sub("", name)
        groups[_relative(folder, name, root)].append(scan)
    return groups


def _relative(folder: Path, name: str, root: str) -> str:
    """Return the name with the folders between it and the root."""
    between = relpath(normpath(folder.absolute()), root)
    inside = between != "." and not between.startswith("..")  # the root may be a series' own folder
    return as_unicode(f"{Path(between).as_posix()}/{name}" if inside else name)


def _declared_channels(folder: Path) -> tuple[str, ...]:
    """Return the names of the channels, in the order of their numbers, that the data set of a folder gives them."""
    # In the Decathlon and in nnU-Net the images lie one folder below, in imagesTs.
    for path in (folder / "dataset.json", folder.parent / "dataset.json"):
        content = read_json(path, DataError) if path.exists() else None
        names = (content.get("channel_names") or content.get("modality")) if isinstance(content, dict) else None
        if isinstance(names, dict):
            return tuple(str(names[number]) for number in sorted(names, key=lambda number: (len(number), number)))
    return ()


def other_channels(where: str, declared: Sequence[str], channels: Sequence[str]) -> str:
    """Return the warning that channels cannot be matched by name."""
    return (
        f"the channels of {where}, {', '.join(declared)}, are not the model's {', '.join(channels)}: taken in this "
        "order; expect a poor prediction where it is another"
    )


def _check(name: str, scans: list[ScanReference], channels: int) -> tuple[str, list[ScanReference]]:
    """Return why scans of a name are not a case, empty if they are one; and the scans in the order of the channels."""
    count = len(scans)
    if count > 1 and len({scan.path for scan in scans}) == 1:
        wrong = f"holds {count} volumes; expected {channels}, one for each channel of the model"
        return ("" if count == channels else wrong), scans
    if channels == 1:
        if count == 1 and scans[0].index is not None and scans[0].format != "DICOM":
            return "holds several volumes; expected one", scans
        return ("" if count == 1 else _SAME.format(count - 1)), scans
    numbers = [int(match.group(1)) for scan in scans if (match := _CHANNEL.search(file_stem(scan.path)))]
    if len(numbers) != count:
        return f"is 1 file, the model takes {channels}: name them {name}_0000 and so on, or give all", scans
    if sorted(numbers) != list(range(channels)):
        has = ", ".join(f"_{number:04d}" for number in sorted(numbers))
        return f"of its channels {has} are there; expected _0000 to _{channels - 1:04d}", scans
    return "", sorted(scans, key=lambda scan: file_stem(scan.path))
