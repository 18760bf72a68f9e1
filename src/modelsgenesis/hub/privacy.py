"""What must not leave the house: paths of this machine, names of patients and scans, tokens, texts in pictures.

Each pattern starts only where a word does and reads that word once: a text of megabytes takes as long as its length.
"""

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelsgenesis.errors import HubError
from modelsgenesis.files import TEXT_LIMIT, open_regular, parsing

_PIXELS = 50_000_000


def pixels_only(path: Path) -> bytes:
    """Return an image written anew: its pixels, without texts, EXIF, previews, or what lies behind its end.

    Raises:
        HubError: It is not a PNG, JPEG or WebP image, or is damaged or too large.
    """
    from PIL import Image, ImageOps

    with (
        parsing(path, HubError, what="as an image", remedy="save the figure again, as PNG"),
        open_regular(path, HubError, TEXT_LIMIT) as file,
        Image.open(file, formats=("PNG", "JPEG", "WEBP")) as image,
    ):
        if image.width * image.height > _PIXELS:
            raise HubError(f"{path}: has {image.width}×{image.height} pixels; save the figure smaller")
        kind = image.format if image.format in ("PNG", "WEBP") else "JPEG"
        upright = ImageOps.exif_transpose(image).convert("RGBA" if image.has_transparency_data else "RGB")
        written = io.BytesIO()
        Image.frombytes(upright.mode, upright.size, upright.tobytes()).save(written, kind, quality=95)
        return written.getvalue()


_PRIVATE = {
    "a token": re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{10,}+(?!_)"),  # not hf_hub_download
    "a path of this machine": re.compile(
        r"(?<![\w:/.])(?:/[\w.@+-]+(?:/[\w.@+ -]+)+/?|~[\w-]*/[\w./-]+|[A-Za-z]:[\\/][^\s|]+|\\\\[\w.$-]+\\\S+)"
    ),
    "a person's name": re.compile(r"\b[^\W\d_]{2,}\^[^\W\d_]{2,}"),  # as DICOM has it: Family^Given
    "a DICOM UID": re.compile(r"\b[012](?:\.\d+){6,}\b"),  # of a study, series or image
    "the name of a scan": re.compile(
        r"(?<![^\s|,;/])[^\s|,;/]+?\.(?:nii(?:\.gz)?|hdr|img|mg[hz]|dcm|dicom|ima|mhd|mha|nrrd|nhdr)\b", re.IGNORECASE
    ),
}
_KEY = re.compile(r"patient_?(?:name|id|birth|address|sex|age)|accession|institution_?name|referring", re.IGNORECASE)
_URL = re.compile(r"https?://\S+")
_EXAMPLES = {"", "scan", "image", "volume", "mask", "label", "ct", "mri", "case", "name"}  # of files that are nobody's


def private_text(text: str, where: str) -> Iterator[str]:
    """Yield what in a text looks like a token, a path of this machine, a patient, a study or a scan, one of each kind.

    Names of examples, such as `scan.nii.gz`, are let through, and addresses that hold no token.
    """
    plain = _URL.sub(" ", text)
    for kind, pattern in _PRIVATE.items():
        for found in pattern.finditer(text if kind == "a token" else plain):
            stem = re.sub(r"[\W_]+", "", found[0].partition(".")[0]).lower()
            if kind == "the name of a scan" and stem in _EXAMPLES:
                continue
            shown = f"{found[0][:5]}…; revoke it" if kind == "a token" else repr(found[0][:100])
            yield f"{where} holds {kind}: {shown}"
            break


def private_values(values: Any, where: str) -> Iterator[str]:
    """Yield the same for the strings and keys of nested mappings and lists."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if _KEY.search(str(key)):
                yield f"{where}.{key} is data of a patient"
            yield from private_values(str(key), where)
            yield from private_values(value, f"{where}.{key}")
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from private_values(value, where)
    elif isinstance(values, str):
        yield from private_text(values, where)


def recorded_names(text: str, record: Any, where: str) -> Iterator[str]:
    """Yield the first word of a text that is the name of a scan or patient in a run's own record, which stays here."""
    split = record.get("split") if isinstance(record, Mapping) else None
    lists = [names for names in split.values() if isinstance(names, list)] if isinstance(split, Mapping) else []
    known: set[str] = set()
    for name in (name.lower() for names in lists for name in names if isinstance(name, str)):
        *folders, file = name.split("/")
        known |= {file, file.partition(".")[0], *(folder for folder in folders if re.search(r"[\d_^]", folder))}
    words = {word.strip(".:*_").lower() for word in re.split(r"[^\w.^-]+", text)}
    for name in sorted((known & words) - _EXAMPLES):
        if len(name) > 4 or (len(name) > 2 and not name.isalnum()):  # shorter ones are years, counts and plain words
            yield f"{where} holds the name of a scan or patient of run.json: {name[:100]!r}"
            return
