"""How fast patches come from the cache, against reading the file each time; a loader's share of a step.

    python benchmarks/crops.py SCANS [--patch 64 64 32] [--training-step] [--manifest]

Ratios of one run on one thread. `SCANS` is a folder of CT in `.nii.gz`. `--training-step` measures a step
of the published network on this machine and what share of it two loader processes take; `--manifest` opens
synthetic caches of 1,000 and of 100,000 volumes, in processes of their own.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from modelsgenesis.configs import CONTRACTS, GENESIS_UNET_2019
from modelsgenesis.data import (
    CacheEntry,
    PatchDataset,
    VolumeCache,
    find_scans,
    read_volume,
    split_by_size,
)
from modelsgenesis.data.cache import write_set
from modelsgenesis.networks import build_network

BATCH = 6


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare_with_files(scans: str, patch: tuple[int, ...], folder: str) -> PatchDataset:
    """Crops a second from the cache and from the files."""
    references, _ = find_scans(scans)
    cache, refused = VolumeCache.build(references, CONTRACTS["ct"], folder)
    fitting, small = split_by_size(cache, patch)
    dataset = PatchDataset(cache, fitting, patch_size=patch, rule="none")
    random = np.random.default_rng(0)
    items = iter(random.integers(0, len(dataset), 100_000).tolist())
    used = [references[index] for index in fitting] if not refused else references

    def from_file() -> torch.Tensor:
        volume = read_volume(used[random.integers(len(used))]).array
        start = [random.integers(0, length - side + 1) for length, side in zip(volume.shape, patch, strict=True)]
        crop = volume[tuple(slice(first, first + side) for first, side in zip(start, patch, strict=True))]
        scaled = (np.clip(crop.astype(np.float32), -1000, 1000) + 1000) / 2000
        return torch.from_numpy(np.ascontiguousarray(scaled))[None]

    cached, uncached = seconds(lambda: dataset[next(items)], 2000), seconds(from_file, 60)
    print(f"{len(fitting)} scans, {len(refused) + len(small)} left out, patch {'×'.join(map(str, patch))}")
    print(f"from the cache {1 / cached:.0f} a second, from the files {1 / uncached:.1f}")
    print(f"the cache is {uncached / cached:.0f} times as fast")
    for rule in ("foreground", "lung"):
        chosen = PatchDataset(cache, fitting, patch_size=patch, rule=rule)
        each = seconds(lambda chosen=chosen: chosen[next(items)], 500)
        print(f"  by rule {rule}: {1 / each:.0f} a second, {chosen.refused_share:.0%} of the drawn refused")
    return dataset


def loader_share(dataset: PatchDataset) -> None:
    """Share of a training step that the loader takes with two processes."""
    network = build_network(GENESIS_UNET_2019)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step(batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(batch), batch).backward()
        optimizer.step()

    loader = DataLoader(dataset, batch_size=BATCH, num_workers=2)
    waiting, working = [], []
    batches = iter(loader)
    for _ in range(4):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        step(batch)
        waiting.append(ready - start)
        working.append(time.perf_counter() - ready)
    share = sum(waiting[1:]) / (sum(waiting[1:]) + sum(working[1:]))
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    alone = count / (time.perf_counter() - start)
    print(f"training step {statistics.median(working):.1f} s, of which waiting for the loader {share:.3%}")
    print(f"loader alone with 2 processes: {alone:.0f} patches a second")


def open_synthetic(folder: str) -> None:
    """Open a cache of 100,000 volumes in a process of its own."""
    for count in (1000, 100_000):
        entries = [
            CacheEntry(
                key=f"{n:040x}", name=f"/scans/{n}.nii.gz", group=f"{n}", shape=(512, 512, 300),
                spacing=(0.7, 0.7, 1.0),
            )
            for n in range(count)
        ]  # fmt: skip
        name = write_set(Path(folder), entries, CONTRACTS["ct"])
        code = (
            "import time, resource, sys; from modelsgenesis.data import VolumeCache\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; start = time.perf_counter()\n"
            f"cache = VolumeCache.open({folder!r}, {name!r}); opened = time.perf_counter() - start\n"
            "[cache.entry(i) for i in range(0, len(cache), max(len(cache) // 1000, 1))]\n"
            "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "megabytes = (after - before) / 1024\n"
            "print(f'{len(cache)} volumes: opened in {opened * 1000:.1f} ms, {megabytes:.1f} MB more')"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans")
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 32))
    parser.add_argument("--training-step", action="store_true")
    parser.add_argument("--manifest", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = compare_with_files(arguments.scans, tuple(arguments.patch), folder)
        if arguments.training_step:
            loader_share(dataset)
        if arguments.manifest:
            open_synthetic(folder)


if __name__ == "__main__":
    main()
