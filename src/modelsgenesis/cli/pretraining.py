"""`pretrain`."""

from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json
from modelsgenesis.cli.options import (
    Device,
    HubModelId,
    Json,
    Modality,
    Output,
    Private,
    PushToHub,
    Quiet,
    Resume,
    Settings,
    Strict,
    Token,
    numbers_of,
    publish,
)


def pretrain(
    data: Annotated[str, typer.Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.")],
    output: Output = Path("runs/pretrain"),
    recipe: Annotated[str, typer.Option(help="default (one GPU), small (a laptop), 2019 (as published).")] = "small",
    scheme: Annotated[str | None, typer.Option(help="The poster's: I, II, III, IV, I+II, III+IV, V, identity.")] = None,
    init: Annotated[str | None, typer.Option(help="Go on from these weights: a name, org/repo, or a run.")] = None,
    modality: Modality = "auto",
    spacing: Annotated[str | None, typer.Option(help="Resample to this voxel size in mm, such as 1,1,1.")] = None,
    window: Annotated[str | None, typer.Option(help="CT window in HU, such as -1000,1000.")] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Regular expression of the patient in a file's name.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    validation: Annotated[
        str | None, typer.Option(help="Scans to validate on; default: a share of the patients is held out.")
    ] = None,
    settings: Settings = None,
    device: Device = "auto",
    cache: Annotated[Path | None, typer.Option(help="Folder of prepared volumes; default: inside the output.")] = None,
    resume: Resume = False,
    strict: Strict = False,
    push_to_hub: PushToHub = False,
    hub_model_id: HubModelId = None,
    private: Private = False,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Pretrain on unlabelled scans: deform sub-volumes and learn to restore them."""
    from modelsgenesis import verbs
    from modelsgenesis.configs import pretraining_recipe

    config = pretraining_recipe(recipe, scheme=scheme, steps=steps, settings=settings or [])
    run = verbs.pretrain(
        data,
        output,
        config=config,
        init=init,
        validation_source=validation,
        modality=modality,
        spacing=numbers_of(spacing, "--spacing"),
        window=numbers_of(window, "--window"),
        group_pattern=patient,
        device=device,
        cache=cache,
        resume=resume,
        strict=strict,
        reporter=make_reporter(quiet=quiet),
    )
    results = verbs.read_results(run)
    if json_output:
        print_json({"run": str(run), "results": results})
    else:
        typer.echo(f"{run}: bundle of step {results['step']}")
        typer.echo(describe_metrics({key: value for key, value in results.items() if key.endswith("_loss")}))
    if push_to_hub:
        publish(run, hub_model_id, private, token, to_stderr=json_output)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pretrain")(pretrain)
