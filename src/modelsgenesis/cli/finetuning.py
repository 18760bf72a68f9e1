"""`finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import make_reporter, print_json
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
        typer.Argument(
            help="Labelled images: a folder or file in a layout of the Decathlon, nnU-Net, class folders, a CSV, "
            "MedMNIST or LUNA16; default: the embedded sample."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="seg (segmentation) or cls (classification); default: what the labels are for.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from these weights: a name, org/repo, or a run; default: from scratch."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Random weights in the shape of --init: its control.")
    ] = False,
    output: Output = Path("runs/finetune"),
    labels: Annotated[
        str | None, typer.Option(metavar="N|N%", help="Training patients whose labels are used; default: all.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=0, help="Cross-validation: a run a fold, one after the other; 0 for a single split.")
    ] = 0,
    fold: Annotated[int | None, typer.Option(min=0, help="Of --folds only this one, counted from 0.")] = None,
    split: Annotated[
        Path | None, typer.Option(help="split.json of another run: which cases are for what; default: drawn.")
    ] = None,
    freeze_encoder: Annotated[bool, typer.Option("--freeze-encoder", help="Train decoder and head alone.")] = False,
    modality: Annotated[
        str, typer.Option(help="What the images are: ct, mri, xray, ultrasound, shape; auto: as the data says.")
    ] = "auto",
    patient: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Regular expression of the patient in a file's name.")
    ] = None,
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
    from modelsgenesis.cli.results import print_results
    from modelsgenesis.configs import apply_settings

    if push_to_hub and folds and fold is None:
        raise typer.BadParameter("received with --folds, which makes several models: push one of its folders later")
    labelled = verbs.read_task(
        data, task=task, modality=None if modality == "auto" else modality, patient_pattern=patient
    )
    asked = {
        "labels": labels,
        "folds": folds or None,
        "fold": fold,
        "freeze_encoder": "true" if freeze_encoder else None,
    }
    chosen = [f"{key}={value}" for key, value in asked.items() if value is not None]
    budget = [] if steps is None else [f"steps={steps}", "epochs=none"]
    config = verbs.default_finetuning(labelled, sample=data is None)
    run, _ = verbs.finetune(
        None if data is None else labelled,
        output,
        init=init,
        from_scratch=from_scratch,
        config=apply_settings(config, [*budget, *chosen, *(settings or [])]),
        split=split,
        device=device,
        resume=resume,
        strict=strict,
        token=token,
        reporter=make_reporter(quiet=quiet),
    )
    results = verbs.read_measurements(run)
    if json_output:
        print_json({"run": str(run), "results": results})
    else:
        print_results(run, results)
    if push_to_hub:
        publish(run, hub_model_id, private, token, to_stderr=json_output)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("finetune")(finetune)
