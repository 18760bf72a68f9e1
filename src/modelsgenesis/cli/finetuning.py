"""`finetune` and `compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import make_reporter, print_json, print_result


def finetune(
    data: Annotated[
        str | None, Argument(help=f"{options.LABELLED}; default: the embedded sample, or the run's when resuming.")
    ] = None,
    task: options.Task = None,
    init: options.Init = None,
    output: options.Run = Path("runs/finetune"),
    folds: Annotated[int, Option(min=0, help="Cross-validation, one run per fold; 0 for a single split.")] = 0,
    split: options.Split = None,
    modality: options.Modality = "auto",
    patient: options.Patient = None,
    config_file: options.ConfigFile = None,
    steps: options.Steps = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
    push_to_hub: options.PushToHub = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Train a segmentation or classification model with labels and measure it on held-out patients."""
    # Imported here, since `--help` is to answer without loading torch.
    from modelsgenesis import finetuning
    from modelsgenesis.cli.prediction import TABLES, print_results
    from modelsgenesis.configs import apply_settings

    switches, settings = options.separate(settings, options.Switches())
    # A resume with nothing else typed takes everything from the run.
    recorded = config_file or (output if resume and data is None else None)
    config = None if recorded is None else finetuning.read_finetuning(recorded)
    given = {"modality": None if modality == "auto" else modality, "patient_pattern": patient}
    config, labelled = finetuning.resolve_config(data, config, task=task, split=split, init=init, **given)
    config = apply_settings(config, [*options.as_settings({"steps": steps, "folds": folds or None}), *settings])
    if push_to_hub and config.folds and config.fold is None:
        raise BadParameter("received with folds, which make several models; push one of their folders later")
    if dry_run:
        print_json(config.to_dict())
        return
    push_to_hub = options.check_publishing(push_to_hub)
    how: dict[str, Any] = {"init": init, "device": device, "resume": resume, "strict": switches.strict}
    run, _ = finetuning.finetune(labelled, output, config=config, reporter=make_reporter(quiet=quiet), **how)
    results = finetuning.read_test_results(run)
    if json_output:
        print_json({"run": str(run), "results": results})
    else:
        table = finetuning.table_of(results)
        files = {"full results": "results.json", "each test case": "test.csv"}
        files |= {"this table": TABLES} if table.rows else {}
        if results.get("folds") and results.get("fold") is None:  # each case is measured by a fold that did not see it
            files["the models"] = "fold0, fold1 …"
        else:
            files |= {"split, to reuse with --split": "split.json", "model, with its card in README.md": ""}
        print_results(table, run, files)
    if push_to_hub:
        options.publish(run, push_to_hub, to_stderr=json_output)


@dataclass(frozen=True, kw_only=True)
class Comparing(options.Switches):
    """Settings of `compare` beside the fine-tuning that all initialisations share.

    Attributes:
        task: `seg` or `cls`; None for what the labels are for.
        metric: What is tested; None for dice or auc.
        dims: `2` or `3` adapts every network; `2,3` trains scratch in both, on slices and on volumes.
        resample_labels: Draw the labelled patients anew for each seed.
        tuning_runs: Runs of each candidate of `--tune`.
        keep_models: Keep the trained model of every run.
    """

    task: str | None = None
    metric: str | None = None
    dims: int | tuple[int, ...] = ()
    resample_labels: bool = False
    tuning_runs: int = 3
    keep_models: bool = False


def compare(
    data: Annotated[str, Argument(help=f"{options.LABELLED}.")],
    inits: Annotated[
        list[str],
        Option("--init", metavar="[NAME=]WEIGHTS", help="scratch, a name, org/repo, or a run; several are compared."),
    ],
    output: Annotated[Path, Option("--output", "-o", help="New folder, or one to resume.")] = Path("runs/compare"),
    labels: Annotated[str, Option(help="Labelled patients: counts, shares or all, such as 5,10%,all.")] = "all",
    runs: Annotated[int, Option(min=1, help="Runs per initialisation and label count.")] = 10,
    tune: Annotated[
        list[str] | None, Option(metavar="KEY=VALUE,VALUE,…", help="Values to choose from, on the validation patients.")
    ] = None,
    config_file: options.ConfigFile = None,
    steps: options.Steps = None,
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="[NAME:]KEY=VALUE", help="A setting of all, or of one initialisation; repeatable."),
    ] = None,
    modality: Annotated[str | None, Option(help="ct, mri, xray …; default: from the data.")] = None,
    patient: options.Patient = None,
    split: options.Split = None,
    jobs: Annotated[int, Option(min=1, help="Trainings at the same time; 1 on a GPU.")] = 1,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Compare initialisations on your data: fine-tune each with few labels, many times, and test the differences."""
    from modelsgenesis import comparison
    from modelsgenesis.finetuning import read_finetuning

    switches, settings, of_one = separate_comparison(settings)
    asked = {"labels": labels.split(","), "runs": runs, "tune": tune or []}
    given = {"task": switches.pop("task"), "split": split, "modality": modality, "patient_pattern": patient}
    how = {"jobs": jobs, "device": device, **{name: switches.pop(name) for name in ("keep_models", "strict")}}
    compared = comparison.compare(
        data,
        output,
        comparison=comparison.describe_comparison(inits, arm_settings=of_one, **switches, **asked),
        config=None if config_file is None else read_finetuning(config_file),
        settings=[*options.as_settings({"steps": steps}), *settings],
        reporter=make_reporter(quiet=quiet),
        **given,
        **how,
    )
    written = f"{compared.folder}: table.md, results.json, runs.csv and comparison.png"
    print_result(compared.results, [*compared.table.splitlines(), "", written], as_json=json_output)


def separate_comparison(settings: list[str] | None) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return what `--set` says of the comparison, of all initialisations, and of one each as `NAME:KEY=VALUE`."""
    of_one = [setting for setting in settings or () if ":" in setting.partition("=")[0]]
    switches, of_all = options.separate([one for one in settings or () if one not in of_one], Comparing())
    dims = switches.dims
    return {**vars(switches), "dims": (dims,) if isinstance(dims, int) else dims}, of_all, of_one
