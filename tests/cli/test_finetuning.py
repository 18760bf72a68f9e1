import json

import pytest


def test_finetune_measures_on_test_patients_and_resumes_with_nothing_typed_again(
    command, decathlon, genesis_run, tmp_path, tiny
):
    run = tmp_path / "seg"
    trained = command("finetune", decathlon, "--init", genesis_run, "-o", run, "--steps", 2, *tiny, "--json")
    assert trained.status == 0
    told = trained.json()
    assert set(told["results"]["test"]["dice bright"]) >= {"value", "low", "high"}
    assert told["results"] == json.loads((run / "results.json").read_text())
    (run / "results.json").unlink()
    resumed = command("finetune", "-o", run, "--resume", "--json", "--device", "cpu", "-q")
    assert resumed.status == 0, resumed.err
    assert resumed.json()["results"] == told["results"]


def test_finetune_reads_the_configuration_that_it_shows(command, decathlon, tmp_path, tiny):
    shown = command("finetune", decathlon, "--steps", 1, "--labels", "50%", *tiny[:-2], "--dry-run")
    assert shown.status == 0, shown.err
    (tmp_path / "config.json").write_text(shown.out)
    again = command("finetune", "--config", tmp_path / "config.json", "--dry-run")
    assert again.json() == shown.json()
    assert shown.json()["data"]["source"] == [str(decathlon)]
    trained = command("finetune", "--config", tmp_path / "config.json", "-o", tmp_path / "seg", "--device", "cpu")
    assert trained.status == 0, trained.err
    words = " ".join(trained.out.split())
    assert "Dice IoU HD95" in words
    assert "1 test patient; no confidence interval" in words
    assert str(tmp_path / "seg" / "test.csv") in trained.out
    recorded = json.loads((tmp_path / "seg" / "results.json").read_text())
    assert (recorded["labels_used"], recorded["split"]["training"]["patients"]) == ("50%", 2)


def test_finetune_takes_folds_and_a_frozen_encoder(command, class_folders, tmp_path):
    settings = ("network.widths=4,8", "workers=0", "batch_size=4", "bootstrap=20", "hidden=0", "freeze_encoder=true")
    options = [*("--set", "folds=2", "--modality", "xray", "--steps", "1", "--device", "cpu")]
    options += [word for setting in settings for word in ("--set", setting)]
    trained = command("finetune", class_folders, "-o", tmp_path / "run", *options)
    assert trained.status == 0, trained.err
    assert "16 test patients, 32 images in 2 folds" in trained.out
    told = command("finetune", class_folders, "-o", tmp_path / "run", *options, "--resume", "--json", "-q")
    assert told.json()["run"] == str(tmp_path / "run")
    assert len(told.json()["results"]["test"]["accuracy"]["folds"]) == 2


def test_what_a_fine_tuning_starts_from_is_said(command, decathlon, tmp_path, tiny):
    sample = command("finetune", "--task", "seg", "--dry-run").json()
    assert (sample["init"], sample["steps"]) == ("genesis-hippocampus-mri-3d-small", 200)
    assert command("finetune", "--init", "scratch", "--dry-run").json()["init"] is None
    start = ("finetune", decathlon, "--steps", 1, *tiny, "-o")
    random = command(*start, tmp_path / "random").err
    assert random.startswith("warning: starting from random weights, as no --init was given; pretrained for 3D")
    assert "genesis-" in random.splitlines()[0]
    assert "random weights" not in command(*start, tmp_path / "scratch", "--init", "scratch").err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["finetune", "{tmp}/nowhere"], 1, "no such"),
        (["finetune", "--task", "cls"], 1, "segmentation"),
        (["finetune", "--labels", "ten"], 1, "labelled_patients: received 'ten'"),
        (["finetune", "--set", "fold=1"], 1, "fold: received 1"),
        (["finetune", "--set", "hidden=3"], 1, "hidden: no such setting"),
        (["finetune", "--split", "{tmp}/split.json"], 1, "split.json: "),
        (["finetune", "--config", "{tmp}/config.json"], 1, "config.json: "),
        (["finetune", "--set", "folds=2", "--push-to-hub"], 2, "make several models"),
    ],
)
def test_errors_are_one_line_with_a_status(refuses, arguments, status, message):
    refuses(arguments, status, message)
