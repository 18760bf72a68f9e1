import json

import numpy as np
import pytest
from PIL import Image


def test_finetune_measures_on_test_patients(command, decathlon, genesis_run, tmp_path, tiny):
    trained = command(
        "finetune", decathlon, "--init", genesis_run, "-o", tmp_path / "seg", "--steps", 2, *tiny, "--json"
    )
    assert trained.status == 0
    told = trained.json()
    assert set(told["results"]["test"]["dice bright"]) >= {"value", "low", "high"}
    assert told["results"] == json.loads((tmp_path / "seg" / "results.json").read_text())


def test_finetune_prints_a_table_and_where_the_files_are(command, decathlon, tmp_path, tiny):
    trained = command("finetune", decathlon, "-o", tmp_path / "seg", "--steps", 1, "--labels", "50%", *tiny)
    assert trained.status == 0
    words = " ".join(trained.out.split())
    assert "Dice IoU HD95 (mm)" in words
    assert "1 test patient; no confidence interval" in words
    assert str(tmp_path / "seg" / "test.csv") in trained.out
    recorded = json.loads((tmp_path / "seg" / "results.json").read_text())
    assert (recorded["labels_used"], recorded["split"]["training"]["patients"]) == ("50%", 2)


@pytest.fixture
def pictures(tmp_path):
    """Pictures of two classes."""
    random = np.random.default_rng(0)
    for label in ("dark", "pale"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for index in range(6):
            pixels = random.integers(0, 100, (16, 16)).astype(np.uint8) + np.uint8(100 * (label == "pale"))
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{label}{index}.png")
    return tmp_path / "pictures"


CLASSIFY = [
    *("--modality", "xray", "--steps", "1", "--device", "cpu", "--set", "network.widths=4,8"),
    *("--set", "workers=0", "--set", "batch_size=4", "--set", "bootstrap=20"),
]


def test_finetune_takes_folds_and_a_frozen_encoder(command, pictures, tmp_path):
    options = ["--folds", "2", "--freeze-encoder", "--set", "hidden=0", *CLASSIFY]
    trained = command("finetune", pictures, "-o", tmp_path / "run", *options)
    assert trained.status == 0, trained.err
    assert "12 test patients in 2 folds" in trained.out
    told = command("finetune", pictures, "-o", tmp_path / "run", *options, "--resume", "--json", "-q").json()
    assert told["run"] == str(tmp_path / "run")
    assert len(told["results"]["test"]["accuracy"]["folds"]) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["finetune", "{tmp}/nowhere"], 1, "no such"),
        (["finetune", "{tmp}", "--task", "det"], 1, "task: received 'det'"),
        (["finetune", "--task", "cls"], 1, "segmentation"),
        (["finetune", "--labels", "ten"], 1, "labels: received 'ten'"),
        (["finetune", "--fold", "1"], 1, "fold: received 1"),
        (["finetune", "--set", "hidden=3"], 1, "SegmentationConfig: unknown key 'hidden'"),
        (["finetune", "--split", "{tmp}/split.json"], 1, "split.json: "),
        (["finetune", "--folds", "2", "--push-to-hub"], 2, "makes several models"),
        (["finetune", "--labels", "7"], 1, "labels: received 7"),
    ],
)
def test_errors_are_one_line_with_a_status(refuses, arguments, status, message):
    refuses(arguments, status, message)
