"""From a run to a repository: what is published, how cards and visibility are kept, and its use by others."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from loopback_api import card_errors
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.checkpoints.card import split_card
from modelsgenesis.errors import HubError
from modelsgenesis.hub.download import fetch_bundle
from modelsgenesis.hub.push import plan_upload, push_to_hub
from runs_to_push import GENESIS, failure, write_run

ROOT = Path(__file__).parents[2]
PUBLISHED = {"config.json", "model.safetensors", "README.md", "figures/restorations.png"}
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
def second(tmp_path):
    """Another run of the same network."""
    return write_run(tmp_path / "second", seed=1)


@pytest.fixture
def python(environment, tmp_path):
    """Run Python in a process of its own that speaks to the Hub, with an empty cache."""

    def run(code):
        command = [sys.executable, "-c", code]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def test_a_push_is_one_commit_of_the_bundle_and_nothing_else(hub, run, capfd):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    told: list[str] = []
    made = push_to_hub(run, GENESIS, progress=told.append)
    repository = hub.repositories[GENESIS]
    assert set(repository.files) == PUBLISHED | {".gitattributes"}
    assert set(made.files) == PUBLISHED
    assert len(repository.commits) == 2  # the Hub's own, and ours
    assert repository.messages[made.commit] == "Publish a model for restoration"
    assert (made.url, made.private, repository.private) == (f"{hub.url}/{GENESIS}", False, False)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert told[0] == "checking the bundle"
    assert told[1:] == [f"{what} {GENESIS}" for what in ("comparing with", "creating", "uploading to")]
    fetched, original = load_bundle(fetch_bundle(GENESIS)), load_bundle(run)
    weights = [bundle.network.state_dict() for bundle in (fetched, original)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert fetched.config == original.config
    assert push_to_hub(run, GENESIS).commit == made.commit
    assert len(repository.commits) == 2
    assert capfd.readouterr() == ("", "")


def test_a_pushed_card_passes_the_rules_of_the_hub(hub, run, python):
    push_to_hub(run, GENESIS)
    card = published_card(hub)
    assert card_errors(card) == []
    front = split_card(card).front
    assert front["library_name"] == "modelsgenesis"
    metric = front["model-index"][0]["results"][0]["metrics"][0]
    assert metric["value"] == 0.012
    assert metric["args"] == {"identity_loss": 0.081, "mean_image_loss": 0.034}
    assert "![Restorations](figures/restorations.png)" in card
    assert str(run) not in card
    assert python(card.split("```python\n")[1].split("```")[0]) == "(1, 1, 16, 16, 8)\n"


def test_the_documented_lines_load_it_without_this_package(hub, run, python):
    push_to_hub(run, GENESIS)
    page = (ROOT / "docs" / "hub.md").read_text("utf-8")
    found = re.search(r"<!-- test: plain -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found
    assert len(found[1].strip().splitlines()) <= 10
    shown = python("import sys; sys.modules['modelsgenesis'] = None\n" + found[1].replace("org/name", GENESIS))
    numbers = sum(tensor.numel() for tensor in load_bundle(run).network.state_dict().values())
    assert shown == f"genesis_unet ct {numbers}\n"


def test_torch_hub_loads_it(run):
    network = torch.hub.load(str(ROOT), "genesis", str(run), source="local", verbose=False)
    expected = load_bundle(run).network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def test_names_without_an_owner_go_to_the_account_of_the_token(hub, run):
    assert push_to_hub(run, "mine").repository == "alice/mine"
    named = run.rename(run.with_name("my  run--1"))
    assert push_to_hub(named).repository == "alice/my-run-1"


def test_a_private_push_stays_private_and_never_goes_to_a_public_repository(hub, run, second):
    assert push_to_hub(run, GENESIS, private=True).private
    assert push_to_hub(second, GENESIS).private
    assert hub.repositories[GENESIS].private
    first = push_to_hub(run, "clinic/public")
    message = failure(lambda: push_to_hub(second, "clinic/public", private=True), "other")
    assert "is public, but --private was asked" in message
    assert hub.repositories["clinic/public"].heads["main"] == first.commit


def test_a_push_to_a_branch_makes_it_and_leaves_the_default_one(hub, run, second):
    first = push_to_hub(run, GENESIS)
    assert fetch_bundle(GENESIS, revision="main").name == first.commit
    pushed = push_to_hub(second, GENESIS, revision="v2")
    assert hub.repositories[GENESIS].heads == {"main": first.commit, "v2": pushed.commit}
    assert push_to_hub(second, GENESIS).commit == fetch_bundle(GENESIS, revision="main").name != first.commit
    third = push_to_hub(run, GENESIS, revision="v2")
    assert hub.repositories[GENESIS].parents[third.commit] == pushed.commit


@pytest.mark.parametrize(("branch", "left"), [("v1", {".gitattributes"}), ("main", PUBLISHED | {".gitattributes"})])
def test_a_first_push_can_go_to_a_branch(hub, run, branch, left):
    made = push_to_hub(run, GENESIS, revision=branch)
    assert hub.repositories[GENESIS].heads[branch] == made.commit
    assert set(hub.repositories[GENESIS].files) == left
    assert not made.private


def test_a_proposal_leaves_the_branch_and_needs_no_write_access(hub, run, second):
    first = push_to_hub(run, GENESIS)
    made = push_to_hub(second, GENESIS, create_pr=True, token="hf_stranger")
    assert made.pull_request == f"{hub.url}/{GENESIS}/discussions/1"
    assert hub.repositories[GENESIS].heads == {"main": first.commit, "refs/pr/1": made.commit}
    with pytest.raises(HubError, match=r"--create-pr .* --revision v2"):
        push_to_hub(run, GENESIS, create_pr=True, revision="v2")


def test_prose_edited_on_the_hub_is_kept_and_our_section_renewed(hub, run, second):
    push_to_hub(run, GENESIS)
    edit_on_the_hub(hub, SOURCE, "- Source: St Elsewhere")
    edit_on_the_hub(hub, "library_name: modelsgenesis", "library_name: modelsgenesis\nlicense: cc-by-4.0")
    edit(second, "| Parameters |", "| Changed by hand inside our section |")
    made = push_to_hub(second, GENESIS)
    card = published_card(hub)
    assert "- Source: St Elsewhere" in card
    assert "Changed by hand" not in card
    assert split_card(card).front["license"] == "cc-by-4.0"
    assert card.count("modelsgenesis:begin") == card.count("modelsgenesis:end") == 1
    assert "lines to fill in, marked FILL IN" in made.notes[-1]


def test_prose_edited_in_the_run_replaces_only_what_nobody_touched_on_the_hub(hub, run):
    push_to_hub(run, GENESIS)
    for old, new in ((SOURCE, "- Source: St Elsewhere"), ("St Elsewhere", "St Somewhere")):
        edit(run, old, new)
        push_to_hub(run, GENESIS)
        assert new in published_card(hub)
    edit(run, "FILL IN", "Here:")
    edit_on_the_hub(hub, "St Somewhere", "the Hub says")
    made = push_to_hub(run, GENESIS)
    assert "- Source: the Hub says" in published_card(hub)
    assert any("the prose of the card on the Hub was kept; that of" in note for note in made.notes)


def test_a_card_without_our_section_keeps_all_of_its_prose_and_no_card_becomes_one(hub, run):
    hub.add(GENESIS, {"README.md": b"---\nlicense: mit\ntags: [mine]\n---\n# My own words\n\nAbout it.\n"})
    (run / "README.md").unlink()
    push_to_hub(run, GENESIS)
    card = published_card(hub)
    assert "# My own words\n\nAbout it." in card
    assert "# clinic/genesis" in card
    front = split_card(card).front
    assert (front["tags"][0], front["license"]) == ("mine", "mit")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_figure_is_uploaded_as_its_pixels_alone(hub, run, kind):
    texts, exif = PngInfo(), Image.Exif()
    texts.add_text("Source", "/data/patients/0001 Mueller^Anna")
    exif[0x010E] = "Mueller^Anna"
    figure = run / "figures" / f"figure.{kind}"
    noise = Image.effect_noise((40, 30), 50).convert("RGB")
    noise.save(figure, exif=exif, **({"pnginfo": texts} if kind == "png" else {}))
    figure.write_bytes(figure.read_bytes() + b"PK Mueller^Anna")
    edit(run, "figures/restorations.png", f"figures/figure.{kind}")
    push_to_hub(run, GENESIS)
    content = hub.repositories[GENESIS].files[f"figures/figure.{kind}"].content
    assert b"Mueller" not in content
    with Image.open(BytesIO(content)) as sent, Image.open(figure) as original:
        assert not {"exif", "Source"} & sent.info.keys()
        assert sent.size == original.size
        assert kind != "png" or sent.tobytes() == original.tobytes()


def _provenance(run, **changes):
    config = json.loads((run / "config.json").read_text())
    config["provenance"].update(changes)
    (run / "config.json").write_text(json.dumps(config))


def _weights(run, metadata=None, **tensors):
    path = run / "model.safetensors"
    safetensors.torch.save_file({**safetensors.torch.load_file(path), **tensors}, path, metadata=metadata)


def _write(run, text):
    edit(run, "FILL IN how it was done", text)


def _record(run, names, text):
    (run / "run.json").write_text(json.dumps({"split": names}))
    _write(run, text)


TOKEN = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda run: (run / "config.json").unlink(), "config.json"),
        (lambda run: (run / "model.safetensors").write_bytes(b"junk"), "model.safetensors"),
        (lambda run: _weights(run, **{"optimizer.momentum": torch.zeros(3)}), "optimizer.momentum"),
        (lambda run: _weights(run, {"source": "/data/a/b"}), "path of this machine"),
        (lambda run: _provenance(run, init="/home/me/runs/a"), "path of this machine: '/home/me/runs/a'"),
        (lambda run: _provenance(run, data={"scans": ["mueller.nii.gz"]}), "name of a scan: 'mueller.nii.gz'"),
        (lambda run: _provenance(run, data={"PatientName": "x"}), "PatientName"),
        (lambda run: _provenance(run, data={"who": "Doe^Jane"}), "Doe^Jane"),
        (lambda run: _provenance(run, environment={"key": TOKEN}), "a token"),
        (lambda run: _write(run, f"with {TOKEN}"), "a token"),
        (lambda run: _write(run, f"https://me:{TOKEN}@huggingface.co"), "a token"),
        (lambda run: _write(run, "see C:\\Users\\me"), "path of this machine"),
        (lambda run: _write(run, "as in `Mueller_Anna_1962.nii.gz`"), "Mueller_Anna_1962.nii.gz"),
        (lambda run: _write(run, "as in `Mueller_Anna.mgz`"), "Mueller_Anna.mgz"),
        (lambda run: _record(run, {"train": ["p/ct_007.nii.gz", "b.nii"]}, "but ct_007."), "ct_007"),
        (lambda run: _record(run, {"test": ["Mueller_Anna/ct.nii"]}, "Of mueller_anna"), "mueller_anna"),
        (lambda run: (run / "run.json").write_text("{"), "run.json"),
        (lambda run: (run / "figures/restorations.png").unlink(), "restorations.png"),
        (lambda run: (run / "figures/restorations.png").write_bytes(b"\x89PNG"), "as an image"),
        (lambda run: edit(run, "(figures/r", "(../figures/r"), "not a figure"),
        (lambda run: edit(run, "restorations.png)", "../log.csv)"), "not a figure"),
        (lambda run: edit(run, "library_name:", "model-index: [3\nlibrary_name:"), "front matter"),
    ],
)  # fmt: skip
def test_a_run_that_must_not_be_published_never_reaches_the_hub(hub, run, damage, word):
    damage(run)
    message = failure(lambda: push_to_hub(run, GENESIS), "other")
    assert word in message
    assert TOKEN not in message
    assert hub.requests == []


@pytest.mark.parametrize("text", ["a", "/a", "![", "![](", "1.", "a.", "~", "\\", "A^", "hf_", "x/", "a.nii ", "C:"])
def test_a_long_text_is_searched_in_a_time_that_grows_with_its_length(run, text):
    _write(run, text * (200_000 // len(text)))
    begin = time.monotonic()
    with suppress(HubError):
        plan_upload(run)
    assert time.monotonic() - begin < 5
