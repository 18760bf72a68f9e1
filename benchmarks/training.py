"""How fast a training step is by default, against a plain loop of contiguous float32.

    python benchmarks/training.py                 # a step of the network of 2019 at 6×1×64×64×32, both ways
    python benchmarks/training.py --quality       # a quarter of its widths, 300 steps both ways: validation losses
    python benchmarks/training.py --waiting       # the share of the time that is spent waiting for data

Ratios of one run. `--widths`, `--batch`, `--patch` and `--steps` make it smaller, for a machine that is slow or busy.
Where the CPU multiplies bfloat16 itself the step is to be at least 3.5 times as fast; elsewhere there is no such aim.
"""

import argparse
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
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.restoration import Restoration
from modelsgenesis.training.steps import Optimization, load_batches

AIM = 3.5
Step = Callable[[Tensor, Tensor], float]


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


def default_step(network: nn.Module, config: PretrainingConfig, hardware: Hardware) -> Step:
    """Return a step as the loop of this package does it."""
    hardware.place(network)
    optimization = Optimization(network, config, size=10**6)

    def step(deformed: Tensor, original: Tensor) -> float:
        optimization.begin(0)
        with hardware.autocast():
            restored = network(hardware.place(deformed))
            loss = functional.mse_loss(restored.float(), hardware.place(original))
        value = loss.item()
        loss.backward()
        optimization.finish(0, loss)
        return value

    return step


def matrix_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """Return the floating-point operations a second of `a @ b`, the best of a few."""
    a, b = torch.rand(2, side, side, device=device).to(dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        (a @ b).sum().item()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def operations(network: nn.Module, batch: Tensor) -> int:
    """Return the floating-point operations of a forward and a backward pass."""
    counter = FlopCounterMode(display=False)
    with counter:
        functional.mse_loss(network(batch), batch).backward()
    return counter.get_total_flops()


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_speed(arguments: argparse.Namespace) -> None:
    """Print the ratio of the two steps, in turns, with what each reaches of the matrix rate."""
    config, hardware = configure(arguments), choose_hardware(precision=arguments.precision)
    shape = (config.batch_size, 1, *config.patch_size)
    plain_hardware = Hardware(hardware.device)
    networks = [build_network(config.network).to(hardware.device) for _ in range(2)]
    count = operations(networks[0], torch.rand(shape, device=hardware.device))
    steps = {
        "plain": (plain_step(networks[0], config), plain_hardware),
        "default": (default_step(networks[1], config, hardware), hardware),
    }
    batch = [torch.rand(shape, device=hardware.device) for _ in range(2)]
    memory = {}
    for name, (step, _) in steps.items():
        if hardware.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step(*batch)
        if hardware.device.type == "cuda":
            memory[name] = f", peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, (step, _) in steps.items():
            times[name].append(seconds(lambda step=step: step(*batch)))
    print(f"{'×'.join(map(str, shape))}, widths {config.network.widths}, {count / 1e12:.2f} TFLOP a step")
    for name, (_, used) in steps.items():
        taken = statistics.median(times[name])
        rate = matrix_rate(getattr(torch, used.precision), used.device)
        print(
            f"  {name:<8}{taken:8.3f} s a step {config.batch_size / taken:8.2f} samples/s, {count / taken / rate:4.0%} "
            f"of a @ b in {used.precision} ({rate / 1e9:.0f} GFLOP/s)"
            f"{memory.get(name, '')}"
        )
    ratio = statistics.median(times["plain"]) / statistics.median(times["default"])
    print(f"  ratio {ratio:.2f}; {aim(hardware)}")


def aim(hardware: Hardware) -> str:
    """Return which aim this hardware is measured by."""
    if choose_hardware(hardware.device.type).precision == "bfloat16":
        return f"bfloat16 in hardware: the aim is at least {AIM}"
    return "no bfloat16 in hardware: no aim is set; the one of 3.5 is for CPUs with AVX-512 bf16 or AMX"


def configure(arguments: argparse.Namespace) -> PretrainingConfig:
    """Return the recipe of 2019 with the sizes of the command line."""
    return RECIPES["2019"].override(
        network=GENESIS_UNET_2019.override(widths=tuple(arguments.widths)),
        batch_size=arguments.batch,
        patch_size=tuple(arguments.patch),
        samples_per_scan=32,
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
    hardware = choose_hardware(precision=arguments.precision)
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
    config, hardware = configure(arguments), choose_hardware(precision=arguments.precision)
    objective = make_objective(config, sample_cache(folder), hardware)
    network = hardware.place(build_network(config.network))
    optimization = Optimization(network, config, size=10**6)

    def step(batch: Any, items: list[int]) -> None:
        optimization.begin(0)
        with hardware.autocast():
            loss = objective.loss(network, batch, items)
        loss.item()
        loss.backward()
        optimization.finish(0, loss)

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
            alone.append(seconds(lambda: step(*first)))
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
    parser.add_argument("--widths", type=int, nargs="+", help="default: 64 128 256 512; a quarter for --quality")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--patch", type=int, nargs=3, default=[64, 64, 32])
    parser.add_argument("--steps", type=int, help="default: 300 for --quality, 10 for --waiting")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="bfloat16 shows its quality where it is emulated, slowly")
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate of --quality, with SGD")
    arguments = parser.parse_args()
    arguments.widths = arguments.widths or ([16, 32, 64, 128] if arguments.quality else [64, 128, 256, 512])
    arguments.steps = arguments.steps or (300 if arguments.quality else 10)
    used = choose_hardware(precision=arguments.precision)
    threads = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    print(f"{threads}; {used.device}, {used.precision}")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quality:
            compare_quality(arguments, Path(folder))
        elif arguments.waiting:
            measure_waiting(arguments, Path(folder))
        else:
            compare_speed(arguments)


if __name__ == "__main__":
    main()
