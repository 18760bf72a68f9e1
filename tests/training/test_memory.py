import copy

import pytest
import torch

from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import Hardware
from modelsgenesis.networks import build_network
from modelsgenesis.training import memory
from modelsgenesis.training.memory import Trial, available_memory, largest_batch, largest_patch, peak_memory

CPU = torch.device("cpu")
HARDWARE = Hardware(CPU)
CONFIG = PretrainingConfig(
    network=GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance"), patch_size=(256, 256), batch_size=2
)
MEGABYTE = 2**20


@pytest.fixture
def trial():
    return Trial(build_network(CONFIG.network), CONFIG, HARDWARE)


def test_the_peak_is_what_was_taken_for_a_while():
    taken = peak_memory(lambda: torch.ones(64 * MEGABYTE // 4).sum(), CPU)
    assert 60 * MEGABYTE < taken < 90 * MEGABYTE


def test_memory_that_is_free_is_shared_by_the_processes_of_a_machine(monkeypatch):
    whole = available_memory(HARDWARE)
    assert whole > 100 * MEGABYTE
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert available_memory(HARDWARE) < whole / 500


def test_a_trial_leaves_the_network_alone():
    network = build_network(CONFIG.network)
    before = copy.deepcopy(network.state_dict())
    Trial(network, CONFIG, HARDWARE).step(2, (16, 16))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_batch_that_is_found_takes_about_the_memory_that_there_is(trial):
    budget = 400 * MEGABYTE
    fits = largest_batch(trial, budget, most=1000)
    assert 2 < fits < 1000
    assert 0.6 * budget < trial.peak(fits, CONFIG.patch_size) < 1.2 * budget
    assert largest_batch(trial, budget, most=3) == 3


def test_the_patch_that_is_found_takes_about_the_memory_that_there_is(trial):
    budget = 200 * MEGABYTE
    patch = largest_patch(trial, budget, (4096, 4096))
    assert all(side % 2 == 0 for side in patch)
    assert max(patch) <= 1.1 * min(patch)
    assert 0.5 * budget < trial.peak(CONFIG.batch_size, patch) < 1.3 * budget
    assert largest_patch(trial, budget, (50, 33)) == (50, 32)


def test_says_when_nothing_fits(trial):
    with pytest.raises(ConfigurationError, match=r"not one patch of \(256, 256\) fits into .* set patch_size smaller"):
        largest_batch(trial, 1000, most=10)
    with pytest.raises(ConfigurationError, match=r"a batch of 2 patches of .* does not fit into"):
        largest_patch(trial, -1, (64, 64))


def test_a_device_that_runs_out_of_memory_is_a_large_peak(trial, monkeypatch):
    peaks = iter([10 * MEGABYTE, 10 * MEGABYTE])

    def peak(work, _device):
        if (taken := next(peaks, None)) is None:
            raise torch.OutOfMemoryError
        return taken

    monkeypatch.setattr(memory, "peak_memory", peak)
    assert largest_batch(trial, 400 * MEGABYTE, most=10) == 1  # two were too many


def test_says_when_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free_memory", lambda _: None)
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "no")
    with pytest.raises(ConfigurationError, match="does not tell its memory"):
        available_memory(HARDWARE)
    with pytest.raises(ConfigurationError, match="does not tell its memory"):
        peak_memory(lambda: None, CPU)
