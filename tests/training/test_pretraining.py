import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from modelsgenesis.configs import CONTRACTS, GenesisUNetConfig, PretrainingConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.pretext import Deformation
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import pretrain_network
from modelsgenesis.training.pretraining import Restoration, fix_pairs

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


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


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


def test_refuses_intensities_outside_the_unit_range(tmp_path):
    contract = CONTRACTS["ct"].override(intensity="zscore")
    with pytest.raises(ConfigurationError, match="intensity 'zscore' leaves \\[0, 1\\], which the deformations assume"):
        pretrain_network(
            network=GenesisUNet(CONFIG.network),
            config=CONFIG,
            contract=contract,
            training=Waves(),
            validation=Waves(),
            output=tmp_path / "run",
            split={},
            data={},
            hardware=choose_hardware("cpu"),
            reporter=Reporter(),
        )
