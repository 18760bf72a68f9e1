"""`compare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import make_reporter, print_result


def compare(
    data: Annotated[str, Argument(help="Labelled data: a folder or file in one of the known layouts.")],
    inits: Annotated[
        list[str] | None,
        Option(
            "--init",
            metavar="[NAME=]WEIGHTS",
            help="An initialisation: scratch (in the architecture of the first other one), a name, org/repo, or a run; "
            "repeatable.",
        ),
    ] = None,
    output: Annotated[Path, Option("--output", "-o", help="New folder, or that of a comparison to resume.")] = Path(
        "runs/compare"
    ),
    labels: Annotated[str, Option(help="Labelled patients: counts, shares or all, such as 5,10%,all.")] = "all",
    runs: Annotated[int, Option(min=1, help="Runs per initialisation and label count.")] = 10,
    resample_labels: Annotated[bool, Option("--resample-labels", help="Draw the patients anew for each seed.")] = False,
    tune: Annotated[
        list[str] | None,
        Option(
            metavar="KEY=VALUE,VALUE,…", help="Tune on the validation patients, per initialisation and label count."
        ),
    ] = None,
    tuning_runs: Annotated[int, Option(min=1, help="Runs per candidate of --tune.")] = 3,
    config_file: options.ConfigFile = None,
    steps: options.Steps = None,
    settings: options.Settings = None,
    arm_settings: Annotated[
        list[str] | None, Option("--set-arm", metavar="NAME:KEY=VALUE", help="A setting of one initialisation.")
    ] = None,
    dims: Annotated[
        Literal["2", "3", "2,3"] | None, Option(help="2,3: scratch in both, slices against volumes.")
    ] = None,
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

    if not inits:
        raise typer.BadParameter("received none, expected at least one", param_hint="--init")
    described = comparison.describe_comparison(
        inits,
        arm_settings=arm_settings or [],
        dims=[int(number) for number in dims.split(",")] if dims else [],
        labels=labels.split(","),
        runs=runs,
        resample_labels=resample_labels,
        tune=tune or [],
        tuning_runs=tuning_runs,
        metric=metric,
    )
    compared = comparison.compare(
        data,
        output,
        comparison=described,
        config=None if config_file is None else read_finetuning(config_file),
        settings=[*options.as_settings({"steps": steps}), *(settings or [])],
        split=split,
        task=task,
        modality=modality,
        patient_pattern=patient,
        jobs=jobs,
        keep_models=keep_models,
        device=device,
        strict=strict,
        token=token,
        reporter=make_reporter(quiet=quiet),
    )
    written = f"{compared.folder}: table.md, results.json, runs.csv and comparison.png"
    print_result(compared.results, [*compared.table.splitlines(), "", written], as_json=json_output)
