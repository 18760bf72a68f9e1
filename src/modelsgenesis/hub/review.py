"""What is looked at before a model is shared: what its card lacks, and what must not leave the house.

Paths of this machine, names of patients and of scans, tokens. Each pattern starts only where a word does and reads
that word once: a text of megabytes takes as long as its length.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from modelsgenesis.configs.front_matter import PLACEHOLDER, split_card
from modelsgenesis.errors import ConfigurationError, HubError, printable
from modelsgenesis.files import TEXT_LIMIT, open_regular, parsing

# An image link of Markdown: title and path, neither with brackets, so that a search is linear in the text.
IMAGE = re.compile(r"!\[([^\[\]]*)\]\(([^()\s]+)\)")

# What the Hub's header takes as a licence; one of one's own is `other` with a name and a link.
LICENSES = frozenset(resources.files("modelsgenesis.hub").joinpath("licenses.txt").read_text("utf-8").split())

_PROSE = {
    "not a medical device": "says nowhere that it is not a medical device",
    "intended use": "no intended use",
    "limit": "no limits",
    "consent": "no word on consent or ethics approval",
    "licence|license": "no word on the licences of data and weights",
    "```python": "no snippet that loads it",
    "@|doi|arxiv": "no citation",
    "!\\[": "no figure",
}


def review_card(card: str) -> list[str]:
    """List what a reviewer would miss in a card, each in one line; an empty list is a complete card.

    Example:
        >>> review_card("# A model")[0]
        'header: no license; choose an identifier of the Hub, or other with license_name'
    """
    try:
        parts = split_card(card)
    except ConfigurationError as error:
        return [str(error)]
    body = f"{parts.before}{parts.generated}{parts.after}"
    found = [f"header: {problem}" for problem in _header(parts.front)]
    found += [] if _has_results(parts.front.get("model-index")) else ["results: none in model-index"]
    found += [f"text: {problem}" for pattern, problem in _PROSE.items() if not re.search(pattern, body.lower())]
    found += [f"to fill in: {line.strip(' -*	')}" for line in body.splitlines() if PLACEHOLDER in line]
    return [printable(problem) for problem in found]


def _header(front: Mapping[str, Any]) -> Iterator[str]:
    license_ = front.get("license")
    if not license_:
        yield "no license; choose an identifier of the Hub, or other with license_name"
    elif str(license_) not in LICENSES:
        yield f"license {license_!r} is not an identifier of the Hub; use other with license_name"
    if license_ == "other" and not (front.get("license_name") and front.get("license_link")):
        yield "license other needs license_name and license_link"
    if front.get("library_name") != "modelsgenesis":
        yield "library_name is not modelsgenesis"
    yield from (f"no {key}" for key in ("pipeline_tag", "tags") if not front.get(key))
    if "datasets" not in front:
        yield "no datasets; name those on the Hub, or give [] and describe the data in the text"


def _has_results(index: Any) -> bool:
    models = index if isinstance(index, list) else []
    return any(isinstance(model, Mapping) and model.get("results") for model in models)


_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{10,}+(?!_)")  # not hf_hub_download
_PRIVATE = {
    "a path of this machine": re.compile(
        r"(?<![\w:/.])(?:/[\w.@+-]+(?:/[\w.@+ -]+)+/?|~[\w-]*/[\w./-]+|[A-Za-z]:[\\/][^\s|]+|\\\\[\w.$-]+\\\S+)"
    ),
    "a person's name": re.compile(r"\b[^\W\d_]{2,}\^[^\W\d_]{2,}"),  # as DICOM has it: Family^Given
    "a DICOM UID": re.compile(r"\b[012](?:\.\d+){6,}\b"),  # of a study, series or image
}
_SCAN = re.compile(
    r"(?<![^\s|,;/])[^\s|,;/]+?\.(?:nii(?:\.gz)?|hdr|img|mg[hz]|dcm|dicom|ima|mhd|mha|nrrd|nhdr)\b", re.IGNORECASE
)
_KEY = re.compile(r"patient_?(?:name|id|birth|address|sex|age)|accession|institution_?name|referring", re.IGNORECASE)
_URL = re.compile(r"https?://\S+")
_EXAMPLES = {"", "scan", "image", "volume", "mask", "label", "ct", "mri", "case", "name"}  # of files that are nobody's
_MODES = {"1", "L", "LA", "RGB", "RGBA", "I;16"}
_PIXELS = 50_000_000


def private_text(text: str, where: str) -> Iterator[str]:
    """Yield what in a text looks like a path of this machine, a patient's name, a study's identifier or a token."""
    if found := _TOKEN.search(text):
        yield f"{where} holds a token, {found[0][:5]}…; revoke it"
    text = _URL.sub(" ", text)
    for kind, pattern in _PRIVATE.items():
        if found := pattern.search(text):
            yield f"{where} holds {kind}: {found[0][:100]!r}"


def private_values(values: Any, where: str) -> Iterator[str]:
    """Yield the same, and names of scans, for the strings and keys of nested mappings and lists."""
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
        yield from scan_names(values, where)


def scan_names(text: str, where: str) -> Iterator[str]:
    """Yield the first name of a scan's file in a text; those of examples, such as `scan.nii.gz`, are let through."""
    for found in _SCAN.finditer(_URL.sub(" ", text)):
        if re.sub(r"[\W_]+", "", found[0].partition(".")[0]).lower() not in _EXAMPLES:
            yield f"{where} holds the name of a scan: {found[0][:100]!r}"
            return


def recorded_names(text: str, names: Iterable[str], where: str) -> Iterator[str]:
    """Yield the first word of a text that is one of a run's names of scans and patients, as `run.json` has them."""
    known: set[str] = set()
    for name in names:
        *folders, file = name.lower().split("/")
        known |= {file, file.partition(".")[0], *(folder for folder in folders if re.search(r"[\d_^]", folder))}
    words = {word.strip(".:*_").lower() for word in re.split(r"[^\w.^-]+", text)}
    for name in sorted((known & words) - _EXAMPLES):
        if len(name) > 4 or (len(name) > 2 and not name.isalnum()):  # shorter ones are years, counts and plain words
            yield f"{where} holds the name of a scan or patient of run.json: {name[:100]!r}"
            return


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
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in _MODES:
            upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
        written = io.BytesIO()
        Image.frombytes(upright.mode, upright.size, upright.tobytes()).save(written, kind, quality=95)
        return written.getvalue()
