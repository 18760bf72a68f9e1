"""`finetune` and `compare`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, BadParameter, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import make_reporter, print_json, print_result


def finetune(
    data: Annotated[
        str | None, Argument(help=f"{options.LABELLED}; default: the embedded sample, or the run's when resuming.")
    ] = None,
    task: options.Task = None,
    init: options.Init = None,
    from_scratch: Annotated[bool, Option("--from-scratch", help="Random weights in the shape of --init.")] = False,
    output: options.Run = Path("runs/finetune"),
    labels: Annotated[str | None, Option(metavar="N|N%", help="Labelled training patients; default: all.")] = None,
    folds: Annotated[int, Option(min=0, help="Cross-validation, one run per fold; 0 for a single split.")] = 0,
    fold: Annotated[int | None, Option(min=0, help="Train only this one of --folds, counted from 0.")] = None,
    split: options.Split = None,
    freeze_encoder: Annotated[bool, Option("--freeze-encoder", help="Train only the decoder and head.")] = False,
    modality: options.Modality = "auto",
    patient: options.Patient = None,
    cache: Annotated[Path | None, Option(help="Folder of prepared cases, for all runs; default: in memory.")] = None,
    config_file: options.ConfigFile = None,
    show_config: Annotated[bool, Option("--show-config", help="Print the configuration and end.")] = False,
    steps: options.Steps = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
    strict: options.Strict = False,
    push_to_hub: options.PushToHub = False,
    hub_model_id: options.HubModelId = None,
    private: options.Private = False,
    token: options.Token = None,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Train a segmentation or classification model with labels and measure it on held-out patients."""
    # Imported here, since `--help` is to answer without loading torch.
    from modelsgenesis import finetuning
    from modelsgenesis.cli.prediction import print_results
    from modelsgenesis.configs import apply_settings

    if push_to_hub and folds and fold is None:
        raise BadParameter("received with --folds, which makes several models; push one of its folders later")
    # A resume with nothing else typed takes everything from the run.
    recorded = config_file or (output if resume and data is None else None)
    config = None if recorded is None else finetuning.read_finetuning(recorded)
    given = {"modality": None if modality == "auto" else modality, "patient_pattern": patient, "cache": cache}
    config, labelled = finetuning.resolve_config(data, config, task=task, split=split, init=init, **given)
    # A flag that was not given leaves the configuration as it is, and so must be None and not False.
    flags = {"freeze_encoder": freeze_encoder or None, "from_scratch": from_scratch or None, "folds": folds or None}
    asked = options.as_settings({"steps": steps, "labelled_patients": labels, "fold": fold, **flags})
    config = apply_settings(config, [*asked, *(settings or [])])
    if show_config:
        print_json(config.to_dict())
        return
    how: dict[str, Any] = {"init": init, "device": device, "resume": resume, "strict": strict, "token": token}
    run, _ = finetuning.finetune(labelled, output, config=config, reporter=make_reporter(quiet=quiet), **how)
    results = finetuning.read_test_results(run)
    if json_output:
        print_json({"run": str(run), "results": results})
    else:
        print_results(run, results)
    if push_to_hub:
        options.publish(run, hub_model_id, private, token, to_stderr=json_output)


def compare(
    data: Annotated[str, Argument(help=f"{options.LABELLED}.")],
    inits: Annotated[
        list[str],
        Option("--init", metavar="[NAME=]WEIGHTS", help="scratch, a name, org/repo, or a run; several are compared."),
    ],
    output: Annotated[Path, Option("--output", "-o", help="New folder, or one to resume.")] = Path("runs/compare"),
    labels: Annotated[str, Option(help="Labelled patients: counts, shares or all, such as 5,10%,all.")] = "all",
    runs: Annotated[int, Option(min=1, help="Runs per initialisation and label count.")] = 10,
    resample_labels: Annotated[bool, Option("--resample-labels", help="Draw the patients anew for each seed.")] = False,
    tune: Annotated[
        list[str] | None, Option(metavar="KEY=VALUE,VALUE,…", help="Values to choose from, on the validation patients.")
    ] = None,
    tuning_runs: Annotated[int, Option(min=1, help="Runs per candidate of --tune.")] = 3,
    config_file: options.ConfigFile = None,
    steps: options.Steps = None,
    settings: options.Settings = None,
    arm_settings: Annotated[
        list[str] | None, Option("--set-arm", metavar="NAME:KEY=VALUE", help="A setting of one initialisation.")
    ] = None,
    dims: Annotated[Literal["2", "3", "2,3"] | None, Option(help="2,3: scratch in both, slices and volumes.")] = None,
    metric: Annotated[str | None, Option(help="The metric to test; default: dice or auc.")] = None,
    task: options.Task = None,
    modality: Annotated[str | None, Option(help="ct, mri, xray …; default: from the data.")] = None,
    patient: options.Patient = None,
    split: options.Split = None,
    jobs: Annotated[int, Option(min=1, help="Trainings at the same time; 1 on a GPU.")] = 1,
    keep_models: Annotated[bool, Option("--keep-models", help="Keep the trained model of every run.")] = False,
    device: options.Device = "auto",
    strict: options.Strict = False,
    token: options.Token = None,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Compare initialisations on your data: fine-tune each with few labels, many times, and test the differences."""
    from modelsgenesis import comparison
    from modelsgenesis.finetuning import read_finetuning

    asked = {"labels": labels.split(","), "runs": runs, "resample_labels": resample_labels, "metric": metric}
    asked |= {"tune": tune or [], "tuning_runs": tuning_runs}
    axes = [int(number) for number in dims.split(",")] if dims else []
    given = {"task": task, "split": split, "modality": modality, "patient_pattern": patient}
    how: dict[str, Any] = {"jobs": jobs, "keep_models": keep_models, "device": device, "strict": strict, "token": token}
    compared = comparison.compare(
        data,
        output,
        comparison=comparison.describe_comparison(inits, arm_settings=arm_settings or [], dims=axes, **asked),
        config=None if config_file is None else read_finetuning(config_file),
        settings=[*options.as_settings({"steps": steps}), *(settings or [])],
        reporter=make_reporter(quiet=quiet),
        **given,
        **how,
    )
    written = f"{compared.folder}: table.md, results.json, runs.csv and comparison.png"
    print_result(compared.results, [*compared.table.splitlines(), "", written], as_json=json_output)
