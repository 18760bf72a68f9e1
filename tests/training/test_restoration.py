"""The objective of pretraining: baselines, collapse, deformations that follow from item and seed."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from modelsgenesis.configs import SCHEMES, GenesisUNetConfig, PretrainingConfig
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import GenesisUNet
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.restoration import Restoration, take_patches
from recorded_notes import Notes

CONFIG = PretrainingConfig(
    network=GenesisUNetConfig(widths=(4, 8), norm="instance"),
    patch_size=(16, 16, 16),
    batch_size=2,
    validation_samples=4,
)
CPU = choose_hardware("cpu", "float32")


class Waves(Dataset):
    """Smooth patches in [0, 1]."""

    def __len__(self):
        return 8

    def __getitem__(self, item):
        phase = torch.arange(16) / 4 + item
        return (torch.sin(phase)[None, :, None, None] / 2 + 0.5).expand(1, 16, 16, 16).clone()


class Dead(nn.Module):
    """Answers the same whatever it sees."""

    def __init__(self):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(0.4))

    def forward(self, x):
        return self.answer.expand_as(x)


def restoration(reporter=None, **changes):
    return Restoration(Waves(), Waves(), CONFIG.override(**changes), CPU, reporter or Reporter())


def test_the_baselines_are_those_of_trivial_answers():
    objective = restoration()
    identity = (objective.deformed - objective.original).square().mean().item()
    mean_image = torch.stack([Waves()[item] for item in range(32)]).mean(dim=0)
    constant = (mean_image - objective.original).square().mean().item()
    assert objective.baselines["identity_loss"] == pytest.approx(identity, rel=1e-5)
    assert objective.baselines["mean_image_loss"] == pytest.approx(constant, rel=1e-5)
    _, metrics = objective.validate(nn.Identity())
    assert metrics["restoration_loss"] == pytest.approx(metrics["identity_loss"], rel=1e-6)


def test_deformations_are_a_function_of_item_and_seed():
    objective = restoration()
    batch, network = torch.stack([Waves()[3], Waves()[5]]), GenesisUNet(CONFIG.network)
    first, again, later = (objective.loss(network, batch, items).item() for items in ([3, 5], [3, 5], [11, 13]))
    assert first == again != later


@pytest.mark.parametrize("scheme", ["VI", "identity"])
def test_the_deformed_voxels_count_again_by_their_weight(scheme):
    batch, network = torch.stack([Waves()[3], Waves()[5]]), nn.Identity()
    plain, weighed = (
        restoration(pretext=SCHEMES[scheme], deformed_weight=weight).loss(network, batch, [3, 5]).item()
        for weight in (0, 0.5)
    )
    if scheme == "identity":  # nothing is deformed, and nothing divided by nothing
        assert plain == weighed == 0
        return
    # The network returns what it sees, so that every error lies in the deformed voxels: by their share it is larger.
    objective = restoration(pretext=SCHEMES[scheme])
    deformed, original = objective.deformation(batch, torch.tensor([3, 5]) + 2 * 2**40)
    share = ((deformed - original).abs() > 1e-3).float().mean().item()
    assert 0 < share < 0.5
    assert weighed == pytest.approx(plain * (1 + 0.5 / share), rel=1e-3)


def test_deformations_that_cannot_be_compiled_are_said_once_and_done_all_the_same(monkeypatch):
    notes, network = Notes(), nn.Identity()
    objective = Restoration(Waves(), Waves(), CONFIG, CPU, notes)
    batch, deform, asked = torch.stack([Waves()[0], Waves()[1]]), objective.deformation.deform, []
    expected = Restoration(Waves(), Waves(), CONFIG, CPU, Reporter()).loss(network, batch, [0, 1])

    def fail(batch, seeds, *, compiles=False):
        asked.append(compiles)
        if compiles:
            raise RuntimeError("no Triton\nfor this card")
        return deform(batch, seeds)

    network._orig_mod = None  # as torch.compile's networks have
    monkeypatch.setattr(objective.deformation, "deform", fail)
    for _ in range(2):
        assert torch.equal(objective.loss(network, batch, [0, 1]), expected)
    assert asked == [True, False, False]
    assert notes.notes == ["compile: of the network alone, of the deformations it failed: for this card"]


def test_a_card_that_is_lost_is_no_compiler_that_fails(monkeypatch):
    network, batch = nn.Identity(), torch.stack([Waves()[0], Waves()[1]])
    network._orig_mod = None  # as torch.compile's networks have
    lost, full = RuntimeError("CUDA error: unspecified launch failure"), torch.OutOfMemoryError("CUDA out of memory.")
    wrapped = RuntimeError("backend='inductor' raised:")
    wrapped.inner_exception = full
    later = ValueError("later")
    for first, then, raised in ((lost, None, lost), (wrapped, None, full), (None, later, later)):
        notes, happens = Notes(), [then, first]
        objective = Restoration(Waves(), Waves(), CONFIG, CPU, notes)

        def deform(batch, seeds, *, compiles=False, happens=happens):
            if error := happens.pop():
                raise error
            return batch, batch

        monkeypatch.setattr(objective.deformation, "deform", deform)
        with pytest.raises(type(raised), match=str(raised)):
            [objective.loss(network, batch, [0, 1]) for _ in range(2)]
        assert notes.notes == []


def test_a_collapse_is_said_when_it_comes_and_when_it_is_over():
    notes = Notes()
    objective = restoration(notes)
    assert objective.validate(nn.Identity())[1]["collapsed"] == 0.0
    assert notes.notes == []
    for _ in range(2):  # once
        score, metrics = objective.validate(Dead())
    assert (metrics["collapsed"], metrics["output_spread"], score) == (1.0, 0, metrics["restoration_loss"])
    objective.validate(nn.Identity())
    assert [note.partition(":")[0] for note in notes.notes] == ["collapse", "the collapse is over"]
    assert restoration(validation_samples=1).validate(Dead())[1]["collapsed"] == 0.0


def test_a_few_patches_show_all_of_the_scans():
    class Numbered(list):
        per_scan = 4

        def __getitem__(self, item):
            return torch.tensor(item)

    # Beyond the epoch, the next one draws anew.
    assert take_patches(Numbered(range(8)), 10).tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12]
