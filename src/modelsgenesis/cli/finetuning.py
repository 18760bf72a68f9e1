"""`finetune` and `compare`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import make_reporter, print_json, print_plan, print_result
from modelsgenesis.cli.settings import TrainingSwitches, as_settings, complete_setting, separate, separate_comparison
from modelsgenesis.configs import FinetuningConfig

if TYPE_CHECKING:
    from modelsgenesis.data.cases import LabelledData


def finetune(
    data: Annotated[
        str | None, Argument(help=f"{options.LABELLED}; default: the embedded sample, or the run's when resuming.")
    ] = None,
    task: options.Task = None,
    init: options.Init = None,
    output: Annotated[
        Path | None, Option("--output", "-o", help="A new folder; default: runs/finetune, then runs/finetune-2 …")
    ] = None,
    labels: Annotated[str | None, Option(metavar="N|N%", help="Labelled training patients; default: all.")] = None,
    split: options.Split = None,
    modality: options.Modality = "auto",
    patient: options.Patient = None,
    config_file: options.ConfigFile = None,
    steps: options.Steps = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
    push_to_hub: options.PushToHub = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Train a segmentation or classification model with labels and measure it on held-out patients."""
    # Imported here, since `--help` is to answer without loading torch.
    from modelsgenesis import finetuning
    from modelsgenesis.cli.prediction import TABLES, print_results
    from modelsgenesis.configs import apply_settings
    from modelsgenesis.training.results import read_test_results, table_of
    from modelsgenesis.training.run import Run

    switches, settings = separate(settings, TrainingSwitches())
    output = options.run_folder(output, "runs/finetune", resume=resume)
    # A resume with nothing else typed takes everything from the run.
    recorded = config_file or (output if resume and data is None else None)
    config = None if recorded is None else finetuning.read_finetuning(recorded)
    given = {"modality": None if modality == "auto" else modality, "patient_pattern": patient}
    config, labelled = finetuning.resolve_config(data, config, task=task, split=split, init=init, **given)
    config = apply_settings(config, [*as_settings({"steps": steps, "labelled_patients": labels}), *settings])
    if push_to_hub and config.folds and config.fold is None:
        several = "received with folds, which make several models; push one of their folders later"
        raise BadParameter(several, param_hint="--push-to-hub")
    repository = options.choose_repository(push_to_hub, switches.hub_model_id, output, dry_run=dry_run)
    if dry_run:
        Run.check(output, resume=resume)
        send = [f"the model and its card to {repository} on the Hub, private"] if repository else []
        plan_finetuning(config, labelled, output, send)
        return
    how: dict[str, Any] = {"init": init, "device": device, "resume": resume, "strict": switches.strict}
    reporter = make_reporter(quiet=quiet, folder=output)
    run, _ = finetuning.finetune(labelled, output, config=config, reporter=reporter, **how)
    results = read_test_results(run)
    if json_output:
        print_json({"run": str(run), "results": results})
    else:
        table = table_of(results)
        files = {"report": "report.html", "full results": "results.json", "each test case": "test.csv"}
        files |= {"this table": TABLES} if table.rows else {}
        if results.get("folds") and results.get("fold") is None:  # each case is measured by a fold that did not see it
            files["the models"] = "fold0, fold1 …"
        else:
            files |= {"split, to reuse with --split": "split.json", "model, with its card in README.md": ""}
        print_results(table, run, files)
    if repository:
        options.publish(run, repository, to_stderr=json_output)


def compare(
    data: Annotated[str, Argument(help=f"{options.LABELLED}.")],
    inits: Annotated[
        list[str],
        Option(
            "--init",
            metavar="[NAME=]WEIGHTS",
            help="scratch, a name, org/repo, or a run; several are compared.",
            autocompletion=options.model_names,
        ),
    ],
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="Resumed if cut off; default: runs/compare, then runs/compare-2 …"),
    ] = None,
    labels: Annotated[str, Option(help="Labelled patients: counts, shares or all, such as 5,10%,all.")] = "all",
    runs: Annotated[int, Option(min=1, help="Runs per initialisation and label count.")] = 10,
    tune: Annotated[
        list[str] | None,
        Option(metavar="KEY=VALUE,VALUE,…", help="Values to choose from by validation; default: none."),
    ] = None,
    config_file: options.ConfigFile = None,
    steps: options.Steps = None,
    settings: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="[NAME:]KEY=VALUE",
            help="A setting of all, or of one initialisation; repeatable.",
            autocompletion=complete_setting,
        ),
    ] = None,
    modality: options.Modality = "auto",
    patient: options.Patient = None,
    split: options.Split = None,
    jobs: Annotated[int | None, Option(min=1, help="Trainings at the same time; default: on a GPU what fits.")] = None,
    device: options.Device = "auto",
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Compare initialisations on your data: fine-tune each with few labels, many times, and test the differences."""
    from modelsgenesis import comparison
    from modelsgenesis.configs import apply_settings
    from modelsgenesis.finetuning import read_finetuning, resolve_config

    output = options.run_folder(output, "runs/compare", finished="results.json")
    switches, settings, of_one = separate_comparison(settings)
    asked = {"labels": labels.split(","), "runs": runs, "tune": tune or []}
    given = {"modality": None if modality == "auto" else modality, "patient_pattern": patient}
    given |= {"task": switches.pop("task"), "split": split and str(split)}
    how = {"jobs": jobs, "device": device, **{name: switches.pop(name) for name in ("keep_models", "strict")}}
    described = comparison.describe_comparison(inits, arm_settings=of_one, **switches, **asked)
    config = None if config_file is None else read_finetuning(config_file)
    settings = [*as_settings({"steps": steps}), *settings]
    if dry_run:
        config, labelled = resolve_config(data, config, **given)
        comparison.choose_metric(described.metric, labelled)  # an unknown one is told now
        plan_finetuning(apply_settings(config, settings), labelled, output, comparison=described.to_dict())
        return
    compared = comparison.compare(
        data,
        output,
        comparison=described,
        config=config,
        settings=settings,
        reporter=make_reporter(quiet=quiet, folder=output),
        **given,
        **how,
    )
    written = (
        f"{compared.folder}: report.html, table.md, results.json, .csv, .md and .tex, runs.csv, comparison.png and .svg"
    )
    print_result(compared.results, [*compared.table.splitlines(), "", written], as_json=json_output)


def plan_finetuning(
    config: FinetuningConfig,
    data: "LabelledData",
    output: Path,
    send: Sequence[str] = (),
    *,
    comparison: Mapping[str, Any] | None = None,
) -> None:
    """Print the configuration, and what would be read, written and sent."""
    from modelsgenesis.hub.download import resolve

    arms = comparison["arms"] if comparison else [{"init": config.init}]
    weights = [str(arm["init"]) for arm in arms if arm["init"] not in (None, "scratch")]
    for name in weights:
        resolve(name, None)  # one that leads nowhere is told now
    read = [f"{len(data.cases)} labelled cases of {data.name}", *(f"weights of {name}" for name in weights)]
    runs = len(arms) * len(comparison["labels"]) * comparison["runs"] if comparison else 1
    write = f"{output}/, by {runs} trainings" if comparison else f"{output}/"
    print_plan(read, [write], send, config=config.to_dict(), as_json=True)
