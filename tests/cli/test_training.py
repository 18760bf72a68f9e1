import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import pytest

TINY = [
    *("--set", "network.widths=8,16", "--set", "patch_size=16,16,12", "--set", "samples_per_scan=2"),
    *("--set", "batch_size=2", "--set", "validate_every=2", "--set", "workers=0", "--device", "cpu"),
]
PRETRAIN = [*TINY, "--set", "validation_samples=2", "--modality", "ct"]


@pytest.fixture(scope="module")
def run(ct_folder, tmp_path_factory):
    from modelsgenesis.cli import main

    folder = tmp_path_factory.mktemp("runs") / "genesis"
    arguments = ["modelsgenesis", "pretrain", str(ct_folder), "-o", str(folder), "--steps", "4", *PRETRAIN, "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder


def test_pretrain_prints_the_loss_beside_its_baselines(command, ct_folder, tmp_path):
    result = command("pretrain", ct_folder, "-o", tmp_path / "run", "--steps", 2, *PRETRAIN)
    assert result.status == 0
    for words in ("restoration loss", "identity loss", "mean image loss"):
        assert words in result.out
        assert words in result.err
    assert "training: 2 steps" in result.err


def test_pretrain_in_json(command, ct_folder, tmp_path):
    result = command("pretrain", ct_folder, "-o", tmp_path / "run", "--steps", 2, *PRETRAIN, "--json", "--quiet")
    assert set(result.json()["results"]) >= {"restoration_loss", "identity_loss", "mean_image_loss", "step"}
    assert result.err == ""


def test_finetune_and_predict(command, decathlon, run, tmp_path):
    trained = command("finetune", decathlon, "--init", run, "-o", tmp_path / "seg", "--steps", 2, *TINY, "--json")
    assert trained.status == 0
    assert "dice bright" in trained.json()["results"]["test"]
    scan = next(iter(sorted((decathlon / "imagesTr").iterdir())))
    answer = tmp_path / "answer.nii.gz"
    predicted = command("predict", tmp_path / "seg", scan, "-o", answer, "--device", "cpu")
    assert predicted.status == 0
    assert predicted.out.splitlines()[0] == str(answer)
    assert nib.load(answer).shape == nib.load(scan).shape
    told = command("predict", tmp_path / "seg", scan, "-o", answer, "--device", "cpu", "--json").json()
    assert told["path"] == str(answer)
    assert set(told["voxels"]) == {"bright", "dark"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pretrain", "{tmp}/nowhere"], 1, "error: .*nowhere"),
        (["pretrain", "{tmp}"], 1, "no usable scan"),
        (["pretrain", "{ct}", "--recipe", "smal"], 1, "recipe: received 'smal'; did you mean small"),
        (["pretrain", "{ct}", "--scheme", "VI"], 1, "scheme: received 'VI'"),
        (["pretrain", "{ct}", "--set", "lr=1"], 1, "unknown key 'lr'"),
        (["pretrain", "{ct}", "--spacing", "1,x"], 2, "expected numbers with commas"),
        (["pretrain", "{ct}", "--steps", "0"], 2, "Invalid value"),
        (["pretrain", "{ct}", "--modality", "pet"], 1, "modality: received 'pet'"),
        (["pretrain", "{ct}", "--device", "abacus"], 1, "device: received 'abacus'"),
        (["pretrain", "{ct}", "--init", "genesis-chest-ct"], 1, "did you mean genesis-chest-ct-3d"),
        (["pretrain", "{ct}", "-o", "{ct}"], 1, "is not empty"),
        (["pretrain", "{ct}", "--resume"], 1, "holds no run to resume"),
        (["pretrain"], 2, "Missing argument"),
        (["finetune", "{tmp}"], 1, "no dataset.json"),
        (["finetune", "{tmp}", "--task", "det"], 1, "task: received 'det'"),
        (["predict", "{tmp}", "scan.nii.gz"], 1, "no config.json in it"),
        (["predict", "no-such-model", "scan.nii.gz"], 1, "no-such-model"),
        (["pretend"], 2, "No such command 'pretend'"),
    ],
)
def test_errors_are_one_line_with_a_status(command, ct_folder, tmp_path, arguments, status, message):
    import re

    places = {"{tmp}": str(tmp_path), "{ct}": str(ct_folder)}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    if arguments[0] != "predict" and "-o" not in arguments:
        arguments = [*arguments, "-o", str(tmp_path / "run")]
    result = command(*arguments)
    assert result.status == status, result.err
    assert re.search(message, " ".join(result.err.split())), result.err
    assert "Traceback" not in result.err
    if status == 1:
        assert result.err.strip().splitlines()[-1].startswith("error: ")


def test_an_output_that_cannot_be_written_is_one_line(command, ct_folder, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    result = command("pretrain", ct_folder, "-o", tmp_path / "run", *PRETRAIN)
    assert (result.status, "cannot be written" in result.err) == (1, True)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(ct_folder, tmp_path, signum, status):
    arguments = ["pretrain", ct_folder, "-o", tmp_path / "run", "--steps", 100_000, *PRETRAIN]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "modelsgenesis", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
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
