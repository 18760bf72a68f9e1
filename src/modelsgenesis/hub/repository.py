"""A repository on the Hub to push to: found or made, one atomic commit, private until it is complete."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from modelsgenesis.checkpoints.bundle import CARD_NAME
from modelsgenesis.errors import GenesisError, HubError
from modelsgenesis.files import TEXT_LIMIT, parsing, reason_of, write_json
from modelsgenesis.hub.cache import key_of, open_cache
from modelsgenesis.hub.client import Snapshot, expect, hub_digest, hub_errors, take_snapshot
from modelsgenesis.hub.guard import SIGN_IN, endpoint, redacted, token_of

if TYPE_CHECKING:
    from modelsgenesis.hub.push import UploadPlan


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

    def publish(self, plan: "UploadPlan", say: Callable[[str], None]) -> Publication:
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

    def _card(self, plan: "UploadPlan", before: Snapshot | None) -> tuple[str, list[str]]:
        """Return the card to be published, which the Hub accepts, and what the user should be told of it."""
        published = ""
        with parsing(f"{self.name}/{CARD_NAME}", HubError, what="as a model card", remedy=f"fix it on {self._url}"):
            if before and CARD_NAME in before.files:
                published = before.download(CARD_NAME, TEXT_LIMIT, open_cache().hub).read_text("utf-8")
            card, notes = plan.merge_card(published, self.name)
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
