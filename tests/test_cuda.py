"""The same on a CUDA device as on the CPU: pretraining, resuming, fine-tuning, prediction, the batch that fits."""

import csv

import nibabel as nib
import numpy as np
import pytest
import torch

import modelsgenesis
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.errors import Interrupted
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
