"""The commands around the Hub, as a user types them."""

import re

import pytest

from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.cli import options
from modelsgenesis.errors import HubError
from runs_to_push import TINY, cached_files


@pytest.fixture(autouse=True)
def _at_home(home, cards, monkeypatch):
    """Give every test a home with one card of its own, and a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")


def test_list_shows_the_registry(command):
    shown = command("list", "--modality", "ct", "--dims", 3)
    header, *rows = [line.split() for line in shown.out.splitlines()]
    assert (shown.status, header[:3], header[-1]) == (0, ["name", "modality", "dims"], "licence")
    assert ["tiny-ct", "ct", "3D", "0.0", "M", "Hub", "cc-by-4.0"] in rows
    assert max(len(line) for line in command("list").out.splitlines()) <= 80
    assert [line.split()[0] for line in command("list", "tiny-*").out.splitlines()] == ["name", "tiny-ct"]
    assert "no such model (genesis-z*)" in command("list", "genesis-z*").err
    assert "tiny-ct" not in command("list", "--modality", "mri").out
    unknown = command("list", "--modality", "foo")
    assert (unknown.status, unknown.out) == (2, "")
    assert "'--modality': 'foo' is not one of 'ct', 'mri', 'xray'" in unknown.err
    found = [model for model in command("list", "--json").json() if model["name"] == "tiny-ct"]
    assert (found[0]["repository"], found[0]["license"]) == (TINY, "cc-by-4.0")


def test_info_and_card_describe_a_model_or_a_folder(command, run):
    assert "  window: [-1000.0, 1000.0]" in command("info", "tiny-ct").out.splitlines()
    assert command("info", "tiny-ct", "--json").json()["patch_size"] == [16, 16, 8]
    assert command("info", run, "--json").json()["network"]["widths"] == [4, 8]
    assert "Some prose." in command("card", "tiny-ct").out
    assert command("card", run).out == command("card", run / "README.md").out != ""


@pytest.mark.parametrize("name", ["info", "card", "download", "verify"])
def test_an_unknown_name_is_one_line_with_the_nearest(command, name):
    ended = command(name, "tiny-cd")
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith("error: tiny-cd: ")
    assert "did you mean tiny-ct?" in ended.err


def test_push_download_verify_and_cache(command, hub, run, tmp_path):
    pushed = command("push", run, "--hub-model-id", TINY)
    assert (pushed.status, pushed.out) == (0, f"{hub.url}/{TINY}\n")
    assert pushed.err.splitlines()[:2] == ["checking the bundle", f"comparing with {TINY}"]
    assert pushed.err.splitlines()[-1].startswith("note: the card has 8 lines to fill in")
    assert command("download", "tiny-ct", "--output", tmp_path / "here").out == f"{tmp_path / 'here'}\n"
    assert len(list((tmp_path / "here").iterdir())) == 3
    verified = command("verify", "tiny-ct").out
    assert verified.endswith("tiny-ct: every file is as recorded, and the network loads\n")
    digests = command("verify", "tiny-ct", "--json").json()
    assert f"{digests['config.json']}  config.json" in verified
    again = command("download", TINY, "--quiet", "--json")
    assert (again.err, again.json()["sha256"]) == ("", digests)
    assert command("info", TINY).status == 0
    branch = command("push", run, "--hub-model-id", "clinic/new", "--revision", "v1", "--quiet", "--json").json()
    assert hub.repositories["clinic/new"].heads["v1"] == branch["commit"]
    proposed = command("push", run, "--hub-model-id", "clinic/new", "--create-pr", "--token", "hf_bob")
    assert proposed.out == f"{hub.url}/clinic/new/discussions/1\n"
    assert command("cache").out.split()[:2] == ["0.0", "MB"]
    assert command("cache", "--prune", "--json").out == "[]\n"
    assert command("cache", "--all").status == 2


def test_push_lists_what_it_would_send_and_is_private_unless_asked(command, hub, run):
    listed = command("push", run, "--hub-model-id", TINY, "--dry-run")
    assert (listed.status, hub.requests) == (0, [])
    rows = {line.split()[0]: line.split(maxsplit=2)[2] for line in listed.out.splitlines()}
    assert rows["model.safetensors"] == "weights: 3,897 parameters"
    assert "not sent, it may show patients; --include-figures sends it" in rows["figures/restorations.png"]
    assert listed.err.splitlines()[-1] == f"nothing was sent; it would go to {TINY}, private if it is new"
    assert command("push", run, "--hub-model-id", TINY, "--quiet", "--json").json()["private"]
    shown = command("push", run, "--hub-model-id", "clinic/open", "--public", "--include-figures", "--json").json()
    assert not shown["private"]
    assert "figures/restorations.png" in {file["path"] for file in shown["files"] if file["sent"]}
    assert "--public" in command("push", run, "--hub-model-id", "clinic/open").err


@pytest.mark.parametrize("line", [("pretrain", "nowhere"), ("finetune",)])
@pytest.mark.parametrize(
    ("repository", "token", "word"),
    [
        ("hospital/x", "hf_alice", "alice cannot write to hospital"),
        ("clinic/x", "hf_reader", "the token can only read"),
        ("clinic/x", "", "publishing needs a token"),
        ("clinic/x y", "hf_alice", "expected org/name"),
    ],
)
def test_a_run_that_could_not_be_published_does_not_begin(command, hub, monkeypatch, line, repository, token, word):
    monkeypatch.setenv("HF_TOKEN", token)
    ended = command(*line, "--push-to-hub", "--set", f"hub_model_id={repository}")
    assert (ended.status, hub.repositories) == (1, {})
    assert ended.err.startswith(f"checking that {repository} can be written\nerror: {repository}: ")
    assert word in ended.err
    assert "nowhere" not in ended.err


def test_a_download_of_what_is_here_without_a_network_warns(command, hub, tiny_on_hub):
    folder = command("download", TINY).out
    hub.fault("GET /api/models/", status=503, times=9)
    warned = command("download", TINY)
    assert (warned.status, warned.out) == (0, folder)
    assert re.match(r"warning: clinic/tiny: .*busy or down \(503\).*using the copy", warned.err)


def test_a_large_download_is_shown_in_megabytes(command, hub, run, monkeypatch, home):
    monkeypatch.setattr("modelsgenesis.hub.download._SMALL", 8 << 20)
    card = (run / "README.md").read_bytes()
    files = {name: (run / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.add(TINY, {**files, "README.md": card + b" " * 3_000_000})
    lines = command("download", TINY).err.splitlines()
    assert lines[0] == "downloading README.md (MB): 0/3"
    assert lines[-1] == "downloading README.md (MB): 3/3"
    assert "README.md" in cached_files(home)


def test_a_push_after_training_that_fails_keeps_the_run_and_says_how_to_repeat(hub, run, monkeypatch, capsys):
    again = f"modelsgenesis push {run} --hub-model-id {TINY}"
    options.publish(run, TINY, to_stderr=True)
    assert capsys.readouterr() == ("", f"{hub.url}/{TINY}\n")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=re.escape(f"{run} is intact; repeat with: {again}") + "$"):
        options.publish(run, TINY, to_stderr=False)
    load_bundle(run)
