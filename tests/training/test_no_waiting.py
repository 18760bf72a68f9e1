"""A training step on a GPU waits for nothing: shown on tensors without numbers, of which none can be read."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fitted_numbers import Fit, Numbers, make, rows
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.readings import READ_EVERY
from modelsgenesis.training.restoration import Restoration
from modelsgenesis.training.trainer import DivergenceError


class Noise(Numbers):
    """Patches of noise in [0, 1]."""

    def __getitem__(self, item):
        return super().__getitem__(item).sigmoid()


def restoration(hardware):
    """Return the objective of a pretraining on noise."""
    data, config = Noise(shape=(1, 16, 16, 16)), PretrainingConfig(patch_size=(16, 16, 16), validation_samples=2)
    return Restoration(data, data, config, hardware, Reporter())


def small(norm):
    return GenesisUNet(GenesisUNetConfig(widths=(8, 16), norm=norm))


class Copy(Fit):
    """Restore what is shown; what deforming asks of a device has a test of its own."""

    def loss(self, network, batch, items):
        return (network(batch).float() - batch).square().mean()


@pytest.mark.parametrize(
    ("optimizer", "norm"), [("sgd", "batch"), ("adam", "instance"), ("adamw", "batch"), ("muon", "batch")]
)
def test_no_step_reads_a_number(tmp_path, monkeypatch, optimizer, norm):
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_: self)  # it swaps tensors, which cannot be done to these
    with FakeTensorMode():
        trainer = make(tmp_path / "run", Copy(), network=lambda: small(norm), optimizer=optimizer, steps=100)
        trainer.readings.every = 8
        trainer._begin(compiled=False)
        batches = iter([(torch.rand(2, 1, 16, 16, 16), [0, 1])] * 8)
        for _ in range(8):
            assert trainer._step(batches, []) == 0
            trainer._report(everything=False)  # the last time it sends the eight steps, and reads none of them
        assert trainer.readings.pending == trainer.progress.step == 8
        with pytest.raises(DataDependentOutputException):
            trainer._report(everything=True)
    assert not (tmp_path / "run" / "log.csv").exists()


@pytest.mark.gpu
@pytest.mark.parametrize(("norm", "compiled"), [("batch", False), ("instance", True)])
def test_no_step_waits_for_a_card(tmp_path, norm, compiled):
    """PyTorch itself raises where the host would wait; a reading, which waits for an event, is not among it."""
    hardware = choose_hardware("cuda")
    trainer = make(tmp_path / "run", restoration(hardware), network=lambda: small(norm), hardware=hardware, steps=100)
    trainer._begin(compiled=compiled)
    batches = iter([(torch.rand(4, 1, 16, 16, 16).pin_memory(), [0, 1, 2, 3])] * 30)
    for step in range(30):
        # In the first steps kernels are chosen, or compiled.
        torch.cuda.set_sync_debug_mode("error" if step >= 10 else "default")
        try:
            trainer._step(batches, [])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    trainer._report(everything=True)
    assert len(rows(tmp_path / "run" / "log.csv")) == 30


@pytest.mark.gpu
@pytest.mark.parametrize("nan", [6, 30])
def test_a_divergence_on_a_card_is_of_its_own_step_and_spoils_no_weight(tmp_path, nan):
    options = {"hardware": Hardware(torch.device("cuda:0")), "steps": 40, "validate_every": 20}
    trainers = [
        make(tmp_path / str(every), OnCard(on_loss=lambda call: math.nan if call == nan else None), **options)
        for every in (1, READ_EVERY)
    ]
    trainers[0].readings.every = 1
    for trainer in trainers:
        with pytest.raises(DivergenceError, match=f"loss is nan at step {nan} "):
            trainer.fit()
    assert all(map(torch.equal, trainers[0].network.parameters(), trainers[1].network.parameters()))
    logs = [[row["loss"] for row in rows(trainer.run.folder / "log.csv")] for trainer in trainers]
    assert len(logs[0]) == nan - 1
    assert logs[0] == logs[1]


class OnCard(Fit):
    """Brings its batches to the card."""

    def loss(self, network, batch, items):
        return super().loss(network, batch.cuda(non_blocking=True), items)
