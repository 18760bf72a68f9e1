"""How fast pairs to learn from are made, against a straightforward reference with one window after another.

    python benchmarks/pretext.py [--device cuda] [--quick] [--repeats 15]

Ratios of one run, in the full mixture. First what deforming a batch asks of the device and adds to a training step, in
turns with steps on a batch that is deformed already (on CUDA ten of each at a time, compiled). Then pairs a second on
one thread of the CPU: the two take turns, and what is counted is the processor's time, so that other work slows both.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modelsgenesis.configs import GENESIS_UNET_2019, PretextConfig, PretrainingConfig
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.networks import build_network
from modelsgenesis.pretext import Deformation, draw_seeds
from modelsgenesis.pretext.deformations import change_intensity, flip, paint
from modelsgenesis.pretext.shuffling import shuffle
from modelsgenesis.training.steps import Optimization

Array = NDArray[np.float32]
SHAPES = ((64, 64, 32), (128, 128, 64))
BATCH = 6


class Reference:
    """The deformations of Zhou et al. 2021, written down window by window and box by box."""

    def __init__(self, config: PretextConfig, seed: int) -> None:
        self.config = config
        self.random = np.random.default_rng(seed)

    def pair(self, volume: Array) -> tuple[Array, Array]:
        """Return the deformed volume and its target, [x, y, z] in [0, 1]."""
        target = deformed = self.flip(volume)
        if self.random.random() < self.config.shuffle_probability:
            deformed = self.shuffle(deformed)
        if self.random.random() < self.config.intensity_probability:
            deformed = self.intensity(deformed)
        if self.random.random() < self.config.painting_probability:
            inside = self.random.random() < self.config.inpainting_share
            deformed = self.in_painting(deformed) if inside else self.out_painting(deformed)
        return deformed, target

    def flip(self, volume: Array) -> Array:
        """Flip a random axis, and again, while a coin says so."""
        for _ in range(self.config.flip_limit):
            if self.random.random() >= self.config.flip_probability:
                break
            volume = np.flip(volume, int(self.random.integers(volume.ndim)))
        return np.ascontiguousarray(volume)

    def shuffle(self, volume: Array) -> Array:
        """Permute one window after another; drawn in one call, or drawing them would take longest."""
        size, windows = np.array(volume.shape), self.config.shuffle_windows
        longest = np.maximum(size // self.config.shuffle_fraction, 1)
        sides = self.random.integers(1, longest, (windows, volume.ndim), endpoint=True)
        origins = self.random.integers(0, size - sides, endpoint=True)
        result = volume.copy()
        for origin, side in zip(origins.tolist(), sides.tolist(), strict=True):
            box = tuple(slice(first, first + length) for first, length in zip(origin, side, strict=True))
            window = volume[box]
            result[box] = self.random.permutation(window.ravel()).reshape(window.shape)
        return result

    def intensity(self, volume: Array) -> Array:
        """Map intensities by a curve of a thousand points."""
        t = np.linspace(0, 1, 1000)
        (x1, x2), (y1, y2) = self.random.random((2, 2))
        x = 3 * t * (1 - t) ** 2 * x1 + 3 * t**2 * (1 - t) * x2 + t**3
        y = 3 * t * (1 - t) ** 2 * y1 + 3 * t**2 * (1 - t) * y2 + t**3
        if self.random.random() >= 0.5:
            y = y[::-1]
        return np.interp(volume, x, y).astype(np.float32)

    def in_painting(self, volume: Array) -> Array:
        """Fill up to five boxes with noise."""
        result = volume.copy()
        for _ in range(5):
            if self.random.random() >= 0.95:
                break
            sides = [self.random.integers(size // 6, size // 3, endpoint=True) for size in volume.shape]
            result[self.box(volume.shape, sides)] = self.random.random(sides, dtype=np.float32)
        return result

    def out_painting(self, volume: Array) -> Array:
        """Fill all but one to five boxes with noise."""
        result = self.random.random(volume.shape, dtype=np.float32)
        for number in range(5):
            if number and self.random.random() >= 0.95:
                break
            hidden = [self.random.integers(3 * size // 7, 4 * size // 7, endpoint=True) for size in volume.shape]
            box = self.box(volume.shape, [size - cut for size, cut in zip(volume.shape, hidden, strict=True)])
            result[box] = volume[box]
        return result

    def box(self, shape: tuple[int, ...], sides: list[int]) -> tuple[slice, ...]:
        """Place a box at random, three voxels from the borders."""
        spaces = [size - side - 3 for size, side in zip(shape, sides, strict=True)]
        firsts = [self.random.integers(3, space, endpoint=True) for space in spaces]
        return tuple(slice(first, first + side) for first, side in zip(firsts, sides, strict=True))


def seconds(run: Callable[[], object]) -> float:
    """Return the processor's time for a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(shape: tuple[int, ...], repeats: int) -> None:
    """Print pairs a second of both and their ratio."""
    deform, reference = Deformation(), Reference(PretextConfig(), seed=0)
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(BATCH, 1, *shape, generator=generator)
    volumes = list(batch[:, 0].numpy())
    deform(batch, draw_seeds(BATCH, generator))  # works out the table of windows
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(seconds(lambda: deform(batch, draw_seeds(BATCH, generator))))
        theirs.append(seconds(lambda: [reference.pair(volume) for volume in volumes]))
    fast, slow = statistics.mean(ours), statistics.mean(theirs)
    medians = statistics.median(theirs) / statistics.median(ours)
    print(
        f"{'×'.join(map(str, shape))}, one thread: {BATCH / fast:.1f} pairs/s, one window after another in NumPy "
        f"{BATCH / slow:.1f}; ratio of the means {slow / fast:.1f}, of the medians {medians:.1f}"
    )


def share_of_steps(shape: tuple[int, ...], repeats: int) -> None:
    """Print what share of the time each step takes."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(BATCH, 1, *shape, generator=generator)
    steps, config = (flip, shuffle, change_intensity, paint), PretextConfig()
    times = dict.fromkeys(steps, 0.0)
    for _ in range(repeats):
        seeds = draw_seeds(BATCH, generator)
        for step in steps:
            times[step] += seconds(lambda step=step, seeds=seeds: step(batch, seeds, config))
    total = sum(times.values())
    shares = ", ".join(f"{step.__name__} {spent / total:.0%}" for step, spent in times.items())
    print(f"  share of each step: {shares}")


class Operators(TorchDispatchMode):
    """Counts what runs: on a GPU each is a kernel or a few; neither views nor the taking of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        is_free = function.is_view or "view" in str(function) or "empty" in str(function)
        result = function(*args, **(kwargs or {}))
        tensors = [each for each in (*args, result) if isinstance(each, torch.Tensor)]
        self.count += not is_free and (not torch.cuda.is_available() or any(each.is_cuda for each in tensors))
        return result


def print_demands(hardware: Hardware) -> None:
    """Print how many operators a batch takes, and on CUDA how often it is waited for."""
    batch, seeds = torch.rand(BATCH, 1, *SHAPES[0], device=hardware.device), torch.arange(BATCH)
    deform = partial(Deformation().deform, batch, seeds)
    deform()  # makes and sends what is kept
    with Operators() as operators:
        deform()
    waits = ""
    if hardware.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            deform()
        torch.cuda.set_sync_debug_mode("default")
        waits = f", {sum('synchroniz' in str(warning.message) for warning in caught)} waits for the device"
    print(f"deforming a batch of {BATCH}: {operators.count} operators on {hardware.device.type}{waits}")


def share_of_training(widths: tuple[int, ...], hardware: Hardware, repeats: int) -> None:
    """Print what deforming adds to a training step of the network of 2019 with these widths."""
    config = PretrainingConfig(network=GENESIS_UNET_2019.override(widths=widths), batch_size=BATCH, warmup_steps=0)
    network = hardware.place(build_network(config.network))
    optimization = Optimization(network, config, size=10**6)
    on_cuda = hardware.device.type == "cuda"
    called = cast("nn.Module", torch.compile(network)) if on_cuda else network
    batch = torch.rand(BATCH, 1, *SHAPES[0], device=hardware.device)
    deform, generator = Deformation().deform, torch.Generator().manual_seed(0)
    ready = deform(batch, draw_seeds(BATCH, generator))

    def steps(count: int, *, deforms: bool) -> float:
        start = time.perf_counter()
        for _ in range(count):
            deformed, original = ready
            if deforms:
                deformed, original = deform(batch, draw_seeds(BATCH, generator), compiles=on_cuda)
            optimization.begin(0)
            with hardware.autocast():
                loss = nn.functional.mse_loss(called(deformed).float(), original)
            loss.backward()
            optimization.finish(0, loss)
        if on_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    count = 10 if on_cuda else 1
    steps(count, deforms=True)
    times = [(steps(count, deforms=True), steps(count, deforms=False)) for _ in range(repeats)]
    with_it, without = map(statistics.median, zip(*times, strict=True))
    kind = f"{hardware.precision}, {'compiled' if on_cuda else 'not compiled'}"
    print(
        f"deforming adds {with_it / without - 1:+.1%} to a step of widths {widths[0]}-{widths[-1]}, batch {BATCH} "
        f"({without * 1e3:.1f} ms without, {kind}, median of {repeats})"
    )


def main() -> None:
    """Compare at both sizes, and with a training step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="auto", help="where a training step is measured")
    parser.add_argument("--quick", action="store_true", help="one minute on a busy core: less often, the small network")
    arguments = parser.parse_args()
    repeats, hardware = 5 if arguments.quick else arguments.repeats, choose_hardware(arguments.device)
    print_demands(hardware)
    for widths in ((16, 32, 64, 128), *(() if arguments.quick else (GENESIS_UNET_2019.widths,))):
        print(f"widths {widths}", file=sys.stderr)
        share_of_training(widths, hardware, repeats)
    torch.set_num_threads(1)
    for shape in SHAPES[:1] if arguments.quick else SHAPES:
        compare(shape, repeats)
        share_of_steps(shape, repeats)


if __name__ == "__main__":
    main()
