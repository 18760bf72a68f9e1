"""The share of a pretraining's time that its report costs: renewals at validations, the last one, and what it keeps.

python benchmarks/report.py [STEPS]

A ratio, so that it says the same on a slow machine. The sample is embedded; 400 steps take minutes on a laptop.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from modelsgenesis import pretraining, reports
from modelsgenesis.data.cases import sample_folder
from modelsgenesis.demo import PRETRAINING


def measure(steps: int, folder: Path) -> dict[str, float]:
    """Return the seconds of a run, and those of each function of its report, by name."""
    spent: dict[str, float] = {}

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*args, **options)
            finally:
                spent[function.__name__] = spent.get(function.__name__, 0.0) + time.monotonic() - began

        return call

    for name in ("write_report", "keep_restorations", "write_refused"):
        setattr(pretraining, name, timed(getattr(pretraining, name)))
    reports.Renewals.renew = timed(reports.Renewals.renew)
    config = PRETRAINING.override(steps=steps, validate_every=max(steps // 20, 1))
    began = time.monotonic()
    pretraining.pretrain(
        sample_folder() / "images", folder / "run", config=config, modality="ct", cache=folder / "cache"
    )
    return {"run": time.monotonic() - began, **spent}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        seconds = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 400, Path(temporary))
    run = seconds.pop("run")
    for name, one in seconds.items():
        print(f"{name:20} {one:6.2f} s  {one / run:6.2%}")
    print(f"{'all of the report':20} {sum(seconds.values()):6.2f} s  {sum(seconds.values()) / run:6.2%} of {run:.0f} s")
