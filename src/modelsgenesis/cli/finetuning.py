"""`finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json
from modelsgenesis.cli.options import (
    Device,
    HubModelId,
    Json,
    Output,
    Private,
    PushToHub,
    Quiet,
    Resume,
    Settings,
    Strict,
    Token,
    publish,
)


def finetune(
    data: Annotated[
        str | None,
        typer.Argument(help="Labelled scans in the Decathlon's layout; default: the embedded sample."),
    ] = None,
    task: Annotated[str, typer.Option(help="seg: segmentation.")] = "seg",
    init: Annotated[
        str | None,
        typer.Option(help="Start from these weights: a name, org/repo, or a run; default: from scratch."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Random weights in the shape of --init: its control.")
    ] = False,
    output: Output = Path("runs/finetune"),
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    settings: Settings = None,
    device: Device = "auto",
    resume: Resume = False,
    strict: Strict = False,
    push_to_hub: PushToHub = False,
    hub_model_id: HubModelId = None,
    private: Private = False,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Train a task model with labels, from a Genesis or from scratch, and measure it on held-out patients."""
    from modelsgenesis import verbs
    from modelsgenesis.configs import apply_settings

    config = verbs.default_finetuning(data)
    if steps is not None:
        config = config.override(steps=steps, epochs=None)
    run, measured = verbs.finetune(
        data,
        output,
        task=task,
        init=init,
        from_scratch=from_scratch,
        config=apply_settings(config, settings or []),
        device=device,
        resume=resume,
        strict=strict,
        reporter=make_reporter(quiet=quiet),
    )
    if json_output:
        print_json({"run": str(run), "results": verbs.read_results(run)})
    else:
        typer.echo(f"{run}: bundle; Dice of each test patient in {run / 'test.csv'}")
        typer.echo(f"test: {describe_metrics(measured)}" if measured else "no test patients")
    if push_to_hub:
        publish(run, hub_model_id, private, token, to_stderr=json_output)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("finetune")(finetune)
