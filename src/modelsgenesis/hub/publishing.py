"""From a run to a repository on the Hub: checked here first, then one atomic commit, private until it is complete."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from modelsgenesis.errors import HubError, PublishError
from modelsgenesis.hub.content import check_content
from modelsgenesis.hub.push import Publication, Push


def publish(
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
    again = ["modelsgenesis", "push", str(folder), "--hub-model-id", repository]
    again += ["--private"] * private + ["--create-pr"] * create_pr + (["--revision", revision] if revision else [])
    if create_pr and revision not in (None, "main"):
        raise PublishError(f"--create-pr proposes a change of main, but received --revision {revision}; leave one out")
    push = Push(content, repository, revision, token, private, create_pr)
    try:
        return push.publish(say)
    except HubError as error:
        left = f"nothing was published and {folder} is intact{push.undo(error)}"
        raise type(error)(f"{error}; {left}; repeat with: {shlex.join(again)}") from error
