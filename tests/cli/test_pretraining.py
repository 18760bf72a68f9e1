import json
import signal
import time

import pytest

from modelsgenesis.checkpoints import read_config
from modelsgenesis.configs import PretrainingConfig, pretraining_recipe


def test_the_loss_is_printed_beside_its_baselines_or_in_json(command, ct_folder, tmp_path, tiny_pretraining):
    asked = ["pretrain", ct_folder, "--steps", 2, *tiny_pretraining]
    result = command(*asked, "-o", tmp_path / "run", "--set", "patch_size=16,16,8")
    assert result.status == 0
    assert read_config(tmp_path / "run").patch_size == (16, 16, 8)
    for words in ("restoration loss", "× the mean-image baseline", "× the identity baseline"):
        assert words in result.out
        assert words in result.err
    again = command("pretrain", "--config", tmp_path / "run", "--dry-run").json()
    assert again == json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert "training: 0/2" in result.err
    result = command(*asked, "-o", tmp_path / "other", "--json", "--quiet")
    assert set(result.json()["results"]) >= {"restoration_loss", "identity_loss", "mean_image_loss", "step"}
    assert result.err == ""


def test_the_configuration_that_would_run_is_shown_and_read_back(command, ct_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ("window=-500,500", f"validation_source={ct_folder}", "exclude_test_cases=a.json,b.json", "spacing=1,1,2")
    options = [word for setting in data for word in ("--set", f"data.{setting}")]
    more = ["--patient", "p(.)", "--cache", "cache", "--init", "runs/x", "--modality", "mri", "--set", "scheme=II"]
    result = command("pretrain", ct_folder, "--recipe", "2019", "--steps", 7, *options, *more, "--dry-run")
    named = {"source": ct_folder, "validation_source": ct_folder, "exclude_test_cases": ["a.json", "b.json"]}
    named |= {"window": (-500, 500), "patient_pattern": "p(.)", "cache": "cache", "modality": "mri"}
    expected = pretraining_recipe("2019", scheme="II", steps=7).with_data("runs/x", spacing=(1, 1, 2), **named)
    assert PretrainingConfig.from_dict(result.json()) == expected
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.json").write_text(result.out)
    again = command("pretrain", "--config", "config.json", "--set", "seed=3", "--dry-run").json()
    assert PretrainingConfig.from_dict(again) == expected.override(seed=3)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pretrain", "{tmp}/nowhere"], 1, "nowhere: "),
        (["pretrain", "{ct}", "--set", "scheme=III+V"], 1, r"did you mean III\+IV or III"),
        (["preview", "{ct}", "--spacing", "1,x"], 2, "expected numbers separated by commas"),
        (["pretrain", "{ct}", "--set", "data.window=1,2,3"], 1, "expected 2 values"),
        (["pretrain", "{ct}", "--set", "strict=3"], 1, "strict: received 3, expected"),
        (
            ["pretrain", "{ct}", "--set", "patch_size=64"],
            1,
            "patch_size: received 64, expected values such as 64,64,32",
        ),
        (["pretrain", "{ct}", "--set", "batch_size=many"], 1, "batch_size: received 'many', expected a whole number"),
        (["pretrain", "{tmp}/nowhere", "--set", "batch_size=auto", "--device", "cpu"], 1, "set a number yourself"),
        (["pretrain"], 2, "missing: the scans"),
        (["pretrain", "--config", "{tmp}/no.json"], 1, "no.json: there is no such file"),
        (["pretrain", "--config", "c.json", "--recipe", "2019"], 2, "received --recipe too"),
    ],
)
def test_errors_are_one_line_with_a_status(refuses, arguments, status, message):
    refuses(arguments, status, message)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    background, ct_folder, tmp_path, signum, status, tiny_pretraining
):
    process = background("pretrain", ct_folder, "-o", tmp_path / "run", "--steps", 100_000, *tiny_pretraining)
    log = tmp_path / "run" / "log.csv"
    deadline = time.monotonic() + 90
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert err.strip().splitlines()[-1].startswith("interrupted at step ")
    assert f"--resume --output {tmp_path / 'run'}" in err
    assert (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def test_going_on_needs_only_the_run(command, genesis_run):
    asked = ["pretrain", "--resume", genesis_run, "--device", "cpu"]
    again, other = command(*asked), command(*asked, "--set", "seed=1")
    assert again.status == 0
    assert "finished" in again.err
    assert "model of step 4" in again.out
    assert other.status == 1
    assert "seed was 0, now 1" in other.err
