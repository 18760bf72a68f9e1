"""How fast pairs to learn from are made, against a straightforward reference with one window after another.

    python benchmarks/pretext.py [--repeats 15] [--training-step]

Ratios of one run on one thread, in the full mixture. The two take turns, and what is counted is the
processor's time, so that other work on the machine slows both.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from modelsgenesis.configs import GENESIS_UNET_2019, PretextConfig
from modelsgenesis.networks import build_network
from modelsgenesis.pretext import Deformation, draw_seeds
from modelsgenesis.pretext.deformations import change_intensity, flip, paint
from modelsgenesis.pretext.shuffling import shuffle

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


def compare(shape: tuple[int, ...], repeats: int) -> float:
    """Print pairs a second of both and their ratio; return the seconds of a batch."""
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
    print(f"{'×'.join(map(str, shape))}, {repeats} batches of {BATCH}, one thread, full mixture")
    print(f"  reference {slow / BATCH * 1e3:8.2f} ms a pair {BATCH / slow:8.1f} pairs/s")
    print(f"  package   {fast / BATCH * 1e3:8.2f} ms a pair {BATCH / fast:8.1f} pairs/s")
    print(f"  ratio of the means {slow / fast:.1f}, of the medians {medians:.1f}")
    return fast


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


def training_step(pretext: float, shape: tuple[int, ...]) -> None:
    """Print the share of the deformations in a training step of the network of 2019."""
    network = build_network(GENESIS_UNET_2019)
    optimizer = torch.optim.SGD(network.parameters(), lr=1, momentum=0.9)
    x, y = torch.rand(2, BATCH, 1, *shape)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()

    step()
    duration = seconds(step)
    share = pretext / (pretext + duration)
    print(f"  a training step of GENESIS_UNET_2019 takes {duration:.1f} s; the pretext is {share:.2%} of both")


def main() -> None:
    """Compare at both sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--training-step", action="store_true", help="time the network of 2019 too (a minute)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for shape in SHAPES:
        pretext = compare(shape, arguments.repeats)
        share_of_steps(shape, arguments.repeats)
        if arguments.training_step and shape == SHAPES[0]:
            training_step(pretext, shape)


if __name__ == "__main__":
    main()
