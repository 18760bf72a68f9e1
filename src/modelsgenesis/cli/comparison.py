"""`compare`."""

from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import make_reporter, print_json
from modelsgenesis.cli.options import Device, Json, Quiet, Settings, Strict, Token


def compare(
    data: Annotated[str, typer.Argument(help="Labelled data: a folder or file in one of the known layouts.")],
    inits: Annotated[
        list[str] | None,
        typer.Option(
            "--init",
            metavar="[NAME=]WEIGHTS",
            help="An arm: scratch, a name, org/repo, or a run; several times. Scratch takes the shape of the first "
            "of the others.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the comparison: new, or the same to go on with it.")
    ] = Path("runs/compare"),
    labels: Annotated[str, typer.Option(help="Labelled patients: counts, shares, all; such as 5,10%,all.")] = "all",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each arm and label count, with seeds 0, 1, 2 …")] = 10,
    resample_labels: Annotated[
        bool, typer.Option("--resample-labels", help="Draw the labelled patients anew for each seed.")
    ] = False,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE,…", help="Choose for each arm and label count, on the validation patients alone."
        ),
    ] = None,
    tuning_runs: Annotated[int, typer.Option(min=1, help="Runs of each candidate.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of every training.")] = None,
    settings: Settings = None,
    arm_settings: Annotated[
        list[str] | None,
        typer.Option("--set-arm", metavar="ARM:KEY=VALUE", help="A setting of one arm alone."),
    ] = None,
    dims: Annotated[
        str | None, typer.Option(help="2 or 3: of every arm. 2,3: scratch of each, slices against cubes.")
    ] = None,
    schemes: Annotated[
        str | None,
        typer.Option("--scheme", help="Also pretrain and compare a Genesis of each of these schemes, such as I+II,V."),
    ] = None,
    pretrain_recipe: Annotated[str, typer.Option(help="Recipe of the schemes.")] = "small",
    pretrain_steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of the schemes.")] = None,
    pretrain_settings: Annotated[
        list[str] | None,
        typer.Option("--pretrain-set", metavar="KEY=VALUE", help="Any field of the recipe of the schemes."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What is tested; default: dice or auc.")] = None,
    task: Annotated[str | None, typer.Option(help="seg or cls; default: what the data is for.")] = None,
    modality: Annotated[str | None, typer.Option(help="What the images are; default: what the data says.")] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Regular expression of the patient in a file's name.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="split.json: which cases are for what; default: drawn.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that train at the same time; 1 on a GPU.")] = 1,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Keep the weights of every run.")] = False,
    device: Device = "auto",
    strict: Strict = False,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Does a Genesis help on your data? Train every start with few labels, many times, and test the differences."""
    from modelsgenesis import verbs
    from modelsgenesis.configs import pretraining_recipe

    if not inits and not schemes:
        raise typer.BadParameter("received none, expected at least one --init or --scheme", param_hint="--init")
    comparison = verbs.describe_comparison(
        inits or ["scratch"],
        arm_settings=arm_settings or [],
        dims=_integers(dims),
        schemes=schemes.split(",") if schemes else [],
        labels=labels.split(","),
        runs=runs,
        resample_labels=resample_labels,
        tune=tune or [],
        tuning_runs=tuning_runs,
        metric=metric,
    )
    budget = [] if steps is None else [f"steps={steps}", "epochs=none"]
    compared = verbs.compare(
        data,
        output,
        comparison=comparison,
        settings=[*budget, *(settings or [])],
        split=split,
        pretraining=pretraining_recipe(pretrain_recipe, steps=pretrain_steps, settings=pretrain_settings or []),
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
    if json_output:
        print_json(compared.results)
    else:
        typer.echo(compared.table, nl=False)
        typer.echo(f"\n{compared.folder}: table.md, results.json, runs.csv and figures")


def _integers(text: str | None) -> list[int]:
    if text is None:
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"received {text!r}, expected 2, 3 or 2,3", param_hint="--dims") from None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)
