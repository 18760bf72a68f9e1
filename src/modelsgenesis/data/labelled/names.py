"""What names say: of channels the modality, of files the patient, of classes their order, of parts of a split."""

import re
from collections.abc import Sequence
from pathlib import Path

from modelsgenesis.data.volume import file_stem
from modelsgenesis.errors import ConfigurationError, DataError, nearest

_MODALITIES = {
    "ct": "ct",
    "mri": "mri",
    "mr": "mri",
    "t1": "mri",
    "t1w": "mri",
    "t1gd": "mri",
    "t1ce": "mri",
    "t1c": "mri",
    "t2": "mri",
    "t2w": "mri",
    "flair": "mri",
    "adc": "mri",
    "dwi": "mri",
    "xray": "xray",
    "us": "ultrasound",
    "ultrasound": "ultrasound",
}
_PARTS = {
    **dict.fromkeys(("training", "train", "tr"), "training"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
_NEGATIVE = {"normal", "no_finding", "no finding", "negative", "healthy", "benign", "control", "none", "no", "absent"}
_BIDS = re.compile(r"sub-[A-Za-z0-9]+")
_NUMBERED = re.compile(r"(.*\d.*)_[^_]*")

OWN_PATIENT = "every image counts as its own patient; if a patient has several, say so by a patient pattern"
"""The note of a data set in which no rule finds several images of one patient."""


def modality_of(channels: Sequence[str]) -> str | None:
    """Return the modality of which all channels speak, or None.

    Example:
        >>> modality_of(["FLAIR", "T1w", "t1gd", "T2w"])
        'mri'
    """
    said = {_MODALITIES.get(name.lower().replace("-", "").replace(" ", "")) for name in channels}
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
    return _PARTS.get(name.strip().lower())


def class_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names once each: numbers by their value, else by the alphabet, what is normal first.

    Of two classes the second is the one to find, whose probability ranks the images.

    Example:
        >>> class_order(["pneumonia", "normal", "pneumonia"])
        ('normal', 'pneumonia')
    """
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return tuple(sorted(unique, key=int))
    return tuple(sorted(unique, key=lambda name: (name.lower() not in _NEGATIVE, name)))


def image_stem(path: Path) -> str:
    """Return the name of an image without its ending; folders and DICOM's numbers with dots have none.

    Example:
        >>> image_stem(Path("series/1.2.840.7")), image_stem(Path("a_0.nii.gz"))
        ('1.2.840.7', 'a_0')
    """
    return path.name if path.is_dir() or path.suffix[1:].isdecimal() else file_stem(path)


def find_patients(stems: Sequence[str], pattern: str | None, *, numbered: bool) -> tuple[list[str], str]:
    r"""Return the patient of each file, and the rule that told.

    Args:
        stems: Names of the files without their ending.
        pattern: A regular expression whose first group, or whole match, is the patient; None for the rules
            `sub-…` of BIDS, then, with `numbered`, the part before the last `_` where it holds a digit.
        numbered: Whether names such as `00001280_004` are likely to be images of a patient.

    Raises:
        ConfigurationError: The pattern is no regular expression.
        DataError: It fits only some of the names.

    Example:
        >>> find_patients(["00001280_004", "00001280_005"], None, numbered=True)[0]
        ['00001280', '00001280']
    """
    if pattern is not None:
        return _by_pattern(stems, pattern), f"patients by the pattern {pattern}"
    if all(_BIDS.match(stem) for stem in stems):
        return [_BIDS.findall(stem)[0] for stem in stems], "patients by sub-… in the files' names"
    matches = [_NUMBERED.fullmatch(stem) for stem in stems] if numbered else []
    patients = [match.group(1) for match in matches if match]
    if matches and len(patients) == len(stems) and len(set(patients)) < len(stems):
        return patients, "patients by the part of the files' names before the last _"
    return list(stems), OWN_PATIENT


def _by_pattern(stems: Sequence[str], pattern: str) -> list[str]:
    try:
        matches = [re.search(pattern, stem) for stem in stems]
    except re.error as error:
        raise ConfigurationError(f"patient pattern {pattern!r}: is no regular expression: {error}") from error
    missed = [stem for stem, match in zip(stems, matches, strict=True) if match is None]
    if missed:
        raise DataError(
            f"patient pattern {pattern!r}: does not fit {len(missed)} of {len(stems)} names, such as {missed[0]!r}"
        )
    return [match.group(1) if match.re.groups else match.group() for match in matches if match]


def require_part(name: str, source: str) -> str | None:
    """Return the part of a split, None for an empty name.

    Raises:
        DataError: The name is unknown.
    """
    if not name.strip():
        return None
    part = part_of(name)
    if part is None:
        raise DataError(f"{source}: split {name!r}; {nearest(name, ('training', 'validation', 'test'))}")
    return part
