"""From a run to a repository on the Hub: checked here before anything is sent, then one atomic commit.

What must not leave the house are paths of this machine, names of patients and of scans, and tokens. Each pattern
starts only where a word does and reads that word once: a text of megabytes takes as long as its length.
"""

import hashlib
import io
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, Bundle, load_bundle
from modelsgenesis.checkpoints.card import BEGIN, PLACEHOLDER, CardParts, render_card, split_card
from modelsgenesis.errors import GenesisError, HubError, some
from modelsgenesis.files import TEXT_LIMIT, open_regular, parsing, read_json, reason_of
from modelsgenesis.hub.download import client_settings, forget

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from modelsgenesis.hub.client import Snapshot

_RENEWED = ("library_name", "pipeline_tag", "model-index", "base_model")  # keys of a card's header, by every push
_STAMP = " prose="

Say = Callable[[str], None]
Files = dict[str, Path | bytes]
"""What is published, by its path there: a file here, or the content of a figure that was written anew."""


@dataclass(frozen=True)
class Publication:
    """What a push made.

    Attributes:
        repository: `org/name`.
        url: Its page.
        commit: The new commit; the one before when nothing had changed.
        pull_request: The page of the proposal, when one was made instead of a commit on the branch.
        private: Whether only its owners see it.
        files: What it holds of this bundle.
        notes: What the user should know.
    """

    repository: str
    url: str
    commit: str
    pull_request: str | None
    private: bool
    files: tuple[str, ...]
    notes: tuple[str, ...]


def push_to_hub(
    folder: str | Path,
    repository: str | None = None,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    progress: Say | None = None,
) -> Publication:
    """Publish a run's bundle: configuration, weights, card, and the figures that the card names.

    Everything comes in one commit, so that nothing half-done can be seen. Prose that a person wrote into an existing
    card is kept. Pushing again what is there already changes nothing.

    Args:
        folder: The run; it is only read.
        repository: `org/name`; `name` for the token's own account; None for the run's name there.
        private: Whether a new repository is private; an existing one keeps its visibility.
        revision: A branch, made when it is not there; None for the default one.
        create_pr: Propose the change instead of making it.
        token: None for that of the environment.
        progress: Called with what is being done.

    Returns:
        Where it is.

    Raises:
        HubError: The run cannot be published, the token lacks the rights, another push came between (`kind` is
            `"conflict"`), or the connection failed (`"unreachable"`); then a repeat uploads only what is missing.

    Example:
        publication = push_to_hub("runs/chest", "clinic/genesis-chest-ct")
    """
    say, folder = progress or (lambda _: None), Path(folder)
    say("checking the bundle")
    bundle, files = check_run(folder)
    repository = repository or re.sub(r"[^\w.-]+|-{2,}|\.{2,}", "-", folder.resolve().name).strip("-.")
    again = ["modelsgenesis", "push", str(folder), "--hub-model-id", repository]
    again += ["--private"] * private + ["--create-pr"] * create_pr + (["--revision", revision] if revision else [])
    if create_pr and revision not in (None, "main"):
        raise HubError(f"--create-pr proposes a change of main, but received --revision {revision}; leave one out")
    client_settings()  # checks the environment before the Hub's client, which may not survive it, is imported
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    from modelsgenesis.hub.client import hub_errors, redacted

    try:
        with (
            hub_errors(repository, token, revision=revision) as api,
            warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught,
            ExitStack() as after,
        ):
            if not are_progress_bars_disabled():  # of the client: uploads take none of ours
                disable_progress_bars()
                after.callback(enable_progress_bars)
            place = {"revision": revision, "create_pr": create_pr}
            made = _publish(api, bundle, files, repository, place, private=private, say=say)
    except HubError as error:
        raise HubError(f"{error}; {folder} is intact; repeat with: {shlex.join(again)}", error.kind) from error
    warned = [redacted(reason_of(Exception(str(warning.message)))) for warning in caught]
    return replace(made, notes=tuple(dict.fromkeys([*made.notes, *warned])))


def _publish(
    api: "HfApi", bundle: Bundle, files: Files, name: str, place: dict[str, Any], *, private: bool, say: Say
) -> Publication:
    """Find or make the repository and its branch, and make the one commit.

    A repeat finds what was made before, and the client uploads only what is missing.
    """
    from huggingface_hub import CommitOperationAdd

    from modelsgenesis.hub.client import SIGN_IN, endpoint, expect, redacted, take_snapshot, token_of

    token: Any = api.token
    revision, create_pr = place["revision"], place["create_pr"]
    if not token_of(token):
        raise HubError(f"{name}: publishing needs a token; {SIGN_IN}", "denied")
    if "/" not in name:
        account = expect(api.whoami()["name"], r"[\w.-]{1,100}")
        name = f"{account}/{name}"
    say(f"comparing with {name}")
    url, main = f"{endpoint()}/{name}", _find_head(name, None, token)
    if main and private and not main.private:
        raise HubError(f"{name}: is public, but --private was asked; take another --hub-model-id")
    # A proposal is made against main; a branch that is not there yet starts where main is.
    head = _find_head(name, revision, token) if main and revision and not create_pr else main
    published, before = "", head or main
    with parsing(f"{name}/{CARD_NAME}", HubError, what="as a model card", remedy=f"fix it on {url}"):
        if before and CARD_NAME in before.files:
            published = before.download(CARD_NAME, TEXT_LIMIT).read_text("utf-8")
        card, notes = _merge_card(bundle, published, name)
    try:  # a commit is checked so too, but after the repository was made and large files were uploaded
        api._validate_yaml(card)  # noqa: SLF001 - ModelCard.validate asks another Hub before version 2
    except ValueError as error:
        said = redacted(reason_of(error))
        raise HubError(f"{name}: the header of {CARD_NAME} is not accepted: {said}; fix it") from error
    if main is None:
        say(f"creating {name}")
        api.create_repo(name, private=private)
        main = take_snapshot(name, None, token)
    if head is None and revision is not None and not create_pr:
        api.create_branch(name, branch=revision, revision=main.commit, exist_ok=True)
    say(f"uploading to {name}")
    files = {**files, CARD_NAME: card.encode()}
    added = [CommitOperationAdd(path, file if isinstance(file, bytes) else str(file)) for path, file in files.items()]
    for one in added:  # more at once would be other threads, where no answer is checked
        api.preupload_lfs_files(name, [one], free_memory=False, **place)
    title = f"Publish a model for {bundle.config.task}"  # a run's folder may be called after a patient
    # The parent lets the Hub refuse the commit when another push came between.
    made = api.create_commit(name, added, commit_message=title, parent_commit=(head or main).commit, **place)
    page = None if made.pr_url is None else redacted(expect(made.pr_url, "https?://[!-~]+"))
    commit = expect(made.oid, "[0-9a-f]{40}")
    forget(name)
    return Publication(name, url, commit, page, main.private, tuple(files), tuple(notes))


def _find_head(name: str, branch: str | None, token: str | None) -> "Snapshot | None":
    """Return the head of a branch, None for the default one; None when the token sees no such thing."""
    from modelsgenesis.hub.client import take_snapshot

    try:
        return take_snapshot(name, branch, token)
    except HubError as error:
        if error.kind != "unknown":
            raise
        return None


# --- what is published ---------------------------------------------------------------------------------------

# An image link of Markdown: title and path, neither with brackets, so that a search is linear in the text.
_IMAGE = re.compile(r"!\[([^\[\]]*)\]\(([^()\s]+)\)")
_FIGURES = (".png", ".jpg", ".jpeg", ".webp")
_PIXELS = 50_000_000


def _merge_card(bundle: Bundle, published: str, repository: str) -> tuple[str, list[str]]:
    """Return the card with our section renewed and what a person wrote kept, and notes for the user.

    A push stamps its section with a digest of the prose around it. While the published prose still has that
    digest nobody changed it there, and the run's is the newer; otherwise the published prose stays.
    """
    ours, theirs = split_card(bundle.card), split_card(published, f"{repository}/{CARD_NAME}")
    base, notes = ours, []
    if _prose(theirs) and f"{_STAMP}{_digest(theirs)}" not in theirs.generated.partition("\n")[0]:
        front = {**ours.front, **{key: value for key, value in theirs.front.items() if key not in _RENEWED}}
        base = CardParts(front, theirs.before, ours.generated, theirs.after)
        if _prose(ours) not in ("", _prose(theirs)) and PLACEHOLDER not in _prose(ours):
            notes.append("the prose of the card on the Hub was kept; that of the run differs")
    titles = {title or path: path for title, path in _IMAGE.findall(ours.generated)}
    card = render_card(bundle.config, name=repository, existing=base, figures=titles)
    if left := sum(PLACEHOLDER in line for line in card.splitlines()):
        notes.append(f"the card has {left} lines to fill in, marked {PLACEHOLDER}; do so in {CARD_NAME}, push again")
    return card.replace(BEGIN, f"{BEGIN}{_STAMP}{_digest(split_card(card))}", 1), notes


def check_run(folder: Path) -> tuple[Bundle, Files]:
    """Return the bundle of a run that can be published, and what else than its card is.

    It loads, its card can be read, nothing private is in it.
    A strict load admits exactly the tensors of the network: no optimiser state can hide among them.

    Raises:
        HubError: Something is wrong; nothing was sent anywhere.
    """
    import safetensors

    try:
        bundle = load_bundle(folder)
        parts = split_card(bundle.card, str(folder / CARD_NAME))
    except GenesisError as error:
        raise HubError(f"{folder}: cannot be published: {error}") from error
    with safetensors.safe_open(folder / WEIGHTS_NAME, framework="pt") as file:  # pyright: ignore[reportPrivateImportUsage]
        metadata = file.metadata() or {}
    record = read_json(folder / "run.json", HubError) if (folder / "run.json").is_file() else {}
    # What is between the markers is rendered anew.
    written = bundle.card.replace("\r\n", "\n").replace(parts.generated, "")
    problems = [
        *private_values(bundle.config.to_dict(), CONFIG_NAME),
        *private_values(metadata, WEIGHTS_NAME),
        *private_text(bundle.card, CARD_NAME),
        *recorded_names(written, record, CARD_NAME),
    ]
    if problems:
        raise HubError(f"{folder}: {some(problems)}; take it out before publishing")
    files: Files = {name: folder / name for name in (CONFIG_NAME, WEIGHTS_NAME)}
    for path in dict.fromkeys(path for _, path in _IMAGE.findall(bundle.card) if "://" not in path):
        figure = folder / path
        inside = ".." not in path and folder.resolve() in figure.resolve().parents
        if not inside or figure.suffix.lower() not in _FIGURES:
            raise HubError(f"{folder / CARD_NAME}: {path!r} is not a figure of this run; link one inside of it")
        files[path] = pixels_only(figure)
    return bundle, files


def _prose(parts: CardParts) -> str:
    return f"{parts.before.strip()}\n{parts.after.strip()}".strip()


def _digest(parts: CardParts) -> str:
    front = {key: value for key, value in parts.front.items() if key not in _RENEWED}
    return hashlib.sha256(f"{sorted(front.items())}{_prose(parts)}".encode()).hexdigest()[:16]


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


# --- what must not leave the house ---------------------------------------------------------------------------

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
