"""The same on a CUDA device as on the CPU: pretraining, resuming, fine-tuning, prediction, the batch that fits."""

import csv
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import modelsgenesis
from modelsgenesis import compare, describe_comparison
from modelsgenesis.configs import GenesisUNetConfig, PredictionConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.data.augmentation import Change, LabelledPatches, augment
from modelsgenesis.data.cases import PreparedCase
from modelsgenesis.errors import DataError, Interrupted
from modelsgenesis.files import read_csv
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.inference.sliding_window import sliding_window
from modelsgenesis.networks import build_network
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


@pytest.fixture(scope="module")
def fine_tuned(decathlon, tmp_path_factory):
    config = SegmentationConfig(network=NETWORK, patch_size=(16, 16, 12), steps=4, batch_size=1, workers=0)
    return modelsgenesis.finetune(decathlon, tmp_path_factory.mktemp("cuda") / "model", config=config, device=DEVICE)[0]


@pytest.mark.parametrize(("precision", "alike"), [("float32", 0.9999), ("auto", 0.999), ("bfloat16", 0.98)])
def test_label_maps_on_it_are_those_of_the_cpu(fine_tuned, decathlon, tmp_path, precision, alike):
    scans = sorted((decathlon / "imagesTr").glob("*.nii.gz"))[:3]
    maps = {}
    for device, number in (("cpu", "float32"), (DEVICE, precision)):
        options = {"config": PredictionConfig(precision=number), "device": device, "strict": True}
        found = modelsgenesis.predict_all(fine_tuned, scans, output=tmp_path / device, **options)
        maps[device] = np.stack([one.labels for one in found.predictions])
    assert (maps["cpu"] == maps[DEVICE]).mean() > alike


def noise(*sides):
    return torch.rand(1, *sides, generator=torch.Generator().manual_seed(0))


def windows_over(image, hardware, **options):
    torch.manual_seed(0)
    network = hardware.place(build_network(NETWORK.override(out_channels=3, output="linear")).eval())
    told = StopsAt()
    result = sliding_window(
        network, image, patch_size=(32, 32, 32), hardware=hardware, config=PredictionConfig(**options), reporter=told
    )
    return result.cpu(), told.notes


def test_a_scan_waits_for_it_as_often_whatever_the_number_of_windows():
    def waits(at_once):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                windows_over(noise(96, 96, 96), choose_hardware(DEVICE, "float32"), windows_at_once=at_once)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(one.message) for one in caught)

    windows_over(noise(96, 96, 96), choose_hardware(DEVICE, "float32"))  # what is done once
    assert waits(1) == waits(200)


def test_fewer_windows_at_once_where_its_memory_does_not_last():
    image, total = noise(128, 128, 128), torch.cuda.get_device_properties(0).total_memory
    expected, _ = windows_over(image, choose_hardware("cpu", "float32"))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(4e8 / total)
    try:
        result, notes = windows_over(image, choose_hardware(DEVICE, "float32"), windows_at_once=1000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("its memory did not last; now" in note for note in notes)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


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
