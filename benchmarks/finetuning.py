"""What a comparison's trainings cost beside the network: one alone, and several side by side.

    python benchmarks/finetuning.py [--device cuda] [--quick]

Planes of 128×128 with a bright disc, from PNG to the figures of the test cases: batches of 4, three validations. The
network's own time is that of the bare steps and forward passes, measured in this process on random tensors before and
after, so each line is a ratio. On a CPU the processor's seconds are counted, which other work does not change.
"""

import argparse
import operator
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modelsgenesis import compare, describe_comparison
from modelsgenesis.configs.bundle import GENESIS_UNET_SMALL
from modelsgenesis.hardware import Hardware, choose_hardware, predicting_hardware
from modelsgenesis.networks import build_network

BATCH, SIDE, VALIDATIONS = 4, 128, 3
_WORKS = 2  # of one measurement: the processor's clock ticks in hundredths of a second
SETTINGS = (f"batch_size={BATCH}", f"patch_size={SIDE},{SIDE}", "validation_fraction=0.2", "test_fraction=0.75")


def write_cases(folder: Path, count: int) -> Path:
    """Write images, masks and their table; return the table."""
    random, rows = np.random.default_rng(0), ["image,mask,label,patient"]
    places = np.indices((SIDE, SIDE))
    for number in range(count):
        centre = random.integers(20, SIDE - 20, (2, 1, 1))
        mask = ((places - centre) ** 2).sum(0) < random.integers(25, 150)
        image = np.clip(random.normal(90, 30, mask.shape) + 60 * mask, 0, 255).astype(np.uint8)
        for kind, pixels in (("image", image), ("mask", mask.astype(np.uint8))):
            Image.fromarray(pixels).save(folder / f"{kind}{number}.png")
        rows.append(f"image{number}.png,mask{number}.png,disc,patient{number}")
    table = folder / "discs.csv"
    table.write_text("\n".join(rows))
    return table


def bare_seconds(widths: tuple[int, ...], device: str) -> tuple[float, float, float]:
    """Return the seconds of a bare step of training, and of a plane in the forward pass of a validation and of a test.

    A validation computes in the numbers of the training, a test in those of predicting.
    """
    hardware = choose_hardware(device)
    network = build_network(GENESIS_UNET_SMALL.override(dims=2, widths=widths, out_channels=2, output="linear"))
    hardware.place(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, fused=True)
    image = hardware.place(torch.rand(BATCH, 1, SIDE, SIDE))

    def step() -> None:
        with hardware.autocast():
            network(image).float().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def forward(how: Hardware) -> None:
        with torch.inference_mode(), how.autocast():
            network(image)

    ways = (hardware, predicting_hardware(hardware.device))
    validated, tested = (median_seconds(partial(forward, way), hardware.device) / BATCH for way in ways)
    return median_seconds(step, hardware.device), validated, tested


def clock(device: str) -> float:
    """Return the seconds of the wall on a GPU, on a CPU those of the processor in this process and those that ended."""
    return time.perf_counter() if choose_hardware(device).device.type == "cuda" else sum(os.times()[:4])


def median_seconds(work: Callable[[], None], device: torch.device, repeats: int = 3) -> float:
    """Return the median time of a piece of work, the device waited for."""
    seconds: list[float] = []
    for _ in range(repeats + 1):
        began = clock(str(device))
        for _ in range(_WORKS):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append((clock(str(device)) - began) / _WORKS)
    return statistics.median(seconds[1:])


def compared_seconds(
    table: Path, folder: Path, runs: int, settings: list[str], **options: object
) -> tuple[float, float]:
    """Return the seconds of the wall, and those of the clock, of some runs of one initialisation."""
    began, at = time.perf_counter(), clock(str(options["device"]))
    comparison = describe_comparison(["scratch"], labels=["5"], runs=runs)
    how = {"comparison": comparison, "settings": [*SETTINGS, *settings], "modality": "xray", **options}
    compare(table, folder / f"runs{runs}", **how)  # type: ignore[arg-type]
    return time.perf_counter() - began, clock(str(options["device"])) - at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="a small network, few steps and cases")
    parser.add_argument("--jobs", type=int, help="trainings at the same time; default: what compare takes")
    asked = parser.parse_args()
    steps, cases, runs = (24, 40, 2) if asked.quick else (300, 250, 12)
    widths = GENESIS_UNET_SMALL.widths if asked.quick else (64, 128, 256, 512)
    shape = f"network.widths={','.join(map(str, widths))}"
    settings = [f"steps={steps}", f"validate_every={steps // VALIDATIONS}", shape]
    test, validation = round(0.75 * cases), round(0.2 * 0.25 * cases)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = write_cases(folder, cases)
        before = bare_seconds(widths, asked.device)
        one = compared_seconds(table, folder, 1, settings, jobs=1, device=asked.device)
        between = bare_seconds(widths, asked.device)
        print("one training is measured; several follow", file=sys.stderr)
        several = compared_seconds(table, folder, runs, settings, jobs=asked.jobs, device=asked.device)
        after = bare_seconds(widths, asked.device)
    counts = (steps, VALIDATIONS * validation, test)
    alone = [sum(map(operator.mul, counts, bare)) for bare in (before, between, after)]
    first, second = (alone[0] + alone[1]) / 2, (alone[1] + alone[2]) / 2
    described = f"{steps} steps of {BATCH}×{SIDE}×{SIDE}, {counts[1]} planes validated and {test} tested"
    print(f"one training, {described}: {one[1]:.1f} s, {one[1] / first:.2f} times the network alone")
    print(f"{runs} trainings: {several[1]:.1f} s, {several[1] / runs / second:.2f} times the network alone each")
    print(f"{runs} trainings, side by side where that pays, in the time of {several[0] / one[0]:.1f} single ones")


if __name__ == "__main__":
    main()
