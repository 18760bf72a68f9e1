"""The same on a CUDA device as on the CPU: pretraining, resuming, fine-tuning, prediction, the batch that fits."""

import csv

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import modelsgenesis
from modelsgenesis import compare, describe_comparison
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.data.augmentation import Change, LabelledPatches, augment
from modelsgenesis.data.cases import PreparedCase
from modelsgenesis.errors import DataError, Interrupted
from modelsgenesis.files import read_csv
from modelsgenesis.reporting import Reporter

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
NETWORK = GenesisUNetConfig(widths=(4, 8), norm="instance")
CONFIG = PretrainingConfig(
    network=NETWORK, patch_size=(16, 16, 8), batch_size=2, steps=4, workers=0, precision="float32", validation_samples=4
)


class StopsAt(Reporter):
    """Ends the run after a step, and keeps what it is told."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.notes = last, []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: int, *_: float) -> None:
        if step == self.last:
            raise Interrupted(2, "enough")


def losses(run):
    with (run / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-3), ("auto", 0.05)])
def test_pretraining_on_it_follows_the_cpu(ct_folder, tmp_path, precision, near):
    before = torch.cuda.memory_allocated()
    runs = [
        modelsgenesis.pretrain(
            ct_folder, tmp_path / device, config=CONFIG.override(precision=number), modality="ct", device=device
        )
        for device, number in (("cpu", "float32"), (DEVICE, precision))
    ]
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=near)
    assert next(modelsgenesis.from_pretrained(runs[1]).parameters()).device.type == "cpu"
    assert torch.cuda.memory_allocated() - before < 1_000_000  # it is given back


def test_the_change_of_the_device_is_noted(ct_folder, tmp_path):
    asked = {"config": CONFIG.override(checkpoint_every=1), "modality": "ct"}
    with pytest.raises(Interrupted):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", **asked, device="cpu", reporter=StopsAt(3))
    told = StopsAt()
    modelsgenesis.pretrain(ct_folder, tmp_path / "run", **asked, device=DEVICE, resume=True, reporter=told)
    assert any(f"device was cpu, now {DEVICE}" in note for note in told.notes)


def test_the_batch_that_fits_is_found_on_it(ct_folder, tmp_path):
    options = {"config": CONFIG, "modality": "ct", "device": DEVICE, "fit_batch": True}
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", **options)
    assert len(losses(run)) == CONFIG.steps


def test_fine_tuning_and_prediction_on_it_follow_the_cpu(decathlon, tmp_path):
    config = SegmentationConfig(network=NETWORK, patch_size=(16, 16, 12), steps=4, batch_size=1, workers=0)
    run, _ = modelsgenesis.finetune(decathlon, tmp_path / "model", config=config, device=DEVICE)
    scan = sorted((decathlon / "imagesTr").glob("*.nii.gz"))[0]
    paths = {device: tmp_path / f"{device}.nii.gz" for device in ("cpu", DEVICE)}
    made = [modelsgenesis.predict(run, scan, output=path, device=device).path for device, path in paths.items()]
    ours, theirs = (np.asarray(nib.load(path).dataobj) for path in made)
    assert (ours == theirs).mean() > 0.999


def test_augmentation_on_it_follows_the_cpu_and_never_waits():
    case = PreparedCase(
        name="case",
        patient="patient",
        image=np.random.default_rng(0).random((1, 40, 36, 20), np.float32),
        label=np.random.default_rng(1).integers(0, 3, (40, 36, 20), np.uint8),
    )
    patches = LabelledPatches([case], SegmentationConfig(patch_size=(32, 32, 16), samples_per_scan=8))
    image, label, change = next(iter(DataLoader(patches, batch_size=8, pin_memory=True)))
    expected = augment(image.clone(), label.clone(), Change(*change))
    given = [one.cuda(non_blocking=True) for one in (image, label)]
    change = Change(*(one.cuda(non_blocking=True) for one in change))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = augment(*given, change)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found[0].cpu(), expected[0], rtol=0, atol=2e-5)
    assert (found[1].cpu() == expected[1]).float().mean() > 0.999


def test_trainings_of_a_comparison_run_side_by_side_on_it(decathlon, tmp_path):
    settings = ["steps=4", "batch_size=2", "patch_size=16,16,16", "network.widths=4,8", "validate_every=4"]
    options = {"settings": settings, "device": DEVICE}
    compared = [
        compare(
            decathlon, tmp_path / str(jobs), comparison=describe_comparison(["scratch"], runs=2), jobs=jobs, **options
        )
        for jobs in (1, 2)
    ]
    rows = [sorted(read_csv(one.folder / "runs.csv", DataError), key=lambda row: row["seed"]) for one in compared]
    alone, beside = ([float(row["validation loss"]) for row in own] for own in rows)
    np.testing.assert_allclose(alone, beside, rtol=0.05)
    assert compared[0].results["device"] == DEVICE
