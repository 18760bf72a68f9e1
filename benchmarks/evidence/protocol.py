"""Does a Genesis help on a target? One protocol for all of them, from the raw folder to a table.

1. Pretrain on all scans but those of the test patients of the recorded split.
2. At each budget of steps and each number of labelled patients, choose the rate of each start on validation patients.
3. Train both starts on draws of the labelled patients: another one in each run, the same for both.
4. Test the differences in pairs, and name the worst pair. A budget is converged for scratch where twice the steps do
   not better it on the validation patients: the claim that counts is the one there.

Whatever has finished is not repeated: the same command goes on.
"""

import argparse
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from modelsgenesis import __version__, compare, describe_comparison, pretrain
from modelsgenesis.cli.console import make_reporter
from modelsgenesis.configs import pretraining_recipe
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.files import write_atomically, write_json
from modelsgenesis.metrics.measures import METRICS
from modelsgenesis.metrics.tables import ResultsTable

SPLITS = Path(__file__).parents[1] / "splits"

MARGIN = 0.005
"""Twice the steps are better where scratch gains more than this on the validation patients; less is noise."""


# Of the pretraining: the nearest to what led on validation patients of the lung nodules, docs/results.md.
_RECIPE = (
    "network.norm=instance",
    "optimizer=muon",
    "learning_rate=3e-3",
    "weight_decay=0.1",
    "warmup_steps=100",
    "pretext.shuffle_probability=0",
    "pretext.intensity_probability=0",
    "pretext.painting_probability=0",
    "pretext.implant_probability=1",
    "deformed_weight=0.3",
)
_TWO_CORES = (*_RECIPE, "workers=0", "validate_every=500")
_PRETRAINING = {
    ("full", 2): (*_RECIPE, "network.widths=32,64,128,256", "batch_size=32", "steps=10000"),
    ("full", 3): (*_RECIPE, "network.widths=32,64,128,256", "batch_size=8", "steps=10000"),
    ("small", 2): (*_TWO_CORES, "network.widths=8,16,32,64,128", "batch_size=16", "steps=5000"),
    ("small", 3): (*_TWO_CORES, "network.widths=8,16,32,64", "batch_size=4", "steps=2000"),
    ("quick", 2): (*_TWO_CORES, "network.widths=8,16,32,64", "batch_size=8", "steps=150", "validation_samples=16"),
    ("quick", 3): (*_TWO_CORES, "network.widths=8,16,32", "batch_size=4", "steps=100", "validation_samples=16"),
}
Scale = Literal["full", "small", "quick"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A data set, and how it is read, pretrained on and measured.

    Attributes:
        name: What tables call it.
        dims: Dimensions of the networks; volumes give slices to those of 2.
        scans: Scans to pretrain on, below the folder of the data sets.
        labelled: Images with labels, below it.
        splits: Recorded splits whose test patients are left out of pretraining; the first is that of the comparison.
        reading: `modality` and `patient_pattern`, where the files do not tell.
        pretraining: `key=value` of its pretraining.
        finetuning: `key=value` of its trainings with labels.
        labels: Numbers of labelled patients, rising.
    """

    name: str
    dims: Literal[2, 3]
    scans: str
    labelled: str
    splits: tuple[Path, ...]
    reading: Mapping[str, Any]
    pretraining: tuple[str, ...]
    finetuning: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of a target is run.

    Attributes:
        pretraining: `key=value` of the pretraining.
        labels: Numbers of labelled patients.
        budgets: Steps of a training, rising.
        rates: Learning rates that each start chooses from.
        tuning_runs: Draws behind each choice.
        runs: Draws that are measured.
        validations: Of each training; the best network is kept.
    """

    pretraining: tuple[str, ...]
    labels: tuple[str, ...]
    budgets: tuple[int, ...] = (300, 1000, 3000)
    rates: tuple[str, ...] = ("1e-3", "3e-3", "1e-2")
    tuning_runs: int = 3
    runs: int = 10
    validations: int = 5


def plan_of(target: Target, scale: Scale = "full") -> Plan:
    """Return the plan for a GPU, for an hour on two cores, or for minutes, which prove nothing."""
    pretraining = (f"network.dims={target.dims}", *_PRETRAINING[scale, target.dims], *target.pretraining)
    if scale == "full":
        return Plan(pretraining=pretraining, labels=target.labels)
    if scale == "small":
        few = {"labels": target.labels[:1], "budgets": (300,), "rates": ("1e-3", "3e-3"), "tuning_runs": 2}
        return Plan(pretraining=pretraining, **few, validations=3)
    least = {"labels": target.labels[:1], "budgets": (20, 40), "rates": ("3e-3", "1e-2"), "tuning_runs": 1, "runs": 3}
    return Plan(pretraining=pretraining, **least, validations=1)


def measure(
    target: Target, plan: Plan, data: Path, output: Path, *, genesis: Path | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Pretrain, compare at every budget, and return a row for each budget and number of labelled patients.

    Args:
        target: What is measured.
        plan: How much.
        data: The folder of the data sets.
        output: Gets the Genesis, a comparison for each budget, and those with twice the steps.
        genesis: A run that is measured instead; one that has seen a test patient is refused.
        options: `device` and `reporter`, and `jobs` of the comparisons.
    """
    how = {key: options[key] for key in ("device", "reporter") if key in options}
    if genesis is None:
        genesis = output / "genesis"
        pretrain(
            data / target.scans,
            genesis,
            config=pretraining_recipe("small", settings=plan.pretraining),
            exclude_test_cases=target.splits,
            resume=(genesis / "run.json").exists(),
            **target.reading,
            **how,
        )
    labelled = read_labelled(data / target.labelled, **target.reading)

    def run(steps: int, labels: Sequence[str], runs: int) -> dict[str, Any]:
        asked = describe_comparison(
            ["scratch", f"genesis={genesis}"],
            labels=list(labels),
            runs=runs,
            resample_labels=True,
            tune=[f"learning_rate={','.join(plan.rates)}"],
            tuning_runs=plan.tuning_runs,
        )
        settings = [
            f"dims={target.dims}",
            *target.finetuning,
            f"steps={steps}",
            f"validate_every={-(-steps // plan.validations)}",
        ]
        folder = output / f"steps-{steps}"
        how = {"split": target.splits[0], "patient_pattern": target.reading.get("patient_pattern"), **options}
        return compare(labelled, folder, comparison=asked, settings=settings, **how).results

    rows: list[dict[str, Any]] = []
    growing = list(plan.labels)  # numbers of labels with which scratch still gains from more steps
    for steps in plan.budgets:
        results = run(steps, plan.labels, plan.runs)
        longer = run(2 * steps, growing, 1) if growing else {}
        compared = longer["labels"] if longer else ()
        gains = {labels: validated(longer, labels) - validated(results, labels) for labels in compared}
        growing = [labels for labels, gain in gains.items() if gain > MARGIN]
        rows += [row_of(results, labels, steps, gains.get(labels)) for labels in plan.labels]
    return rows


def validated(results: Mapping[str, Any], labels: str, arm: str = "scratch") -> float:
    """Return what an arm reached on the validation patients at the rate that it chose."""
    choice = next(one for one in results["tuning"] if (one["arm"], str(one["labels"])) == (arm, labels))
    return max((one["mean"] for one in choice["candidates"] if one["mean"] is not None), default=-math.inf)


def row_of(results: Mapping[str, Any], labels: str, steps: int, gain: float | None) -> dict[str, Any]:
    """Return what a comparison says of one number of labels.

    Args:
        results: The content of its `results.json`.
        labels: Labelled patients.
        steps: Of each training.
        gain: What twice the steps add to scratch on the validation patients; None where a smaller budget had settled.
    """
    entry, metric = results["labels"][labels], results["metric"]
    [found] = entry["comparisons"]
    ours, theirs = (entry["arms"][arm][metric]["values"] for arm in ("genesis", "scratch"))
    sign = -1 if METRICS[metric].lower_is_better else 1
    chosen = {one["arm"]: " ".join(one["chosen"]) for one in results["tuning"] if str(one["labels"]) == labels}
    arms = {arm: {key: entry["arms"][arm][metric][key] for key in ("mean", "std", "values")} for arm in entry["arms"]}
    return {
        "metric": metric,
        "labels": int(labels),
        "steps": steps,
        **arms,
        **{key: found[key] for key in ("pairs", "difference", "low", "high", "worst", "p")},
        "wins": sum(sign * (one - other) > 0 for one, other in zip(ours, theirs, strict=True)),
        "chosen": chosen,
        "gain_of_twice_the_steps": gain,
    }


def converged(rows: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return, by labels, the row of the smallest budget that twice the steps do not better; none where all do."""
    gains = [(row, row["gain_of_twice_the_steps"]) for row in rows]
    return {row["labels"]: row for row, gain in reversed(gains) if gain is not None and gain <= MARGIN}


def table_of(rows: Sequence[Mapping[str, Any]]) -> ResultsTable:
    """Return the rows as a table; the claim that counts is marked."""
    counted = [id(row) for row in converged(rows).values()]
    lines = [(*_cells(row), "converged" if id(row) in counted else "") for row in rows]
    header = ("labels", "steps", "scratch", "Genesis", "difference (95%)", "worst pair", "better in")
    note = (
        "Mean ± standard deviation over the draws of the labelled patients, the same for both; the rate of each start "
        "was chosen on validation patients. Converged: twice the steps do not better scratch on the validation "
        "patients; that row counts."
    )
    return ResultsTable((*header, "p, paired t", "Wilcoxon", ""), tuple(lines), notes=(note,))


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(row["labels"]), str(row["steps"]))
    for arm in (row["scratch"], row["genesis"]):
        yield f"{arm['mean']:.3f} ± {arm['std'] or 0:.3f}"
    interval = "none" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
    yield f"{row['difference']:+.3f} ({interval})"
    yield f"{row['worst']['difference']:+.3f}"
    yield f"{row['wins']} of {row['pairs']}"
    for test in ("paired_t", "wilcoxon"):
        yield "none" if row["p"][test] is None else f"{row['p'][test]:.2g}"


def main(target: Target) -> None:
    """Run the protocol on a target from the command line."""
    parser = argparse.ArgumentParser(description=f"Does a Genesis help on {target.name}? See protocol.py.")
    parser.add_argument("data", type=Path, help="the folder of the data sets")
    parser.add_argument("--output", type=Path, required=True)
    scales = parser.add_mutually_exclusive_group()
    told = {
        "small": "about an hour on two cores: one budget and number of labels",
        "quick": "minutes: shows that it runs, proves nothing",
    }
    for scale, text in told.items():
        scales.add_argument(f"--{scale}", dest="scale", action="store_const", const=scale, default="full", help=text)
    parser.add_argument("--genesis", type=Path, help="a run to measure instead of one that is pretrained first")
    parser.add_argument("--labels", help="numbers of labelled patients, such as 5,10, instead of the scale's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, help="trainings at a time")
    given = parser.parse_args()
    plan = plan_of(target, given.scale)
    plan = replace(plan, labels=tuple(given.labels.split(","))) if given.labels else plan
    reporter = make_reporter(quiet=False, folder=given.output)
    options = {"device": given.device, "reporter": reporter, **({"jobs": given.jobs} if given.jobs else {})}
    rows = measure(target, plan, given.data, given.output, genesis=given.genesis, **options)
    content = {
        "target": target.name,
        "scale": given.scale,
        "plan": asdict(plan),
        "library": __version__,
        "processor": platform.processor() or platform.machine(),
        "device": given.device,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "rows": rows,
    }
    write_json(given.output / "evidence.json", content)
    title = f"# {target.name}" + (
        ": quick, which shows that it runs and proves nothing" if given.scale == "quick" else ""
    )
    text = f"{title}\n\n{table_of(rows)}\n"
    write_atomically(given.output / "evidence.md", text)
    print(text)
