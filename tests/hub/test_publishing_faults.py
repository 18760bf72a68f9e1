"""What goes wrong on the way up: the message, the run, and what the Hub shows afterwards."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from loopback_hub import LoopbackHub
from modelsgenesis import hub as room
from modelsgenesis.errors import (
    AccessError,
    ConfigurationError,
    HubError,
    HubUnreachableError,
    PublishError,
    UnknownModelError,
)

from .conftest import write_run  # pyright: ignore[reportAttributeAccessIssue]

GENESIS = "clinic/genesis"
COMMIT, SETTINGS = "POST /api/models/.*/commit/", "PUT /api/models/.*/settings"
EMPTY = {".gitattributes"}


def failure(kind: type[HubError], run: Path, repository: str = GENESIS, **options: Any) -> str:
    """Push, expect an error of exactly this kind, and return its one line, which tells how to repeat."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(kind) as caught:
        room.publish(run, repository, **options)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.isprintable()
    assert not any(token in message for token in ("hf_alice", "hf_wrong", "hf_reader", "hf_stranger"))
    assert f"nothing was published and {run} is intact" in message
    assert f"repeat with: modelsgenesis push {shlex.quote(str(run))} --hub-model-id {repository}" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    return message


def private_and_empty(hub: LoopbackHub) -> bool:
    return all(set(repo.files) == EMPTY and repo.private for repo in hub.repositories.values())


def test_without_a_token(hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    message = failure(AccessError, run, private=True, create_pr=True, revision="main")
    assert "hf auth login" in message
    assert message.endswith(" --private --create-pr --revision main")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repository", "token", "kind", "word"),
    [
        (GENESIS, "hf_wrong", AccessError, "401"),
        (GENESIS, "hf_reader", AccessError, "403: You don't have the rights to create"),
        (GENESIS, "hf_stranger", AccessError, "403: You don't have the rights to create"),
        ("a--b/c..d", "hf_alice", UnknownModelError, "expected org/name"),
    ],
)
def test_what_must_not_be_made_is_not(
    hub: LoopbackHub, run: Path, repository: str, token: str, kind: Any, word: str
) -> None:
    assert word in failure(kind, run, repository, token=token)
    assert hub.repositories == {}


def test_without_the_rights_to_write(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    first = room.publish(run, GENESIS)
    assert "403" in failure(AccessError, write_run(tmp_path / "other", seed=1), token="hf_stranger")
    assert hub.repositories[GENESIS].heads == {"main": first.commit}


def test_a_header_that_the_hub_refuses_makes_nothing(hub: LoopbackHub, run: Path) -> None:
    card = run / "README.md"
    card.write_text(card.read_text().replace("library_name:", "license: nonsense\nlibrary_name:"))
    message = failure(PublishError, run)
    assert "the header of README.md is not accepted" in message
    assert "license" in message
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("step", "fault", "kind"),
    [
        ("POST /api/validate-yaml", {"status": 503}, HubUnreachableError),
        ("POST /api/repos/create", {"status": 503}, HubUnreachableError),
        ("POST /api/repos/create", {"drop_after": True}, HubUnreachableError),
        ("POST /api/repos/create", {"status": 409}, PublishError),
        ("POST .*/preupload/", {"status": 503}, HubUnreachableError),
        ("POST .*/lfs/objects/batch", {"status": 503}, HubUnreachableError),
        ("PUT /large/", {"status": 500}, HubUnreachableError),
        (COMMIT, {"drop": True}, HubUnreachableError),
        (COMMIT, {"status": 403}, AccessError),
        (COMMIT, {"body": b"{}"}, HubError),
    ],
)
def test_a_failure_leaves_nothing_to_see_and_a_repeat_publishes_as_asked(
    hub: LoopbackHub, run: Path, step: str, fault: dict[str, Any], kind: Any
) -> None:
    hub.fault(step, times=99, **fault)
    message = failure(kind, run)
    assert private_and_empty(hub)
    if kind is not HubUnreachableError:
        assert hub.repositories == {}
    elif step in ("PUT /large/", COMMIT):
        assert "the new repository is kept, so that a repeat uploads only what is missing" in message
    hub.faults.clear()
    assert not room.publish(run, GENESIS).private
    assert not hub.repositories[GENESIS].private
    assert "model.safetensors" in hub.repositories[GENESIS].files


def test_a_refused_push_takes_its_new_branch_back(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    first = room.publish(run, GENESIS)
    hub.fault(COMMIT, status=403)
    failure(AccessError, write_run(tmp_path / "second", seed=1), revision="v2")
    assert hub.repositories[GENESIS].heads == {"main": first.commit}


def test_a_repeat_after_a_cut_uploads_only_what_is_missing(hub: LoopbackHub, run: Path) -> None:
    hub.fault(COMMIT, drop=True)
    failure(HubUnreachableError, run)
    assert hub.count("PUT /large/") == 2  # the weights and the figure
    room.publish(run, GENESIS)
    assert hub.count("PUT /large/") == 2


def test_a_commit_whose_answer_was_lost_counts_as_made(hub: LoopbackHub, run: Path) -> None:
    hub.fault(COMMIT, drop_after=True)
    made = room.publish(run, GENESIS)
    assert made.commit == hub.repositories[GENESIS].heads["main"]
    assert not hub.repositories[GENESIS].private


@pytest.mark.parametrize(
    "fault", [{"status": 403}, {"drop": True}, {"body": b"<", "headers": {"Content-Type": "text/html"}}]
)
def test_what_could_not_be_opened_is_said_and_opened_by_a_repeat(
    hub: LoopbackHub, run: Path, fault: dict[str, Any]
) -> None:
    hub.fault(SETTINGS, **fault)
    made = room.publish(run, GENESIS)
    assert made.private
    assert any(note.startswith("published, but still private (") for note in made.notes)
    assert "model.safetensors" in hub.repositories[GENESIS].files
    again = room.publish(run, GENESIS)
    assert (again.commit, again.private, hub.repositories[GENESIS].private) == (made.commit, False, False)


def test_a_push_in_between_is_refused(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    room.publish(run, GENESIS)
    hub.fault(COMMIT, call=lambda: hub.add(GENESIS, {"other.txt": b"from another push"}))
    message = failure(PublishError, write_run(tmp_path / "second", seed=1))
    assert "another push" in message
    assert f"{hub.url}/{GENESIS}/commits" in message
    files = hub.repositories[GENESIS].files
    assert files["other.txt"].content == b"from another push"
    assert files["model.safetensors"].content == (run / "model.safetensors").read_bytes()


def test_of_two_pushes_at_once_one_wins_and_nothing_is_mixed(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    room.publish(run, GENESIS)
    runs = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in (1, 2)]
    both = threading.Barrier(2)
    hub.fault(COMMIT, times=2, call=lambda: both.wait(20))
    outcomes: list[object] = [None, None]

    def push(index: int) -> None:
        try:
            outcomes[index] = room.publish(runs[index], GENESIS)
        except HubError as error:
            outcomes[index] = error

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(push, range(2)))
    won = [index for index in range(2) if isinstance(outcomes[index], room.Publication)]
    assert len(won) == 1
    assert type(outcomes[1 - won[0]]) is PublishError
    files = hub.repositories[GENESIS].files
    for name in ("model.safetensors", "config.json", "figures/restorations.png"):
        assert files[name].content == (runs[won[0]] / name).read_bytes()


def test_a_client_that_dies_in_mid_upload_leaves_nothing_to_see_and_a_repeat_succeeds(
    hub: LoopbackHub, run: Path, environment: dict[str, str], home: Path
) -> None:
    code = f"from modelsgenesis import hub; hub.publish({str(run)!r}, {GENESIS!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env={**environment, "HF_HOME": str(home)})
    hub.fault("PUT /large/", call=lambda: os.kill(process.pid, signal.SIGKILL), drop=True)
    assert process.wait(60) == -signal.SIGKILL
    assert list(hub.repositories) == [GENESIS]
    assert private_and_empty(hub)
    assert not room.publish(run, GENESIS).private
    assert not hub.repositories[GENESIS].private


@pytest.mark.parametrize("step", ["create_repo", "create_commit", "update_repo_settings"])
def test_a_push_that_ends_with_a_step_is_opened_by_its_repeat(
    hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    done = getattr(HfApi, step)

    def cut(*arguments: Any, **options: Any) -> None:
        if step != "update_repo_settings":
            done(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(HfApi, step, cut)
        with pytest.raises(KeyboardInterrupt):
            room.publish(run, GENESIS)
    assert hub.repositories[GENESIS].private
    assert not room.publish(run, GENESIS).private
    assert not hub.repositories[GENESIS].private


def test_a_repository_to_which_another_push_came_first_is_not_taken_back(hub: LoopbackHub, run: Path) -> None:
    hub.fault(COMMIT, call=lambda: hub.add(GENESIS, {"other.txt": b"theirs"}))
    assert "another push" in failure(PublishError, run)
    assert set(hub.repositories[GENESIS].files) == {*EMPTY, "other.txt"}
    made = room.publish(run, GENESIS)
    assert made.private
    assert any("was private and stays so" in note for note in made.notes)


def test_a_repository_that_was_made_again_privately_is_never_opened(hub: LoopbackHub, run: Path) -> None:
    hub.fault(COMMIT, drop=True)
    failure(HubUnreachableError, run)
    hub.repositories.clear()
    hub.add(GENESIS, {"README.md": b"# Only for us\n"}, private=True)
    assert room.publish(run, GENESIS).private
    assert hub.repositories[GENESIS].private


@pytest.mark.parametrize("card", [b"\xff\xfe", b"---\n[\n---\n"])
def test_a_published_card_that_cannot_be_read_is_said(hub: LoopbackHub, run: Path, card: bytes) -> None:
    hub.add(GENESIS, {"README.md": card})
    with pytest.raises((PublishError, ConfigurationError), match=r"clinic/genesis/README\.md"):
        room.publish(run, GENESIS)
