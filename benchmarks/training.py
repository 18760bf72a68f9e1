"""How fast a training step is: alone, as a share of the matrix rate beside it, and in `pretrain` with all around it.

    python benchmarks/training.py                 # GENESIS_2019 at batch 6 and on CUDA 32, eager and compiled; pretrain
    python benchmarks/training.py --quick         # widths 16 to 128 at batch 2, for a CPU
    python benchmarks/training.py --plain         # beside a plain loop of contiguous float32, too
    python benchmarks/training.py --quality       # a quarter of its widths, 300 steps both ways: validation losses
    python benchmarks/training.py --waiting       # the share of the time that is spent waiting for data

Ratios of one run, of steps in turns. `--device`, `--compile`, `--widths`, `--batch`, `--patch` and `--steps` change
what is measured. The aims: bare at least 45% of the bfloat16 rate of the card at batch 6 and 50% at 32, `pretrain` at
least 95% of the bare step; on a CPU with AVX-512 bf16 85% of the matrix rate.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from modelsgenesis.configs import CONTRACTS, GENESIS_UNET_2019, RECIPES, PretrainingConfig
from modelsgenesis.data import PatchDataset, VolumeCache, find_scans, split_by_size
from modelsgenesis.data.cases import sample_folder
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.networks import build_network
from modelsgenesis.pretraining import pretrain
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.readings import READ_EVERY
from modelsgenesis.training.restoration import Restoration
from modelsgenesis.training.steps import Optimization, load_batches
from modelsgenesis.training.trainer import FIRST_LOSSES

SAMPLES = 32  # of a scan and epoch
Step = Callable[[Tensor, Tensor], object]


def plain_step(network: nn.Module, config: PretrainingConfig) -> Step:
    """Return a step as one writes it down first: contiguous float32, an optimiser parameter by parameter."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config.learning_rate, momentum=config.momentum, foreach=False, fused=False
    )

    def step(deformed: Tensor, original: Tensor) -> float:
        optimizer.zero_grad()
        loss = functional.mse_loss(network(deformed.contiguous()), original)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def default_step(network: nn.Module, config: PretrainingConfig, hardware: Hardware, *, compiled: bool = False) -> Step:
    """Return a step as the loop of this package does it, which reads nothing back."""
    hardware.place(network)
    optimization = Optimization(network, config, size=10**6)
    called: Any = torch.compile(network) if compiled else network

    def step(deformed: Tensor, original: Tensor) -> Tensor:
        optimization.begin(0)
        with hardware.autocast():
            loss = functional.mse_loss(called(hardware.place(deformed)).float(), hardware.place(original))
        loss.backward()
        return optimization.finish(0, loss)

    return step


def matrix_rate(hardware: Hardware) -> float:
    """Return the floating-point operations a second of `a @ b` in the precision of the hardware, the best of a few."""
    side = 8192 if hardware.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if hardware.precision == "bfloat16" else torch.float32
    a, b = torch.rand(2, side, side, device=hardware.device).to(dtype)
    with hardware.products():
        return 2 * side**3 / min(seconds(lambda: a @ b, hardware.device) for _ in range(5))


def operations(config: PretrainingConfig) -> int:
    """Return the floating-point operations of a forward and a backward pass of one sample."""
    network, batch = build_network(config.network).to("meta"), torch.rand(1, 1, *config.patch_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(batch).square().mean().backward()
    return counter.get_total_flops()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes, all that it asks of the device included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure_steps(arguments: argparse.Namespace, hardware: Hardware, batch_size: int) -> dict[str, float]:
    """Print what bare steps of a batch reach, in turns, and return the seconds of each kind."""
    config, device = configure(arguments).override(batch_size=batch_size), hardware.device
    steps: dict[str, Step] = {"eager": default_step(build_network(config.network), config, hardware)}
    if arguments.compile:
        steps["compiled"] = default_step(build_network(config.network), config, hardware, compiled=True)
    if arguments.plain:
        steps["plain float32"] = plain_step(build_network(config.network).to(device), config)
    batch = [torch.rand(batch_size, 1, *config.patch_size, device=device) for _ in range(2)]
    times: dict[str, list[float]] = {name: [] for name in steps}
    several = 10 if device.type == "cuda" else 1  # steps between two waits, as in a run
    rates = []
    for turn in range(arguments.repeats + 1):
        for name, step in steps.items():
            taken = seconds(lambda step=step: [step(*batch) for _ in range(several)], device) / several
            times[name] += [taken] * (turn > 0)  # the first compiles, and chooses kernels
        rates.append(matrix_rate(hardware))
    rate, count = max(rates), batch_size * operations(config)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, taken in medians.items():
        print(
            f"bare step, {name}, batch {batch_size}, {count / 1e12:.2f} TFLOP: {1000 * taken:.1f} ms, "
            f"{count / taken / rate:.0%} of a @ b in {hardware.precision} ({rate / 1e12:.2f} TFLOP/s), "
            f"{medians['eager'] / taken:.2f} of eager"
        )
    return medians


class Clock(Reporter):
    """Keeps when each step was told."""

    def __init__(self) -> None:
        self.told: dict[int, float] = {}

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Keep the time."""
        self.told[step] = time.perf_counter()


def measure_pretrain(arguments: argparse.Namespace, hardware: Hardware, bare: float, folder: Path) -> None:
    """Print what `pretrain` itself reaches of the bare step: with loader, deformations, steps and log."""
    config, clock = configure(arguments), Clock()
    # On CUDA steps are told late and in groups, which end where all are known that a loss is compared with, and from
    # there on at every so many: counted is from the end of one group to that of another.
    is_cuda = hardware.device.type == "cuda"
    group, first = (READ_EVERY, FIRST_LOSSES + READ_EVERY) if is_cuda else (1, 2)
    counted = math.ceil(arguments.steps / group) * group
    steps = first + counted + 2 * group
    config = config.override(
        steps=steps,
        epochs=None,
        compile=arguments.compile,
        workers=2,
        validation_samples=1,
        precision=hardware.precision,
    )
    pretrain(
        sample_folder() / "images",
        folder / "run",
        config=config.override(validate_every=steps, learning_rate=1e-3, patience=0),
        modality="ct",
        device=str(hardware.device),
        cache=folder / "cache",
        reporter=clock,
    )
    taken = (clock.told[first + counted] - clock.told[first]) / counted
    print(f"pretrain itself, batch {config.batch_size}, 2 loader processes: {bare / taken:.0%} of its bare step's rate")


def configure(arguments: argparse.Namespace) -> PretrainingConfig:
    """Return the recipe of 2019 with the sizes of the command line."""
    return RECIPES["2019"].override(
        network=GENESIS_UNET_2019.override(widths=tuple(arguments.widths)),
        batch_size=arguments.batch,
        patch_size=tuple(arguments.patch),
        samples_per_scan=SAMPLES,
        rule="none",
        warmup_steps=0,
    )


def sample_cache(folder: Path) -> VolumeCache:
    """Return the embedded scans, prepared."""
    scans, _ = find_scans(sample_folder() / "images")
    return VolumeCache.build(scans, CONTRACTS["ct"], folder)[0]


def make_objective(config: PretrainingConfig, cache: VolumeCache, hardware: Hardware) -> Restoration:
    """Return the restoration of patches of the embedded scans; quality is measured on places of their own."""
    sides = {"patch_size": config.patch_size, "per_scan": config.samples_per_scan, "rule": config.rule}
    fitting, _ = split_by_size(cache, config.patch_size)
    training, validation = (PatchDataset(cache, fitting, seed=seed, **sides) for seed in (0, 1_000_003))
    return Restoration(training, validation, config.override(validation_samples=32), hardware, Reporter())


def batches(
    objective: Restoration, config: PretrainingConfig, steps: int, workers: int
) -> AbstractContextManager[Iterator[tuple[Any, list[int]]]]:
    """Return the context of a loader of the steps' batches and their items."""
    return closing(load_batches(objective.dataset, config.override(workers=workers, seed=0), start=0, steps=steps))


def compare_quality(arguments: argparse.Namespace, folder: Path) -> None:
    """Train the same network on the same batches both ways and print the validation losses."""
    config = configure(arguments).override(learning_rate=arguments.rate)
    hardware = choose_hardware(arguments.device, arguments.precision)
    results = {}
    for name, used in {"plain": Hardware(hardware.device), "default": hardware}.items():
        torch.manual_seed(0)
        network = build_network(config.network)
        objective = make_objective(config, sample_cache(folder), used)
        step = plain_step(network, config) if name == "plain" else default_step(network, config, used)
        with batches(objective, config, arguments.steps, 0) as loader:
            for original, items in loader:
                network.train()
                step(*objective.deformation(original, torch.tensor(items)))
        _, metrics = objective.validate(network.eval())
        results[name] = metrics["restoration_loss"]
        print(
            f"  {name:<8} validation loss {results[name]:.5f} after {arguments.steps} steps, mean image "
            f"{metrics['mean_image_loss']:.5f}, identity {metrics['identity_loss']:.5f}"
        )
    print(f"  default against plain {results['default'] / results['plain'] - 1:+.2%}; the aim is within 2%")


def measure_waiting(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the share of a step spent waiting for one loader process, and the time beyond a loop without loader."""
    config, hardware = configure(arguments), choose_hardware(arguments.device, arguments.precision)
    objective = make_objective(config, sample_cache(folder), hardware)
    network = hardware.place(build_network(config.network))
    optimization = Optimization(network, config, size=10**6)

    def step(batch: Any, items: list[int]) -> None:
        optimization.begin(0)
        with hardware.autocast():
            loss = objective.loss(network, batch, items)
        loss.backward()
        optimization.finish(0, loss).tolist()

    waited: list[float] = []
    loaded: list[float] = []
    alone: list[float] = []
    with batches(objective, config, arguments.steps + 2, 1) as loader:
        first = next(loader)
        step(*first)
        for _ in range(arguments.steps):
            start = time.perf_counter()
            batch = next(loader)
            waited.append(time.perf_counter() - start)
            step(*batch)
            loaded.append(time.perf_counter() - start)
            alone.append(seconds(lambda: step(*first), hardware.device))
    share = sum(waited) / sum(loaded)
    extra = statistics.median(loaded) / statistics.median(alone) - 1
    print(
        f"  {arguments.steps} steps, 1 loader process: {share:.2%} of the time waiting, {extra:+.2%} beyond a loop on "
        "a batch in memory; the aims are under 5% each"
    )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--waiting", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on CUDA")
    parser.add_argument(
        "--widths", type=int, nargs="+", help="default: 64 128 256 512; a quarter for --quality, --quick"
    )
    parser.add_argument("--batch", type=int, nargs="+", help="default: 6 and 32; 2 for --quick")
    parser.add_argument("--patch", type=int, nargs=3, default=[64, 64, 32])
    parser.add_argument("--steps", type=int, help="default: 300 for --quality, 100 on CUDA, 10 on a CPU, 4 for --quick")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="bfloat16 shows its quality where it is emulated, slowly")
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate of --quality, with SGD")
    arguments = parser.parse_args()
    hardware = choose_hardware(arguments.device, arguments.precision)
    is_cuda = hardware.device.type == "cuda"
    arguments.compile = is_cuda if arguments.compile is None else arguments.compile
    small = arguments.quality or arguments.quick
    arguments.widths = arguments.widths or ([16, 32, 64, 128] if small else [64, 128, 256, 512])
    batch_sizes = arguments.batch or ([2] if arguments.quick else [6, 32] if is_cuda else [6])
    arguments.batch = batch_sizes[0]
    default = 300 if arguments.quality else 4 if arguments.quick else 100 if is_cuda else 10
    arguments.steps = arguments.steps or default
    threads = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    widths = "–".join(map(str, (arguments.widths[0], arguments.widths[-1])))
    print(f"{threads}; {hardware.device}, {hardware.precision}; widths {widths}, patch {arguments.patch}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quality:
            compare_quality(arguments, Path(folder))
        elif arguments.waiting:
            measure_waiting(arguments, Path(folder))
        else:
            taken = [measure_steps(arguments, hardware, size) for size in batch_sizes]
            measure_pretrain(arguments, hardware, taken[0]["compiled" if arguments.compile else "eager"], Path(folder))


if __name__ == "__main__":
    main()
