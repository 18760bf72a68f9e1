"""What preparing scans costs: time against decompression alone, and memory against the volume.

    python benchmarks/preparation.py SCANS [--spacing 1.5 1.5 1.5] [--modality ct] [--repeats 9]

Ratios of one run, one scan at a time on one thread. `SCANS` is a folder of `.nii.gz`.
"""

import argparse
import gzip
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from modelsgenesis.configs import InputContract
from modelsgenesis.data import choose_contract, find_scans, prepare, read_volume
from modelsgenesis.data.cache import LEVELS


def quantize(array: np.ndarray) -> np.ndarray:
    """As the cache does it."""
    array *= LEVELS
    array += 0.5
    return array.astype(np.uint16)


def seconds(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory of Python and NumPy that a call holds."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans")
    parser.add_argument("--spacing", type=float, nargs=3)
    parser.add_argument("--modality", default="auto")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    references, _ = find_scans(arguments.scans)
    spacing = tuple(arguments.spacing) if arguments.spacing else None
    contract, why = choose_contract(references, modality=arguments.modality, spacing=spacing)
    paths = sorted((reference.path for reference in references), key=lambda path: path.stat().st_size)
    print(f"{len(paths)} scans; {why}")
    show_speed(paths, contract, arguments.repeats)
    for path in (paths[0], paths[-1]):
        show_memory(path, contract)


def show_speed(paths: list[Path], contract: InputContract, repeats: int) -> None:
    """Print MB of compressed input a second of each step, and its time against decompression alone."""
    works: dict[str, Callable[[Path], object]] = {
        "decompress": lambda path: gzip.decompress(path.read_bytes()),
        "read": read_volume,
        "read, prepare and quantize": lambda path: quantize(prepare(read_volume(path), contract).array),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):  # taking turns, so that other work on the machine slows all alike
        for name, work in works.items():
            times[name].append(sum(seconds(lambda path=path, work=work: work(path)) for path in paths))
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    base = statistics.median(times["decompress"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"  {name}: {megabytes / median:.1f} MB/s, {median / base:.2f} times the decompression")


def show_memory(path: Path, contract: InputContract) -> None:
    """Print the most memory that reading and preparing a scan holds."""
    volume = read_volume(path)
    size = 4 * max(volume.array.size, prepare(volume, contract).array.size)
    del volume
    peak = peak_bytes(lambda: quantize(prepare(read_volume(path), contract).array))
    print(f"  most memory for {size / 4e6:.1f} million voxels: {peak / size:.2f} times the float32 volume")


if __name__ == "__main__":
    main()
