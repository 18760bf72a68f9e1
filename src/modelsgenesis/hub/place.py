"""The repository that a push goes to: found or made, opened, and taken back if the push is refused."""

import json
from dataclasses import dataclass
from pathlib import Path

from modelsgenesis.checkpoints.bundle import CARD_NAME
from modelsgenesis.errors import AccessError, HubError, HubUnreachableError, PublishError, UnknownModelError
from modelsgenesis.files import write_atomically
from modelsgenesis.hub.cache import key_of, open_cache
from modelsgenesis.hub.client import Snapshot, api, endpoint, take_snapshot, translated
from modelsgenesis.hub.files import RemoteFiles

_LARGEST_CARD = 4 << 20  # bytes


@dataclass
class Place:
    """A branch of a repository.

    Attributes:
        repository: `org/name`.
        branch: Where to; None for the default branch.
        token: None for that of the environment.
        private: Whether a new repository shall stay private.
        proposal: Whether to make a pull request.
        made_repository: The first commit of the repository, if this push made it.
        made_branch: The commit at which this push made the branch, if it did.
    """

    repository: str
    branch: str | None
    token: str | None
    private: bool
    proposal: bool
    made_repository: str | None = None
    made_branch: str | None = None

    @property
    def url(self) -> str:
        """The page of the repository."""
        return f"{endpoint()}/{self.repository}"

    @property
    def pending(self) -> Path:
        """A note on this machine that it made the repository, and whether that shall stay private."""
        return open_cache().root / "pushes" / f"{key_of(endpoint(), self.repository)}.json"

    def account(self) -> dict[str, object]:
        """Return whose token it is."""
        with translated(self.repository, token=self.token):
            return api(self.token).whoami()

    def head(self, branch: str | None) -> Snapshot | None:
        """Return the head of a branch, None for the default one; None when the token sees no such thing."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            return take_snapshot(self.repository, branch, self.token)
        except UnknownModelError as error:
            if isinstance(error.__cause__, (RepositoryNotFoundError, RevisionNotFoundError)):
                return None
            raise

    def card(self, before: Snapshot) -> str:
        """Return the card that is there, checked against the Hub's record; empty when there is none."""
        if CARD_NAME not in before.files:
            return ""
        path = RemoteFiles(before, self.token, open_cache(), None).get(CARD_NAME, _LARGEST_CARD)
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise PublishError(f"{self.repository}: its {CARD_NAME} is no text; mend it on {self.url}") from error

    def create(self) -> Snapshot:
        """Make the repository, private for now, so that nothing half-done can be seen.

        Raises:
            PublishError: The name is taken.
            AccessError: The token may not make it.
        """
        from huggingface_hub.errors import HfHubHTTPError

        with translated(self.repository, token=self.token):
            try:
                api(self.token).create_repo(self.repository, private=True)
            except HfHubHTTPError as error:
                if error.response.status_code == 409:
                    raise PublishError(
                        f"{self.repository}: the name is taken, by a push under way or a repository hidden "
                        "from the token; wait, or choose another --hub-model-id"
                    ) from error
                if error.response.status_code == 403:
                    raise self._no_rights() from error
                raise
        made = take_snapshot(self.repository, None, self.token)
        self.made_repository = made.commit
        note = {"private": self.private, "commit": made.commit}
        write_atomically(self.pending, json.dumps(note).encode())
        return made

    def _no_rights(self) -> AccessError:
        account = self.account()
        organisations = account.get("orgs")
        names = [org["name"] for org in organisations] if isinstance(organisations, list) else []
        return AccessError(
            f"{self.repository}: the token may not make a repository under {self.repository.split('/')[0]}; "
            f"it is of {account['name']} (organisations: {', '.join(names) or 'none'}); "
            "choose another --hub-model-id, or a token with write access"
        )

    def make_branch(self, main: Snapshot) -> Snapshot:
        """Return the head to commit on: that of the default branch, or of a new branch that starts there."""
        if self.branch is None or self.proposal:
            return main
        head = self.head(self.branch)  # a new repository has its default branch already
        if head:
            return head
        with translated(self.repository, self.branch, self.token):
            api(self.token).create_branch(self.repository, branch=self.branch, revision=main.commit)
        self.made_branch = main.commit
        return main

    def finish(self, before: Snapshot, notes: list[str]) -> bool:
        """Open a repository that this machine made, if that was asked for; return whether it is private.

        One that somebody made private is never opened: the note names the commit that was the only one.
        """
        private = before.private
        if self._wants_to_be_public(before):
            try:
                with translated(self.repository, token=self.token):
                    api(self.token).update_repo_settings(self.repository, private=False)
                private = False
            except HubError as error:
                notes.append(f"published, but still private ({error}); make it public at {self.url}/settings")
        elif private and not self.private:
            notes.append(f"the repository was private and stays so; make it public at {self.url}/settings")
        self.pending.unlink(missing_ok=True)
        return private

    def _wants_to_be_public(self, before: Snapshot) -> bool:
        try:
            note = json.loads(self.pending.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return False
        return note == {"private": False, "commit": before.commit} and not self.private

    def undo(self, error: HubError) -> str:
        """Take back what a refused push made, keep what an interrupted one made; return a remark on it."""
        made = f"the empty private repository {self.repository}" if self.made_repository else ""
        made = made or (f"the branch {self.branch}" if self.made_branch else "")
        if not made:
            return ""
        if isinstance(error, HubUnreachableError):
            return f" ({made} is kept, so that a repeat uploads only what is missing)"
        try:
            self._remove()
        except HubError as failure:
            return f" ({made} could not be removed: {failure})"
        return ""

    def _remove(self) -> None:
        """Remove what this push made, unless another push came to it meanwhile."""
        main, branch = self.head(None), self.head(self.branch)
        with translated(self.repository, token=self.token):
            if self.made_repository and main and main.commit == self.made_repository:
                api(self.token).delete_repo(self.repository, missing_ok=True)
                self.pending.unlink(missing_ok=True)
            elif self.made_branch and self.branch and branch and branch.commit == self.made_branch:
                api(self.token).delete_branch(self.repository, branch=self.branch)
