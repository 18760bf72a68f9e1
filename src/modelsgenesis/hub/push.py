"""From a run to a repository on the Hub: checked here before anything is sent, then one atomic commit."""

import hashlib
import re
import shlex
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, Bundle, load_bundle
from modelsgenesis.checkpoints.card import BEGIN, PLACEHOLDER, CardParts, render_card, split_card
from modelsgenesis.errors import GenesisError, HubError, require, some
from modelsgenesis.files import TEXT_LIMIT, parsing, read_json, reason_of
from modelsgenesis.hub.download import beside, client_settings, forget
from modelsgenesis.hub.privacy import pixels_only, private_text, private_values, recorded_names

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from modelsgenesis.hub.client import Snapshot

_RENEWED = ("library_name", "pipeline_tag", "model-index", "base_model")  # keys of a card's header, by every push
_STAMP = " prose="

Say = Callable[[str], None]
Files = dict[str, Path | bytes]
"""What is published, by its path there: a file here, or the content of a figure that was written anew."""


@dataclass(frozen=True)
class PublishedFile:
    """A file of a publication.

    Attributes:
        path: Its path in the repository.
        size: Bytes.
        shows: What it holds, in words.
        sent: Whether it is uploaded; a picture that may show patients is not unless it was asked for.
    """

    path: str
    size: int
    shows: str
    sent: bool = True


@dataclass(frozen=True)
class Publication:
    """What a push made, or would make.

    Attributes:
        repository: `org/name`.
        url: Its page.
        commit: The new commit; the one before when nothing had changed; empty when nothing was sent.
        pull_request: The page of the proposal, when one was made instead of a commit on the branch.
        private: Whether only its owners see it.
        files: What it holds of this bundle, and the pictures that were left out.
        notes: What the user should know.
    """

    repository: str
    url: str
    commit: str
    pull_request: str | None
    private: bool
    files: tuple[PublishedFile, ...]
    notes: tuple[str, ...]


class Savable(Protocol):
    """A model in memory, such as `GenesisModel`."""

    name: str

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write it as a bundle."""
        ...


class Pushing(TypedDict, total=False):
    """Keywords of `push_to_hub` for a model in memory."""

    private: bool
    dry_run: bool
    revision: str | None
    create_pr: bool
    token: str | None
    progress: Say | None


def push_to_hub(
    run: str | Path | Savable,
    repository: str | None = None,
    *,
    private: bool = True,
    include_figures: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    progress: Say | None = None,
) -> Publication:
    """Publish a run's bundle: configuration, weights, card, and the charts that the card names.

    Everything comes in one commit, so that nothing half-done can be seen. Prose that a person wrote into an existing
    card is kept. Pushing again what is there already changes nothing.

    Args:
        run: The run's folder, which is only read; or a model in memory.
        repository: `org/name`; `name` for the token's own account; None for the run's name there.
        private: Whether a new repository is private, and a public one is refused. An existing repository keeps its
            visibility.
        include_figures: Upload the pictures that the card names, too, which show slices of patients' scans.
        dry_run: Check the run and list what would be sent; no connection is opened.
        revision: A branch, made when it is not there; None for the default one.
        create_pr: Propose the change instead of making it.
        token: None for that of the environment.
        progress: Called with what is being done.

    Returns:
        Where it is.

    Raises:
        HubError: The run cannot be published, the repository is public unasked, the token lacks the rights, another
            push came between (`kind` is `"conflict"`), or the connection failed (`"unreachable"`); then a repeat
            uploads only what is missing.

    Example:
        for file in push_to_hub("runs/chest", "clinic/genesis-chest-ct", dry_run=True).files:
            print(file.path, file.size, file.shows)
    """
    say, place = progress or (lambda _: None), {"revision": revision, "create_pr": create_pr}
    options: Any = {"private": private, "dry_run": dry_run, "token": token, "say": say}
    if create_pr and revision not in (None, "main"):
        raise HubError(f"--create-pr proposes a change of main, but received --revision {revision}; leave one out")
    say("checking the bundle")
    if not isinstance(run, (str, Path)):  # no message names the folder that a model is saved to
        with TemporaryDirectory() as folder:
            contents = check_run(run.save_pretrained(Path(folder) / "model"), where=run.name)
            return _send(contents, repository or default_name(Path(run.name)), place, **options)
    folder = Path(run)
    contents = check_run(folder, include_figures=include_figures)
    repository = repository or default_name(folder)
    again = ["modelsgenesis", "push", str(folder), "--hub-model-id", repository, *["--public"] * (not private)]
    again += ["--include-figures"] * include_figures + ["--create-pr"] * create_pr
    again += ["--revision", revision] if revision else []
    try:
        return _send(contents, repository, place, **options)
    except HubError as error:
        raise HubError(f"{error}; {folder} is intact; repeat with: {shlex.join(again)}", error.kind) from error


def _send(
    contents: "Contents", repository: str, place: Any, *, private: bool, dry_run: bool, token: str | None, say: Say
) -> Publication:
    """Send what was checked, unless it is a dry run, and add what the client warned of."""
    client_settings()  # checks the environment before the Hub's client, which may not survive it, is imported
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import validate_repo_id as check_name

    from modelsgenesis.hub.client import hub_errors, redacted

    with (
        hub_errors(repository, token, revision=place["revision"]) as api,
        warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught,
        ExitStack() as after,
    ):
        if not are_progress_bars_disabled():  # of the client: uploads take none of ours
            disable_progress_bars()
            after.callback(enable_progress_bars)
        check_name(repository)
        if dry_run:
            card, notes = _merge_card(contents, "", repository)
            return Publication(repository, "", "", None, private, contents.listing(card), tuple(notes))
        made = _publish(api, contents, repository, place, private=private, say=say)
    warned = [redacted(reason_of(Exception(str(warning.message)))) for warning in caught]
    return replace(made, notes=tuple(dict.fromkeys([*made.notes, *warned])))


def default_name(folder: Path) -> str:
    """Return what a repository is called after a run's folder."""
    return re.sub(r"[^\w.-]+|-{2,}|\.{2,}", "-", folder.resolve().name).strip("-.")


def check_destination(
    repository: str, *, private: bool = True, create_pr: bool = False, token: str | None = None
) -> str:
    """Check that a push can succeed, before the training whose result it is to publish; nothing is made.

    Args:
        repository: `org/name`; `name` for the token's own account.
        private: As of `push_to_hub`.
        create_pr: As of `push_to_hub`.
        token: None for that of the environment.

    Returns:
        `org/name`.

    Raises:
        HubError: The name cannot be, the token is missing, wrong or lacks the rights, the repository is public
            unasked, or the Hub cannot be reached.
    """
    client_settings()
    from huggingface_hub.utils import validate_repo_id as check_name

    from modelsgenesis.hub.client import hub_errors

    with hub_errors(repository, token) as api:
        check_name(repository)
        return _find_destination(api, repository, private=private, create_pr=create_pr)[0]


def _find_destination(api: "HfApi", name: str, *, private: bool, create_pr: bool) -> "tuple[str, Snapshot | None]":
    """Return the repository, with its owner, and its main branch if it is there; refuse what would fail later."""
    from modelsgenesis.hub.client import SIGN_IN, endpoint, expect, retry_when_busy, token_of

    token: Any = api.token
    if not token_of(token):
        raise HubError(f"{name}: publishing needs a token; {SIGN_IN}", "denied")
    account: Any = retry_when_busy(api.whoami, name)
    user = expect(account["name"], r"[\w.-]{1,100}")
    name = name if "/" in name else f"{user}/{name}"
    owner, main = name.partition("/")[0], _find_head(name, None, token)
    if main and private and not main.private:
        ask = "push with --public (in Python private=False) to publish there, or name another repository"
        raise HubError(f"{name}: is public; {ask}")
    if create_pr and main:  # anybody may propose a change
        return name, main
    writable = [user, *(expect(one["name"]) for one in account.get("orgs", ()) if one.get("roleInOrg") != "read")]
    if owner not in writable:
        raise HubError(f"{name}: {user} cannot write to {owner}, only to {some(writable)}; take one of these", "denied")
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError(f"{name}: the token can only read; make one that writes, {endpoint()}/settings/tokens", "denied")
    return name, main


def _publish(
    api: "HfApi", contents: "Contents", name: str, place: dict[str, Any], *, private: bool, say: Say
) -> Publication:
    """Find or make the repository and its branch, and make the one commit.

    A repeat finds what was made before, and the client uploads only what is missing.
    """
    from huggingface_hub import CommitOperationAdd

    from modelsgenesis.hub.client import endpoint, expect, redacted, take_snapshot

    token: Any = api.token
    revision, create_pr = place["revision"], place["create_pr"]
    say(f"comparing with {name}")
    name, main = _find_destination(api, name, private=private, create_pr=create_pr)
    url = f"{endpoint()}/{name}"
    # A proposal is made against main; a branch that is not there yet starts where main is.
    head = _find_head(name, revision, token) if main and revision and not create_pr else main
    published, before = "", head or main
    with parsing(f"{name}/{CARD_NAME}", HubError, what="as a model card", remedy=f"fix it on {url}"):
        if before and CARD_NAME in before.files:
            published = before.download(CARD_NAME, TEXT_LIMIT).read_text("utf-8")
        card, notes = _merge_card(contents, published, name)
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
    files = {**contents.files, CARD_NAME: card.encode()}
    added = [CommitOperationAdd(path, file if isinstance(file, bytes) else str(file)) for path, file in files.items()]
    for one in added:  # more at once would be other threads, where no answer is checked
        api.preupload_lfs_files(name, [one], free_memory=False, **place)
    title = f"Publish a model for {contents.bundle.config.task}"  # a run's folder may be called after a patient
    # The parent lets the Hub refuse the commit when another push came between.
    made = api.create_commit(name, added, commit_message=title, parent_commit=(head or main).commit, **place)
    page = None if made.pr_url is None else redacted(expect(made.pr_url, "https?://[!-~]+"))
    commit = expect(made.oid, "[0-9a-f]{40}")
    forget(name)
    return Publication(name, url, commit, page, main.private, contents.listing(card), tuple(notes))


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
_CHARTS = ("figures/curve.png",)  # of numbers; every other picture may show a patient


@dataclass(frozen=True)
class Contents:
    """What a run has to publish, the card aside.

    Attributes:
        bundle: The bundle.
        files: What is uploaded.
        titles: The title of each picture that the card names, by its path.
        left_out: The sizes of those not uploaded, by their paths: they may show patients, or are not here (0 bytes).
    """

    bundle: Bundle
    files: Files
    titles: dict[str, str]
    left_out: dict[str, int]

    def listing(self, card: str) -> tuple[PublishedFile, ...]:
        """Describe each file, the card among them, and what is left out."""
        parameters = sum(parameter.numel() for parameter in self.bundle.network.parameters())
        left = sum(PLACEHOLDER in line for line in card.splitlines())
        shown = {
            CONFIG_NAME: "network, input, settings and results of the training",
            WEIGHTS_NAME: f"weights: {parameters:,} parameters",
            CARD_NAME: f"the card, {left} lines to fill in" if left else "the card",
        }
        pictures = {path: f"picture: {title}" for path, title in self.titles.items()}
        files: Files = {**self.files, CARD_NAME: card.encode()}
        sizes = {path: len(file) if isinstance(file, bytes) else file.stat().st_size for path, file in files.items()}
        sent = [PublishedFile(path, size, {**pictures, **shown}[path]) for path, size in sizes.items()]
        why = "not sent, it may show patients; --include-figures sends it"
        here = {path: size for path, size in self.left_out.items() if size}
        return (*sent, *(PublishedFile(path, size, f"{pictures[path]}; {why}", False) for path, size in here.items()))


def _merge_card(contents: Contents, published: str, repository: str) -> tuple[str, list[str]]:
    """Return the card with our section renewed and what a person wrote kept, and notes for the user.

    A push stamps its section with a digest of the prose around it. While the published prose still has that
    digest nobody changed it there, and the run's is the newer; otherwise the published prose stays.
    """
    ours, theirs = split_card(contents.bundle.card), split_card(published, f"{repository}/{CARD_NAME}")
    base, notes = ours, []
    if _prose(theirs) and f"{_STAMP}{_digest(theirs)}" not in theirs.generated.partition("\n")[0]:
        front = {**ours.front, **{key: value for key, value in theirs.front.items() if key not in _RENEWED}}
        base = CardParts(front, theirs.before, ours.generated, theirs.after)
        if _prose(ours) not in ("", _prose(theirs)) and PLACEHOLDER not in _prose(ours):
            notes.append("the prose of the card on the Hub was kept; that of the run differs")
    titles = {title or path: path for title, path in _IMAGE.findall(ours.generated) if path not in contents.left_out}
    card = render_card(contents.bundle.config, name=repository, existing=base, figures=titles)
    if linked := [path for _, path in _IMAGE.findall(card) if path in contents.left_out]:
        notes.append(f"the card shows {some(linked)}, not sent: take the link out, or add --include-figures")
    if left := sum(PLACEHOLDER in line for line in card.splitlines()):
        notes.append(f"the card has {left} lines to fill in, marked {PLACEHOLDER}; do so in {CARD_NAME}, push again")
    return card.replace(BEGIN, f"{BEGIN}{_STAMP}{_digest(split_card(card))}", 1), notes


def check_run(folder: Path, *, include_figures: bool = False, where: str = "") -> Contents:
    """Return what a run has to publish: its bundle, and pictures.

    It loads, its card can be read, nothing private is in it.
    A strict load admits exactly the tensors of the network: no optimiser state can hide among them.

    Raises:
        HubError: Something is wrong; nothing was sent anywhere.
    """
    import safetensors

    require(folder.is_dir(), HubError, f"{folder}: no such folder{beside(folder)}")
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
        raise HubError(f"{where or folder}: {some(problems)}; take it out before publishing")
    files: Files = {name: folder / name for name in (CONFIG_NAME, WEIGHTS_NAME)}
    titles = {path: title or path for title, path in _IMAGE.findall(bundle.card) if "://" not in path}
    left_out: dict[str, int] = {}
    for path in titles:
        figure = folder / path
        inside = ".." not in path and folder.resolve() in figure.resolve().parents
        if not inside or figure.suffix.lower() not in _FIGURES:
            raise HubError(f"{folder / CARD_NAME}: {path!r} is not a figure of this run; link one inside of it")
        if figure.is_file() and (include_figures or path in _CHARTS):
            files[path] = pixels_only(figure)
        else:
            left_out[path] = figure.stat().st_size if figure.is_file() else 0
    return Contents(bundle, files, titles, left_out)


def _prose(parts: CardParts) -> str:
    return f"{parts.before.strip()}\n{parts.after.strip()}".strip()


def _digest(parts: CardParts) -> str:
    front = {key: value for key, value in parts.front.items() if key not in _RENEWED}
    return hashlib.sha256(f"{sorted(front.items())}{_prose(parts)}".encode()).hexdigest()[:16]
