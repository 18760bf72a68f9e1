"""From a run to a repository on the Hub: checked here first, then one atomic commit, private until it is complete."""

import hashlib
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from modelsgenesis.checkpoints import render_card
from modelsgenesis.checkpoints.bundle import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_bundle
from modelsgenesis.configs import BundleConfig
from modelsgenesis.configs.front_matter import BEGIN, PLACEHOLDER, CardParts, split_card
from modelsgenesis.errors import GenesisError, HubError
from modelsgenesis.files import TEXT_LIMIT, parsing, read_json, reason_of, write_json
from modelsgenesis.hub import review
from modelsgenesis.hub.cache import key_of, open_cache
from modelsgenesis.hub.client import Snapshot, expect, hub_digest, hub_errors, take_snapshot
from modelsgenesis.hub.guard import SIGN_IN, endpoint, redacted, token_of
from modelsgenesis.hub.registry import is_inside

_RENEWED = ("library_name", "pipeline_tag", "model-index", "base_model")  # keys of a card's header, by every push
_FIGURES = (".png", ".jpg", ".jpeg", ".webp")
_STAMP = " prose="


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
    progress: Callable[[str], None] | None = None,
) -> Publication:
    """Publish a run's bundle: configuration, weights, card, and the figures that the card names.

    A new repository stays private until its one commit is there. Prose that a person wrote into an existing
    card is kept. Pushing again what is there already changes nothing.

    Args:
        folder: The run; it is only read.
        repository: `org/name`; `name` for the token's own account; None for the run's name there.
        private: Whether a new repository stays private; an existing one keeps its visibility.
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
    plan = plan_upload(folder)
    repository = repository or re.sub(r"[^\w.-]+|-{2,}|\.{2,}", "-", folder.resolve().name).strip("-.")
    again = ["modelsgenesis", "push", str(folder), "--hub-model-id", repository]
    again += ["--private"] * private + ["--create-pr"] * create_pr + (["--revision", revision] if revision else [])
    if create_pr and revision not in (None, "main"):
        raise HubError(f"--create-pr proposes a change of main, but received --revision {revision}; leave one out")
    try:
        return TargetRepository(repository, revision, token, private, create_pr).publish(plan, say)
    except HubError as error:  # a repeat takes a new repository, and uploads only what is missing in it
        left = f"nothing was published and {folder} is intact; repeat with: {shlex.join(again)}"
        raise HubError(f"{error}; {left}", error.kind) from error


@dataclass(frozen=True)
class UploadPlan:
    """A run, checked and ready to be pushed.

    Attributes:
        folder: The run.
        config: Its configuration.
        card: Its card as it lies there.
        files: Everything but the card, by its path: a file here, or the content of a figure that was written anew.
    """

    folder: Path
    config: BundleConfig
    card: str
    files: dict[str, Path | bytes]


def plan_upload(folder: Path) -> UploadPlan:
    """Check that a run can be published: it loads, its card can be read, nothing private is in it.

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
    written = replace(parts, generated="").join()  # the section between the markers is rendered anew
    problems = [
        *review.private_values(bundle.config.to_dict(), CONFIG_NAME),
        *review.private_values(metadata, WEIGHTS_NAME),
        *review.private_text(bundle.card, CARD_NAME),
        *review.scan_names(written, CARD_NAME),
        *review.recorded_names(written, _split_of(folder / "run.json"), CARD_NAME),
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise HubError(f"{folder}: {'; '.join(problems[:3])}{more}; take it out before publishing")
    files = {name: folder / name for name in (CONFIG_NAME, WEIGHTS_NAME)}
    return UploadPlan(folder, bundle.config, bundle.card, {**files, **_figures(folder, bundle.card)})


def _split_of(path: Path) -> Iterator[str]:
    """Yield the names of a run's scans by its own record, which stays on this machine."""
    record = read_json(path, HubError) if path.is_file() else {}
    split = record.get("split") if isinstance(record, Mapping) else None
    for names in split.values() if isinstance(split, Mapping) else ():
        yield from (name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _figures(folder: Path, card: str) -> dict[str, bytes]:
    """Return the figures that a card names, after checking that they are there."""
    figures: dict[str, bytes] = {}
    for path in dict.fromkeys(path for _, path in review.IMAGE.findall(card) if "://" not in path):
        file = folder / path
        inside = is_inside(path) and folder.resolve() in file.resolve().parents
        if not inside or file.suffix.lower() not in _FIGURES:
            raise HubError(f"{folder / CARD_NAME}: {path!r} is not a figure of this run; link one inside of it")
        if not file.is_file():
            raise HubError(f"{folder / CARD_NAME}: names the figure {path}, which is not there; take the line out")
        figures[path] = review.pixels_only(file)
    return figures


def merge_card(plan: UploadPlan, published: str, repository: str) -> tuple[str, list[str]]:
    """Renew our section of a card and keep what a person wrote.

    A push stamps its section with a digest of the prose around it. While the published prose still has that
    digest nobody changed it there, and the run's is the newer; otherwise the published prose stays.

    Args:
        plan: The run.
        published: The card on the Hub; empty when there is none.
        repository: `org/name`, which the snippet will load.

    Returns:
        The card, and what the user should be told.
    """
    ours, theirs = split_card(plan.card), split_card(published, f"{repository}/{CARD_NAME}")
    notes: list[str] = []
    base = ours
    if _prose(theirs) and f"{_STAMP}{_digest(theirs)}" not in theirs.generated.partition("\n")[0]:
        front = {**ours.front, **{key: value for key, value in theirs.front.items() if key not in _RENEWED}}
        base = CardParts(front, theirs.before, ours.generated, theirs.after)
        if _prose(ours) not in ("", _prose(theirs)) and PLACEHOLDER not in _prose(ours):
            notes.append(f"the prose of the card on the Hub was kept; that of {plan.folder / CARD_NAME} differs")
    titles = {title or path: path for title, path in review.IMAGE.findall(ours.generated)}
    card = render_card(plan.config, name=repository, existing=base.join(), figures=titles)
    if left := sum(PLACEHOLDER in line for line in card.splitlines()):
        notes.append(f"the card has {left} lines to fill in; modelsgenesis card {plan.folder} --check lists them")
    return card.replace(BEGIN, f"{BEGIN}{_STAMP}{_digest(split_card(card))}", 1), notes


def _prose(parts: CardParts) -> str:
    return f"{parts.before.strip()}\n{parts.after.strip()}".strip()


def _digest(parts: CardParts) -> str:
    front = {key: value for key, value in parts.front.items() if key not in _RENEWED}
    return hashlib.sha256(f"{sorted(front.items())}{_prose(parts)}".encode()).hexdigest()[:16]


@dataclass
class TargetRepository:
    """A branch of a repository to push to.

    Attributes:
        name: `org/name`; `name` alone for the token's own account.
        branch: Where to; None for the default branch.
        token: None for that of the environment.
        private: Whether a new repository shall stay private.
        proposal: Whether to make a pull request.
    """

    name: str
    branch: str | None
    token: str | None
    private: bool
    proposal: bool

    def publish(self, plan: UploadPlan, say: Callable[[str], None]) -> Publication:
        """Make or find the repository, make the one commit, and open what shall be public."""
        if not token_of(self.token):
            raise HubError(f"{self.name}: publishing needs a token; {SIGN_IN}", "denied")
        if "/" not in self.name:
            with hub_errors(self.name, self.token) as api:
                account = expect(api.whoami()["name"], r"[\w.-]{1,100}")
            self.name = f"{account}/{self.name}"
        say(f"comparing with {self.name}")
        main = self._head(None)
        if main and self.private and not main.private:
            raise HubError(f"{self.name}: is public, but --private was asked; take another --hub-model-id")
        head = self._head(self.branch) if main and self.branch and not self.proposal else main
        card, notes = self._card(plan, head or main)
        if main is None:
            say(f"creating {self.name}")
            main = self._create()
        if head is None and self.branch is not None and not self.proposal:
            with hub_errors(self.name, self.token, revision=self.branch) as api:
                api.create_branch(self.name, branch=self.branch, revision=main.commit, exist_ok=True)
        before = head or main
        say(f"uploading to {self.name}")
        files = {**plan.files, CARD_NAME: card.encode()}
        title = f"Publish a model for {plan.config.task}"  # a run's folder may be called after a patient
        commit, proposal = self._commit(files, title, before, notes)
        private = self._open(before, commit, notes)
        open_cache().forget(self.name)
        notes = list(dict.fromkeys(notes))
        return Publication(self.name, self._url, commit, proposal, private, tuple(files), tuple(notes))

    @property
    def _url(self) -> str:
        return f"{endpoint()}/{self.name}"

    @property
    def _wish(self) -> Path:
        """The note on this machine that it makes the repository, and that it shall be public in the end."""
        return open_cache().root / "openings" / f"{key_of(self._url)}.json"

    def _head(self, branch: str | None) -> Snapshot | None:
        """Return the head of a branch, None for the default one; None when the token sees no such thing."""
        try:
            return take_snapshot(self.name, branch, self.token)
        except HubError as error:
            if error.kind != "unknown":
                raise
            return None

    def _card(self, plan: UploadPlan, before: Snapshot | None) -> tuple[str, list[str]]:
        """Return the card to be published, which the Hub accepts, and what the user should be told of it."""
        published = ""
        with parsing(f"{self.name}/{CARD_NAME}", HubError, what="as a model card", remedy=f"fix it on {self._url}"):
            if before and CARD_NAME in before.files:
                published = before.download(CARD_NAME, TEXT_LIMIT, open_cache().hub).read_text("utf-8")
            card, notes = merge_card(plan, published, self.name)
        with hub_errors(self.name, self.token) as api, _no_bars(notes):
            try:
                api._validate_yaml(card)  # noqa: SLF001 - ModelCard.validate asks another Hub before version 2
            except ValueError as error:
                said = f"the header of {CARD_NAME} is not accepted: {redacted(reason_of(error))}"
                raise HubError(f"{self.name}: {said}; fix it") from error
        return card, notes

    def _create(self) -> Snapshot:
        """Make the repository, private for now, so that nothing half-done can be seen."""
        if not self.private:
            write_json(self._wish, {})  # before: a push can be cut right after
        try:
            with hub_errors(self.name, self.token) as api:
                api.create_repo(self.name, private=True)
        except HubError as error:
            if error.kind in ("denied", "conflict", "unknown"):  # then it was surely not made
                self._wish.unlink(missing_ok=True)
            raise
        return take_snapshot(self.name, None, self.token)

    def _commit(
        self, files: dict[str, Path | bytes], title: str, before: Snapshot, notes: list[str]
    ) -> tuple[str, str | None]:
        """Make the one commit; return it and the proposal's page."""
        operations = [
            CommitOperationAdd(name, str(file) if isinstance(file, Path) else file) for name, file in files.items()
        ]
        place: Any = {"revision": self.branch, "create_pr": self.proposal}
        try:
            with hub_errors(self.name, self.token, revision=self.branch) as api, _no_bars(notes):
                for one in operations:  # more at once would be other threads, where no answer is checked
                    api.preupload_lfs_files(self.name, [one], free_memory=False, **place)
                made = api.create_commit(
                    self.name, operations, commit_message=title, parent_commit=before.commit, **place
                )
                page = None if made.pr_url is None else redacted(expect(made.pr_url, "https?://[!-~]+"))
                return expect(made.oid, "[0-9a-f]{40}"), page
        except HubError as error:
            refused = self.proposal or error.kind in ("denied", "conflict")
            landed = None if refused else self._landed(files, before)
            if landed is None:
                raise
            return landed, None

    def _landed(self, files: dict[str, Path | bytes], before: Snapshot) -> str | None:
        """Return the commit that holds all of it although its answer was lost on the way."""
        try:
            now = take_snapshot(self.name, self.branch, self.token, quick=True)
        except GenesisError:
            return None  # the failure before this one is what the user should read
        there = {name: now.files[name].digest for name in files if name in now.files}
        same = len(there) == len(files) and all(hub_digest(files[name], there[name]) == there[name] for name in there)
        return now.commit if same and now.commit != before.commit else None

    def _open(self, before: Snapshot, commit: str, notes: list[str]) -> bool:
        """Open a repository that this machine made, if that was asked for; return whether it is private.

        One that somebody made private is never opened: it was empty before, or holds what a cut push brought.
        """
        ours = commit == before.commit or before.files.keys() <= {".gitattributes"}  # the Hub puts that into a new one
        settings, private = f"{self._url}/settings", before.private
        if private and not self.private and ours and self._wish.is_file():
            try:
                with hub_errors(self.name, self.token) as api:
                    api.update_repo_settings(self.name, private=False)
            except HubError as error:
                notes.append(f"published, but still private ({error}); repeat the push, or open it at {settings}")
                return True
            private = False
        elif private and not self.private:
            notes.append(f"the repository was private and stays so; make it public at {settings}")
        self._wish.unlink(missing_ok=True)
        return private


@contextmanager
def _no_bars(notes: list[str]) -> Iterator[None]:
    """Silence the client's own bars, for uploads take none of ours, and keep its warnings for the end."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    with warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught:
        try:
            yield
        finally:
            if shown:
                enable_progress_bars()
            notes += [redacted(reason_of(Exception(str(warning.message)))) for warning in caught]
