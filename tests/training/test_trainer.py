"""The loop: what it writes, what it resumes to the bit, and how it ends when something goes wrong."""

import math
import os
import re
import shutil
import signal

import pytest
import torch
from torch import nn

import process_scenarios as scenarios
from fitted_numbers import Fit, Numbers, at, make, rows, terminate
from modelsgenesis.configs import RECIPES, PretrainingConfig, TrainingConfig
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, TrainingError
from modelsgenesis.hardware import Hardware
from modelsgenesis.networks import build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.compilation import compiler_failure, is_to_compile
from modelsgenesis.training.readings import READ_EVERY, Readings
from modelsgenesis.training.trainer import FIRST_LOSSES, DivergenceError
from modelsgenesis.training.troubles import explained
from recorded_notes import Notes


def steps_of(run):
    return [int(row["step"]) for row in rows(run / "log.csv")]


def last_step(trainer):
    return trainer.run.load_checkpoint()[0]["progress"]["step"]


def ended(folder, **options):
    """Return the folder of a run that is done."""
    trainer = make(folder, **options)
    trainer.fit()
    trainer.run.close()
    return trainer


@pytest.mark.parametrize(("optimizer", "cut"), [("sgd", 1), ("adam", 3), ("adamw", 4), ("adamw", 8), ("muon", 4)])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path, optimizer, cut):
    whole = ended(tmp_path / "whole", optimizer=optimizer)
    assert 0 < whole.progress.seconds < 3600
    assert steps_of(tmp_path / "whole") == list(range(1, 10))
    assert [int(row["step"]) for row in rows(tmp_path / "whole" / "validation.csv")] == [4, 8, 9]
    part = make(tmp_path / "part", Fit(on_loss=at(cut, terminate)), optimizer=optimizer)
    with pytest.raises(Interrupted, match=rf"interrupted at step {cut} of 9, nothing is lost; .*--resume --output"):
        part.fit()
    part.run.close()
    resumed = make(tmp_path / "part", resume=True, optimizer=optimizer)
    assert resumed.progress.step == cut
    state = torch.get_rng_state()
    resumed.fit()
    assert torch.equal(torch.get_rng_state(), state)  # dropout leaves the caller's generator as it was
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    losses = [[row["loss"] for row in rows(tmp_path / name / "log.csv")] for name in ("whole", "part")]
    assert losses[0] == losses[1]


def test_keeps_the_best_and_stops_early(tmp_path):
    kept, notes = [], Notes()

    def keep(progress, _, is_best):
        kept.extend([progress.step] * is_best)

    options = {"steps": 100, "patience": 3, "validate_every": 2, "on_validation": keep, "reporter": notes}
    progress = make(tmp_path / "run", Fit(scores=[3, 1, 2, 2, 2, 0]), **options).fit()
    assert kept == [2, 4]
    assert (progress.step, progress.best_step, progress.metrics) == (10, 4, {"value": 1})
    assert notes.notes == ["stopped early: no better validation since step 4"]


def test_a_signal_while_the_bundle_is_written_loses_nothing(tmp_path):
    trainer = make(tmp_path / "run", on_validation=lambda *_: terminate())
    with pytest.raises(Interrupted, match="interrupted at step"):
        trainer.fit()
    assert last_step(trainer) in (4, 5)  # one more step at most
    assert trainer.progress.best_step == 4


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    child = os.fork()
    if not child:
        trainer = make(tmp_path / "run", Fit(on_loss=at(2, lambda: [terminate(), terminate()])), steps=50)
        try:
            trainer.fit()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


class RootOfZero(Fit):
    """Has a loss whose gradient is infinite at the fifth step."""

    def loss(self, network, batch, items):
        loss = super().loss(network, batch, items)
        return loss if self.losses < 5 else loss + torch.sqrt(network[0].weight.sum() * 0.0)


@pytest.mark.parametrize(
    ("objective", "settings", "message", "last"),
    [
        (Fit(on_loss=at(6, lambda: math.nan)), {}, r"loss is nan at step 6 with learning rate .*: lower .*--init", 4),
        (Fit(on_loss=at(8, lambda: math.inf)), {"checkpoint_every": 1}, "loss is inf at step 8", 7),
        (RootOfZero(), {}, "the gradient is not finite at step 5", 4),
        (Fit(on_loss=at(25, lambda: 1e6)), {"steps": 40}, "above .* divergence_factor times .* at step 25", 24),
    ],
)
def test_a_divergence_ends_the_run_with_the_checkpoint_from_before(tmp_path, objective, settings, message, last):
    trainer = make(tmp_path / "run", objective, **settings)
    with pytest.raises(DivergenceError, match=message):
        trainer.fit()
    assert last_step(trainer) == last


@pytest.mark.parametrize(
    ("nan", "explodes", "message"),
    [
        (6, 0, "loss is nan at step 6 with"),
        (26, 0, "loss is nan at step 26"),
        (0, 22, "loss is .*, above .* at step 22"),
    ],
)
def test_read_late_a_divergence_is_of_its_own_step_and_spoils_no_weight(tmp_path, nan, explodes, message):
    """As on a GPU, where the steps after it have begun before it is known."""

    def happen(call):
        return math.nan if call == nan else 1e9 if call == explodes else None

    trainers = [make(tmp_path / str(every), Fit(on_loss=happen), steps=40, validate_every=20) for every in (1, 5)]
    trainers[1].readings.every = 5
    for trainer in trainers:
        with pytest.raises(DivergenceError, match=message):
            trainer.fit()
    at_once, late = trainers
    for name, value in at_once.network.state_dict().items():
        assert torch.equal(value, late.network.state_dict()[name]), name
    logs = [[row["loss"] for row in rows(trainer.run.folder / "log.csv")] for trainer in trainers]
    assert logs[0] == logs[1]
    assert len(logs[0]) == max(nan, explodes) - 1
    assert not (late.run.folder / "checkpoints").joinpath("last.pt").exists() or last_step(late) == 20


@pytest.mark.parametrize("cut", [3, 21])
def test_read_late_a_run_logs_and_resumes_as_if_read_at_once(tmp_path, cut):
    told = {"whole": Steps(), "late": Steps(), "part": Steps()}
    options = {"steps": 30, "validate_every": 14}
    whole = make(tmp_path / "whole", reporter=told["whole"], **options)
    late = make(tmp_path / "late", reporter=told["late"], **options)
    part = make(tmp_path / "part", Fit(on_loss=at(cut, terminate)), **options)
    late.readings.every = part.readings.every = 4
    whole.fit()
    late.fit()
    with pytest.raises(Interrupted, match=f"interrupted at step {cut} of 30"):
        part.fit()
    assert part.progress.step == last_step(part) == cut  # a signal is seen in its own step
    part.run.close()
    resumed = make(tmp_path / "part", reporter=told["part"], resume=True, **options)
    resumed.readings.every = 4
    resumed.fit()
    assert told["late"].steps == told["whole"].steps == list(range(1, 31))
    assert told["part"].steps == list(range(cut + 1, 31))
    for trainer in (late, resumed):
        assert trainer.progress.first_losses == whole.progress.first_losses
        assert all(map(torch.equal, whole.network.parameters(), trainer.network.parameters()))
        logs = [[row["loss"] for row in rows(one.run.folder / "log.csv")] for one in (whole, trainer)]
        assert logs[0] == logs[1]


class Steps(Reporter):
    """Keeps the steps that it is told."""

    def __init__(self):
        self.steps = []

    def step(self, step, *_):
        self.steps.append(step)


@pytest.mark.parametrize(
    ("error", "settings", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            {},
            r"at step 3 with batch_size=2: start again with batch_size=1,",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            {"batch_size": 1},
            "again with a smaller network, or",
        ),
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure\nFor debugging …"),
            {},
            r"^the GPU failed: CUDA error: unspecified launch failure at step 3; the last checkpoint is intact: resume",
        ),
        (
            RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
            {},
            "another process has the GPU for itself: wait for its end, or choose another with CUDA_VISIBLE_DEVICES",
        ),
        (
            RuntimeError("backend='inductor' raised:\nRuntimeError: Triton Error [CUDA]: an illegal memory access\n"),
            {},
            r"^the GPU failed: Triton Error \[CUDA\]: an illegal memory access at step 3; the last checkpoint",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), {}, "^the GPU failed: cuDNN error: CUDNN_STATUS_"),
        (
            RuntimeError("Triton Error [CUDA]: out of memory"),
            {},
            "^out of memory at step 3 with batch_size=2",
        ),
    ],
)
def test_what_a_gpu_cannot_do_is_one_line_and_the_checkpoint_is_intact(tmp_path, error, settings, message):
    def fail():
        raise error

    trainer = make(tmp_path / "run", Fit(on_loss=at(3, fail)), checkpoint_every=1, **settings)
    with pytest.raises(TrainingError, match=message):
        trainer.fit()
    assert last_step(trainer) == 2


def test_out_of_memory_with_a_batch_of_one_names_half_a_patch(tmp_path):
    config = PretrainingConfig(batch_size=1, patch_size=(64, 64, 32))
    network = build_network(config.network)
    told = pytest.raises(TrainingError, match="with batch_size=1: start again with patch_size=32,64,32, or with checkp")
    with told, explained(network, config, tmp_path, lambda: 1):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(tmp_path):
    def ruin():
        with torch.no_grad():
            trainer.network[0].weight.fill_(math.inf)

    trainer = make(tmp_path / "run", Fit(on_validate=at(2, ruin)))
    with pytest.raises(DivergenceError, match="weights are not finite after step 8; lower"):
        trainer.fit()
    assert last_step(trainer) == 4


@pytest.mark.parametrize(
    ("first", "loss", "factor"),
    # A sigmoid answers in [0, 1], so the worst loss is 1; the first losses of that network are about 0.1.
    [(0.7, 3.0, 1000.0), (0.1, 1e9, 0.0), (0.02, 1.0, RECIPES["2019"].divergence_factor)],
)
def test_what_is_no_explosion(tmp_path, first, loss, factor):
    constant = Fit()
    constant.loss = lambda network, batch, _: network(batch).mean() * 0 + loss
    trainer = make(tmp_path / "run", constant, divergence_factor=factor)
    trainer.progress.first_losses = [first] * 20
    assert trainer.fit().step == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_vanishes_is_one_line(tmp_path, workers):
    def vanish():
        raise DataError("volumes/ab/abc.npy: a prepared volume is gone or damaged; build again")

    trainer = make(tmp_path / "run", Fit(Numbers(at=9, happen=vanish)), workers=workers, checkpoint_every=1)
    with pytest.raises((DataError, TrainingError), match=r"^volumes/ab/abc\.npy: a prepared volume is gone or damaged"):
        trainer.fit()
    assert last_step(trainer) >= 3


def test_a_loader_process_that_dies_is_one_line(tmp_path):
    dies = Numbers(at=23, happen=lambda: os.kill(os.getpid(), signal.SIGKILL))
    trainer = make(tmp_path / "run", Fit(dies), workers=1, steps=20)
    with pytest.raises(TrainingError, match=r"a loader process died at step \d+: .*intact, resume with fewer workers"):
        trainer.fit()
    assert last_step(trainer) in (4, 8, 12)


def test_refuses_to_resume_with_other_data(tmp_path):
    ended(tmp_path / "run")
    with pytest.raises(TrainingError, match="an epoch had 7 samples, now 8; resume with the scans"):
        make(tmp_path / "run", Fit(Numbers(size=8)), resume=True)


def test_what_changes_the_last_bits_is_said(tmp_path, monkeypatch):
    notes = Notes()
    run = ended(tmp_path / "run").run
    state, _ = run.load_checkpoint()
    assert TrainingConfig.from_dict(state["config"]).steps == 9
    state["versions"] |= {"torch": "2.0"}
    run.save_checkpoint(state)
    monkeypatch.setattr("modelsgenesis.training.trainer.is_to_compile", lambda config, *_: config.compile is True)
    make(tmp_path / "run", resume=True, reporter=notes, compile=True).fit()
    assert re.search("perhaps not to the bit: hardware was .*adamw, now .*compiled; torch was 2.0, now", notes.notes[0])


def test_a_network_that_is_compiled_again_by_itself_is_no_change(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    monkeypatch.setattr("modelsgenesis.training.trainer.is_to_compile", lambda config, *_: config.compile == "auto")
    notes = Notes()
    ended(tmp_path / "run", compile="auto")
    make(tmp_path / "run", resume=True, reporter=notes, compile="auto").fit()
    assert notes.notes == []


def broken(network):
    """Return a network as a compiler does that fails after it has moved averages and random numbers."""

    def forward(batch):
        network(batch)
        raise RuntimeError("cl.exe: not found")

    return forward


def with_averages():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def test_a_compiler_that_fails_is_done_without_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        ConfigurationError, match=r"compile: the first step failed: cl\.exe: not found; set compile=false"
    ):
        make(tmp_path / "asked", compile=True).fit()
    monkeypatch.setattr("modelsgenesis.training.trainer.is_to_compile", lambda config, *_: config.compile == "auto")
    networks, notes = [], Notes()
    for choice in ("auto", False):
        trainer = make(tmp_path / str(choice), network=with_averages, compile=choice, reporter=notes)
        trainer.fit()
        networks.append(trainer.network.state_dict())
    assert notes.notes == ["compile: off, it failed: cl.exe: not found"]
    assert all(map(torch.equal, networks[0].values(), networks[1].values()))


@pytest.mark.parametrize("compiles", ["auto", True])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "^the GPU failed: CUDA error: unspecified"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "^out of memory at step 1 "),
    ],
)
def test_a_card_that_is_lost_in_the_first_step_is_no_compiler_that_fails(
    tmp_path, monkeypatch, compiles, error, message
):
    def fail():
        raise error

    monkeypatch.setattr(torch, "compile", lambda network: network)
    monkeypatch.setattr("modelsgenesis.training.trainer.is_to_compile", lambda *_: True)
    notes = Notes()
    with pytest.raises(TrainingError, match=message):
        make(tmp_path / "run", Fit(on_loss=at(1, fail)), compile=compiles, reporter=notes).fit()
    assert notes.notes == []


@pytest.mark.parametrize("text", ["device kernel image is invalid", "a PTX JIT compilation failed"])
def test_a_kernel_that_cannot_be_loaded_is_a_compiler_that_fails(text):
    assert compiler_failure(RuntimeError(f"Triton Error [CUDA]: {text}")) == f"Triton Error [CUDA]: {text}"


class Mark:
    """An event of a `Card`."""

    def __init__(self, card):
        self.card = card

    def synchronize(self):
        self.card.now = max(self.card.now, self.at)

    def elapsed_time(self, other):
        return 1000 * (other.at - self.at)


class Card:
    """A GPU of 20 s a step on a clock of its own: to launch a step takes the host one, and an event is waited for."""

    def __init__(self):
        self.now = self.free = 0

    def launch(self, _=None):
        self.now += 1
        self.free = max(self.free, self.now) + 20

    def record_event(self, mark):
        mark.at = max(self.free, self.now)
        return mark


@pytest.mark.parametrize(("loading", "step_takes"), [(1, 20), (60, 61)])
def test_the_speed_is_that_of_the_card_or_the_loader_and_not_of_launching(tmp_path, monkeypatch, loading, step_takes):
    card, told = Card(), {}

    class Told(Reporter):
        def step(self, step, loss, samples_per_second, waiting):
            told[step] = (card.now, samples_per_second, waiting)

    class Loaded(Numbers):
        def __getitem__(self, item):
            card.now += loading / 2  # of a batch of two
            return super().__getitem__(item)

    def measure(_):
        card.now += 5_000

    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: card)
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: Mark(card))
    monkeypatch.setattr("modelsgenesis.training.trainer.time.perf_counter", lambda: card.now)
    fit = Fit(Loaded(), on_loss=card.launch, on_validate=measure)
    trainer = make(tmp_path / "run", fit, steps=150, validate_every=75, reporter=Told())
    trainer.readings = Readings(torch.device("cuda"))
    trainer.fit()
    assert list(told) == list(range(1, 151))
    for _, speed, waiting in told.values():
        assert speed == pytest.approx(2 / step_takes, rel=0.1)
        assert waiting == pytest.approx(loading / step_takes, rel=0.1)
    # From the end of one group to that of another, as `benchmarks/training.py` counts.
    first, last = FIRST_LOSSES + READ_EVERY, FIRST_LOSSES + 5 * READ_EVERY
    assert told[last][0] - told[first][0] == step_takes * (last - first)


@pytest.mark.parametrize(
    ("device", "settings", "steps", "note"),
    [
        ("cuda", {}, 100_000, "compile: on; the first step takes half a minute longer, compile=false does without"),
        ("cuda", {}, 1_000, None),
        ("cuda", {"compile": True}, 10, "compile: on"),
        ("cuda", {"compile": False}, 100_000, None),
        ("cuda", {"checkpoint_activations": True}, 100_000, None),
        ("cpu", {}, 100_000, None),
    ],
)
def test_a_network_is_compiled_on_a_gpu_where_it_pays(monkeypatch, device, settings, steps, note):
    hardware, notes = Hardware(torch.device(device)), Notes()
    monkeypatch.setattr("modelsgenesis.hardware.find_spec", lambda _: "there")
    assert is_to_compile(TrainingConfig(**settings), hardware, 19_000_000, steps, notes) is bool(note)
    assert len(notes.notes) == bool(note)
    assert all(one.startswith(note) for one in notes.notes)
    monkeypatch.setattr("modelsgenesis.hardware.find_spec", lambda _: None)
    if note and not settings:
        assert not is_to_compile(TrainingConfig(), hardware, 19_000_000, steps, notes)
        assert notes.notes[1].startswith("compile: on CUDA it needs Triton")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler warns of its own deprecations
@pytest.mark.parametrize("norm", ["instance", "running"])
def test_a_compiled_network_learns_the_same_under_the_same_names(tmp_path, norm):
    options = {"norm": norm, "steps": 6, "validate_every": 3}
    networks = [scenarios.train(tmp_path / str(it), **options, compile=it) for it in (False, True)]
    assert list(networks[0].state_dict()) == list(networks[1].state_dict())
    losses = [[float(row["loss"]) for row in rows(tmp_path / str(it) / "log.csv")] for it in (False, True)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
