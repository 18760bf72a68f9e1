"""What goes wrong on the way up: the message, the run, and what the Hub shows afterwards."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelsgenesis.errors import ConfigurationError, HubError
from modelsgenesis.hub.push import push_to_hub
from runs_to_push import GENESIS, failure, write_run

COMMIT = "POST /api/models/.*/commit/"


def refusal(kind, run, repository=GENESIS, **options):
    """Push, expect an error of exactly this kind, and return its one line, which tells how to repeat."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    message = failure(lambda: push_to_hub(run, repository, **options), kind)
    assert f"{run} is intact" in message
    assert f"repeat with: modelsgenesis push {shlex.quote(str(run))} --hub-model-id {repository}" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    return message


def nothing_to_see(hub):
    return all(set(repo.files) == {".gitattributes"} for repo in hub.repositories.values())


def test_without_a_token(hub, run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    message = refusal("denied", run, private=True, create_pr=True, revision="main")
    assert "hf auth login" in message
    assert message.endswith(" --private --create-pr --revision main")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repository", "token", "kind", "word"),
    [
        (GENESIS, "hf_wrong", "denied", "401"),
        (GENESIS, "hf_reader", "denied", "403: You don't have the rights to create"),
        (GENESIS, "hf_stranger", "denied", "403: You don't have the rights to create"),
        ("a--b/c..d", "hf_alice", "unknown", "expected org/name"),
    ],
)
def test_what_must_not_be_made_is_not(hub, run, second, repository, token, kind, word):
    assert word in refusal(kind, run, repository, token=token)
    assert hub.repositories == {}
    first = push_to_hub(run, GENESIS)
    refusal(kind, second, repository, token=token)
    assert hub.repositories[GENESIS].heads == {"main": first.commit}


def test_a_header_that_the_hub_refuses_makes_nothing(hub, run):
    card = run / "README.md"
    card.write_text(card.read_text().replace("library_name:", "license: nonsense\nlibrary_name:"))
    message = refusal("other", run)
    assert "the header of README.md is not accepted" in message
    assert "license" in message
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("step", "fault", "kind"),
    [
        ("POST /api/validate-yaml", {"status": 503}, "unreachable"),
        ("POST /api/repos/create", {"status": 503}, "unreachable"),
        ("POST /api/repos/create", {"drop_after": True}, "unreachable"),
        ("POST /api/repos/create", {"status": 409}, "conflict"),
        ("POST .*/preupload/", {"status": 503}, "unreachable"),
        ("POST .*/lfs/objects/batch", {"status": 503}, "unreachable"),
        ("PUT /large/", {"status": 500}, "unreachable"),
        (COMMIT, {"drop": True}, "unreachable"),
        (COMMIT, {"status": 403}, "denied"),
        (COMMIT, {"body": b"{}"}, "other"),
    ],
)
def test_a_failure_leaves_nothing_to_see_and_a_repeat_publishes_what_is_missing(hub, run, step, fault, kind):
    hub.fault(step, times=99, **fault)
    refusal(kind, run)
    assert nothing_to_see(hub)
    uploaded = hub.count("PUT /large/")
    hub.faults.clear()
    push_to_hub(run, GENESIS)
    assert "model.safetensors" in hub.repositories[GENESIS].files
    assert step != COMMIT or hub.count("PUT /large/") == uploaded == 2  # the weights and the figure


def test_a_commit_whose_answer_was_lost_is_found_by_a_repeat(hub, run):
    hub.fault(COMMIT, drop_after=True)
    refusal("unreachable", run)
    assert push_to_hub(run, GENESIS).commit == hub.repositories[GENESIS].heads["main"]
    assert len(hub.repositories[GENESIS].commits) == 2


def test_a_push_in_between_is_refused(hub, run, second):
    push_to_hub(run, GENESIS)
    hub.fault(COMMIT, call=lambda: hub.add(GENESIS, {"other.txt": b"from another push"}))
    message = refusal("conflict", second)
    assert "another push" in message
    assert f"{hub.url}/{GENESIS}/commits" in message
    files = hub.repositories[GENESIS].files
    assert files["other.txt"].content == b"from another push"
    assert files["model.safetensors"].content == (run / "model.safetensors").read_bytes()


def test_of_two_pushes_at_once_one_wins_and_nothing_is_mixed(hub, run, tmp_path):
    push_to_hub(run, GENESIS)
    runs = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in (1, 2)]
    both = threading.Barrier(2)
    hub.fault(COMMIT, times=2, call=lambda: both.wait(20))

    def push(run):
        try:
            return push_to_hub(run, GENESIS)
        except HubError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(push, runs))
    (lost,) = (outcome for outcome in outcomes if isinstance(outcome, HubError))
    assert lost.kind == "conflict"
    files = hub.repositories[GENESIS].files
    for name in ("model.safetensors", "config.json", "figures/restorations.png"):
        assert files[name].content == (runs[1 - outcomes.index(lost)] / name).read_bytes()


def test_a_client_that_dies_in_mid_upload_leaves_nothing_to_see_and_a_repeat_succeeds(hub, run, environment, home):
    code = f"from modelsgenesis import push_to_hub; push_to_hub({str(run)!r}, {GENESIS!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env={**environment, "HF_HOME": str(home)})
    hub.fault("PUT /large/", call=lambda: os.kill(process.pid, signal.SIGKILL), drop=True)
    assert process.wait(60) == -signal.SIGKILL
    assert list(hub.repositories) == [GENESIS]
    assert nothing_to_see(hub)
    push_to_hub(run, GENESIS)


@pytest.mark.parametrize("card", [b"\xff\xfe", b"---\n[\n---\n"])
def test_a_published_card_that_cannot_be_read_is_said(hub, run, card):
    hub.add(GENESIS, {"README.md": card})
    with pytest.raises((HubError, ConfigurationError), match=r"clinic/genesis/README\.md"):
        push_to_hub(run, GENESIS)
