"""What must not leave the house: paths of this machine, names of patients and of scans."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PATH = re.compile(
    r"(?<![\w:/.])(?:/[\w.@+-]+(?:/[\w.@+ -]+)+/?|~[\w-]*/[\w./-]+|[A-Za-z]:[\\/][^\s|]+|\\\\[\w.$-]+\\\S+)"
)
_PERSON = re.compile(r"\b[^\W\d_]{2,}\^[^\W\d_]{2,}")  # a DICOM person name: Family^Given
_UID = re.compile(r"\b[012](?:\.\d+){6,}\b")  # a DICOM identifier of a study, series or image
_SCAN = re.compile(r"[^\s|,;/]+\.(?:nii(?:\.gz)?|dcm|dicom|ima|mhd|mha|nrrd|nhdr)\b", re.IGNORECASE)
_KEY = re.compile(r"patient_?(?:name|id|birth|address|sex|age)|accession|institution_?name|referring", re.IGNORECASE)
_URL = re.compile(r"https?://\S+")


def in_text(text: str, where: str) -> Iterator[str]:
    """Yield what in a text looks like a path of this machine, a patient's name or a study's identifier."""
    text = _URL.sub(" ", text)
    for pattern, kind in (
        (_PATH, "a path of this machine"),
        (_PERSON, "a person's name"),
        (_UID, "a DICOM UID"),
    ):
        found = pattern.search(text)
        if found:
            yield f"{where} holds {kind}: {found[0]!r}"


def in_values(values: Any, where: str) -> Iterator[str]:
    """Yield the same for the strings and keys of nested mappings and lists; names of scan files too."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if _KEY.search(str(key)):
                yield f"{where}.{key} is data of a patient"
            yield from in_values(str(key), where)
            yield from in_values(value, f"{where}.{key}")
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from in_values(value, where)
    elif isinstance(values, str):
        yield from in_text(values, where)
        found = _SCAN.search(values)
        if found:
            yield f"{where} holds the name of a scan: {found[0]!r}"


def in_image(path: Path) -> Iterator[str]:
    """Yield the same for the texts that an image file carries beside its pixels."""
    from PIL import Image

    with Image.open(path) as image:
        yield from in_values({key: value for key, value in image.info.items() if isinstance(value, str)}, path.name)
