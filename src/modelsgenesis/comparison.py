"""Compare initialisations on labelled data: fine-tune each with few labels, many times, and test the differences.

A comparison is a loop over `finetune`: every initialisation × label count × seed is one trial, and what has finished is
not repeated. An initialisation is called an arm, as the groups of a clinical trial are.
"""

import itertools
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Unpack

import numpy as np

from modelsgenesis._version import __version__
from modelsgenesis.checkpoints import Bundle, read_config, save_bundle
from modelsgenesis.configs import FinetuningConfig, apply_settings
from modelsgenesis.configs.base import Bounds, Config, Positive, plain
from modelsgenesis.configs.training import SCRATCH, LabelledDataConfig
from modelsgenesis.data.cases import LabelledData, PreparedCases, digest_files
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, TrainingError, did_you_mean, require
from modelsgenesis.figures.charts import save_chart, validation_curve
from modelsgenesis.figures.comparisons import comparison_chart
from modelsgenesis.files import sha256_of, write_atomically, write_csv, write_json
from modelsgenesis.finetuning import FinetuningOptions, begin_finetuning, resolve_config
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.metrics.comparison_texts import comparison_report, comparison_table, remarks_of_runs
from modelsgenesis.metrics.measures import UNIT, flat, metrics_of
from modelsgenesis.metrics.significance import analyse, label_efficiency
from modelsgenesis.models import GenesisModel, as_source, load, public_name, split_download
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import Renewals, write_report
from modelsgenesis.training.bundles import try_drawing
from modelsgenesis.training.leakage import refuse_seen
from modelsgenesis.training.results import read_rows, read_test_results, summary_options
from modelsgenesis.training.run import VALIDATION_NAME
from modelsgenesis.training.splits import Split, check_split, choose_labelled, count_split, read_split, split_cases
from modelsgenesis.training.supervised import PATCH_VOXELS
from modelsgenesis.training.trials import Record, Records, Trial, file_name, jobs_at_once, run_trials

# What has to be equal in all trainings of an initialisation: shape, patch, split and seeds.
_FIXED = (
    *("network", "dims", "hidden", "levels", "patch_size", "seed", "split_seed", "labelled_patients", "folds", "fold"),
    *("bootstrap", "validation_fraction", "test_fraction"),
)

# Bytes of a GPU: what CUDA and its libraries take in a process, and what a voxel of a batch takes for each feature of
# the first level, whose maps and gradients are most of a U-Net's.
_CONTEXT, _OF_A_VOXEL = 1.5e9, 250

_TUNING_SEED = 1_000_000  # the first that chooses settings; measured runs count from 0, so that none is of both kinds

Settings = tuple[str, ...]
"""`key=value` of a fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class ArmConfig(Config):
    """One of the initialisations that are compared.

    Attributes:
        name: What tables and figures call it.
        init: `"scratch"`, or what to load: a name of the registry, `org/repo`, or a folder.
        settings: `key=value` of the fine-tuning of this one alone.
    """

    name: str
    init: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig(Config):
    """A comparison: every initialisation is trained with every label count and every seed, by the same budget.

    Attributes:
        arms: The initialisations, each under a name of its own.
        labels: Label counts in patients: `"10"`, `"10%"` of the training patients, or `"all"`.
        runs: Runs of each initialisation and label count, with seeds 0, 1, 2 …
        resample_labels: Draw the labelled patients anew for each seed; else they are the same in all runs of a count.
        tune: `key=value,value,…` to choose from for each initialisation and label count, on the validation patients.
        tuning_runs: Runs of each candidate, with seeds that no measured run has.
        metric: What is tabled and tested; None for `dice` or `auc`.
    """

    arms: tuple[ArmConfig, ...]
    labels: tuple[str, ...] = ("all",)
    runs: Annotated[int, Bounds(1, _TUNING_SEED)] = 10
    resample_labels: bool = False
    tune: tuple[str, ...] = ()
    tuning_runs: Positive = 3
    metric: str | None = None

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for the names of arms, and what is tuned."""
        named = self.arms and all(arm.name.strip() and arm.init.strip() for arm in self.arms)
        yield named, "arms: received an empty --init; write --init NAME=WEIGHTS"
        yield self.labels, "labels: received an empty --labels; write --labels 10,20"
        names = Counter(file_name(arm.name) for arm in self.arms)  # as folders, which "a b" and "a/b" would share
        twice = ", ".join(name for name, count in names.items() if count > 1)
        yield not twice, f"arms: two initialisations are called {twice}; write --init NAME=WEIGHTS"
        self.candidates()

    def candidates(self) -> tuple[Settings, ...]:
        """Return every combination of the values to choose from, each as `key=value` settings; one empty without any.

        Raises:
            ConfigurationError: A part of `tune` is not `key=value,value`, or is the same for all trainings.

        Example:
            >>> arm = ArmConfig(name="control", init="scratch")
            >>> ComparisonConfig(arms=(arm,), tune=("learning_rate=1e-3,3e-3",)).candidates()
            (('learning_rate=1e-3',), ('learning_rate=3e-3',))
        """
        axes: list[list[str]] = []
        for text in self.tune:
            key, _, values = text.replace(" ", "").partition("=")
            chosen = [value for value in values.split(",") if value]
            require(key and chosen, ConfigurationError, f"tune {text!r}: expected key=value,value")
            free = key.split(".")[0] not in _FIXED
            require(free, ConfigurationError, f"tune {text!r}: must be the same for all trainings; use --set")
            axes.append([f"{key}={value}" for value in chosen])
        return tuple(itertools.product(*axes))


@dataclass(frozen=True)
class Comparison:
    """What `compare` wrote.

    Attributes:
        folder: Where: the report `report.html`, the same as text in `table.md`, `comparison.png` and `.svg`,
            `results.json` and its table as CSV, Markdown and LaTeX, `runs.csv`, and a file per run.
        results: The content of `results.json`.
        table: The content of `table.md`.
    """

    folder: Path
    results: dict[str, Any]
    table: str


def describe_comparison(
    inits: Sequence[str | GenesisModel], *, arm_settings: Sequence[str] = (), dims: Sequence[int] = (), **options: Any
) -> ComparisonConfig:
    """Return a comparison in the words of the command line.

    Args:
        inits: `scratch`, a name, `org/repo`, a folder or a model for each initialisation; `NAME=` before a text is what
            to call it.
        arm_settings: `arm:key=value`, for one of them alone.
        dims: One number: of every network, weights of others adapted. Two: every scratch arm is made of each, other
            arms keep those of their weights.
        options: More of `ComparisonConfig`.

    Raises:
        ConfigurationError: A setting is of no arm, or a field cannot be as given.

    Example:
        >>> [arm.name for arm in describe_comparison(["scratch", "ours=runs/pretrain"], dims=[2, 3]).arms]
        ['scratch 2D', 'scratch 3D', 'ours']
    """
    arms: list[dict[str, Any]] = []
    for text in map(str, map(as_source, inits)):
        name, equals, init = text.partition("=")
        name, init = (name, init) if equals and not Path(text).exists() else (public_name(text), text)
        own = dims if init == SCRATCH or len(dims) == 1 else ()
        for number in own or [None]:
            called = f"{name} {number}D" if len(own) > 1 else name
            arms.append({"name": called, "init": init, "settings": [f"dims={number}"] if own else []})
    by_name = {arm["name"]: arm["settings"] for arm in arms}
    for text in arm_settings:
        name, _, setting = text.partition(":")
        require("=" in setting, ConfigurationError, f"set {text!r}: expected NAME:key=value, such as ours:steps=500")
        known = did_you_mean(name, by_name)
        require(name in by_name, ConfigurationError, f"set {text!r}: there is no initialisation {name!r}; {known}")
        by_name[name].append(setting)
    return ComparisonConfig.from_dict({"arms": arms, **options})


def compare(
    source: str | Path | LabelledData,
    output: str | Path,
    *,
    comparison: ComparisonConfig,
    config: FinetuningConfig | None = None,
    settings: Sequence[str] = (),
    split: Split | str | Path | None = None,
    jobs: int | None = None,
    keep_models: bool = False,
    device: str = "auto",
    strict: bool = False,
    task: str | None = None,
    reporter: Reporter | None = None,
    **options: Unpack[FinetuningOptions],
) -> Comparison:
    """Fine-tune every initialisation with every label count and seed by the same budget, and test how they differ.

    A folder that holds a part of the comparison is resumed: finished runs are not repeated, and more runs, label counts
    or initialisations may be asked for than before.

    Args:
        source: Labelled data: a folder or file that `read_labelled` knows, or what it returned.
        output: Folder of the comparison: new, or of the same one.
        comparison: Initialisations, label counts, runs, what to tune.
        config: The fine-tuning that all share; its fractions and `split_seed` make the split.
        settings: `key=value` on top of it.
        split: Which cases are for what, or a file that says it; by default drawn.
        jobs: Processes that train at the same time, each on its share of the cores; None for 1 on a CPU, and on a GPU
            as many as its memory and the cores hold, at most 8.
        keep_models: Keep the trained bundle of every run, in `models/`.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        strict: A bad case is an error instead of being skipped.
        task: `"seg"` or `"cls"`; None for what the labels are for.
        reporter: Receives the progress.
        options: `modality`, `patient_pattern` and those of a download, as of `finetune`.

    Returns:
        Where the results are, and the results.

    Raises:
        DataError: The data or the split cannot be used.
        TrainingError: A run failed, or the folder holds another comparison; the message lists the differences.
        Interrupted: A signal came; what had finished is kept, and the same call resumes.

    Example:
        comparison = describe_comparison(["scratch", "genesis=runs/pretrain"], labels=["5", "10"])
        print(compare("Task04_Hippocampus", "runs/compared", comparison=comparison).table)
    """
    reporter = reporter or Reporter()
    # Without loader processes: they would compete with the trainings that run side by side.
    settings = [*([] if config else ["workers=0"]), *settings]
    data, download = split_download(options)
    data |= {} if isinstance(split, Split) else {"split": split and str(split)}
    config, labelled = resolve_config(source, config, task=task, **data)
    config = apply_settings(config, settings)
    split = _choose_split(labelled, config, split, comparison)
    # A comparison is told from another by digests of the data, wherever it lies.
    config, pattern = config.override(data=LabelledDataConfig()), config.data.patient_pattern
    metric = choose_metric(comparison.metric, labelled)
    for note in labelled.notes:
        reporter.note(note)
    with closing(Records(output)) as records, records.work_folder() as work:
        fetch = partial(load, progress=reporter.download, **download)
        check = partial(refuse_seen, data=labelled, split=split, pattern=pattern, reporter=reporter)
        arms, seen = _load_arms(comparison.arms, labelled, config, work / "weights", fetch, check)
        models = records.folder / "models" if keep_models else None
        job = _Job(comparison, config, labelled, split, arms, work, models, device, strict)
        reporter.note(f"hashing the files of {len(labelled.cases)} cases")
        records.describe(job.asked())
        jobs = jobs or jobs_at_once(choose_hardware(device).device, job.memory())
        finish = partial(_finish, records, job.train, jobs, reporter)
        chosen: dict[tuple[str, int], dict[str, Any]] = {}
        if comparison.tune:  # before a test patient is measured: no choice can depend on one
            seeds = range(_TUNING_SEED, _TUNING_SEED + comparison.tuning_runs)
            trials = job.plan(replace(split, test=()), seeds, lambda *_: comparison.candidates())
            chosen = _choose_settings(trials, finish(trials), metrics_of(labelled.task)[0])
            write_json(records.folder / "tuning.json", list(chosen.values()), TrainingError)
        trials = job.plan(split, range(comparison.runs), lambda *of: [chosen[of]["chosen"] if chosen else ()])
        finished = finish(trials)
    for trial, record in zip(trials, finished, strict=True):
        lower = f"--set '{trial.arm}:learning_rate=…' or --tune"
        told = f"{trial}: the training diverged; give it a lower learning rate with {lower}, in another folder"
        require(not record.get("diverged"), TrainingError, told)
    results = plain({**job.results(finished, metric), "tuning": list(chosen.values()), "seen": seen})
    return _write(records.folder, results, finished, reporter)


def choose_metric(metric: str | None, data: LabelledData) -> str:
    """Return the metric to test: as asked, else that of the task, by which networks are kept and settings chosen."""
    known = metrics_of(data.task)
    first, _, label = (metric or known[0]).partition(" ")
    found = first in known and label in ("", *data.labels)
    names = [*known, *(f"{known[0]} {name}" for name in data.labels)]
    require(found, ConfigurationError, f"metric: received {metric!r}; {did_you_mean(str(metric), names)}")
    return metric or known[0]


def _choose_split(
    data: LabelledData, config: FinetuningConfig, split: Split | str | Path | None, comparison: ComparisonConfig
) -> Split:
    """Return the split that was given, else that of the configuration's file, else a drawn one."""
    if not isinstance(split, Split):
        own = config.data.split
        split = read_split(own) if own else split_cases(data, config.override(labelled_patients=None))
    check_split(split, data)
    require(split.test, DataError, f"{data.name}: the split has no test patients, so nothing could be compared")
    validated = split.validation or not comparison.tune
    require(validated, DataError, f"{data.name}: the split has no validation patients to choose settings on")
    return split


def _load_arms(
    listed: Sequence[ArmConfig],
    data: LabelledData,
    config: FinetuningConfig,
    folder: Path,
    fetch: Callable[..., Bundle],
    check: Callable[[str, Bundle], str],
) -> tuple[dict[str, FinetuningConfig], dict[str, str]]:
    """Load what the arms start from, once and for all processes.

    Returns:
        The fine-tuning of each arm, and what is known of whether its weights have seen the test patients.
    """
    weights: dict[str, str] = {}
    dims: dict[str, int] = {}
    seen: dict[str, str] = {}
    # Here and not in each trial: a branch on the Hub may move between runs, and N processes would download N times.
    for number, init in enumerate(dict.fromkeys(arm.init for arm in listed if arm.init != SCRATCH)):
        bundle = fetch(init)
        seen[init] = check(init, bundle)
        weights[init] = str(save_bundle(folder / str(number) / file_name(public_name(init)), bundle))
        dims[weights[init]] = bundle.config.network.unet.dims
    arms: dict[str, FinetuningConfig] = {}
    for arm in listed:
        own, source = apply_settings(config, arm.settings), weights.get(arm.init)
        if arm.init == SCRATCH and not any(setting.startswith("network.") for setting in arm.settings):
            # The control has the architecture of the first weights of its dimensions, else of the first.
            source = next(iter([*(path for path in dims if own.dims in (None, dims[path])), *dims]), None)
        # Weights of 2 dimensions learn the slices of volumes, and so does their control.
        own = own.override(dims=own.dims or min(data.dims, dims.get(source or "", data.dims)))
        if own.dims == 2 and own.patch_size:
            own = own.override(patch_size=own.patch_size[:2])  # two sides of what arms of three share
        arms[arm.name] = own.override(init=source, from_scratch=arm.init == SCRATCH and source is not None)
    return arms, {arm.name: seen[arm.init] for arm in listed if arm.init in seen}


def _describe(arm: FinetuningConfig) -> dict[str, Any]:
    """Return what tells an arm from one of the same name in another comparison."""
    if arm.init is None:
        return {"training": arm.to_dict(), "weights": None}
    bundle, digest = read_config(arm.init), sha256_of(Path(arm.init) / "model.safetensors")
    start = {"init": Path(arm.init).name, "network": bundle.network.to_dict(), "input": bundle.input.to_dict()}
    # Another control of the same architecture is the same: its weights are random.
    return {"training": {**arm.to_dict(), **start}, "weights": None if arm.from_scratch else digest}


@dataclass(frozen=True)
class _Job:
    """A comparison under way; it is sent to the processes that train.

    Attributes:
        comparison: What is compared.
        config: The fine-tuning that all arms share.
        data: The labelled data.
        split: Which cases are for what.
        arms: The fine-tuning of each arm.
        work: Folder of prepared cases, which all processes map, and of trainings under way.
        models: Folder to keep the trained bundles in; None keeps none.
        device: Where to compute.
        strict: A bad case is an error.
        cases: The prepared cases that this process has read, by their size and fit.
    """

    comparison: ComparisonConfig
    config: FinetuningConfig
    data: LabelledData
    split: Split
    arms: Mapping[str, FinetuningConfig]
    work: Path
    models: Path | None
    device: str
    strict: bool
    cases: dict[Any, PreparedCases] = field(default_factory=dict)

    def memory(self) -> float:
        """Return the bytes of a GPU that a training of these takes at most, by a generous rule for U-Nets."""
        needed = 0.0
        for arm in self.arms.values():
            for settings in self.comparison.candidates():
                tuned = apply_settings(arm, settings)
                unet: Any = (read_config(arm.init).network if arm.init else tuned.network).unet
                voxels = math.prod(tuned.patch_size or (PATCH_VOXELS,))
                needed = max(needed, _CONTEXT + _OF_A_VOXEL * unet.widths[0] * voxels * tuned.batch_size)
        return needed

    def asked(self) -> dict[str, Any]:
        """Return what tells this comparison from another one, by section; see `Records.describe`."""
        # Not the label counts, the number of runs or the metric: more of them may be asked for later.
        asked = {key: getattr(self.comparison, key) for key in ("resample_labels", "tune", "tuning_runs")}
        asked |= {"data": self.data.name, "classes": self.data.labels, "training": self.config}
        asked["split"] = split = asdict(self.split)
        arms = {name: _describe(arm) for name, arm in self.arms.items()}
        return {"asked": asked, "arms": arms, "files": digest_files(self.data, itertools.chain(*split.values()))}

    def plan(
        self, split: Split, seeds: Iterable[int], settings: Callable[[str, int], Iterable[Settings]]
    ) -> list[Trial]:
        """Return the trials of every arm and label count, seed by seed: a comparison that is cut short is balanced.

        Args:
            split: Which cases are for what; without test cases the trials choose settings.
            seeds: One per run.
            settings: Those of an arm and label count, each a trial of its own.
        """
        patients = {case.name: case.patient for case in self.data.cases}
        trials: list[Trial] = []
        for seed, labels in itertools.product(seeds, self.comparison.labels):
            drawn_by = seed if self.comparison.resample_labels else self.config.split_seed
            # Drawn by one seed the counts are nested: five patients are among ten.
            few = split if labels == "all" else choose_labelled(split, self.data, labels, drawn_by)
            count = len({patients[name] for name in few.training})
            for arm in self.arms:
                trials += [Trial(arm=arm, labels=count, seed=seed, split=few, settings=s) for s in settings(arm, count)]
        return list(dict.fromkeys(trials))  # "5" and "10%" may be the same patients

    def train(self, trial: Trial) -> Record:
        """Fine-tune one network and return what it measured."""
        started, folder = time.perf_counter(), self.work / trial.place
        reporter, notes = Reporter(), list[str]()
        reporter.note = notes.append  # pyright: ignore[reportAttributeAccessIssue] - it may be in another process
        # Intervals are over the runs and not of each: one resample of the patients is enough.
        config = apply_settings(self.arms[trial.arm], trial.settings).override(seed=trial.seed, bootstrap=1)
        config = config.with_data(cache=self.work / "prepared")
        options: dict[str, Any] = {"device": self.device, "strict": self.strict, "draw": False, "reporter": reporter}
        job = begin_finetuning(config, folder, self.data, download={}, resumable=False, **options)
        job.cases = self.cases.setdefault((job.cases.size, job.cases.fit), job.cases)  # read once in a process
        job.train(trial.split, resume=False)
        results = read_test_results(folder)
        record = {
            **trial.asked,
            "learning_rate": config.learning_rate,
            "parameters": sum(parameter.numel() for parameter in job.begun.network.parameters()),
            **{key: results[key] for key in ("validation", "step", "steps", "precision", "device")},
            **({} if trial.tuning else {"test": flat(results["test"]), "cases": read_rows(folder, results)}),
            **({} if trial.tuning else {"curve": validation_curve(folder / VALIDATION_NAME)}),
            "notes": notes,
            "remarks": results["remarks"],
            "seconds": round(time.perf_counter() - started, 2),
            "library_version": __version__,
        }
        if self.models is not None and not trial.tuning:
            shutil.rmtree(folder / "checkpoints")
            shutil.copytree(folder, self.models / trial.place, dirs_exist_ok=True)
        shutil.rmtree(folder)  # nothing else of hundreds of trainings stays on disk
        return record

    def results(self, finished: Sequence[Record], metric: str) -> dict[str, Any]:
        """Return what the finished trials tell: the content of `results.json`, but for what was tuned."""
        pairs, parts = choose_pairs(self.arms), count_split(self.split, self.data).items()
        patients = {part: count["patients"] for part, count in parts}
        arms: dict[str, dict[str, Any]] = {}
        unit = next((row.get(UNIT) for record in finished for row in record["cases"]), None)
        for arm in self.comparison.arms:
            own = {key: getattr(self.arms[arm.name], key) for key in ("dims", "learning_rate", "steps", "batch_size")}
            own["parameters"] = next(record["parameters"] for record in finished if record["arm"] == arm.name)
            own["init"] = None if arm.init == SCRATCH else public_name(arm.init)
            arms[arm.name] = {**own, "settings": arm.settings}
        return {
            "format_version": 2,
            "metric": metric,
            "unit": unit,
            "data": {"name": self.data.name, "task": self.data.task, "classes": self.data.labels, "patients": patients},
            "resample_labels": self.comparison.resample_labels,
            "seeds": list(range(self.comparison.runs)),
            "training": self.config,
            "arms": arms,
            **{key: ", ".join(sorted({record[key] for record in finished})) for key in ("precision", "device")},
            "labels": analyse(finished, pairs, metric, summary_options(self.data, self.config)),
            "efficiency": label_efficiency(finished, pairs, metric),
            "remarks": remarks_of_runs(finished),
        }


def _finish(
    records: Records, train: Callable[[Trial], Record], jobs: int, reporter: Reporter, trials: Sequence[Trial]
) -> list[Record]:
    """Return the record of every trial; those that are not in the folder yet are trained."""
    done = {trial: record for trial in trials if (record := records.read(trial)) is not None}
    reporter.begin("choosing settings" if trials[0].tuning else "comparing", len(trials), len(done))
    renewals = Renewals(records.folder, reporter)
    try:
        for trial, record in run_trials([trial for trial in trials if trial not in done], train, jobs):
            records.write(trial, record)
            done[trial] = record
            reporter.advance(len(done))
            renewals.renew()
    except Interrupted as signal:
        told = f"interrupted with {len(done)} of {len(trials)} runs finished, which are kept; the same command resumes"
        raise Interrupted(signal.signum, told) from None
    finally:
        reporter.end()
        for note in dict.fromkeys(note for record in done.values() for note in record.get("notes", ())):
            reporter.note(note)  # each once, and not once per run
    return [done[trial] for trial in trials]


def _choose_settings(
    trials: Sequence[Trial], records: Sequence[Record], metric: str
) -> dict[tuple[str, int], dict[str, Any]]:
    """Return what each arm and label count chooses, by the mean of its runs on the validation patients.

    Returns:
        By arm and label count JSON values: `chosen`, the first on ties, and `candidates` with their means. A candidate
        of which a run diverged has none, and is last.
    """
    tried: dict[tuple[str, int], dict[Settings, list[float]]] = {}
    for trial, record in zip(trials, records, strict=True):
        score = -math.inf if record.get("diverged") else record["validation"].get(metric)
        told = f"{trial}: the validation patients give no {metric}; take more of each class, or leave out --tune"
        require(score is not None, DataError, told)
        tried.setdefault((trial.arm, trial.labels), {}).setdefault(trial.settings, []).append(score)
    choices: dict[tuple[str, int], dict[str, Any]] = {}
    for (arm, labels), scores in tried.items():
        means = {settings: float(np.mean(values)) for settings, values in scores.items()}
        candidates = [{"settings": one, "mean": mean if math.isfinite(mean) else None} for one, mean in means.items()]
        chosen = max(means, key=means.__getitem__)
        choices[arm, labels] = {"arm": arm, "labels": labels, "chosen": chosen, "candidates": candidates}
    return choices


def choose_pairs(arms: Mapping[str, FinetuningConfig]) -> list[tuple[str, str]]:
    """Return which arms are compared: each with the first scratch arm of its dimensions, else with the first arm.

    Where arms of two and of three dimensions are there, each kind of start is compared across the dimensions too.
    """
    axes = {name: arm.dims for name, arm in arms.items()}
    scratch = [name for name, arm in arms.items() if arm.init is None or arm.from_scratch]
    pairs: list[tuple[str, str]] = []
    for name in arms:
        # A control of other dimensions would mix two questions: the weights, and slices against volumes.
        reference = next(iter([*(one for one in scratch if axes[one] == axes[name]), *scratch, *arms]))
        if reference != name and (name not in scratch or axes[reference] == axes[name]):
            pairs.append((name, reference))
    for kind in (scratch, [name for name in arms if name not in scratch]):
        volumes, slices = ([name for name in kind if axes[name] == number] for number in (3, 2))
        pairs += list(zip(volumes[:1], slices[:1], strict=False))
    return pairs


def _write(folder: Path, results: dict[str, Any], records: Sequence[Record], reporter: Reporter) -> Comparison:
    """Write `runs.csv`, `results.json`, the table of results, `table.md`, the chart, and the report of all of it."""
    rows = [
        {
            **{name: record[name] for name in ("arm", "labels", "seed", "learning_rate")},
            "settings": " ".join(record["settings"]),
            **record["test"],
            **{f"validation {name}": value for name, value in record["validation"].items()},
            **{name: record[name] for name in ("step", "steps", "seconds")},
        }
        for record in records
    ]
    table = comparison_report(results)
    write_csv(folder / "runs.csv", rows, TrainingError)
    write_json(folder / "results.json", results, TrainingError)
    comparison_table(results).write(folder)
    write_atomically(folder / "table.md", table, TrainingError)
    try_drawing(lambda: save_chart(comparison_chart(results), folder / "comparison.png"), reporter)
    write_report(folder, reporter=reporter)
    return Comparison(folder, results, table)
