"""Somebody who reads nothing, types what they remember, forgets the output, repeats and interrupts."""

import os
import signal
import time

import nibabel as nib

SMALL = (
    "--init scratch --device cpu --set network.widths=4,8 --set patch_size=48,48,16 --set batch_size=1"
    " --set workers=0 --set overlap=0 --set bootstrap=20"
)


def test_what_was_meant_is_told_in_one_line(user):
    for line, status, words in (
        ("modelsgenesis finetnue", 2, "Did you mean 'finetune'"),
        ("modelsgenesis finetune --lr 1e-3", 2, "--set learning_rate=VALUE"),
        ("modelsgenesis finetune --set lr=1e-3", 1, "did you mean learning_rate?"),
        ("modelsgenesis finetune nowhere", 1, "nowhere"),
        ("modelsgenesis pretrain", 2, "the scans to pretrain on"),
        ("modelsgenesis info genesis-hipocampus", 1, "did you mean genesis-hippocampus-mri-3d-small"),
    ):
        output = user.types(line, expect=status)
        assert (output.stdout, output.stderr.count("\n")) == ("", 1)
        assert words in output.stderr
    assert "modelsgenesis finetune --task seg" in user.types("modelsgenesis finetune --help").stdout
    assert not (user.home / "runs").exists()


def test_a_repeat_gets_a_folder_of_its_own_and_an_interrupted_run_is_found(user):
    user.types(f"modelsgenesis finetune --steps 2 {SMALL}")
    run = user.home / "runs/finetune-2"
    process = user.starts(f"exec modelsgenesis finetune --steps 24 {SMALL}")
    deadline = time.monotonic() + 120
    while not (run / "log.csv").exists() or (run / "log.csv").read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "writing to runs/finetune-2\n" in said
    assert "--resume --output runs/finetune-2" in said
    assert "runs/finetune-2/results.json" in user.types("modelsgenesis finetune --resume --device cpu").stdout
    assert not (user.home / "runs/finetune-3").exists()


def test_the_model_of_the_last_run_segments_a_scan_that_opens(user):
    sample = user.types("python -c 'import modelsgenesis; print(*modelsgenesis.__path__)'").stdout.strip()
    user.types(f"cp {sample}/sample/images/c04_ts_abdomen_slab.nii.gz scan.nii.gz")
    assert "scan_seg.nii.gz" in user.types("modelsgenesis predict runs/finetune-2 scan.nii.gz --dry-run").stdout
    assert not (user.home / "scan_seg.nii.gz").exists()
    user.types("modelsgenesis predict runs/finetune-2 scan.nii.gz")
    scan, labels = nib.load(user.home / "scan.nii.gz"), nib.load(user.home / "scan_seg.nii.gz")
    assert labels.shape == scan.shape
    assert set(labels.get_fdata().ravel().astype(int)) <= set(range(10))
