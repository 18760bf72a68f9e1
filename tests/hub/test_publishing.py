"""From a run to a repository: what is published, and how cards and visibility are kept."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from loopback_hub import LoopbackHub
from loopback_yaml import yaml_errors
from modelsgenesis import hub as room
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs.front_matter import split_card
from modelsgenesis.errors import PublishError

from .conftest import write_run  # pyright: ignore[reportAttributeAccessIssue]

GENESIS = "clinic/genesis"
PUBLISHED = {"config.json", "model.safetensors", "README.md", "figures/restorations.png"}


def published_card(hub: LoopbackHub, repository: str = GENESIS) -> str:
    return hub.repositories[repository].files["README.md"].content.decode()


def edit_on_the_hub(hub: LoopbackHub, old: str, new: str) -> None:
    card = published_card(hub)
    assert old in card
    hub.add(GENESIS, {"README.md": card.replace(old, new).encode()})


def edit(run: Path, old: str, new: str) -> None:
    card = (run / "README.md").read_text()
    assert old in card
    (run / "README.md").write_text(card.replace(old, new))


def test_a_push_is_one_commit_of_the_bundle_and_nothing_else(hub: LoopbackHub, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    made = room.publish(run, GENESIS, message="First")
    repository = hub.repositories[GENESIS]
    assert set(repository.files) == PUBLISHED | {".gitattributes"}
    assert set(made.files) == PUBLISHED
    assert len(repository.commits) == 2  # the Hub's own, and ours
    assert repository.messages[made.commit] == "First"
    assert made.url == f"{hub.url}/{GENESIS}"
    assert not made.private
    assert not repository.private
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_was_pushed_loads_with_equal_weights_and_outputs(hub: LoopbackHub, run: Path) -> None:
    room.publish(run, GENESIS)
    fetched, original = load_bundle(room.fetch_bundle(GENESIS)), load_bundle(run)
    x = torch.rand(1, 1, 16, 16, 8)
    assert torch.equal(fetched.network(x), original.network(x))
    weights = [bundle.network.state_dict() for bundle in (fetched, original)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert fetched.config == original.config


def test_a_pushed_card_passes_the_rules_of_the_hub(hub: LoopbackHub, run: Path) -> None:
    room.publish(run, GENESIS)
    card = published_card(hub)
    assert yaml_errors(card) == []
    front = split_card(card).front
    assert front["library_name"] == "modelsgenesis"
    metric = front["model-index"][0]["results"][0]["metrics"][0]
    assert metric["value"] == 0.012
    assert metric["args"] == {"identity_loss": 0.081, "mean_image_loss": 0.034}
    assert "![Restorations](figures/restorations.png)" in card
    assert str(run) not in card


def test_the_snippet_of_a_pushed_card_runs(
    hub: LoopbackHub, run: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    room.publish(run, GENESIS)
    snippet = published_card(hub).split("```python\n")[1].split("```")[0]
    shown = subprocess.run(
        [sys.executable, "-c", snippet], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert shown.stdout == "(1, 1, 16, 16, 8)\n", shown.stderr


def test_a_second_push_of_the_same_changes_nothing(hub: LoopbackHub, run: Path) -> None:
    first = room.publish(run, GENESIS)
    again = room.publish(run, GENESIS)
    assert again.commit == first.commit
    assert len(hub.repositories[GENESIS].commits) == 2


def test_a_push_is_seen_by_the_machine_that_made_it(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    room.publish(run, GENESIS)
    room.fetch_bundle(GENESIS)
    second = room.publish(write_run(tmp_path / "second", seed=1), GENESIS)
    assert room.fetch_bundle(GENESIS).name == second.commit


def test_names_without_an_owner_go_to_the_account_of_the_token(hub: LoopbackHub, run: Path) -> None:
    assert room.publish(run, "mine").repository == "alice/mine"
    named = run.rename(run.with_name("my  run--1"))
    assert room.publish(named).repository == "alice/my-run-1"


def test_a_private_push_stays_private_and_a_private_repository_too(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    assert room.publish(run, GENESIS, private=True).private
    assert hub.repositories[GENESIS].private
    assert room.publish(write_run(tmp_path / "second", seed=1), GENESIS).private
    assert hub.repositories[GENESIS].private


def test_a_private_push_never_goes_to_a_public_repository(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    first = room.publish(run, GENESIS)
    with pytest.raises(PublishError, match=r"exists and is public, but --private was asked"):
        room.publish(write_run(tmp_path / "second", seed=1), GENESIS, private=True)
    assert hub.repositories[GENESIS].heads["main"] == first.commit


def test_a_push_to_a_branch_makes_it_and_leaves_the_default_one(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    first = room.publish(run, GENESIS)
    second = room.publish(write_run(tmp_path / "second", seed=1), GENESIS, revision="v2")
    assert hub.repositories[GENESIS].heads == {"main": first.commit, "v2": second.commit}
    third = room.publish(write_run(tmp_path / "third", seed=2), GENESIS, revision="v2")
    assert hub.repositories[GENESIS].parents[third.commit] == second.commit


def test_a_first_push_can_go_to_a_branch(hub: LoopbackHub, run: Path) -> None:
    made = room.publish(run, GENESIS, revision="v1")
    assert hub.repositories[GENESIS].heads["v1"] == made.commit
    assert set(hub.repositories[GENESIS].files) == {".gitattributes"}


def test_a_proposal_leaves_the_branch_and_needs_no_write_access(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    first = room.publish(run, GENESIS)
    made = room.publish(write_run(tmp_path / "second", seed=1), GENESIS, create_pr=True, token="hf_stranger")
    assert made.pull_request == f"{hub.url}/{GENESIS}/discussions/1"
    assert hub.repositories[GENESIS].heads == {"main": first.commit, "refs/pr/1": made.commit}
    with pytest.raises(PublishError, match=r"--create-pr proposes a change of main, but received --revision v2"):
        room.publish(run, GENESIS, create_pr=True, revision="v2")


def test_prose_edited_on_the_hub_is_kept_and_our_section_renewed(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    room.publish(run, GENESIS)
    edit_on_the_hub(
        hub, "- Source: FILL IN the data set or hospital, the years, the scanners", "- Source: St Elsewhere"
    )
    edit_on_the_hub(hub, "library_name: modelsgenesis", "library_name: modelsgenesis\nlicense: cc-by-4.0")
    second = write_run(tmp_path / "second", seed=1)
    edit(second, "| Parameters |", "| Changed by hand inside our section |")
    made = room.publish(second, GENESIS)
    card = published_card(hub)
    assert "- Source: St Elsewhere" in card
    assert "Changed by hand" not in card
    assert split_card(card).front["license"] == "cc-by-4.0"
    assert card.count("modelsgenesis:begin") == card.count("modelsgenesis:end") == 1
    assert "lines to fill in; modelsgenesis card" in made.notes[-1]


def test_prose_edited_in_the_run_replaces_what_nobody_touched_on_the_hub(hub: LoopbackHub, run: Path) -> None:
    room.publish(run, GENESIS)
    edit(run, "- Source: FILL IN the data set or hospital, the years, the scanners", "- Source: St Elsewhere")
    room.publish(run, GENESIS)
    assert "- Source: St Elsewhere" in published_card(hub)
    edit(run, "St Elsewhere", "St Somewhere")
    room.publish(run, GENESIS)
    assert "- Source: St Somewhere" in published_card(hub)


def test_prose_edited_on_both_sides_keeps_the_hubs_and_says_so(hub: LoopbackHub, run: Path) -> None:
    room.publish(run, GENESIS)
    (run / "README.md").write_text((run / "README.md").read_text().replace("FILL IN", "Here:"))
    edit_on_the_hub(hub, "- Source: FILL IN", "- Source: the Hub says")
    made = room.publish(run, GENESIS)
    assert "- Source: the Hub says" in published_card(hub)
    assert any("the prose of the card on the Hub was kept; that of" in note for note in made.notes)


def test_a_card_without_our_section_keeps_all_of_its_prose(hub: LoopbackHub, run: Path) -> None:
    hub.add(GENESIS, {"README.md": b"---\nlicense: mit\ntags: [mine]\n---\n# My own words\n\nAbout it.\n"})
    room.publish(run, GENESIS)
    card = published_card(hub)
    assert "# My own words\n\nAbout it." in card
    assert split_card(card).front["tags"][0] == "mine"
    assert split_card(card).front["license"] == "mit"


def test_a_run_without_a_card_gets_one(hub: LoopbackHub, run: Path) -> None:
    (run / "README.md").unlink()
    room.publish(run, GENESIS)
    assert "# clinic/genesis" in published_card(hub)


def test_what_is_done_is_told(hub: LoopbackHub, run: Path) -> None:
    told: list[str] = []
    room.publish(run, GENESIS, progress=told.append)
    assert told == [
        "checking the bundle",
        f"asking for {GENESIS}",
        f"preparing {GENESIS}",
        f"uploading to {GENESIS}",
    ]


def test_nothing_is_drawn(hub: LoopbackHub, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    room.publish(run, GENESIS)
    assert capfd.readouterr() == ("", "")


def _with_optimizer(run: Path) -> None:
    import safetensors.torch

    path = run / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**weights, "optimizer.momentum": torch.zeros(3)}, path)


def _with_metadata(run: Path) -> None:
    import safetensors.torch

    path = run / "model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata={"source": "/data/a/b"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), r"no config\.json in it, so it is no bundle"),
        (lambda run: (run / "model.safetensors").write_bytes(b"junk"), r"damaged, or no safetensors file"),
        (
            _with_optimizer,
            r"not the weights of this network: unexpected optimizer\.momentum",
        ),
        (
            lambda run: _with_provenance(run, init="/home/me/runs/a"),
            r"holds a path of this machine: '/home/me/runs/a'",
        ),
        (
            lambda run: _with_provenance(run, data={"scans": ["mueller.nii.gz"]}),
            r"the name of a scan: 'mueller\.nii",
        ),
        (lambda run: _with_provenance(run, data={"PatientName": "x"}), r"PatientName is data of a patient"),
        (lambda run: _with_provenance(run, data={"who": "Doe^Jane"}), r"holds a person's name: 'Doe\^Jane'"),
        (
            lambda run: edit(run, "FILL IN how it was done", "see C:\\Users\\me"),
            r"README\.md holds a path of this",
        ),
        (_with_metadata, r"model\.safetensors\.source holds a path of this machine"),
        (
            lambda run: (run / "figures/restorations.png").unlink(),
            r"names the figure figures/restorations\.png, which",
        ),
        (
            lambda run: edit(run, "(figures/r", "(../figures/r"),
            r"'\.\./figures/restorations\.png' is no figure of",
        ),
        (
            lambda run: edit(run, "restorations.png)", "../log.csv)"),
            r"'figures/\.\./log\.csv' is no figure of this",
        ),
        (lambda run: _with_front(run, "model-index: [3"), r"the front matter is no YAML"),
    ],
)
def test_a_run_that_must_not_be_published_never_reaches_the_hub(
    hub: LoopbackHub, run: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(run)
    with pytest.raises(PublishError, match=message) as caught:
        room.publish(run, GENESIS)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


def test_a_figure_that_carries_a_path_is_refused(hub: LoopbackHub, run: Path) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Source", "/data/patients/0001")
    Image.new("L", (4, 4)).save(run / "figures" / "restorations.png", pnginfo=info)
    with pytest.raises(PublishError, match=r"restorations\.png\.Source holds a path of this machine"):
        room.publish(run, GENESIS)
    assert hub.requests == []


def _with_provenance(run: Path, **changes: object) -> None:
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["provenance"].update(changes)
    path.write_text(json.dumps(config))


def _with_front(run: Path, line: str) -> None:
    edit(run, "library_name: modelsgenesis", f"library_name: modelsgenesis\n{line}")
