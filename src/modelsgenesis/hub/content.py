"""What a push would upload: a run's bundle, checked, with its card made ready."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelsgenesis.checkpoints import render_card
from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_bundle
from modelsgenesis.configs import BundleConfig
from modelsgenesis.configs.front_matter import BEGIN, PLACEHOLDER, CardParts, split_card
from modelsgenesis.errors import GenesisError, PublishError
from modelsgenesis.files import read_json
from modelsgenesis.hub import privacy
from modelsgenesis.hub.registry import is_inside
from modelsgenesis.hub.review import IMAGE

_OURS = ("library_name", "pipeline_tag", "model-index", "base_model")  # keys that a push renews
_FIGURES = (".png", ".jpg", ".jpeg", ".webp")
_STAMP = " prose="


@dataclass(frozen=True)
class Content:
    """A run, ready to be pushed.

    Attributes:
        folder: Of the run.
        config: Its configuration.
        card: Its card as it lies there.
        files: Everything but the card, by its path: a file here, or the content of a figure that was written anew.
    """

    folder: Path
    config: BundleConfig
    card: str
    files: dict[str, Path | bytes]


def check_content(folder: Path) -> Content:
    """Check that a run can be published: it loads, its card can be read, nothing private is in it.

    A strict load admits exactly the tensors of the network: no optimiser state can hide among them.

    Raises:
        PublishError: Something is wrong; nothing was sent anywhere.
    """
    try:
        bundle = load_bundle(folder)
        parts = split_card(bundle.card, str(folder / CARD_NAME))
    except GenesisError as error:
        raise PublishError(f"{folder}: cannot be published: {error}") from error
    written = replace(parts, generated="").join()  # the section between the markers is rendered anew
    problems = [
        *privacy.in_values(bundle.config.to_dict(), CONFIG_NAME),
        *privacy.in_values(_metadata(folder / WEIGHTS_NAME), WEIGHTS_NAME),
        *privacy.in_text(bundle.card, CARD_NAME),
        *privacy.scan_names(written, CARD_NAME),
        *privacy.recorded_names(written, _recorded(folder / "run.json"), CARD_NAME),
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise PublishError(f"{folder}: {'; '.join(problems[:3])}{more}; take it out before publishing")
    files = {name: folder / name for name in (CONFIG_NAME, WEIGHTS_NAME)}
    return Content(folder, bundle.config, bundle.card, {**files, **_figures(folder, bundle.card)})


def _metadata(path: Path) -> Mapping[str, str]:
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:  # pyright: ignore[reportPrivateImportUsage]
        return file.metadata() or {}


def _recorded(path: Path) -> Iterator[str]:
    """Yield what a run calls its scans, by its own record, which stays here."""
    record = read_json(path, PublishError) if path.is_file() else {}
    split = record.get("split") if isinstance(record, dict) else None
    for names in split.values() if isinstance(split, dict) else ():
        yield from (name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _figures(folder: Path, card: str) -> dict[str, bytes]:
    """Return the figures that a card names, after checking that they are there."""
    figures: dict[str, bytes] = {}
    for path in dict.fromkeys(path for _, path in IMAGE.findall(card) if "://" not in path):
        file = folder / path
        inside = is_inside(path) and folder.resolve() in file.resolve().parents
        if not inside or file.suffix.lower() not in _FIGURES:
            raise PublishError(f"{folder / CARD_NAME}: {path!r} is no figure of this run; link one inside of it")
        if not file.is_file():
            raise PublishError(f"{folder / CARD_NAME}: names the figure {path}, which is not there; take the line out")
        figures[path] = privacy.pixels_only(file)
    return figures


def merge_card(content: Content, published: str, repository: str) -> tuple[str, list[str]]:
    """Renew our section of a card and keep what a person wrote.

    A push stamps its section with a digest of the prose around it. While the published prose still has that
    digest nobody changed it there, and the run's is the newer; otherwise the published prose stays.

    Args:
        content: The run.
        published: The card on the Hub; empty when there is none.
        repository: `org/name`, which the snippet will load.

    Returns:
        The card, and what the user should be told.
    """
    ours = split_card(content.card)
    theirs = split_card(published, f"{repository}/{CARD_NAME}")
    notes: list[str] = []
    base = ours
    if _prose(theirs) and _stamp(theirs) != _digest(theirs):
        front = {**ours.front, **{key: value for key, value in theirs.front.items() if key not in _OURS}}
        base = CardParts(front, theirs.before, ours.generated, theirs.after)
        if _prose(ours) not in ("", _prose(theirs)) and PLACEHOLDER not in _prose(ours):
            notes.append(f"the prose of the card on the Hub was kept; that of {content.folder / CARD_NAME} differs")
    titles = {title or path: path for title, path in IMAGE.findall(ours.generated)}
    card = render_card(content.config, name=repository, existing=base.join(), figures=titles)
    left = sum(PLACEHOLDER in line for line in card.splitlines())
    if left:
        notes.append(f"the card has {left} lines to fill in; modelsgenesis card {content.folder} --check lists them")
    return card.replace(BEGIN, f"{BEGIN}{_STAMP}{_digest(split_card(card))}", 1), notes


def _prose(parts: CardParts) -> str:
    return f"{parts.before.strip()}\n{parts.after.strip()}".strip()


def _digest(parts: CardParts) -> str:
    front: dict[str, Any] = {key: value for key, value in parts.front.items() if key not in _OURS}
    return hashlib.sha256(f"{sorted(front.items())}{_prose(parts)}".encode()).hexdigest()[:16]


def _stamp(parts: CardParts) -> str:
    return parts.generated.partition("\n")[0].partition(_STAMP)[2].partition(" ")[0]
