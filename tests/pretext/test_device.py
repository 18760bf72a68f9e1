"""What deforming asks of a CUDA device: few operators, and never to wait."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fake_device import Counting, fake_cuda
from modelsgenesis.configs import SCHEMES, PretextConfig
from modelsgenesis.hardware import Hardware
from modelsgenesis.pretext import Deformation, deformations, draw_seeds, implants, random, shuffling
from modelsgenesis.training.readings import Readings

KEPT = [
    value
    for module in (random, deformations, implants, shuffling)
    for value in vars(module).values()
    if hasattr(value, "forget")
]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    for where in ("before", "after"):
        for function in KEPT:
            function.forget()
        if where == "before":
            yield


@pytest.mark.parametrize(
    ("shape", "seeds_on", "scheme", "most"),
    [
        ((6, 1, 64, 64, 32), "cpu", "V", 125),
        ((6, 2, 96, 96), "cuda", "V", 240),
        ((6, 1, 64, 64, 32), "cpu", "VI", 245),
    ],
)
def test_deforming_a_batch_never_waits_and_takes_few_operators(
    shape: tuple[int, ...], seeds_on: str, scheme: str, most: int
) -> None:
    shuffling.window_table(shape[2:], 10, torch.device("cpu"))  # made once, and only then sent to the device
    counting = Counting()
    with fake_cuda() as empty:
        batch, seeds = empty(shape), torch.empty(shape[0], dtype=torch.int64, device=seeds_on)
        deform = Deformation(SCHEMES[scheme]).deform
        deform(batch, seeds)  # sends what is kept there
        with counting:
            deformed, target = deform(batch, seeds)
    assert deformed.device.type == target.device.type == "cuda"
    assert deformed.shape == target.shape == shape
    assert 50 < counting.operators.total() <= most


@pytest.mark.parametrize("shape", [(6, 2, 32, 32, 16), (6, 1, 40, 30)])
def test_what_a_device_does_without_asking_how_many_are_chosen_is_what_the_cpu_does(shape: tuple[int, ...]) -> None:
    config, batch = PretextConfig(shuffle_windows=300), torch.rand(shape)
    seeds = draw_seeds(6, torch.Generator().manual_seed(0))
    is_chosen = random.uniform(random.draw_words(seeds, "shuffle", 1)[:, 0]) < 0.5
    assert 0 < is_chosen.sum() < 6
    shuffled = shuffling.shuffle(batch, seeds, config)
    assert torch.equal(shuffling.permute(batch, seeds, is_chosen, config), shuffled)
    is_flipped = torch.arange(6)[:, None] >> torch.arange(len(shape) - 2) & 1
    expected = [
        sample.flip([axis + 1 for axis, flips in enumerate(chosen) if flips])
        for sample, chosen in zip(batch, is_flipped.tolist(), strict=True)
    ]
    assert torch.equal(deformations.look_up_flipped(batch, is_flipped), torch.stack(expected))


def test_hashing_all_streams_at_once_gives_each_ones_numbers() -> None:
    seeds = draw_seeds(5, torch.Generator().manual_seed(0))
    hashed = random.hash_seeds(seeds)
    for stream, count in (("flip", 6), ("painting", 64), ("painting", 65), ("a name of its own", 3)):
        assert torch.equal(random.draw_words(hashed, stream, count), random.draw_words(seeds, stream, count))


@pytest.mark.parametrize(("device", "is_late"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_only_cuda_is_sent_to_without_waiting(monkeypatch: pytest.MonkeyPatch, device: str, is_late: bool) -> None:
    """Others would read memory that has been given back, for what is sent may live no longer than the call."""
    asked: list[bool] = []

    def to(tensor: torch.Tensor, _: object, *, non_blocking: bool) -> torch.Tensor:
        asked.append(non_blocking)
        return tensor

    tensor, chosen = torch.zeros(2), torch.device(device)
    monkeypatch.setattr(torch.Tensor, "to", to)
    random.send(tensor, chosen)
    Hardware(chosen).place(tensor)
    if device != "cuda":  # which notes an event there, too
        readings = Readings(chosen)
        readings.begin()
        readings.add((1, 0.1, 0.0), tensor)
        ((row, _, numbers),) = readings.take()
        assert (row, numbers) == ((1, 0.1, 0.0), [0, 0])
    assert set(asked) == {is_late}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["V", "VI"])
def test_the_compiler_takes_the_deformations_of_a_device_whole(scheme: str) -> None:
    """On the meta device, of shapes alone; fusing them for a CPU takes a minute."""
    batch, seeds = torch.empty(6, 1, 32, 32, 16, device="meta"), torch.empty(6, dtype=torch.int64, device="meta")
    deform = Deformation(SCHEMES[scheme])
    deform._deform(batch, seeds)
    compiled = torch.compile(deform._deform, backend="aot_eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        deformed, target = compiled(batch, seeds)
    assert deformed.shape == target.shape == batch.shape


def test_painting_views_no_bytes_as_bools() -> None:
    """For which torch's compiler writes what Triton refuses, on a GPU alone."""

    class Views(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            viewed.extend(args[1:] if function is torch.ops.aten.view.dtype else ())
            return function(*args, **(kwargs or {}))

    viewed: list[torch.dtype] = []
    with Views():
        deformations.paint(torch.rand(2, 1, 16, 16, 8), torch.arange(2), PretextConfig())
    assert set(viewed) == {torch.int16, torch.int32}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler warns of its own deprecations
def test_the_compiler_makes_code_of_painting_that_paints_the_same() -> None:
    """Down to C++, which a compiler of shapes never gets to."""
    batch, seeds, config = torch.rand(6, 1, 16, 16, 8), torch.arange(6), PretextConfig()
    expected = deformations.paint(batch, seeds, config)
    assert not torch.equal(expected, batch)
    painted = torch.compile(deformations.paint, fullgraph=True, dynamic=False)(batch, seeds, config)
    torch.testing.assert_close(painted, expected, atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_compiled_it_is_the_same_and_is_not_waited_for() -> None:
    batch, seeds = torch.rand(6, 1, 64, 64, 32), torch.arange(6)
    expected, batch = Deformation()(batch, seeds), batch.cuda()
    deform = Deformation().deform
    deform(batch, seeds, compiles=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pairs = deform(batch, seeds, compiles=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(pairs, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_a_real_device_is_never_waited_for() -> None:
    """`set_sync_debug_mode` raises at whatever waits; the first call makes and sends what is kept."""
    batch, seeds = torch.rand(6, 1, 64, 64, 32).cuda(), torch.arange(6)
    expected = Deformation().deform(batch, seeds)
    torch.cuda.set_sync_debug_mode("error")
    try:
        deformed = Deformation().deform(batch, seeds)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(deformed, expected, strict=True):
        assert torch.equal(one, other)
