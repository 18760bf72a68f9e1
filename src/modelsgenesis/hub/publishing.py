"""From a run to a repository on the Hub: checked here first, then one atomic commit."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelsgenesis.checkpoints.bundle import CARD_NAME, write_atomically
from modelsgenesis.errors import AccessError, HubError, HubUnreachableError, PublishError, UnknownModelError
from modelsgenesis.hub.cache import check_digest, git_sha1_of, key_of, open_cache, sha256_of
from modelsgenesis.hub.client import SIGN_IN, Snapshot, api, endpoint, has_token, take_snapshot, translated
from modelsgenesis.hub.content import Content, check_content, merge_card

_STALE = (409, 412)  # the branch moved while a commit was under way


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
class _Push:
    """One push under way.

    Attributes:
        repository: `org/name`.
        branch: Where to; None for the default branch.
        token: None for that of the environment.
        private: As a new repository should be.
        proposal: Whether to make a pull request.
        made_repository: Set once this push made the repository.
        made_branch: Set once this push made the branch.
    """

    repository: str
    branch: str | None
    token: str | None
    private: bool
    proposal: bool
    made_repository: bool = False
    made_branch: bool = False

    @property
    def pending(self) -> Path:
        """The note that this machine began to make the repository, and whether it shall stay private."""
        return open_cache().root / "pushes" / f"{key_of(endpoint(), self.repository)}.json"


def publish(
    folder: str | Path,
    repository: str | None = None,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    message: str | None = None,
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
        message: Of the commit.
        progress: Called with what is being done.

    Returns:
        Where it is.

    Raises:
        PublishError: The run cannot be published, or another push came between.
        AccessError: The token is missing, wrong, or lacks the rights.
        HubUnreachableError: The connection failed; a repeat uploads only what is missing.

    Example:
        publication = publish("runs/chest", "clinic/genesis-chest-ct")
    """
    say = progress or (lambda _: None)
    folder = Path(folder)
    say("checking the bundle")
    content = check_content(folder)
    repository = repository or re.sub(r"[^\w.-]+|-{2,}|\.{2,}", "-", folder.resolve().name).strip("-.")
    repeat = push_command(folder, repository, private=private, revision=revision, create_pr=create_pr)
    if create_pr and revision not in (None, "main"):
        raise PublishError(
            f"--create-pr proposes a change of main, but received --revision {revision}; leave one out"
        )
    push = _Push(repository, revision, token, private, create_pr)
    try:
        return _publish(push, content, message, say)
    except HubError as error:
        kept = _undo(push, error)
        raise type(error)(
            f"{error}; nothing was published and {folder} is intact{kept}; repeat with: {repeat}"
        ) from error


def push_command(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Return the command that pushes a run, to be shown when a push failed."""
    parts = ["modelsgenesis", "push", str(folder), "--hub-model-id", repository]
    parts += ["--private"] if private else []
    parts += ["--revision", revision] if revision else []
    parts += ["--create-pr"] if create_pr else []
    return shlex.join(parts)


def _publish(push: _Push, content: Content, message: str | None, say: Callable[[str], None]) -> Publication:
    if not has_token(push.token):
        raise AccessError(f"{push.repository}: publishing needs a token; {SIGN_IN}")
    if "/" not in push.repository:
        push.repository = f"{_account(push)['name']}/{push.repository}"
    say(f"asking for {push.repository}")
    main = _head(push, None)
    if main and push.private and not main.private:
        raise PublishError(
            f"{push.repository}: exists and is public, but --private was asked; choose another --hub-model-id"
        )
    branch = _head(push, push.branch) if main and push.branch and not push.proposal else main
    published = _published_card(push, branch or main) if main else ""
    card, notes = merge_card(content, published, push.repository)
    _validate(push, card)
    say(f"preparing {push.repository}")
    main = main or _create(push)
    before = branch or _make_branch(push, main)
    say(f"uploading to {push.repository}")
    commit, proposal = _commit(push, content, card, before, message or f"Publish {content.folder.name}")
    is_private = _finish(push, before, notes)
    open_cache().forget(push.repository)
    files = (*content.files, CARD_NAME)
    url = f"{endpoint()}/{push.repository}"
    return Publication(push.repository, url, commit, proposal, is_private, files, tuple(notes))


def _account(push: _Push) -> dict[str, object]:
    with translated(push.repository, token=push.token):
        return api(push.token).whoami()


def _head(push: _Push, branch: str | None) -> Snapshot | None:
    """Return the head of a branch, None for the default one; None when there is none that the token sees."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return take_snapshot(push.repository, branch, push.token)
    except UnknownModelError as error:
        if isinstance(error.__cause__, (RepositoryNotFoundError, RevisionNotFoundError)):
            return None
        raise


def _published_card(push: _Push, before: Snapshot) -> str:
    """Return the card that the branch has now, checked against the Hub's record."""
    from huggingface_hub import hf_hub_download

    remote = before.files.get(CARD_NAME)
    if remote is None:
        return ""
    with translated(push.repository, before.commit, push.token):
        path = hf_hub_download(push.repository, CARD_NAME, revision=before.commit, token=push.token)
    check_digest(
        Path(path), {"sha256": remote.sha256, "git_sha1": remote.git_sha1}, f"{push.repository}/{CARD_NAME}"
    )
    return Path(path).read_text("utf-8")


def _validate(push: _Push, card: str) -> None:
    """Let the Hub judge the header before anything is made there."""
    from huggingface_hub import ModelCard

    with translated(push.repository, token=push.token):
        try:
            ModelCard(card).validate()
        except ValueError as error:
            said = " ".join(str(error).split())
            raise PublishError(
                f"{push.repository}: the header of {CARD_NAME} is not accepted: {said}; mend it"
            ) from error


def _create(push: _Push) -> Snapshot:
    """Make the repository, private for now, so that nothing half-done can be seen."""
    from huggingface_hub.errors import HfHubHTTPError

    write_atomically(push.pending, json.dumps({"private": push.private}).encode())
    with translated(push.repository, token=push.token):
        try:
            api(push.token).create_repo(push.repository, private=True)
        except HfHubHTTPError as error:
            push.pending.unlink(missing_ok=True)
            if error.response.status_code == 409:
                raise _taken(push) from error
            if error.response.status_code == 403:
                raise _no_rights(push) from error
            raise
    push.made_repository = True
    return take_snapshot(push.repository, None, push.token)


def _taken(push: _Push) -> PublishError:
    return PublishError(
        f"{push.repository}: the name is taken, by a push under way or a repository hidden from the token; "
        "wait, or choose another --hub-model-id"
    )


def _no_rights(push: _Push) -> AccessError:
    account = _account(push)
    organisations = account.get("orgs")
    names = [org["name"] for org in organisations] if isinstance(organisations, list) else []
    owner = push.repository.split("/")[0]
    return AccessError(
        f"{push.repository}: the token may not make a repository under {owner}; it is of {account['name']} "
        f"(organisations: {', '.join(names) or 'none'}); choose another --hub-model-id, "
        "or a token with write access"
    )


def _make_branch(push: _Push, main: Snapshot) -> Snapshot:
    """Return the head to commit on: that of the default branch, or of a new branch that starts there."""
    if push.branch is None or push.proposal:
        return main
    head = _head(push, push.branch)  # a new repository has its default branch already
    if head:
        return head
    with translated(push.repository, push.branch, push.token):
        api(push.token).create_branch(push.repository, branch=push.branch, revision=main.commit)
    push.made_branch = True
    return main


def _commit(
    push: _Push, content: Content, card: str, before: Snapshot, message: str
) -> tuple[str, str | None]:
    """Make the one commit; return it and the proposal's page."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError

    operations = [CommitOperationAdd(name, str(path)) for name, path in content.files.items()]
    operations.append(CommitOperationAdd(CARD_NAME, card.encode()))
    try:
        with translated(push.repository, push.branch, push.token), _quiet():
            try:
                made = api(push.token).create_commit(
                    push.repository,
                    operations,
                    commit_message=message,
                    revision=push.branch,
                    create_pr=push.proposal,
                    parent_commit=before.commit,
                )
            except HfHubHTTPError as error:
                if error.response.status_code in _STALE:
                    raise _moved(push) from error
                raise
    except HubUnreachableError:
        landed = None if push.proposal else _landed(push, content, card)
        if landed is None:
            raise
        return landed, None
    return made.oid, made.pr_url


def _moved(push: _Push) -> PublishError:
    return PublishError(
        f"{push.repository}: another push changed it meanwhile; before repeating look at "
        f"{endpoint()}/{push.repository}/commits/{push.branch or 'main'}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the client's own bars: uploads take none of ours."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _landed(push: _Push, content: Content, card: str) -> str | None:
    """Return the commit that holds all of it although its answer was lost on the way."""
    try:
        now = take_snapshot(push.repository, push.branch, push.token, patient=False)
    except HubError:
        return None  # the failure before this one is what the user should read
    for name, path in content.files.items():
        remote = now.files.get(name)
        if remote is None or (
            sha256_of(path) != remote.sha256 if remote.sha256 else git_sha1_of(path) != remote.git_sha1
        ):
            return None
    remote = now.files.get(CARD_NAME)
    return now.commit if remote and remote.size == len(card.encode()) else None


def _finish(push: _Push, before: Snapshot, notes: list[str]) -> bool:
    """Open a new repository to the public if it was asked for; return whether it is private."""
    if not push.pending.exists():
        return before.private
    wanted_private = push.private or json.loads(push.pending.read_text("utf-8"))["private"]
    if not wanted_private:
        try:
            with translated(push.repository, token=push.token):
                api(push.token).update_repo_settings(push.repository, private=False)
        except HubError as error:
            notes.append(
                f"published, but still private ({error}); "
                f"make it public at {endpoint()}/{push.repository}/settings"
            )
            wanted_private = True
    push.pending.unlink(missing_ok=True)
    return wanted_private


def _undo(push: _Push, error: HubError) -> str:
    """Remove what a refused push made, keep what an interrupted one made; return a remark on it."""
    if not (push.made_repository or push.made_branch):
        return ""
    what = (
        f"the empty private repository {push.repository}"
        if push.made_repository
        else f"the branch {push.branch}"
    )
    if isinstance(error, HubUnreachableError):
        return f" ({what} is kept, so that a repeat uploads only what is missing)"
    try:
        with translated(push.repository, token=push.token):
            if push.made_repository:
                api(push.token).delete_repo(push.repository, missing_ok=True)
                push.pending.unlink(missing_ok=True)
            elif push.branch:
                api(push.token).delete_branch(push.repository, branch=push.branch)
    except HubError as failure:
        return f" ({what} could not be removed: {failure})"
    return ""
