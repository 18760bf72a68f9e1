import csv

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.restoration import Restoration, fix_pairs, spread_items
from modelsgenesis.training.run import Run
from modelsgenesis.training.trainer import Trainer
from recorded_notes import Notes

CONFIG = PretrainingConfig(
    network=GenesisUNetConfig(widths=(4, 8), norm="instance"), patch_size=(16, 16, 16), batch_size=2
)


class Waves(Dataset):
    """Smooth sub-volumes in [0, 1]."""

    def __len__(self):
        return 8

    def __getitem__(self, item):
        phase = torch.arange(16) / 4 + item
        return (torch.sin(phase)[None, :, None, None] / 2 + 0.5).expand(1, 16, 16, 16).clone()


class Constant(nn.Module):
    """A dead network: whatever it sees, it answers the same."""

    def forward(self, x):
        return torch.full_like(x, 0.4)


def restoration(reporter=None):
    deformation = Deformation(CONFIG.pretext)
    return Restoration(
        subvolumes=Waves(),
        validation=fix_pairs(deformation, Waves(), Waves(), 4),
        deformation=deformation,
        config=CONFIG,
        hardware=choose_hardware("cpu", "float32"),
        reporter=reporter or Reporter(),
    )


def test_the_baselines_are_those_of_maps_that_learn_nothing():
    pairs = restoration().validation
    identity = (pairs.deformed - pairs.original).square().mean().item()
    mean_image = torch.stack([Waves()[item] for item in range(32)]).mean(dim=0)
    constant = (mean_image - pairs.original).square().mean().item()
    assert pairs.baselines["identity_loss"] == pytest.approx(identity, rel=1e-5)
    assert pairs.baselines["mean_image_loss"] == pytest.approx(constant, rel=1e-5)


def test_the_identity_network_has_the_loss_of_the_identity():
    objective = restoration()
    metrics = objective.validate(nn.Identity())
    assert metrics["restoration_loss"] == pytest.approx(metrics["identity_loss"], rel=1e-6)


def test_a_dead_network_is_named_within_one_validation():
    notes = Notes()
    metrics = restoration(notes).validate(Constant())
    assert metrics["output_spread"] == 0
    assert notes.notes[0].startswith("collapse: the output hardly depends on the input")


def test_a_living_network_is_not_called_collapsed():
    notes = Notes()
    restoration(notes).validate(nn.Identity())
    assert notes.notes == []


def test_deformations_are_a_function_of_item_and_seed():
    objective = restoration()
    batch = (torch.stack([Waves()[3], Waves()[5]]), torch.tensor([3, 5]))
    network = GenesisUNet(CONFIG.network)
    assert objective.loss(network, batch).item() == objective.loss(network, batch).item()
    again = (batch[0], torch.tensor([11, 13]))
    assert objective.loss(network, batch).item() != objective.loss(network, again).item()


def test_a_dead_network_is_named_within_one_validation_of_a_real_run(tmp_path):
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.answer = nn.Parameter(torch.tensor(0.4))

        def forward(self, x):
            return self.answer.expand_as(x)

    notes = Notes()
    config = CONFIG.override(steps=4, validate_every=2, workers=0)
    run = Run.open(tmp_path / "run", {"config": config.to_dict()})
    trainer = Trainer(
        network=Dead(),
        objective=restoration(notes),
        config=config,
        run=run,
        hardware=choose_hardware("cpu", "float32"),
        reporter=notes,
        keep=lambda network, progress: None,
    )
    progress = trainer.fit()
    run.close()
    assert [note.partition(":")[0] for note in notes.notes] == ["collapse"]  # once, not at each validation
    with (run.folder / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["collapsed"]) for row in rows] == [1.0, 1.0]
    assert progress.metrics["collapsed"] == 1.0


def test_the_end_of_a_collapse_is_said():
    notes = Notes()
    objective = restoration(notes)
    assert objective.validate(Constant())["collapsed"] == 1.0
    assert objective.validate(nn.Identity())["collapsed"] == 0.0
    assert notes.notes[1].startswith("no collapse any more")


def test_one_sample_is_not_called_collapsed():
    objective = restoration()
    objective.validation = fix_pairs(objective.deformation, Waves(), Waves(), 1)
    assert objective.validate(Constant())["collapsed"] == 0.0


def test_a_few_pairs_show_all_of_the_scans():
    class Scans(Waves):
        per_scan = 4  # of two scans

    assert spread_items(6, Scans()) == [0, 4, 1, 5, 2, 6]
    assert spread_items(10, Scans())[8:] == [8, 12]  # the next epoch draws anew
    assert spread_items(3, Waves()) == [0, 1, 2]
