"""From a run to a repository on the Hub: checked here first, then one atomic commit."""

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelsgenesis.checkpoints.bundle import CARD_NAME
from modelsgenesis.errors import AccessError, HubError, HubUnreachableError, PublishError
from modelsgenesis.hub.cache import git_sha1_of, open_cache, sha256_of
from modelsgenesis.hub.client import SIGN_IN, Snapshot, api, has_token, take_snapshot, translated
from modelsgenesis.hub.content import Content, check_content, merge_card
from modelsgenesis.hub.place import Place

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
        raise PublishError(f"--create-pr proposes a change of main, but received --revision {revision}; leave one out")
    place = Place(repository, revision, token, private, create_pr)
    try:
        return _publish(place, content, message, say)
    except HubError as error:
        kept = place.undo(error)
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


def _publish(place: Place, content: Content, message: str | None, say: Callable[[str], None]) -> Publication:
    if not has_token(place.token):
        raise AccessError(f"{place.repository}: publishing needs a token; {SIGN_IN}")
    if "/" not in place.repository:
        place.repository = f"{place.account()['name']}/{place.repository}"
    say(f"asking for {place.repository}")
    main = place.head(None)
    if main and place.private and not main.private:
        raise PublishError(
            f"{place.repository}: exists and is public, but --private was asked; take another --hub-model-id"
        )
    branch = place.head(place.branch) if main and place.branch and not place.proposal else main
    published = place.card(branch or main) if main else ""
    card, notes = merge_card(content, published, place.repository)
    _validate(place, card)
    say(f"preparing {place.repository}")
    main = main or place.create()
    before = branch or place.make_branch(main)
    say(f"uploading to {place.repository}")
    commit, proposal = _commit(place, content, card, before, message or f"Publish {content.folder.name}")
    is_private = place.finish(before, notes)
    open_cache().forget(place.repository)
    files = (*content.files, CARD_NAME)
    return Publication(place.repository, place.url, commit, proposal, is_private, files, tuple(notes))


def _validate(place: Place, card: str) -> None:
    """Let the Hub judge the header before anything is made there."""
    from huggingface_hub import ModelCard

    with translated(place.repository, token=place.token):
        try:
            ModelCard(card).validate()
        except ValueError as error:
            said = " ".join(str(error).split())
            raise PublishError(
                f"{place.repository}: the header of {CARD_NAME} is not accepted: {said}; mend it"
            ) from error


def _commit(place: Place, content: Content, card: str, before: Snapshot, message: str) -> tuple[str, str | None]:
    """Make the one commit; return it and the proposal's page."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError

    operations = [CommitOperationAdd(name, str(path)) for name, path in content.files.items()]
    operations.append(CommitOperationAdd(CARD_NAME, card.encode()))
    try:
        with translated(place.repository, place.branch, place.token), _quiet():
            try:
                made = api(place.token).create_commit(
                    place.repository,
                    operations,
                    commit_message=message,
                    revision=place.branch,
                    create_pr=place.proposal,
                    parent_commit=before.commit,
                )
            except HfHubHTTPError as error:
                if error.response.status_code in _STALE:
                    raise _moved(place) from error
                raise
    except HubUnreachableError:
        landed = None if place.proposal else _landed(place, content, card)
        if landed is None:
            raise
        return landed, None
    return made.oid, made.pr_url


def _moved(place: Place) -> PublishError:
    return PublishError(
        f"{place.repository}: another push changed it meanwhile; before repeating look at "
        f"{place.url}/commits/{place.branch or 'main'}"
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


def _landed(place: Place, content: Content, card: str) -> str | None:
    """Return the commit that holds all of it although its answer was lost on the way."""
    try:
        now = take_snapshot(place.repository, place.branch, place.token, patient=False)
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
