"""How long it takes from a folder of raw scans to a Genesis, and what it then restores beside its baselines.

    python benchmarks/genesis.py DATA [--only hippocampus ...] [--width small full] [--minutes 5] [--device cuda]

DATA holds the named public data sets. The test patients of `benchmarks/splits/` are left out. A row of a Markdown
table a run: everything from reading the first scan to the bundle is in its minutes. A budget of minutes is kept by
the speed of the first steps, so that the learning rate falls to its end.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis import pretrain
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.reporting import Reporter

WIDTHS = {"small": (16, 32, 64, 128), "full": (64, 128, 256, 512)}
PROBE = 30  # steps whose speed tells how many a budget holds


@dataclass(frozen=True)
class Target:
    """A data set: its scans, what `pretrain` is told of them, and its patches."""

    folder: str
    patch: tuple[int, ...]
    batch: int
    options: Mapping[str, Any]
    split: str


TARGETS = {
    "lung-nodules": Target(
        "LungNodules2D/images",
        (96, 96),
        32,
        {"modality": "ct-8bit", "patient_pattern": r"^(LIDC-IDRI-\d+)_"},
        "lung_nodules",
    ),
    "chestxray8": Target(
        "chestxray8", (128, 128), 16, {"modality": "xray", "patient_pattern": r"^(\d+)_"}, "chestxray8"
    ),
    "hippocampus": Target("Task04_Hippocampus/imagesTr", (32, 32, 24), 8, {"modality": "mri"}, "hippocampus"),
    "sarcoma": Target("SarcomaCT/imagesTr", (64, 64, 32), 6, {"modality": "ct"}, "sarcoma"),
}


class Watch(Reporter):
    """Keeps the baselines, the best validation and the pace of a run."""

    def __init__(self) -> None:
        self.losses: Mapping[str, float] = {}
        self.reached: Mapping[str, float] = {}
        self.times: list[float] = []

    def baselines(self, losses: Mapping[str, float]) -> None:
        """Keep them."""
        self.losses = losses

    def step(self, step: int, loss: float, samples_per_second: float, waiting: float) -> None:
        """Keep the time."""
        del step, loss, samples_per_second, waiting
        self.times.append(time.monotonic())

    def validation(self, step: int, metrics: Mapping[str, float], is_best: bool) -> None:
        """Keep the best."""
        del step
        self.reached = metrics if is_best else self.reached


def row(name: str, width: str, arguments: argparse.Namespace, folder: Path) -> str:
    """Pretrain once, and return the row."""
    target = TARGETS[name]
    split = Path(__file__).parent / "splits" / f"{target.split}.json"
    network = GenesisUNetConfig(dims=2 if len(target.patch) == 2 else 3, widths=WIDTHS[width], norm="batch")
    config = PretrainingConfig(
        network=network,
        patch_size=target.patch,
        batch_size=target.batch,
        learning_rate=3e-3 if width == "small" else 1e-3,
        steps=arguments.steps or PROBE,
    )

    def run(config: PretrainingConfig, output: Path) -> Watch:
        watch = Watch()
        pretrain(
            arguments.data / target.folder,
            output,
            config=config,
            device=arguments.device,
            exclude_test_cases=[split] if split.exists() else None,
            cache=output.parent / f"cache {output.name}",
            reporter=watch,
            **target.options,
        )
        return watch

    if not arguments.steps:
        times = run(config.override(validate_every=None), folder / "probe").times
        pace = (times[-1] - times[PROBE // 2]) / (len(times) - 1 - PROBE // 2)
        config = config.override(steps=max(PROBE, round(60 * arguments.minutes / pace)))
    config = config.override(validate_every=max(1, (config.steps or 1) // 5))
    began = time.monotonic()
    watch = run(config, folder / "run")
    minutes = (time.monotonic() - began) / 60
    loss = next(iter(watch.reached.values()))
    shares = (f"{loss / watch.losses[f'{base}_loss']:.2f}" for base in ("mean_image", "identity"))
    cells = (name, f"{len(target.patch)}D, {width}", f"{config.steps:,} of {target.batch}", f"{minutes:.1f}", *shares)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--width", nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    print(
        "| data | network | steps | minutes | of the mean image's loss | of the identity's |\n|---|---|---|---|---|---|"
    )
    for name in arguments.only:
        for width in arguments.width:
            with tempfile.TemporaryDirectory() as folder:
                print(row(name, width, arguments, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
