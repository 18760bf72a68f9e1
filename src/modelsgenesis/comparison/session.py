"""The way through a comparison: prepare, choose settings, only then read the test patients, train, report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modelsgenesis.comparison import report, tuning
from modelsgenesis.comparison.analysis import analyse
from modelsgenesis.comparison.efficiency import equivalents
from modelsgenesis.comparison.parts import Parts, settle_patches
from modelsgenesis.comparison.pool import run_trials
from modelsgenesis.comparison.records import Records, write_table
from modelsgenesis.comparison.trials import Arm, Bench, Trial
from modelsgenesis.configs import FinetuningConfig
from modelsgenesis.configs.base import plain
from modelsgenesis.configs.comparison import TUNING_SEED, ComparisonConfig
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import (
    ConfigurationError,
    DataError,
    Interrupted,
    MissingExtraError,
    TrainingError,
    nearest,
)
from modelsgenesis.files import write_atomically, write_json
from modelsgenesis.metrics.classification import CLASSIFICATION_METRICS
from modelsgenesis.metrics.segmentation import SEGMENTATION_METRICS
from modelsgenesis.metrics.significance import require_scipy
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.splits import choose_labelled, count_split

TABLE_NAME = "table.md"
RESULTS_NAME = "results.json"
RUNS_NAME = "runs.csv"

Record = dict[str, Any]
Settings = tuple[str, ...]


@dataclass(kw_only=True)
class Session:
    """A comparison at work.

    Attributes:
        data: The labelled data.
        comparison: What is compared.
        config: The training that all arms share.
        arms: Ready to be trained, by name.
        records: The folder.
        parts: The cases, with the split.
        jobs: Processes that train at the same time.
        device: Where they compute.
        models: Folder to keep weights in; None keeps none.
        reporter: Is told the progress.
    """

    data: LabelledData
    comparison: ComparisonConfig
    config: FinetuningConfig
    arms: dict[str, Arm]
    records: Records
    parts: Parts
    jobs: int
    device: str
    models: Path | None
    reporter: Reporter

    @property
    def metric(self) -> str:
        """What is tabled and tested."""
        return self.comparison.metric or self.own_metric

    @property
    def own_metric(self) -> str:
        """The metric of the task, by which networks are kept and settings chosen."""
        return "dice" if self.data.task == "segmentation" else "auc"

    def run(self) -> dict[str, Any]:
        """Do whatever of the comparison is missing in the folder, and write its results.

        Returns:
            The content of `results.json`.
        """
        arms = list(self.arms.values())
        self._check_metric()
        require_scipy()  # before hours of training, not after them
        self.records.describe(self._description(), type(self.config)().to_dict())
        self.parts.prepare("training", arms)
        if self.parts.split.validation:
            self.parts.prepare("validation", arms)
        self.records.check_cases(self.parts.digests)
        self.config, self.arms = settle_patches(self.arms, self.config, self.parts.shapes)
        choices = self._tune() if self.comparison.tune else []
        self.parts.prepare("test", arms)
        self.records.check_cases(self.parts.digests)
        chosen = {(choice["arm"], choice["labels"]): tuple(choice["chosen"]) for choice in choices}
        trials = self._trials(range(self.comparison.runs), lambda arm, count: [chosen.get((arm, count), ())])
        return self._report(self._train(trials), choices)

    def _check_metric(self) -> None:
        known = SEGMENTATION_METRICS if self.data.task == "segmentation" else CLASSIFICATION_METRICS
        first, _, label = self.metric.partition(" ")
        if first not in known or (label and label not in self.data.labels):
            names = [*known, *(f"{self.own_metric} {name}" for name in self.data.labels)]
            raise ConfigurationError(f"metric: received {self.metric!r}; {nearest(self.metric, names)}")

    def _description(self) -> dict[str, Any]:
        comparison = self.comparison.to_dict()
        grows = ("arms", "schemes", "labels", "runs", "metric")
        fixed = {
            "data": self.data.name,
            "classes": list(self.data.labels),
            "split": asdict(self.parts.split),
            "training": self.config.to_dict(),
            **{key: value for key, value in comparison.items() if key not in grows},
        }
        return {"fixed": fixed, "arms": {name: _described(arm) for name, arm in self.arms.items()}}

    def _cases(self, labels: str, seed: int) -> tuple[tuple[str, ...], int]:
        """Return the training cases of a label count, and how many patients they are of."""
        split = self.parts.split
        if labels != "all":
            chosen = seed if self.comparison.resample_labels else self.config.split_seed
            split = choose_labelled(split, self.data, labels, chosen)
        names = set(split.training)
        patients = {case.patient for case in self.data.cases if case.name in names}
        return split.training, len(patients)

    def _trials(
        self, seeds: Iterable[int], settings: Callable[[str, int], Iterable[Settings]], *, tuning: bool = False
    ) -> list[Trial]:
        """Return the trials of every arm and label count, seed by seed: one that is cut short is balanced.

        Args:
            seeds: One per run.
            settings: Those of an arm and label count, each a trial of its own.
            tuning: Whether the trials choose settings.
        """
        trials = [
            Trial(arm=arm, labels=count, seed=seed, cases=cases, settings=chosen, tuning=tuning)
            for seed in seeds
            for cases, count in (self._cases(labels, seed) for labels in self.comparison.labels)
            for arm in self.arms
            for chosen in settings(arm, count)
        ]
        return list(dict.fromkeys(trials))  # "5" and "10%" may be the same patients

    def _tune(self) -> list[dict[str, Any]]:
        """Return the settings chosen for each arm and label count; the bench has no test patients on it."""
        seeds = range(TUNING_SEED, TUNING_SEED + self.comparison.tuning_runs)
        trials = self._trials(seeds, lambda *_: self.comparison.candidates(), tuning=True)
        scores: dict[tuple[str, int], dict[Settings, list[float | None]]] = {}
        for trial, record in self._finish(trials, "choosing settings"):
            tried = scores.setdefault((trial.arm, trial.labels), {}).setdefault(trial.settings, [])
            tried.append(self._score(trial, record))
        chosen = tuning.choose(scores, self.own_metric)
        choices = [{"arm": arm, "labels": count, **choice} for (arm, count), choice in chosen.items()]
        write_json(self.records.folder / "tuning.json", plain(choices), TrainingError)
        return choices

    def _score(self, trial: Trial, record: Record) -> float | None:
        """Return what a candidate measured on the validation patients; None if it diverged."""
        score = record["validation"].get(self.own_metric)
        if score is None and not record.get("diverged"):
            raise DataError(
                f"{trial}: the validation patients give no {self.own_metric}; take more of them, so that each class is "
                "among them, or leave out --tune"
            )
        return score

    def _train(self, trials: Sequence[Trial]) -> list[Record]:
        records: list[Record] = []
        for trial, record in self._finish(trials, "comparing"):
            if record.get("diverged"):
                raise TrainingError(
                    f"{trial}: the training diverged; give the arm a lower learning rate with --set-arm, or choose one "
                    "with --tune, in another folder"
                )
            records.append(record)
        return records

    def _finish(self, trials: Sequence[Trial], title: str) -> list[tuple[Trial, Record]]:
        """Return every trial with its record; those that are not in the folder yet are trained."""
        done = {trial: record for trial in trials if (record := self.records.read(trial)) is not None}
        missing = [trial for trial in trials if trial not in done]
        bench = Bench(
            arms=self.arms,
            data=replace(
                self.data, cases=tuple(case for case in self.data.cases if case.name in self.parts.split.test)
            ),
            device=self.device,
            parts=self.parts.files(self.arms),
            models=self.models,
        )
        self.reporter.begin(title, len(trials), len(done))
        try:
            for trial, record in run_trials(missing, bench, self.jobs):
                done[trial] = record if record is not None else _diverged(trial)
                self.records.write(trial, done[trial])
                self.reporter.advance(len(done))
        except Interrupted as signal:
            raise Interrupted(
                signal.signum,
                f"interrupted with {len(done)} of {len(trials)} runs finished, which are kept; the same command goes "
                "on with the others",
            ) from None
        finally:
            self.reporter.end()
        return [(trial, done[trial]) for trial in trials]

    def _report(self, records: Sequence[Record], choices: list[dict[str, Any]]) -> dict[str, Any]:
        pairs, folder = choose_pairs(list(self.arms.values())), self.records.folder
        write_table(folder / RUNS_NAME, records)
        results = {
            "format_version": 1,
            "metric": self.metric,
            "data": self._data_facts(),
            "resample_labels": self.comparison.resample_labels,
            "seeds": list(range(self.comparison.runs)),
            **{
                key: ", ".join(sorted({record.get(key, "not recorded") for record in records}))
                for key in ("precision", "device")
            },
            "training": self.config.to_dict(),
            "arms": {name: _shown(arm) for name, arm in self.arms.items()},
            "labels": analyse(records, list(self.arms), pairs, self.metric),
            "efficiency": equivalents(records, pairs, self.metric),
            "tuning": choices,
            "tuning_seeds": list(range(TUNING_SEED, TUNING_SEED + self.comparison.tuning_runs)) if choices else [],
        }
        results = plain(results)
        write_json(folder / RESULTS_NAME, results, TrainingError)
        write_atomically(folder / TABLE_NAME, report.table(results), TrainingError)
        self._draw(results, records)
        return results

    def _draw(self, results: Mapping[str, Any], records: Sequence[Record]) -> None:
        from modelsgenesis.comparison.figures import draw_bars, draw_label_efficiency

        try:
            draw_bars(results, records, self.records.folder / "bars.png")
            if len(results["labels"]) > 1:
                draw_label_efficiency(results, self.records.folder / "label_efficiency.png")
        except MissingExtraError as error:
            self.reporter.note(f"no figures: {error}")

    def _data_facts(self) -> dict[str, Any]:
        counts = count_split(self.parts.split, self.data)
        keys = ("patients", "cases")
        return {
            "name": self.data.name,
            "task": self.data.task,
            **{key: {part: count[key] for part, count in counts.items()} for key in keys},
        }


def choose_pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Return which arms are compared: each with the first scratch arm of its dimensions, else with the first arm.

    Where arms of two and of three dimensions are there, each kind of start is compared across the dimensions too.
    """
    scratch = [arm for arm in arms if arm.init is None]
    pairs: list[tuple[str, str]] = []
    for arm in arms:
        same = [other for other in scratch if other.dims == arm.dims]
        reference = next(iter([*same, *scratch, arms[0]]))
        if reference is not arm and (arm.init is not None or reference.dims == arm.dims):
            pairs.append((arm.name, reference.name))
    for kind in (scratch, [arm for arm in arms if arm.init is not None]):
        cubes, slices = ([arm for arm in kind if arm.dims == dims] for dims in (3, 2))
        if cubes and slices:
            pairs.append((cubes[0].name, slices[0].name))
    return pairs


def _described(arm: Arm) -> dict[str, Any]:
    return {
        "init": arm.init,
        "weights": arm.digest,
        "shape": arm.shape.to_dict(),
        "contract": arm.contract.to_dict(),
        "settings": list(arm.settings),
    }


def _shown(arm: Arm) -> dict[str, Any]:
    return {
        "init": arm.init,
        "weights": arm.digest,
        "dims": arm.dims,
        "parameters": arm.parameters,
        "settings": list(arm.settings),
        "learning_rate": arm.config.learning_rate,
        "steps": arm.config.steps,
        "batch_size": arm.config.batch_size,
    }


def _diverged(trial: Trial) -> Record:
    asked = {"arm": trial.arm, "labels": trial.labels, "seed": trial.seed, "settings": trial.settings}
    return plain({**asked, "training": trial.cases, "diverged": True, "validation": {}})
