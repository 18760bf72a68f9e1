"""What goes wrong on the way up: the message, the run, and what the Hub shows afterwards."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loopback_hub import LoopbackHub
from modelsgenesis import hub as room
from modelsgenesis.errors import AccessError, HubError, HubUnreachableError, PublishError

from .conftest import use_endpoint, write_run  # pyright: ignore[reportAttributeAccessIssue]

GENESIS = "clinic/genesis"


def failure(kind: type[HubError], run: Path, repository: str = GENESIS, **options: object) -> str:
    """Push, expect an error of exactly this kind, and return its one line, which tells how to repeat."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(kind) as caught:
        room.publish(run, repository, **options)  # pyright: ignore[reportArgumentType]
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert "hf_" not in message
    assert f"nothing was published and {run} is intact" in message
    assert f"repeat with: modelsgenesis push {shlex.quote(str(run))} --hub-model-id {repository}" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    return message


def test_without_a_token(hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    message = failure(AccessError, run)
    assert "clinic/genesis: publishing needs a token; sign in with `hf auth login`, set HF_TOKEN or" in message
    assert hub.requests == []


def test_with_a_wrong_token(hub: LoopbackHub, run: Path) -> None:
    assert "does not accept the token (401); make a new one" in failure(AccessError, run, token="hf_" + "wrong")
    assert hub.repositories == {}


@pytest.mark.parametrize("token", ["hf_reader", "hf_stranger"])
def test_without_the_rights_to_make_a_repository(hub: LoopbackHub, run: Path, token: str) -> None:
    message = failure(AccessError, run, token=token)
    assert "the token may not make a repository under clinic; it is of " in message
    assert "choose another --hub-model-id, or a token with write access" in message
    assert hub.repositories == {}


def test_without_the_rights_to_write(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    first = room.publish(run, GENESIS)
    other = write_run(tmp_path / "other", seed=1)
    assert "the token lacks the rights (403" in failure(AccessError, other, token="hf_stranger")
    assert hub.repositories[GENESIS].heads == {"main": first.commit}


def test_with_a_name_that_is_taken(hub: LoopbackHub, run: Path) -> None:
    hub.fault("POST /api/repos/create", status=409)
    assert "the name is taken, by a push under way or a repository hidden" in failure(PublishError, run)
    assert hub.repositories == {}


def test_with_a_name_that_is_none(hub: LoopbackHub, run: Path) -> None:
    assert "no name of a repository, expected org/name" in failure(HubError.__subclasses__()[0], run, "a--b/c..d")
    assert hub.repositories == {}


def test_with_no_connection(closed_port: int, hub: LoopbackHub, run: Path, monkeypatch) -> None:
    use_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    assert "cannot be reached" in failure(HubUnreachableError, run)


def test_a_header_that_the_hub_refuses_makes_nothing(hub: LoopbackHub, run: Path) -> None:
    card = run / "README.md"
    card.write_text(card.read_text().replace("library_name:", "license: nonsense\nlibrary_name:"))
    message = failure(PublishError, run)
    assert "the header of README.md is not accepted: " in message
    assert '\\"license\\" must be one of' in message or '"license" must be one of' in message
    assert hub.repositories == {}


@pytest.mark.parametrize(
    "step",
    ["POST /api/validate-yaml", "POST /api/repos/create", "POST .*/preupload/", "POST .*/lfs/objects/batch"],
)
def test_a_server_error_leaves_nothing_to_see_and_a_repeat_succeeds(hub: LoopbackHub, run: Path, step: str) -> None:
    fault = hub.fault(step, status=503, times=99)
    assert "is busy or down (503)" in failure(HubUnreachableError, run)
    assert all(set(repo.files) == {".gitattributes"} and repo.private for repo in hub.repositories.values())
    fault.times = 0
    assert not room.publish(run, GENESIS).private
    assert not hub.repositories[GENESIS].private


def test_an_upload_that_fails_leaves_nothing_to_see(hub: LoopbackHub, run: Path) -> None:
    hub.fault("PUT /large/", status=500, times=99)
    message = failure(HubUnreachableError, run)
    assert f"the empty private repository {GENESIS} is kept, so that a repeat uploads only what is missing" in message
    assert hub.repositories[GENESIS].private
    assert set(hub.repositories[GENESIS].files) == {".gitattributes"}


def test_an_upload_that_is_refused_takes_the_repository_back(hub: LoopbackHub, run: Path) -> None:
    hub.fault("POST /api/models/.*/commit/", status=403, message="over quota")
    assert "(403: over quota)" in failure(AccessError, run)
    assert hub.repositories == {}
    assert not room.publish(run, GENESIS).private


def test_a_refused_push_takes_its_new_branch_back(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    first = room.publish(run, GENESIS)
    hub.fault("POST /api/models/.*/commit/", status=403)
    failure(AccessError, write_run(tmp_path / "second", seed=1), revision="v2")
    assert hub.repositories[GENESIS].heads == {"main": first.commit}


def test_a_repeat_after_a_cut_uploads_only_what_is_missing(hub: LoopbackHub, run: Path) -> None:
    hub.fault("POST /api/models/.*/commit/", drop=True)
    failure(HubUnreachableError, run)
    assert set(hub.repositories[GENESIS].files) == {".gitattributes"}
    assert hub.count("PUT /large/") == 2  # the weights and the figure
    room.publish(run, GENESIS)
    assert hub.count("PUT /large/") == 2
    assert "model.safetensors" in hub.repositories[GENESIS].files
    assert not hub.repositories[GENESIS].private


def test_a_commit_whose_answer_was_lost_counts_as_made(hub: LoopbackHub, run: Path) -> None:
    hub.fault("POST /api/models/.*/commit/", drop_after=True)
    made = room.publish(run, GENESIS)
    assert made.commit == hub.repositories[GENESIS].heads["main"]
    assert not hub.repositories[GENESIS].private


def test_a_repository_that_cannot_be_opened_is_published_privately_and_says_so(hub: LoopbackHub, run: Path) -> None:
    hub.fault("PUT /api/models/.*/settings", status=403)
    made = room.publish(run, GENESIS)
    assert made.private
    assert any(note.startswith("published, but still private (") for note in made.notes)
    assert "model.safetensors" in hub.repositories[GENESIS].files


def test_a_push_in_between_is_refused(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    room.publish(run, GENESIS)
    hub.fault("POST /api/models/.*/commit/", call=lambda: hub.add(GENESIS, {"other.txt": b"from another push"}))
    message = failure(PublishError, write_run(tmp_path / "second", seed=1))
    assert f"another push changed it meanwhile; before repeating look at {hub.url}/{GENESIS}/commits/main" in message
    files = hub.repositories[GENESIS].files
    assert files["other.txt"].content == b"from another push"
    assert files["model.safetensors"].content == (run / "model.safetensors").read_bytes()


def test_of_two_pushes_at_once_one_wins_and_nothing_is_mixed(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    room.publish(run, GENESIS)
    runs = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in (1, 2)]
    both = threading.Barrier(2)
    hub.fault("POST /api/models/.*/commit/", times=2, call=lambda: both.wait(20))
    outcomes: list[object] = [None, None]

    def push(index: int) -> None:
        try:
            outcomes[index] = room.publish(runs[index], GENESIS)
        except HubError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=push, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [index for index in range(2) if isinstance(outcomes[index], room.Publication)]
    assert len(won) == 1
    assert "another push changed it meanwhile" in str(outcomes[1 - won[0]])
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
    assert hub.repositories[GENESIS].private
    assert set(hub.repositories[GENESIS].files) == {".gitattributes"}
    made = room.publish(run, GENESIS)
    assert not made.private
    assert not hub.repositories[GENESIS].private
    assert "model.safetensors" in hub.repositories[GENESIS].files


def test_a_repository_to_which_another_push_came_first_is_not_taken_back(hub: LoopbackHub, run: Path) -> None:
    hub.fault("POST /api/models/.*/commit/", call=lambda: hub.add(GENESIS, {"other.txt": b"theirs"}))
    assert "another push changed it meanwhile" in failure(PublishError, run)
    assert set(hub.repositories[GENESIS].files) == {".gitattributes", "other.txt"}
    made = room.publish(run, GENESIS)
    assert made.private
    assert any("was private and stays so" in note for note in made.notes)


def test_a_repository_that_was_made_again_privately_is_never_opened(hub: LoopbackHub, run: Path) -> None:
    hub.fault("POST /api/models/.*/commit/", drop=True)
    failure(HubUnreachableError, run)
    hub.repositories.clear()
    hub.add(GENESIS, {"README.md": b"# Only for us\n"}, private=True)
    assert room.publish(run, GENESIS).private
    assert hub.repositories[GENESIS].private


def test_a_published_card_that_is_no_text_is_said(hub: LoopbackHub, run: Path) -> None:
    hub.add(GENESIS, {"README.md": b"\xff\xfe"})
    assert "clinic/genesis: its README.md is no text" in failure(PublishError, run)


def test_the_command_to_repeat_has_every_option() -> None:
    command = room.push_command(Path("my run"), "a/b", private=True, revision="v1", create_pr=True)
    assert command == "modelsgenesis push 'my run' --hub-model-id a/b --private --revision v1 --create-pr"
