"""What names tell: of a channel the modality, of a file the patient or that it holds labels, of classes their order."""

import os
import re
from collections.abc import Hashable, Sequence
from pathlib import Path

from modelsgenesis.data.volume import file_stem
from modelsgenesis.errors import ConfigurationError, DataError, did_you_mean
from modelsgenesis.files import parsing

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
_LEFTOVERS = {"__macosx", ".ds_store", "thumbs.db", "desktop.ini"}
_BIDS = re.compile(r"sub-[A-Za-z0-9]+")
_NUMBERED = re.compile(r"(.*\d.*)_[^_]*")
_GENERIC = "|".join((*_MODALITIES, "pet", "image", "imaging", "img", "volume", "vol", "scan", "orig"))
_COUNTED = re.compile(rf"(?:{_GENERIC}|slice|frame)?[-_ ]*\d+", re.IGNORECASE)
# What the names of several images of a patient differ in: the channel, or a frame or slice with its number.
_SERIES = re.compile(rf"(?:(?:^|[-_. ]+)(?:{_GENERIC})|[-_. ]+(?:frame|slice|phase|view)[-_ ]?\d+)+$", re.IGNORECASE)

OWN_PATIENT = "every image counts as its own patient; if a patient has several, tell them apart with --patient"
"""The note of a data set in which no rule finds several images of one patient."""


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
    names, asked = ([name.strip().casefold() for name in some] for some in (given, wanted))
    if sorted(names) != sorted(asked) or len(set(names)) < len(names):
        return None
    return [names.index(name) for name in asked]


def part_of(name: str) -> str | None:
    """Return the part of a split by one of its usual names, None for an unknown one.

    Example:
        >>> part_of("val")
        'validation'
    """
    return next((part for part, names in _PARTS.items() if name.strip().lower() in names.split()), None)


def require_part(name: str, source: str) -> str | None:
    """Return the part of a split, None for an empty name.

    Raises:
        DataError: The name is unknown.
    """
    if name.strip() and part_of(name) is None:
        raise DataError(f"{source}: split {name!r}; {did_you_mean(name, ('training', 'validation', 'test'))}")
    return part_of(name)


def class_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names once each: numbers by their value, else by the alphabet, what is normal first.

    Of two classes the second is the one to find, whose probability ranks the images.

    Example:
        >>> class_order(["pneumonia", "normal", "pneumonia"])
        ('normal', 'pneumonia')
    """
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique, key=lambda name: (name.lower() not in _NEGATIVE, name)))


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


def is_leftover(name: str) -> bool:
    """Tell whether macOS or Windows left a file or folder behind.

    Example:
        >>> [is_leftover(name) for name in ("__MACOSX", "._a.png", "Thumbs.db", "a.png")]
        [True, True, True, False]
    """
    return name.startswith("._") or name.lower() in _LEFTOVERS


def image_stem(path: Path) -> str:
    """Return the name of an image without its ending; folders and DICOM's numbers with dots have none.

    Example:
        >>> image_stem(Path("series/1.2.840.7")), image_stem(Path("a_0.nii.gz"))
        ('1.2.840.7', 'a_0')
    """
    return path.name if path.is_dir() or path.suffix[1:].isdecimal() else file_stem(path)


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
    stems = [image_stem(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [(path.relative_to(root) if path.is_relative_to(root) else path).as_posix() for path in paths]


def _by_pattern(paths: Sequence[Path], pattern: str) -> list[str]:
    remedy = r"put the patient into its first group, such as (\d+)_"
    with parsing(f"--patient {pattern!r}", ConfigurationError, what="as a regular expression", remedy=remedy):
        expression = re.compile(pattern)
    patients = []
    for path in paths:
        texts = (image_stem(path), path.name, path.as_posix())
        match = next((match for text in texts if (match := expression.search(text))), None)
        patients.append(match and (match.group(1) if expression.groups else match.group()))
    missed = [path.name for path, patient in zip(paths, patients, strict=True) if not patient]
    if missed:
        raise DataError(
            f"--patient {pattern!r}: does not fit {len(missed)} of {len(paths)} names, such as {missed[0]!r}; {remedy}"
        )
    return patients


def _patient(path: Path, root: Path, *, labelled: bool) -> str:
    """Return the patient as far as one file's name and folders tell.

    Args:
        path: The file.
        root: The folder of all files, which tells nothing.
        labelled: Whether 1.png, 2.png … count the images of each folder anew, and 7_1.png, 7_2.png … those of
            patient 7. Of scans without labels each is taken for a patient.
    """
    stem = image_stem(path)
    if match := _BIDS.match(stem):
        return match.group()
    if path.parent.name in ("imagesTr", "imagesTs"):
        stem = re.sub(r"_\d{4}$", "", stem)  # nnU-Net's number of the channel
    stem = _SERIES.sub("", stem)
    inner = path.parts[len(root.parts) : -1]
    folder = next((name for name in reversed(inner) if _SERIES.sub("", name)), "")  # not `T1` or `mri`
    if not stem:
        return folder or path.parent.name
    counted = labelled and _COUNTED.fullmatch(stem)
    if labelled and (match := _NUMBERED.fullmatch(stem)):
        stem = match.group(1)
    if re.search(r"\d", folder) and (counted or not re.search(r"\d", stem) or stem.startswith(folder)):
        return folder
    return "/".join((*inner, stem)) if counted else stem
