"""From a run to a repository: what is published, how cards and visibility are kept, and what goes wrong on the way."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from loopback_hub import card_errors
from modelsgenesis import from_pretrained
from modelsgenesis.checkpoints.card import split_card
from modelsgenesis.errors import ConfigurationError, HubError
from modelsgenesis.hub.download import fetch_bundle, verify
from modelsgenesis.hub.privacy import private_text
from modelsgenesis.hub.push import check_destination, check_run, push_to_hub
from runs_to_push import GENESIS, failure

ROOT = Path(__file__).parents[2]
BUNDLE = {"config.json", "model.safetensors", "README.md"}
RESTORATIONS = "figures/restorations.png"
SOURCE = "- Source: FILL IN the data set or hospital, the years, the scanners"


def published_card(hub):
    return hub.repositories[GENESIS].files["README.md"].content.decode()


def edit_on_the_hub(hub, old, new):
    card = published_card(hub)
    assert old in card
    hub.add(GENESIS, {"README.md": card.replace(old, new).encode()})


def edit(run, old, new):
    card = (run / "README.md").read_text()
    assert old in card
    (run / "README.md").write_text(card.replace(old, new))


@pytest.fixture
def python(environment, tmp_path):
    """Run Python in a process of its own that speaks to the Hub, with an empty cache, and return what it prints."""
    options = {"env": environment, "text": True, "cwd": tmp_path}
    return lambda code: subprocess.check_output([sys.executable, "-c", code], **options)


def test_a_push_is_one_commit_of_the_bundle_and_nothing_else(hub, run, capfd):
    made = push_to_hub(run, GENESIS)
    repository = hub.repositories[GENESIS]
    assert set(repository.files) == BUNDLE | {".gitattributes"}
    assert {file.path for file in made.files if file.sent} == BUNDLE
    assert len(repository.commits) == 2  # the Hub's own, and ours
    assert (made.url, made.private, repository.private) == (f"{hub.url}/{GENESIS}", True, True)
    assert verify(fetch_bundle(GENESIS))["model.safetensors"] == verify(run)["model.safetensors"]
    assert push_to_hub(run, GENESIS).commit == made.commit
    assert len(repository.commits) == 2
    named = run.rename(run.with_name("my  run--1"))
    assert push_to_hub(named).repository == "alice/my-run-1"
    assert capfd.readouterr() == ("", "")


def test_a_pushed_card_passes_the_rules_of_the_hub(hub, run, python, ct_folder):
    push_to_hub(run, GENESIS, include_figures=True)
    card = published_card(hub)
    assert card_errors(card) == []
    assert "![Restorations](figures/restorations.png)" in card
    snippet = card.split("```python\n")[1].split("```")[0].replace("scan.nii.gz", str(ct_folder / "patient0.nii.gz"))
    assert python(f"{snippet}print(tuple(batch.shape), output.shape == batch.shape)") == "(1, 1, 28, 24, 20) True\n"


def test_the_documented_lines_load_it_without_this_package(hub, run, python):
    push_to_hub(run, GENESIS)
    page = (ROOT / "docs" / "hub.md").read_text("utf-8")
    found = re.search(r"<!-- test: plain -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found
    shown = python("import sys; sys.modules['modelsgenesis'] = None\n" + found[1].replace("org/name", GENESIS))
    network = torch.hub.load(str(ROOT), "genesis", str(run), source="local", verbose=False)  # as documented, too
    assert shown == f"genesis_unet ct {sum(tensor.numel() for tensor in network.state_dict().values())}\n"


def test_a_push_is_private_unless_asked_and_never_goes_to_a_public_repository_unasked(hub, run, second):
    assert push_to_hub(run, GENESIS).private
    assert push_to_hub(second, GENESIS, private=False).private
    first = push_to_hub(run, "clinic/public", private=False)
    message = failure(lambda: push_to_hub(second, "clinic/public"), "other")
    assert "is public; push with --public (in Python private=False) to publish there" in message
    assert "is public" in failure(lambda: check_destination("clinic/public"), "other")
    assert hub.repositories["clinic/public"].heads["main"] == first.commit


def test_pictures_that_may_show_patients_stay_here_unless_asked_and_a_dry_run_lists_all(hub, run):
    Image.new("RGB", (8, 8)).save(run / "figures" / "curve.png")
    edit(run, f"({RESTORATIONS})", f"({RESTORATIONS})\n\n![Losses](figures/curve.png)")
    listed = push_to_hub(run, GENESIS, dry_run=True)
    assert (hub.requests, listed.commit, listed.private) == ([], "", True)
    described = {file.path: (file.sent, file.shows) for file in listed.files}
    assert described["model.safetensors"] == (True, "weights: 3,897 parameters")
    assert described["README.md"] == (True, "the card, 8 lines to fill in")
    assert described["figures/curve.png"] == (True, "picture: Losses")
    why = "picture: Restorations; not sent, it may show patients; --include-figures sends it"
    assert described[RESTORATIONS] == (False, why)
    made = push_to_hub(run, GENESIS)
    sizes = {path: blob.size for path, blob in hub.repositories[GENESIS].files.items() if path != ".gitattributes"}
    assert {file.path: file.size for file in made.files if file.sent} == sizes
    assert sizes.keys() == BUNDLE | {"figures/curve.png"}
    assert "![Losses](figures/curve.png)" in published_card(hub)
    assert RESTORATIONS not in published_card(hub)
    assert {file.path for file in push_to_hub(run, GENESIS, include_figures=True).files} > {RESTORATIONS}
    assert RESTORATIONS in hub.repositories[GENESIS].files


def test_a_model_in_memory_is_published_and_no_message_names_a_temporary_folder(hub, run, monkeypatch):
    model = from_pretrained(run)
    assert {file.path for file in model.push_to_hub(GENESIS, dry_run=True).files} == BUNDLE
    made = model.push_to_hub(GENESIS)
    assert (made.private, made.repository) == (True, GENESIS)
    assert set(hub.repositories[GENESIS].files) == BUNDLE | {".gitattributes"}
    monkeypatch.delenv("HF_TOKEN")
    message = failure(lambda: model.push_to_hub(GENESIS), "denied")
    assert message.endswith("or set HF_TOKEN")


def test_a_picture_that_a_person_linked_and_that_stays_here_is_said(hub, run):
    edit(run, "FILL IN how it was done", "![mine](figures/unnamed.png)")
    assert "the card shows figures/unnamed.png, not sent" in push_to_hub(run, GENESIS, dry_run=True).notes[0]
    assert "expected org/name" in failure(lambda: push_to_hub(run, "a--b/c", dry_run=True), "unknown")
    message = failure(lambda: push_to_hub(run.with_name("rum"), GENESIS, dry_run=True), "other")
    assert message.endswith(f"no such folder; did you mean {run}?")


def test_a_push_to_a_branch_makes_it_and_leaves_the_default_one(hub, run, second):
    first = push_to_hub(run, GENESIS)
    pushed = push_to_hub(second, GENESIS, revision="v2")
    assert hub.repositories[GENESIS].heads == {"main": first.commit, "v2": pushed.commit}
    third = push_to_hub(run, GENESIS, revision="v2")
    assert hub.repositories[GENESIS].parents[third.commit] == pushed.commit
    new = push_to_hub(run, "clinic/new", revision="v1")
    assert hub.repositories["clinic/new"].heads["v1"] == new.commit
    assert set(hub.repositories["clinic/new"].files) == {".gitattributes"}


def test_a_proposal_leaves_the_branch_and_needs_no_write_access(hub, run, second):
    first = push_to_hub(run, GENESIS, private=False)
    made = push_to_hub(second, GENESIS, private=False, create_pr=True, token="hf_stranger")
    assert made.pull_request == f"{hub.url}/{GENESIS}/discussions/1"
    assert hub.repositories[GENESIS].heads == {"main": first.commit, "refs/pr/1": made.commit}
    with pytest.raises(HubError, match="--revision v2"):
        push_to_hub(run, GENESIS, create_pr=True, revision="v2")


def test_prose_edited_on_the_hub_is_kept_and_our_section_renewed(hub, run, second):
    push_to_hub(run, GENESIS)
    edit_on_the_hub(hub, SOURCE, "- Source: St Elsewhere")
    edit_on_the_hub(hub, "library_name: modelsgenesis", "library_name: modelsgenesis\nlicense: cc-by-4.0")
    edit(second, "| Parameters |", "| Changed by hand |")
    made = push_to_hub(second, GENESIS)
    card = published_card(hub)
    assert "- Source: St Elsewhere" in card
    assert "Changed by hand" not in card
    assert split_card(card).front["license"] == "cc-by-4.0"
    assert card.count("modelsgenesis:begin") == card.count("modelsgenesis:end") == 1
    assert "lines to fill in, marked FILL IN" in made.notes[-1]


def test_prose_edited_in_the_run_replaces_only_what_nobody_touched_on_the_hub(hub, run):
    push_to_hub(run, GENESIS)
    edit(run, SOURCE, "- Source: St Somewhere")
    push_to_hub(run, GENESIS)
    edit(run, "FILL IN", "Here:")
    edit_on_the_hub(hub, "St Somewhere", "the Hub says")
    made = push_to_hub(run, GENESIS)
    assert "- Source: the Hub says" in published_card(hub)
    assert any("the prose of the card on the Hub was kept" in note for note in made.notes)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_figure_is_uploaded_as_its_pixels_alone(hub, run, kind):
    texts, exif = PngInfo(), Image.Exif()
    texts.add_text("Source", "/data/patients/0001 Mueller^Anna")
    exif[0x010E] = "Mueller^Anna"
    figure = run / "figures" / f"figure.{kind}"
    noise = Image.effect_noise((40, 30), 50).convert("RGB")
    noise.save(figure, exif=exif, **({"pnginfo": texts} if kind == "png" else {}))
    figure.write_bytes(figure.read_bytes() + b"PK Mueller^Anna")
    edit(run, RESTORATIONS, f"figures/figure.{kind}")
    push_to_hub(run, GENESIS, include_figures=True)
    content = hub.repositories[GENESIS].files[f"figures/figure.{kind}"].content
    assert b"Mueller" not in content
    with Image.open(BytesIO(content)) as sent, Image.open(figure) as original:
        assert sent.size == original.size
        assert kind != "png" or sent.tobytes() == original.tobytes()


def _provenance(run, **changes):
    config = json.loads((run / "config.json").read_text())
    config["provenance"].update(changes)
    (run / "config.json").write_text(json.dumps(config))


def _weights(run, **tensors):
    path = run / "model.safetensors"
    safetensors.torch.save_file({**safetensors.torch.load_file(path), **tensors}, path)


def _write(run, text):
    edit(run, "FILL IN how it was done", text)


def _record(run, names, text):
    (run / "run.json").write_text(json.dumps({"split": names}))
    _write(run, text)


TOKEN = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda run: (run / "model.safetensors").write_bytes(b"junk"), "model.safetensors"),
        (lambda run: _weights(run, **{"optimizer.momentum": torch.zeros(3)}), "optimizer.momentum"),
        (lambda run: _provenance(run, init="/home/me/runs/a"), "path of this machine: '/home/me/runs/a'"),
        (lambda run: _provenance(run, data={"PatientName": "x"}), "PatientName"),
        (lambda run: _write(run, f"with {TOKEN}"), "a token"),
        (lambda run: _write(run, "see \\\\server\\share\\scans"), "path of this machine"),
        (lambda run: _write(run, "1.2.840.113619.2.55.3.604688119"), "DICOM UID: '1.2.840"),
        (lambda run: _write(run, "as in `Mueller_Anna_1962.nii.gz`"), "Mueller_Anna_1962.nii.gz"),
        (lambda run: _record(run, {"train": ["p/ct_007.nii.gz", "b.nii"]}, "but ct_007."), "ct_007"),
        (lambda run: _record(run, {"test": ["Mueller_Anna/ct.nii"]}, "Of mueller_anna"), "mueller_anna"),
        (lambda run: (run / "run.json").write_text("{"), "run.json"),
        (lambda run: (run / "figures/restorations.png").write_bytes(b"\x89PNG"), "as an image"),
        (lambda run: edit(run, "(figures/r", "(../figures/r"), "not a figure"),
        (lambda run: edit(run, "library_name:", "model-index: [3\nlibrary_name:"), "front matter"),
    ],
)  # fmt: skip
def test_a_run_that_must_not_be_published_never_reaches_the_hub(hub, run, damage, word):
    damage(run)
    message = failure(lambda: push_to_hub(run, GENESIS, include_figures=True), "other")
    assert word in message
    assert TOKEN not in message
    assert hub.requests == []


@pytest.mark.parametrize("text", ["a", "/a", "![", "![](", "1.", "a.", "~", "\\", "A^", "hf_", "x/", "a.nii ", "C:"])
def test_a_long_text_is_searched_in_a_time_that_grows_with_its_length(run, text):
    _write(run, text * (200_000 // len(text)))
    with suppress(HubError):
        check_run(run)


PLAIN = """https://example.org/a/b/c http://127.0.0.1:80/x/y and/or, 3/4, km/h, org/name, figures/curve.png ~5 mm
version 1.2.3, 2024-01-31T10:20:30 C: 10^3 `--output DIR` scan.nii.gz *.nii.gz (.dcm) <case>.nii.gz hf_hub_download()"""


def test_plain_prose_is_let_through():
    assert [*private_text(PLAIN, "card")] == []


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
    message = refusal("denied", run, private=False, include_figures=True, create_pr=True, revision="main")
    assert "hf auth login" in message
    assert message.endswith(" --public --include-figures --create-pr --revision main")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repository", "token", "kind", "word"),
    [
        (GENESIS, "hf_wrong", "denied", "401"),
        (GENESIS, "hf_reader", "denied", "the token can only read"),
        ("hospital/genesis", "hf_alice", "denied", "alice cannot write to hospital, only to alice, clinic"),
        ("a--b/c..d", "hf_alice", "unknown", "expected org/name"),
    ],
)
def test_what_must_not_be_made_is_not(hub, run, repository, token, kind, word):
    assert word in refusal(kind, run, repository, token=token)
    assert word in failure(lambda: check_destination(repository, token=token), kind)
    assert hub.repositories == {}


def test_a_destination_is_checked_and_nothing_made(hub, run, monkeypatch):
    assert [check_destination(name) for name in (GENESIS, "mine")] == [GENESIS, "alice/mine"]
    assert hub.repositories == {}
    push_to_hub(run, GENESIS)
    assert check_destination(GENESIS) == GENESIS
    hub.fault("GET /api/whoami", status=503, times=99)
    assert "busy or down" in failure(lambda: check_destination(GENESIS), "unreachable")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in failure(lambda: check_destination(GENESIS), "unreachable")


def test_a_header_that_the_hub_refuses_makes_nothing(hub, run):
    edit(run, "library_name:", "license: nonsense\nlibrary_name:")
    assert re.search(r"the header of README\.md is not accepted.*license", refusal("other", run))
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("step", "fault", "kind"),
    [
        ("POST /api/repos/create", {"drop_after": True}, "unreachable"),
        ("POST /api/repos/create", {"status": 409}, "conflict"),
        ("POST .*/lfs/objects/batch", {"status": 503}, "unreachable"),
        ("PUT /large/", {"status": 500}, "unreachable"),
        (COMMIT, {"drop": True}, "unreachable"),
        (COMMIT, {"status": 403}, "denied"),
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
    assert step != COMMIT or hub.count("PUT /large/") == uploaded == 1  # the weights


def test_a_commit_whose_answer_was_lost_is_found_by_a_repeat(hub, run):
    hub.fault(COMMIT, drop_after=True)
    refusal("unreachable", run)
    assert push_to_hub(run, GENESIS).commit == hub.repositories[GENESIS].heads["main"]
    assert len(hub.repositories[GENESIS].commits) == 2


def test_a_push_in_between_is_refused(hub, run, second):
    push_to_hub(run, GENESIS)
    hub.fault(COMMIT, call=lambda: hub.add(GENESIS, {"other.txt": b"from another push"}))
    assert "another push made or changed it meanwhile" in refusal("conflict", second)
    files = hub.repositories[GENESIS].files
    assert files["other.txt"].content == b"from another push"
    assert files["model.safetensors"].content == (run / "model.safetensors").read_bytes()


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
        push_to_hub(run, GENESIS, private=False)
