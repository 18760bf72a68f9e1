"""Finding scans, and what names tell: of a file the patient or that it holds labels, of a channel its modality."""

import glob
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from modelsgenesis.data.predictions import EARLIER, PREVIEW, is_prediction
from modelsgenesis.data.reading import KNOWN_FORMATS, file_stem, read_header, reader_of
from modelsgenesis.data.volume import ScanReference, SkippedScan, VoxelLayout
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, did_you_mean, some
from modelsgenesis.files import parsing, read_text, reason_of

Source = str | Path | Sequence[str | Path]
Found = tuple[list[ScanReference], list[SkippedScan]]
Place = tuple[Path, str | None] | SkippedScan  # a file and the modality that its data set tells, or what is left aside

_LIST_SUFFIXES = (".txt", ".lst", ".list")
_NNUNET_PREDICTIONS = "predict_from_raw_data_args.json"  # nnU-Net writes it beside the label maps that it predicts

_CHANNELS = {
    "ct": "ct cta ctpa",
    "mri": "mri mr t1 t1w t1n t1c t1ce t1gd t2 t2w t2f flair adc dwi pd swi",
    "xray": "xray cxr",
    "ultrasound": "ultrasound us",
}
_MODALITIES = {word: modality for modality, words in _CHANNELS.items() for word in words.split()}
_PARTS = {"training": "training train tr", "validation": "validation valid val dev", "test": "test testing ts"}
_NEGATIVE = {"normal", "no_finding", "no finding", "negative", "healthy", "benign", "control", "none", "no", "absent"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of camelCase as well
_LABEL = re.compile(
    "labels?|labelmaps?|lbl|masks?|segs?|segm|segmentations?|[ad]seg|probseg|aparc|wmparc|gt|(ground)?truth|annotations?"
    "|preds?|predictions?"
)
_ROLE = re.compile(
    rf"(?:{_LABEL.pattern})|ground|roi|images?|imgs?|imaging|scans?|volumes?|vols?|inputs?|orig|originals?|raw"
)
LEFTOVER = re.compile(r"\._.*|__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Names of what macOS or Windows left behind."""

_BIDS = re.compile(r"sub-[A-Za-z0-9]+")
_VISIT = re.compile(  # of the same patient
    r"(?:ses|session|visit|time(?:point)?|tp?|day|week|month|year)[-_ ]?\d+|(?:19|20)\d\d[-_]?\d\d[-_]?\d\d",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(.*\d.*)_[^_]*")
_GENERIC = "|".join((*_MODALITIES, "pet", "image", "imaging", "img", "volume", "vol", "scan", "orig"))
_COUNTED = re.compile(rf"(?:{_GENERIC}|slice|frame)?[-_ ]*\d+", re.IGNORECASE)
CHANNEL_ENDING = re.compile(rf"(?:^|[-_. ]+)(\d{{4}}|{_GENERIC})$", re.IGNORECASE)
"""Of the name of a channel's file: nnU-Net's number, or what it shows."""

# What the names of several images of a patient differ in: the channel, or a frame or slice with its number.
_SERIES = re.compile(rf"(?:(?:^|[-_. ]+)(?:{_GENERIC})|[-_. ]+(?:frame|slice|phase|view)[-_ ]?\d+)+$", re.IGNORECASE)

OWN_PATIENT = "every image counts as its own patient; if patients have several, name them with --patient"
"""The note of a data set in which no rule finds several images of one patient."""


def find_scans(source: Source, *, group_pattern: str | None = None) -> Found:
    r"""Find every scan that a source names, by its header alone.

    Args:
        source: A scan; a folder, searched to any depth; a glob, `**` included; a text file with a path a
            line; a Decathlon or nnU-Net `dataset.json`, or its folder; or a sequence of these.
        group_pattern: A regular expression on the file's name, else its path, whose first group is the patient, such
            as `(\d+)_`, where no tag of DICOM tells. By default see `find_patients`.

    Returns:
        The scans in the order of their paths, and what was skipped with its reason. Label maps beside scans and what
        macOS or Windows left are among the skipped and not bad; files that are not images are passed over.

    Raises:
        DataError: Nothing usable was found; the message tells why the first was skipped.
        ConfigurationError: The pattern is not a regular expression.

    Example:
        scans, skipped = find_scans("~/scans")
        scans[0].shape, scans[0].spacing  # (512, 512, 133), (0.7, 0.7, 2.5)
    """
    scans, skipped = scan_sources(source, group_pattern=group_pattern)
    if not scans:
        shown = str(source) if isinstance(source, (str, Path)) else ", ".join(map(str, source[:3]))
        first = f": {len(skipped)} skipped, the first {skipped[0].source}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{shown}: no usable scan{first}; expected {KNOWN_FORMATS}")
    return scans, skipped


def scan_sources(source: Source, *, group_pattern: str | None = None) -> Found:
    """Do what `find_scans` does, but return empty lists instead of raising when nothing is usable.

    Raises:
        DataError: The source does not exist, or is a list or `dataset.json` that cannot be read.
    """
    scans: list[ScanReference] = []
    skipped: list[SkippedScan] = []
    slices: list[Path] = []  # of DICOM series, put together once all files are known
    for place in _places([source] if isinstance(source, (str, Path)) else source, set()):
        if isinstance(place, SkippedScan):
            skipped.append(place)
            continue
        path, modality = place
        try:
            with parsing(path, ScanError, what="by its name, which is not UTF-8", remedy="rename it"):
                str(path).encode()  # else neither tables nor JSON nor a terminal could hold it
            layout = None if reader_of(path) == "dicom" else read_header(path)
            if isinstance(layout, VoxelLayout):
                told = {name: getattr(layout, name) for name in ("files", "format", "shape", "spacing", "notes")}
                indices = range(layout.count) if layout.count > 1 else [None]
                scans += [ScanReference(path=path, modality=modality, index=index, **told) for index in indices]
            elif layout is not None:  # the series of a folder that a list or a `dataset.json` names
                scans += [replace(one, modality=one.modality or modality) for one in layout]
            else:
                slices.append(path)
        except ScanError as error:
            skipped.append(SkippedScan.because(path, error))
    if slices:
        from modelsgenesis.data import dicom

        found, more = dicom.find_series(dict.fromkeys(slices))  # each once, however often it was named
        scans, skipped = scans + found, skipped + more
    scans = list({(scan.index, scan.files): scan for scan in scans}.values())
    patients = iter(find_patients([scan.path for scan in scans if not scan.group], group_pattern)[0])
    return [replace(scan, group=scan.group or next(patients)) for scan in scans], list(dict.fromkeys(skipped))


survey = scan_sources  # its name in 0.1.0


def skipped_notes(skipped: Sequence[SkippedScan]) -> list[str]:
    """Return a line for each bad scan, and one for all that were left aside on purpose for the same reason."""
    notes = [f"skipped {one.source}: {one.reason}" for one in skipped if one.bad]
    for reason in dict.fromkeys(one.reason for one in skipped if not one.bad):
        names = [one.source for one in skipped if not one.bad and one.reason == reason]
        notes.append(f"skipped {some(names)}: {reason}")
    return notes


def files_within(folder: Path) -> tuple[list[Path], list[SkippedScan]]:
    """Return the files of a folder that may be scans or label maps, and what is left aside."""
    places = list(_walk(folder, labels=True))
    return [one[0] for one in places if isinstance(one, tuple)], [one for one in places if isinstance(one, SkippedScan)]


def _places(sources: Iterable[str | Path], lists: set[Path]) -> Iterator[Place]:
    """Yield the files that sources name, or what a list or a data set's description among them names.

    Args:
        sources: As of `find_scans`.
        lists: The lists that were read already: one may name itself.
    """
    for source in sources:
        with parsing(source, DataError, what="as scans", remedy="check the path"):
            path = Path(source).expanduser()
            if path.is_dir():
                found = list(_walk(path, labels=False))
                if is_label_map(path.name) and not any(isinstance(one, tuple) for one in found):
                    found = list(_walk(path, labels=True))  # labels that were named, and nothing else, are meant
                yield from found
            elif not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for a name that is too long
                if not glob.has_magic(str(path)):
                    raise DataError(f"{source}: there is no such file or folder")
                matches = sorted(filter(Path.is_file, map(Path, glob.glob(str(path), recursive=True))))  # noqa: PTH207
                yield from _sift(matches, labels=is_label_map(path.name))  # none are like a folder without a scan
            elif path.suffix.lower() == ".json":
                if (images := _described(path)) is None:
                    raise DataError(f"{path}: neither a Decathlon nor an nnU-Net description: no training cases in it")
                yield from images
            elif path.suffix.lower() not in _LIST_SUFFIXES:
                yield path, None
            elif path not in lists:
                lists.add(path)
                lines = [line.strip() for line in read_text(path, DataError).splitlines()]
                named = [path.parent / Path(line).expanduser() for line in lines if line and not line.startswith("#")]
                yield from _places(named, lists)


def _described(path: Path) -> list[Place] | None:
    """Return the images, not the labels, of a Decathlon or nnU-Net data set; None where the file describes none."""
    from modelsgenesis.data import dataset_json  # which most folders of scans have no need of

    if (description := dataset_json.read_description(path)) is None:
        return None
    modality, missing = modality_of(description.channels), f"named in {path.name}, but not there"
    there = dataset_json.is_there
    return [(one, modality) if there(one) else SkippedScan.because(one, missing) for one in description.images]


def _walk(root: Path, *, labels: bool) -> Iterator[Place]:
    """Walk to any depth, once through each folder however many links lead to it; to labels only if those are meant."""
    entered: set[tuple[int, int]] = set()
    unreadable: list[OSError] = []
    for place, inner, files in os.walk(root, followlinks=True, onerror=unreadable.append):
        folder, aside, images = Path(place), "", None
        status = folder.stat()
        if (status.st_dev, status.st_ino) in entered:
            aside = "a link back to a folder that was searched already"
        elif folder != root and _NNUNET_PREDICTIONS in files:
            aside = "label maps that nnU-Net predicted"
        entered.add((status.st_dev, status.st_ino))
        if aside:
            yield SkippedScan.because(folder, aside, bad=False)
        elif "dataset.json" in files:
            try:
                images = _described(folder / "dataset.json")
            except DataError as error:  # damaged: the folder is searched
                yield SkippedScan.because(folder / "dataset.json", error)
        if aside or images is not None:
            yield from images or ()
            inner.clear()  # the walk goes on in what is left here
            continue
        deeper = list(_sift(map(folder.joinpath, sorted(inner)), labels=labels, folders=True))
        inner[:] = [one[0].name for one in deeper if not isinstance(one, SkippedScan)]
        yield from (one for one in deeper if isinstance(one, SkippedScan))
        yield from _sift(map(folder.joinpath, sorted(files)), labels=labels)
    for problem in unreadable:
        yield SkippedScan.because(problem.filename, f"cannot be listed: {reason_of(problem)}")


def _sift(paths: Iterable[Path], *, labels: bool, folders: bool = False) -> Iterator[Place]:
    """Yield what may be a scan of the files and folders that were come upon; labels only if those are meant."""
    for path in paths:
        if LEFTOVER.fullmatch(path.name):
            yield SkippedScan.because(path, "left by macOS or Windows, not a scan", bad=False)
        elif path.name.endswith((PREVIEW,) if labels else (PREVIEW, ".nii", ".nii.gz")) and is_prediction(path):
            yield SkippedScan.because(path, EARLIER, bad=False)
        elif path.name.startswith(".") or not (folders or reader_of(path)):
            continue
        elif labels or not is_label_map(path.name):
            yield path, None
        else:
            reason = "holds labels, by its name; give its path, or list it in a text file, to use it as a scan"
            yield SkippedScan.because(path, reason, bad=False)


def modality_of(channels: Sequence[str]) -> str | None:
    """Return the modality of which all channels speak, or None.

    Example:
        >>> modality_of(["FLAIR", "MRI_T1", "t1-gd", "T2w"])
        'mri'
    """
    said = set()
    for name in channels:
        words = re.findall("[a-z0-9]+", name.lower())
        said.add(next((_MODALITIES[word] for word in ("".join(words), *words) if word in _MODALITIES), None))
    return said.pop() if len(said) == 1 else None


def channel_order(given: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return which of the given channels is each wanted one, by name; None where names do not tell it.

    Example:
        >>> channel_order(["FLAIR", "T1"], ["t1", "flair"]), channel_order(["FLAIR", "T1"], ["T1", "T2"])
        ([1, 0], None)
    """
    names, asked = ([name.strip().casefold() for name in one] for one in (given, wanted))
    if sorted(names) != sorted(asked) or len(set(names)) < len(names):
        return None
    return [names.index(name) for name in asked]


def part_of(name: str, source: str = "") -> str | None:
    """Return the part of a split by one of its usual names; None for an unknown one, if no source says it.

    Raises:
        DataError: The name, which `source` gives, is unknown and not empty.

    Example:
        >>> part_of("val")
        'validation'
    """
    part = next((part for part, names in _PARTS.items() if name.strip().lower() in names.split()), None)
    if source and name.strip() and not part:
        raise DataError(f"{source}: split {name!r}; {did_you_mean(name, _PARTS)}")
    return part


def class_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names once each: numbers by their value, else by the alphabet, what is normal first.

    Of two classes the second is the one to find, whose probability ranks the images.

    Example:
        >>> class_order(["pneumonia", "normal", "pneumonia"])
        ('normal', 'pneumonia')
    """
    numbered = all(name.isdecimal() for name in names)
    return tuple(sorted(set(names), key=lambda name: (int(name) if numbered else name.lower() not in _NEGATIVE, name)))


def is_label_map(name: str) -> bool:
    """Tell whether a file or folder holds labels and not scans, by the first or last word of its name.

    Example:
        >>> [is_label_map(name) for name in ("BraTS_000_seg.nii.gz", "labelsTr", "ISIC_1_Mask.png", "masked_t1.nii")]
        [True, True, True, False]
    """
    words = [word.lower() for word in _WORD.findall(file_stem(Path(name)))]
    if words and words[-1] == "roi":  # of BIDS a lesion's mask, of FSL a cropped scan
        return bool(_BIDS.match(name))
    return any(map(_LABEL.fullmatch, words[:1] + words[-1:]))


def bare_name(name: str, *, images: bool = True) -> str:
    """Return a name without the words that say label map or, with `images`, scan: what the names of both share.

    Example:
        >>> [bare_name(name) for name in ("p1_seg", "mask_p1", "x_mask_2", "img001", "imagesTr", "ground_truth")]
        ['p1', 'p1', 'x_2', '001', 'Tr', '']
    """
    role = _ROLE if images else _LABEL
    while words := list(_WORD.finditer(name)):
        word = next((one for one in (words[-1], words[0]) if role.fullmatch(one.group().lower())), None)
        if word is None:
            break
        before, after = name[: word.start()].rstrip("-_. "), name[word.end() :]
        name = before + (after if before else after.lstrip("-_. "))
    return name


def holds_images(folder: str) -> bool:
    """Tell whether a folder's name says that it holds the images of a data set, or of one of its parts.

    Example:
        >>> [holds_images(name) for name in ("images", "imagesTr", "train_images", "labelsTr", "normal_scans")]
        [True, True, True, False, False]
    """
    bare = bare_name(folder)
    return bare != folder and not is_label_map(folder) and (not bare or part_of(bare) is not None)


def find_patients(
    paths: Sequence[Path], pattern: str | None = None, *, classes: Sequence[Hashable] | None = None
) -> tuple[list[str], str]:
    r"""Return the patient of each file, and the rule that told.

    Args:
        paths: The files.
        pattern: A regular expression whose first group, or whole match, is the patient in a file's name, else in its
            path. By default it is `sub-…` of BIDS, the name without a channel, frame or slice, or the folder with whose
            name the file's begins; and with `classes` the part before the last `_`, where that holds a digit.
        classes: What each file is labelled with. A rule by which each class had one patient found classes.

    Raises:
        ConfigurationError: The pattern is not a regular expression.
        DataError: It fits only some of the names.

    Example:
        >>> find_patients([Path("BraTS_7/BraTS_7_t1.nii"), Path("BraTS_7/BraTS_7_flair.nii")])[0]
        ['BraTS_7', 'BraTS_7']
        >>> find_patients([Path("12_4.png"), Path("12_5.png"), Path("13_0.png")], classes=["ill", "well", "ill"])[0]
        ['12', '12', '13']
    """
    if pattern is not None:
        return _by_pattern(paths, pattern), f"patients by the pattern {pattern}"
    whole = [path.absolute() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
    patients = [_patient(path, root, labelled=classes is not None) for path in whole]
    bids = all(_BIDS.match(path.name) for path in paths)
    if classes is not None and not bids and len(set(zip(patients, classes, strict=True))) <= len(set(classes)):
        patients = unique_names(whole, root)
    several = len(set(patients)) < len(paths)
    return patients, "patients by the names of files and folders" if several or bids else OWN_PATIENT


def unique_names(paths: Sequence[Path], root: Path) -> list[str]:
    """Return the stems of files, or where some are the same their paths from a folder."""
    stems = [file_stem(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [(path.relative_to(root) if path.is_relative_to(root) else path).as_posix() for path in paths]


def _by_pattern(paths: Sequence[Path], pattern: str) -> list[str]:
    remedy = r"put the patient into its first group, such as (\d+)_"
    with parsing(f"--patient {pattern!r}", ConfigurationError, what="as a regular expression", remedy=remedy):
        expression = re.compile(pattern)
    texts = [(file_stem(path), path.name, path.as_posix()) for path in paths]
    matches = [next(filter(None, map(expression.search, known)), None) for known in texts]
    patients = [match[min(expression.groups, 1)] or "" if match else "" for match in matches]
    if missed := [name for (_, name, _), patient in zip(texts, patients, strict=True) if not patient]:
        found = f"does not fit {len(missed)} of {len(paths)} names, such as {missed[0]!r}"
        raise DataError(f"--patient {pattern!r}: {found}; {remedy}")
    return patients


def _patient(path: Path, root: Path, *, labelled: bool) -> str:
    """Return the patient as far as one file's name and folders tell.

    Args:
        path: The file.
        root: The folder of all files, which tells nothing.
        labelled: Whether 1.png, 2.png … count the images of each folder anew, and 7_1.png, 7_2.png … those of
            patient 7. Of scans without labels each is taken for a patient.
    """
    stem = file_stem(path)
    if match := _BIDS.match(stem):
        return match.group()
    if path.parent.name in ("imagesTr", "imagesTs"):
        stem = re.sub(r"_\d{4}$", "", stem)  # nnU-Net's number of the channel
    stem = _SERIES.sub("", stem)
    inner = path.parts[len(root.parts) : -1]
    named = (name for name in reversed(inner) if _SERIES.sub("", name) and not _VISIT.fullmatch(name))
    folder = next(named, "")  # not `T1`, `mri` or `visit2`
    if not stem or (folder and _VISIT.fullmatch(stem)):
        return folder or path.parent.name
    counted = labelled and _COUNTED.fullmatch(stem)
    if labelled and (match := _NUMBERED.fullmatch(stem)):
        stem = match.group(1)
    if re.search(r"\d", folder) and (counted or not re.search(r"\d", stem) or stem.startswith(folder)):
        return folder
    return "/".join((*inner, stem)) if counted else stem
