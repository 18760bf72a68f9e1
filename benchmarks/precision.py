"""What a prediction changes with the number format, and with the kind of CPU: label maps, Dice, time.

    python benchmarks/precision.py MODEL DATA --split MODEL/split.json --cases 39

Each way of computing predicts the same labelled cases in a process of its own: float32 and bfloat16, on this CPU and
taken for one of AVX2 alone, where oneDNN emulates bfloat16 so slowly that one case is enough (--ways, --cases). `tf32,
rounded` gives what a GPU computes in TF32, whose products are of numbers rounded to 10 bits of mantissa, but not its
speed; the last three ways need CUDA. The first way is what the others are held against. Seconds are of the
processor, on CUDA of the clock, for the predictions alone, after one that warms up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
WAYS = {
    "float32": ("float32", {}),
    "float32, AVX2": ("float32", AVX2),
    "bfloat16": ("bfloat16", {}),
    "bfloat16, AVX2": ("bfloat16", AVX2),
    "tf32, rounded": ("float32", {}),
    **{f"{precision}, CUDA": (precision, {}) for precision in ("float32", "tf32", "bfloat16")},
}


def chosen(arguments: argparse.Namespace) -> list:
    """Return the cases to predict."""
    from modelsgenesis.data.labelled import read_labelled
    from modelsgenesis.training.splits import read_split

    cases = read_labelled(arguments.data, modality=arguments.modality).cases
    if arguments.split:
        test = set(read_split(arguments.split).test)
        cases = [case for case in cases if case.name in test]
    return list(cases[: arguments.cases])


def round_to_tf32() -> None:
    """Round what every convolution multiplies as the tensor cores of a GPU do in TF32: to nearest, ties to even."""
    import torch
    from torch.nn import functional

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        bits = tensor.contiguous().view(torch.int32)
        return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)

    for name in ("conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d"):
        exact = getattr(functional, name)

        def multiply(x: Any, weight: Any, *others: Any, exact: Any = exact, **options: Any) -> Any:
            return exact(rounded(x), rounded(weight), *others, **options)

        setattr(functional, name, multiply)


def predict(arguments: argparse.Namespace) -> None:
    """Predict every case, and print the seconds that the predictions took."""
    from modelsgenesis.configs import PredictionConfig
    from modelsgenesis.prediction import predict_all

    sources = [image.path for case in chosen(arguments) for image in case.images]
    if arguments.way == "tf32, rounded":
        round_to_tf32()
    device = "cuda" if arguments.way.endswith("CUDA") else "cpu"
    clock = time.process_time if device == "cpu" else time.perf_counter
    config = PredictionConfig(precision=WAYS[arguments.way][0])
    with tempfile.TemporaryDirectory() as warm:
        predict_all(arguments.model, sources[:1], output=warm, config=config, device=device)
    start = clock()
    predict_all(arguments.model, sources, output=arguments.output, config=config, device=device, strict=True)
    print(clock() - start)


def compare(folder: Path, first: Path, arguments: argparse.Namespace) -> str:
    """Return how far predictions are from the first ones."""
    import numpy as np

    import modelsgenesis
    from modelsgenesis.data import read_volume
    from modelsgenesis.evaluation import read_table
    from modelsgenesis.training.splits import Split

    if not any(first.rglob("*.nii.gz")):
        labels = list(json.loads((first / "predictions.json").read_text())["labels"].values())
        tables = [read_table(one / "predictions.csv", labels) for one in (first, folder)]
        far = max(float(np.abs(tables[1][name] - soft).max()) for name, soft in tables[0].items())
        other = sum(soft.argmax() != tables[1][name].argmax() for name, soft in tables[0].items())
        return f"{other} of {len(tables[0])} images in another class, probabilities up to {far:.1e} away"
    shares, voxels = [], 0
    for path in sorted(first.rglob("*.nii.gz")):
        one, two = (read_volume(place).array for place in (path, folder / path.relative_to(first)))
        shares.append(((one != two).sum(), one.size))
        voxels += one.size
    split = Split(training=(), validation=(), test=tuple(case.name for case in chosen(arguments)))
    dice = []
    for place in (first, folder):
        with tempfile.TemporaryDirectory() as output:
            found = modelsgenesis.evaluate(place, arguments.data, output=output, split=split, bootstrap=1)
        dice.append(found.values["dice"])
    different, worst = sum(count for count, _ in shares), max(count / size for count, size in shares)
    return (
        f"{1e4 * different / voxels:.2f} of 10,000 voxels differ, {1e4 * worst:.2f} in the worst scan; "
        f"Dice {dice[1]:.5f}, {dice[1] - dice[0]:+.5f}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--modality")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--ways", nargs="+", default=list(WAYS)[:5], choices=list(WAYS))
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        predict(arguments)
        return
    with tempfile.TemporaryDirectory() as work:
        first = Path(work) / "0"
        for index, way in enumerate(arguments.ways):
            _, environment = WAYS[way]
            folder = Path(work) / str(index)
            command = [sys.executable, *sys.argv, "--way", way, "--output", str(folder)]
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            print(f"{way:>15}: {float(done.stdout):.1f} s; {compare(folder, first, arguments)}", flush=True)


if __name__ == "__main__":
    main()
