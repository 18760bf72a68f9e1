"""A repository on the Hub to push to: found or made, then one atomic commit of everything."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from modelsgenesis.checkpoints.bundle import CARD_NAME
from modelsgenesis.errors import HubError
from modelsgenesis.files import TEXT_LIMIT, parsing, reason_of
from modelsgenesis.hub.cache import open_cache
from modelsgenesis.hub.client import Snapshot, expect, hub_errors, take_snapshot
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
        private: Whether a new repository shall be private.
        proposal: Whether to make a pull request.
    """

    name: str
    branch: str | None
    token: str | None
    private: bool
    proposal: bool

    def publish(self, plan: "UploadPlan", say: Callable[[str], None]) -> Publication:
        """Find or make the repository and its branch, and make the one commit.

        A repeat finds what was made before, and the client uploads only what is missing.
        """
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
            with hub_errors(self.name, self.token) as api:
                api.create_repo(self.name, private=self.private)
            main = take_snapshot(self.name, None, self.token)
        if head is None and self.branch is not None and not self.proposal:
            with hub_errors(self.name, self.token, revision=self.branch) as api:
                api.create_branch(self.name, branch=self.branch, revision=main.commit, exist_ok=True)
        say(f"uploading to {self.name}")
        files = {**plan.files, CARD_NAME: card.encode()}
        title = f"Publish a model for {plan.config.task}"  # a run's folder may be called after a patient
        commit, proposal = self._commit(files, title, (head or main).commit, notes)
        open_cache().forget(self.name)
        if main.private and not self.private:
            notes.append(f"the repository was private and stays so; make it public at {self._url}/settings")
        return Publication(
            self.name, self._url, commit, proposal, main.private, tuple(files), tuple(dict.fromkeys(notes))
        )

    @property
    def _url(self) -> str:
        return f"{endpoint()}/{self.name}"

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
            try:  # a commit is checked so too, but after the repository was made and large files were uploaded
                api._validate_yaml(card)  # noqa: SLF001 - ModelCard.validate asks another Hub before version 2
            except ValueError as error:
                said = f"the header of {CARD_NAME} is not accepted: {redacted(reason_of(error))}"
                raise HubError(f"{self.name}: {said}; fix it") from error
        return card, notes

    def _commit(
        self, files: dict[str, Path | bytes], title: str, parent: str, notes: list[str]
    ) -> tuple[str, str | None]:
        """Make the one commit, unless another came after its parent; return it and the proposal's page."""
        added = [
            CommitOperationAdd(name, file if isinstance(file, bytes) else str(file)) for name, file in files.items()
        ]
        place: Any = {"revision": self.branch, "create_pr": self.proposal}
        with hub_errors(self.name, self.token, revision=self.branch) as api, _no_bars(notes):
            for one in added:  # more at once would be other threads, where no answer is checked
                api.preupload_lfs_files(self.name, [one], free_memory=False, **place)
            made = api.create_commit(self.name, added, commit_message=title, parent_commit=parent, **place)
            page = None if made.pr_url is None else redacted(expect(made.pr_url, "https?://[!-~]+"))
            return expect(made.oid, "[0-9a-f]{40}"), page


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
