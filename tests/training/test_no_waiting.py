"""A training step on a GPU waits for nothing: shown on tensors without numbers, of which none can be read."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fitted_numbers import Fit, make
from modelsgenesis.configs import GenesisUNetConfig
from modelsgenesis.networks import GenesisUNet


class Copy(Fit):
    """Fit the batch itself."""

    def loss(self, network, batch, items):
        return (network(batch).float() - batch).square().mean()


@pytest.mark.parametrize(("optimizer", "norm"), [("sgd", "batch"), ("adam", "instance"), ("adamw", "batch")])
def test_no_step_reads_a_number(tmp_path, monkeypatch, optimizer, norm):
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_: self)  # it swaps tensors, which cannot be done to these
    with FakeTensorMode():
        trainer = make(
            tmp_path / "run",
            Copy(),
            network=lambda: GenesisUNet(GenesisUNetConfig(widths=(4, 8), norm=norm)),
            optimizer=optimizer,
            steps=100,
        )
        trainer.readings.every = 8
        trainer._begin(compiled=False)
        batches = iter([(torch.rand(2, 1, 8, 8, 8), [0, 1])] * 8)
        for _ in range(7):
            assert trainer._step(batches, []) == 0
            trainer._report(everything=False)
        assert trainer.readings.pending == trainer.progress.step == 7
        assert trainer._step(batches, []) == 0
        trainer._report(everything=False)  # sends the eight steps, and reads none of them
        assert trainer.readings.pending == 8
        with pytest.raises(DataDependentOutputException):
            trainer._report(everything=True)
    assert not (tmp_path / "run" / "log.csv").exists()
