"""One push: the repository found or made, one atomic commit, then opened; or taken back when it is refused."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelsgenesis.checkpoints.bundle import CARD_NAME, WEIGHTS_NAME
from modelsgenesis.errors import (
    AccessError,
    GenesisError,
    HubError,
    HubUnreachableError,
    PublishError,
    UnknownModelError,
)
from modelsgenesis.files import TEXT_LIMIT, parsing, reason_of, write_json
from modelsgenesis.hub.cache import hub_digest, key_of, open_cache
from modelsgenesis.hub.client import Snapshot, expected, speaking, take_snapshot
from modelsgenesis.hub.content import Content, merge_card
from modelsgenesis.hub.environment import SIGN_IN, endpoint, redacted, token_of
from modelsgenesis.hub.files import RemoteFiles


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
class Push:
    """A push to a branch of a repository, and what it made there so far.

    Attributes:
        content: What is pushed.
        repository: `org/name`.
        branch: Where to; None for the default branch.
        token: None for that of the environment.
        private: Whether a new repository shall stay private.
        proposal: Whether to make a pull request.
        made: What this push made there, and the commit that it had then.
    """

    content: Content
    repository: str
    branch: str | None
    token: str | None
    private: bool
    proposal: bool
    made: tuple[Literal["repository", "branch"], str] | None = None

    def publish(self, say: Callable[[str], None]) -> Publication:
        """Do all of it."""
        if not token_of(self.token):
            raise AccessError(f"{self.repository}: publishing needs a token; {SIGN_IN}")
        if "/" not in self.repository:
            with speaking(self.repository, self.token) as api:
                account = expected(api.whoami()["name"], r"[\w.-]{1,100}")
            self.repository = f"{account}/{self.repository}"
        say(f"asking for {self.repository}")
        main = self._head(None)
        if main and self.private and not main.private:
            raise PublishError(f"{self.repository}: is public, but --private was asked; take another --hub-model-id")
        head = self._head(self.branch) if main and self.branch and not self.proposal else main
        card, notes = self._card(head or main)
        say(f"preparing {self.repository}")
        main = main or self._create()
        before = head or self._make_branch(main)
        say(f"uploading to {self.repository}")
        commit, proposal = self._commit(card, before, notes)
        private = self._open(before, commit, notes)
        open_cache().forget(self.repository)
        files = (*self.content.files, CARD_NAME)
        return Publication(self.repository, self._url(), commit, proposal, private, files, tuple(dict.fromkeys(notes)))

    def _url(self) -> str:
        return f"{endpoint()}/{self.repository}"

    def _head(self, branch: str | None) -> Snapshot | None:
        """Return the head of a branch, None for the default one; None when the token sees no such thing."""
        try:
            return take_snapshot(self.repository, branch, self.token)
        except UnknownModelError:
            return None

    def _card(self, before: Snapshot | None) -> tuple[str, list[str]]:
        """Return the card to be published, which the Hub accepts, and what the user should be told of it."""
        where, published = f"{self.repository}/{CARD_NAME}", ""
        with parsing(where, PublishError, what="as a model card", remedy=f"mend it on {self._url()}"):
            if before and CARD_NAME in before.files:
                path = RemoteFiles(before, self.token, open_cache(), None).get(CARD_NAME, TEXT_LIMIT)
                published = path.read_text("utf-8")
            card, notes = merge_card(self.content, published, self.repository)
        with speaking(self.repository, self.token) as api, _quiet(notes):
            try:
                api._validate_yaml(card)  # noqa: SLF001 - ModelCard.validate asks another Hub before version 2
            except ValueError as error:
                said = f"the header of {CARD_NAME} is not accepted: {redacted(reason_of(error))}"
                raise PublishError(f"{self.repository}: {said}; mend it") from error
        return card, notes

    def _create(self) -> Snapshot:
        """Make the repository, private for now, so that nothing half-done can be seen."""
        if not self.private:
            write_json(self._wish(), {})  # before: a push can be cut right after
        try:
            with speaking(self.repository, self.token) as api:
                api.create_repo(self.repository, private=True)
        except (AccessError, PublishError, UnknownModelError):  # what is not a name at all is not known either
            self._wish().unlink(missing_ok=True)
            raise
        made = take_snapshot(self.repository, None, self.token)
        self.made = ("repository", made.commit)
        return made

    def _wish(self) -> Path:
        """Return the note on this machine that it makes the repository, and that it shall be public in the end."""
        return open_cache().root / "openings" / f"{key_of(self._url())}.json"

    def _make_branch(self, main: Snapshot) -> Snapshot:
        """Return the head to commit on: that of the default branch, where a new branch starts."""
        if self.branch is not None and not self.proposal:
            with speaking(self.repository, self.token, revision=self.branch) as api:
                api.create_branch(self.repository, branch=self.branch, revision=main.commit, exist_ok=True)
            self.made = self.made or ("branch", main.commit)
        return main

    def _commit(self, card: str, before: Snapshot, notes: list[str]) -> tuple[str, str | None]:
        """Make the one commit; return it and the proposal's page."""
        from huggingface_hub import CommitOperationAdd

        files = {**self.content.files, CARD_NAME: card.encode()}
        operations = [
            CommitOperationAdd(name, str(file) if isinstance(file, Path) else file) for name, file in files.items()
        ]
        place = {"revision": self.branch, "create_pr": self.proposal}
        title = f"Publish a model for {self.content.config.task}"  # a run's folder may be called after a patient
        try:
            with speaking(self.repository, self.token, revision=self.branch) as api, _quiet(notes):
                for one in operations:  # more at once would be other threads, where no answer is checked
                    api.preupload_lfs_files(self.repository, [one], free_memory=False, **place)
                made = api.create_commit(
                    self.repository, operations, commit_message=title, parent_commit=before.commit, **place
                )
                page = None if made.pr_url is None else redacted(expected(made.pr_url, "https?://[!-~]+"))
                return expected(made.oid, "[0-9a-f]{40}"), page
        except HubError as error:
            refused = self.proposal or isinstance(error, (AccessError, PublishError))
            landed = None if refused else self._landed(card, before)
            if landed is None:
                raise
            return landed, None

    def _landed(self, card: str, before: Snapshot) -> str | None:
        """Return the commit that holds all of it although its answer was lost on the way."""
        try:
            now = take_snapshot(self.repository, self.branch, self.token, quick=True)
        except GenesisError:
            return None  # the failure before this one is what the user should read
        ours = {WEIGHTS_NAME: self.content.folder / WEIGHTS_NAME, CARD_NAME: card.encode()}
        theirs = {name: now.files[name].digest for name in ours if name in now.files}
        same = theirs == {name: hub_digest(ours[name], digest) for name, digest in theirs.items()}
        return now.commit if same and len(theirs) == 2 and now.commit != before.commit else None

    def _open(self, before: Snapshot, commit: str, notes: list[str]) -> bool:
        """Open a repository that this machine made, if that was asked for; return whether it is private.

        One that somebody made private is never opened: it was empty before, or holds what a cut push brought.
        """
        ours = commit == before.commit or before.files.keys() <= {".gitattributes"}  # the Hub puts that into a new one
        settings, private = f"{self._url()}/settings", before.private
        if private and not self.private and ours and self._wish().is_file():
            try:
                with speaking(self.repository, self.token) as api:
                    api.update_repo_settings(self.repository, private=False)
            except HubError as error:
                notes.append(f"published, but still private ({error}); repeat the push, or open it at {settings}")
                return True
            private = False
        elif private and not self.private:
            notes.append(f"the repository was private and stays so; make it public at {settings}")
        self._wish().unlink(missing_ok=True)
        return private

    def undo(self, error: HubError) -> str:
        """Take back what a refused push made, keep what an interrupted one made; return a remark on it."""
        if self.made is None:
            return ""
        what, start = self.made
        if isinstance(error, HubUnreachableError):
            return f" (the new {what} is kept, so that a repeat uploads only what is missing)"
        try:
            head = self._head(self.branch if what == "branch" else None)
            if head is None or head.commit != start:
                return ""  # another push came to it meanwhile
            with speaking(self.repository, self.token) as api:
                if what == "branch":
                    api.delete_branch(self.repository, branch=str(self.branch))
                else:
                    api.delete_repo(self.repository, missing_ok=True)
                    self._wish().unlink(missing_ok=True)
        except GenesisError as failure:
            return f" (the new {what} could not be removed: {failure})"
        return ""


@contextmanager
def _quiet(notes: list[str]) -> Iterator[None]:
    """Silence the client's own bars, for uploads take none of ours, and keep its warnings for the end."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            if shown:
                enable_progress_bars()
            notes += [redacted(reason_of(Exception(str(warning.message)))) for warning in caught]
