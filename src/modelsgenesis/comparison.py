"""Compare initialisations on labelled data: fine-tune each with few labels, many times, and test the differences.

A comparison is a loop over `finetune`: every initialisation × label count × seed is one trial, and what has finished is
not repeated. An initialisation is called an arm, as the groups of a clinical trial are.
"""

import itertools
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis._version import __version__
from modelsgenesis.checkpoints import load_bundle, read_config, save_bundle
from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, apply_settings
from modelsgenesis.configs.base import plain
from modelsgenesis.configs.comparison import SCRATCH, TUNING_SEED, ArmConfig, ComparisonConfig, file_name
from modelsgenesis.configs.finetuning import LabelledDataConfig
from modelsgenesis.data.cases import LabelledData, digest_files
from modelsgenesis.errors import (
    ConfigurationError,
    DataError,
    Interrupted,
    MissingExtraError,
    TrainingError,
    did_you_mean,
)
from modelsgenesis.figures import comparison_report, draw_comparison
from modelsgenesis.files import sha256_of, write_atomically, write_csv, write_json
from modelsgenesis.finetuning import finetune, read_rows, read_test_results, resolve_config
from modelsgenesis.metrics.classification import CLASSIFICATION_METRICS
from modelsgenesis.metrics.segmentation import SEGMENTATION_METRICS
from modelsgenesis.metrics.significance import analyse, label_efficiency, require_scipy
from modelsgenesis.metrics.summary import flat
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.splits import Split, check_split, choose_labelled, count_split, read_split, split_cases
from modelsgenesis.training.trials import Record, Records, Trial, run_trials

Settings = tuple[str, ...]
"""`key=value` of a fine-tuning."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` wrote.

    Attributes:
        folder: Where: `table.md`, `results.json`, `runs.csv`, `comparison.png`, and a file per run.
        results: The content of `results.json`.
        table: The content of `table.md`.
    """

    folder: Path
    results: dict[str, Any]
    table: str


def compare(
    source: str | Path | LabelledData,
    output: str | Path,
    *,
    comparison: ComparisonConfig,
    config: FinetuningConfig | None = None,
    settings: Sequence[str] = (),
    split: Split | str | Path | None = None,
    task: str | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
    jobs: int = 1,
    keep_models: bool = False,
    device: str = "auto",
    strict: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
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
        task: `"seg"` or `"cls"`; None takes what the data is for.
        modality: What the images are; None takes what the data says.
        patient_pattern: A regular expression on a file's name whose first group is the patient.
        jobs: Processes that train at the same time, each on its share of the cores; 1 on a GPU.
        keep_models: Keep the trained bundle of every run, in `models/`.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        strict: A bad case is an error instead of being skipped.
        token: Token of the Hub.
        reporter: Receives the progress.

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
    require_scipy()  # before hours of training, not after them
    given: dict[str, Any] = {"modality": modality, "patient_pattern": patient_pattern}
    given["split"] = None if isinstance(split, Split) else split
    # Without loader processes: they would compete with the trainings that run side by side.
    default = ["workers=0"] if config is None else []
    config, data = resolve_config(source, config, task=task, **given)
    split = split if isinstance(split, Split) else config.data.split
    for note in data.notes:
        reporter.note(note)
    # What tells a comparison from another are digests of the data, wherever it lies.
    config = apply_settings(config, [*default, *settings]).override(data=LabelledDataConfig())
    metric = _choose_metric(comparison.metric, data)
    split = _choose_split(data, config, split, comparison)
    records = Records(output)
    try:
        with records.work_folder() as work:
            arms = _load_arms(comparison, data, config, work / "weights", token=token, reporter=reporter)
            # Not the label counts, the number of runs or the metric: more of them may be asked for later.
            asked = {"data": data.name, "classes": data.labels, "split": asdict(split), "training": config.to_dict()}
            asked |= {key: comparison.to_dict()[key] for key in ("resample_labels", "tune", "tuning_runs")}
            described = {name: _describe(arm) for name, arm in arms.items()}
            files = digest_files(data, (*split.training, *split.validation))
            records.describe(asked=asked, arms=described, files=files)
            bench = _Bench(
                data=data,
                arms=arms,
                work=work,
                models=records.folder / "models" if keep_models else None,
                device=device,
                strict=strict,
            )
            trials, finished, chosen = _run(comparison, split, config.split_seed, bench, records, jobs, reporter)
    finally:
        records.close()
    for trial, record in zip(trials, finished, strict=True):
        if record.get("diverged"):
            raise TrainingError(
                f"{trial}: the training diverged; give the initialisation a lower learning rate with --set-arm, or "
                "choose one with --tune, in another folder"
            )
    patients = {subset: count["patients"] for subset, count in count_split(split, data).items()}
    results = {
        "format_version": 2,
        "metric": metric,
        "data": {"name": data.name, "task": data.task, "patients": patients},
        "resample_labels": comparison.resample_labels,
        "seeds": list(range(comparison.runs)),
        "training": config.to_dict(),
        "arms": {arm.name: _show(arm, arms[arm.name], finished) for arm in comparison.arms},
        "tuning": list(chosen.values()),
        **_analyse(data, config, arms, finished, metric),
    }
    return _write(records.folder, plain(results), finished, reporter)


def _run(
    comparison: ComparisonConfig,
    split: Split,
    split_seed: int,
    bench: "_Bench",
    records: Records,
    jobs: int,
    reporter: Reporter,
) -> tuple[list[Trial], list[Record], dict[tuple[str, int], dict[str, Any]]]:
    """Choose settings where that is asked for, then run every trial.

    Returns:
        The trials, a record of each, and by arm and label count what was chosen.
    """
    finish = partial(_finish, bench, records, jobs, reporter)
    plan = partial(_plan, comparison, bench.data, split_seed)
    chosen: dict[tuple[str, int], dict[str, Any]] = {}
    if comparison.tune:  # before a test patient is read: no choice can depend on one
        seeds = range(TUNING_SEED, TUNING_SEED + comparison.tuning_runs)
        trials = plan(replace(split, test=()), seeds, lambda *_: comparison.candidates())
        chosen = _choose_settings(trials, finish("choosing settings", trials), _choose_metric(None, bench.data))
        write_json(records.folder / "tuning.json", list(chosen.values()), TrainingError)
    records.describe(files=digest_files(bench.data, split.test))

    def settings_of(arm: str, labels: int) -> list[Settings]:
        return [chosen[arm, labels]["chosen"] if chosen else ()]

    trials = plan(split, range(comparison.runs), settings_of)
    return trials, finish("comparing", trials), chosen


def _analyse(
    data: LabelledData,
    config: FinetuningConfig,
    arms: Mapping[str, FinetuningConfig],
    records: Sequence[Record],
    metric: str,
) -> dict[str, Any]:
    """Return means, differences and tests by label count, label efficiency, and what was computed in."""
    options = {"labels": data.labels, "task": data.task, "multilabel": data.multilabel}
    if isinstance(config, ClassificationConfig):
        options["specificity"] = config.specificity
    pairs = choose_pairs(arms)
    return {
        **{key: ", ".join(sorted({record[key] for record in records})) for key in ("precision", "device")},
        "labels": analyse(records, pairs, metric, options),
        "efficiency": label_efficiency(records, pairs, metric),
    }


def describe_comparison(
    inits: Sequence[str], *, arm_settings: Sequence[str] = (), dims: Sequence[int] = (), **options: Any
) -> ComparisonConfig:
    """Return a comparison in the words of the command line.

    Args:
        inits: `scratch`, a name, `org/repo` or a folder for each initialisation; `NAME=` before it is what to call it.
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
    for text in inits:
        name, equals, init = text.partition("=")
        name, init = (name, init) if equals and not Path(text).exists() else (public_name(text), text)
        own = dims if init == SCRATCH or len(dims) == 1 else ()
        for number in own or [None]:
            called = f"{name} {number}D" if len(own) > 1 else name
            arms.append({"name": called, "init": init, "settings": [f"dims={number}"] if own else []})
    for text in arm_settings:
        name, _, setting = text.partition(":")
        if "=" not in setting:
            raise ConfigurationError(f"set-arm {text!r}: expected arm:key=value, such as scratch:learning_rate=3e-3")
        meant = [arm for arm in arms if arm["name"] == name]
        if not meant:
            names = [arm["name"] for arm in arms]
            raise ConfigurationError(f"set-arm {text!r}: there is no arm {name!r}; {did_you_mean(name, names)}")
        meant[0]["settings"].append(setting)
    return ComparisonConfig.from_dict({"arms": arms, **options})


def _choose_metric(metric: str | None, data: LabelledData) -> str:
    """Return the metric to test: as asked, else that of the task, by which networks are kept and settings chosen."""
    segments = data.task == "segmentation"
    own, known = ("dice", SEGMENTATION_METRICS) if segments else ("auc", CLASSIFICATION_METRICS)
    first, _, label = (metric or own).partition(" ")
    if first not in known or (label and label not in data.labels):
        names = [*known, *(f"{own} {name}" for name in data.labels)]
        raise ConfigurationError(f"metric: received {metric!r}; {did_you_mean(str(metric), names)}")
    return metric or own


def _choose_split(
    data: LabelledData, config: FinetuningConfig, split: Split | str | Path | None, comparison: ComparisonConfig
) -> Split:
    if isinstance(split, (str, Path)):
        split = read_split(split)
    split = split or split_cases(data, config.override(labelled_patients=None))
    check_split(split, data)
    if not split.test:
        raise DataError(f"{data.name}: the split has no test patients, so nothing could be compared")
    if comparison.tune and not split.validation:
        raise DataError(f"{data.name}: the split has no validation patients to choose settings on")
    return split


def _load_arms(
    comparison: ComparisonConfig,
    data: LabelledData,
    config: FinetuningConfig,
    folder: Path,
    *,
    token: str | None,
    reporter: Reporter,
) -> dict[str, FinetuningConfig]:
    """Load what the arms start from, once and for all processes; return the fine-tuning of each."""
    weights: dict[str, str] = {}
    dims: dict[str, int] = {}
    # Here and not in each trial: a branch on the Hub may move between runs, and N processes would download N times.
    for number, init in enumerate(dict.fromkeys(arm.init for arm in comparison.arms if arm.init != SCRATCH)):
        bundle = load(init, token=token, progress=announce(reporter))
        weights[init] = str(save_bundle(folder / str(number) / file_name(public_name(init)), bundle))
        dims[weights[init]] = bundle.config.network.unet.dims
    arms: dict[str, FinetuningConfig] = {}
    for arm in comparison.arms:
        own, source = apply_settings(config, arm.settings), weights.get(arm.init)
        if arm.init == SCRATCH and not any(setting.startswith("network.") for setting in arm.settings):
            # The control has the architecture of the first weights of its dimensions, else of the first.
            source = next(iter([*(path for path in dims if own.dims in (None, dims[path])), *dims]), None)
        # Weights of 2 dimensions learn the slices of volumes, and so does their control.
        own = own.override(dims=own.dims or min(data.dims, dims.get(source or "", data.dims)))
        if own.dims == 2 and own.patch_size:
            own = own.override(patch_size=own.patch_size[:2])  # two sides of what arms of three share
        arms[arm.name] = own.override(init=source, from_scratch=arm.init == SCRATCH and source is not None)
    return arms


def _describe(arm: FinetuningConfig) -> dict[str, Any]:
    """Return what tells an arm from one of the same name in another comparison."""
    if arm.init is None:
        return {"training": arm.to_dict(), "weights": None}
    bundle, digest = read_config(arm.init), sha256_of(Path(arm.init) / "model.safetensors")
    start = {"init": Path(arm.init).name, "network": bundle.network.to_dict(), "input": bundle.input.to_dict()}
    # Another control of the same architecture is the same: its weights are random.
    return {"training": {**arm.to_dict(), **start}, "weights": None if arm.from_scratch else digest}


def _plan(
    comparison: ComparisonConfig,
    data: LabelledData,
    split_seed: int,
    split: Split,
    seeds: Iterable[int],
    settings: Callable[[str, int], Iterable[Settings]],
) -> list[Trial]:
    """Return the trials of every arm and label count, seed by seed: a comparison that is cut short is balanced.

    Args:
        comparison: Arms, label counts, and whether each seed draws its own labelled patients.
        data: The labelled data.
        split_seed: Which patients are labelled, if they are the same in all runs.
        split: Which cases are for what; without test cases the trials choose settings.
        seeds: One per run.
        settings: Those of an arm and label count, each a trial of its own.
    """
    patients = {case.name: case.patient for case in data.cases}
    trials: list[Trial] = []
    for seed, labels in itertools.product(seeds, comparison.labels):
        drawn_by = seed if comparison.resample_labels else split_seed
        # Drawn by one seed the counts are nested: five patients are among ten.
        few = split if labels == "all" else choose_labelled(split, data, labels, drawn_by)
        count = len({patients[name] for name in few.training})
        for arm in (arm.name for arm in comparison.arms):
            trials += [Trial(arm=arm, labels=count, seed=seed, split=few, settings=own) for own in settings(arm, count)]
    return list(dict.fromkeys(trials))  # "5" and "10%" may be the same patients


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What all trials share; it is sent to the processes that train.

    Attributes:
        data: The labelled data.
        arms: The fine-tuning of each arm.
        work: Folder of prepared cases, which all processes map, and of trainings under way.
        models: Folder to keep the trained bundles in; None keeps none.
        device: Where to compute.
        strict: A bad case is an error.
    """

    data: LabelledData
    arms: Mapping[str, FinetuningConfig]
    work: Path
    models: Path | None
    device: str
    strict: bool

    def train(self, trial: Trial) -> Record:
        """Fine-tune one network and return what it measured."""
        started, folder, notes = time.perf_counter(), self.work / trial.place, _Notes()
        # Intervals are over the runs and not of each: one resample of the patients is enough.
        config = apply_settings(self.arms[trial.arm], trial.settings).override(seed=trial.seed, bootstrap=1)
        options: dict[str, Any] = {"device": self.device, "strict": self.strict, "draw": False, "reporter": notes}
        finetune(self.data, folder, config=config, split=trial.split, cache=self.work / "prepared", **options)
        results = read_test_results(folder)
        record = {
            **trial.asked,
            "learning_rate": config.learning_rate,
            "parameters": sum(parameter.numel() for parameter in load_bundle(folder).network.parameters()),
            **{key: results[key] for key in ("validation", "step", "steps", "precision", "device")},
            **({} if trial.tuning else {"test": flat(results["test"]), "cases": read_rows(folder, results)}),
            "notes": notes.notes,
            "seconds": round(time.perf_counter() - started, 2),
            "library_version": __version__,
        }
        if self.models is not None and not trial.tuning:
            shutil.rmtree(folder / "checkpoints")
            shutil.copytree(folder, self.models / trial.place, dirs_exist_ok=True)
        shutil.rmtree(folder)  # nothing else of hundreds of trainings stays on disk
        return record


class _Notes(Reporter):
    """Keeps what a training in another process says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a line."""
        self.notes.append(text)


def _finish(
    bench: _Bench, records: Records, jobs: int, reporter: Reporter, title: str, trials: Sequence[Trial]
) -> list[Record]:
    """Return the record of every trial; those that are not in the folder yet are trained."""
    done = {trial: record for trial in trials if (record := records.read(trial)) is not None}
    missing = [trial for trial in trials if trial not in done]
    said: set[str] = set()
    reporter.begin(title, len(trials), len(done))
    try:
        for trial, record in run_trials(missing, bench.train, jobs):
            records.write(trial, record)
            done[trial] = record
            for note in record.get("notes", ()):
                if note not in said:  # each once, and not once per run
                    reporter.note(note)
                said.add(note)
            reporter.advance(len(done))
    except Interrupted as signal:
        raise Interrupted(
            signal.signum,
            f"interrupted with {len(done)} of {len(trials)} runs finished, which are kept; the same command resumes",
        ) from None
    finally:
        reporter.end()
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
        if score is None:
            raise DataError(
                f"{trial}: the validation patients give no {metric}; take more of them, so that each class is among "
                "them, or leave out --tune"
            )
        tried.setdefault((trial.arm, trial.labels), {}).setdefault(trial.settings, []).append(score)
    choices: dict[tuple[str, int], dict[str, Any]] = {}
    for (arm, labels), scores in tried.items():
        means = {settings: float(np.mean(values)) for settings, values in scores.items()}
        best = max(means, key=lambda settings: means[settings])
        candidates = [{"settings": one, "mean": mean if math.isfinite(mean) else None} for one, mean in means.items()]
        choices[arm, labels] = {"arm": arm, "labels": labels, "chosen": best, "candidates": candidates}
    return choices


def _show(arm: ArmConfig, config: FinetuningConfig, records: Sequence[Record]) -> dict[str, Any]:
    """Return what reports say of an arm."""
    own = next(record for record in records if record["arm"] == arm.name)
    return {
        "init": None if arm.init == SCRATCH else public_name(arm.init),
        "settings": arm.settings,
        "parameters": own["parameters"],
        **{key: getattr(config, key) for key in ("dims", "learning_rate", "steps", "batch_size")},
    }


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
    """Write `runs.csv`, `results.json`, `table.md` and `comparison.png`."""
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
    write_atomically(folder / "table.md", table, TrainingError)
    try:
        draw_comparison(results, folder / "comparison.png")
    except MissingExtraError as error:
        reporter.note(f"no figure: {error}")
    return Comparison(folder, results, table)
