"""`pretrain`."""

import os
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
    Settings,
    Strict,
    Token,
    numbers_of,
    publish,
)
from modelsgenesis.configs import RECIPES, SCHEMES, PretrainingConfig

_FOR = {"default": "one GPU", "small": "a laptop", "2019": "as published"}


def describe_recipe(name: str, config: PretrainingConfig) -> str:
    """Return a recipe on one line, from its own fields.

    Example:
        >>> describe_recipe("small", RECIPES["small"])
        'small (a laptop): 1,000 steps of 4 sub-volumes of 64×64×32, widths 16-128, adamw 0.001'
    """
    purpose = f" ({_FOR[name]})" if name in _FOR else ""
    patch, widths = "×".join(map(str, config.patch_size)), config.network.widths
    budget = f"{config.steps:,} steps" if config.steps else f"{config.epochs:,} epochs"
    return (
        f"{name}{purpose}: {budget} of {config.batch_size} sub-volumes of {patch}, widths {widths[0]}-{widths[-1]}, "
        f"{config.optimizer} {config.learning_rate:g}"
    )


def _recipes() -> str:
    """Return the help of `--recipe`: a paragraph a recipe."""
    return "\n\n".join(["One of", *(describe_recipe(name, config) for name, config in RECIPES.items())])


def pretrain(
    data: Annotated[
        str | None,
        typer.Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.", show_default=False),
    ] = None,
    output: Output = Path("runs/pretrain"),
    recipe: Annotated[str | None, typer.Option(help=_recipes(), show_default="small")] = None,
    scheme: Annotated[str | None, typer.Option(help=f"The poster's deformations: {', '.join(SCHEMES)}.")] = None,
    init: Annotated[str | None, typer.Option(help="Go on from these weights: a name, org/repo, or a run.")] = None,
    modality: Modality = "auto",
    spacing: Annotated[str | None, typer.Option(help="Resample to this voxel size in mm, such as 1,1,1.")] = None,
    window: Annotated[str | None, typer.Option(help="CT window in HU, such as -1000,1000.")] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Regular expression of the patient in a file's name.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Samples a step; auto: the most that fit into memory.")
    ] = None,
    patch_size: Annotated[
        str | None, typer.Option(metavar="X,Y,Z|auto", help="Voxels of a sub-volume; auto: the most that fit.")
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="Scans to validate on; default: a share of the patients is held out.")
    ] = None,
    leave_out: Annotated[
        list[Path] | None,
        typer.Option(metavar="SPLIT.json", help="Never see the test cases of this split; may be given again."),
    ] = None,
    settings: Settings = None,
    device: Device = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared volumes; default: one in your cache that runs share.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in the output folder, or in DATA: --resume RUN needs no more."
        ),
    ] = False,
    strict: Strict = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars and figures for TensorBoard into the run too.")
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the configuration that would run, as JSON, and stop.")
    ] = False,
    push_to_hub: PushToHub = False,
    hub_model_id: HubModelId = None,
    private: Private = False,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Pretrain on unlabelled scans: deform sub-volumes and learn to restore them."""
    if resume and data is not None and (Path(data) / "run.json").is_file():
        data, output = None, Path(data)
    sizes = [
        f"{name}={size}" for name, size in (("batch_size", batch_size), ("patch_size", patch_size)) if _given(size)
    ]
    config = _configure(output if resume else None, recipe, scheme, steps, [*(settings or []), *sizes])
    if show_config:
        print_json(config.to_dict())
        return
    if data is None and not resume:
        raise typer.BadParameter("Missing argument: the scans to pretrain on", param_hint="DATA")
    from modelsgenesis import verbs

    run = verbs.pretrain(
        data,
        output,
        config=config,
        init=init,
        validation_source=validation,
        leave_out=leave_out or [],
        modality=modality,
        spacing=numbers_of(spacing, "--spacing"),
        window=numbers_of(window, "--window"),
        group_pattern=patient,
        device=device,
        cache=cache,
        fit_batch=batch_size == "auto",
        fit_patch=patch_size == "auto",
        resume=resume,
        strict=strict,
        tensorboard=tensorboard,
        token=token,
        reporter=make_reporter(quiet=quiet),
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one tells and publishes
        return
    results = verbs.read_results(run)
    if json_output:
        print_json({"run": str(run), "results": results})
    else:
        typer.echo(f"{run}: bundle of step {results['step']}")
        typer.echo(describe_metrics(results))
    if push_to_hub:
        publish(run, hub_model_id, private, token, to_stderr=json_output)


def _given(size: str | None) -> bool:
    return size not in (None, "auto")


def _configure(
    resumed: Path | None, recipe: str | None, scheme: str | None, steps: int | None, settings: list[str]
) -> PretrainingConfig:
    """Return the recipe with its changes; without a recipe a resumed run keeps its own."""
    from modelsgenesis.configs import pretraining_recipe

    if resumed is None or recipe is not None:
        return pretraining_recipe(recipe or "small", scheme=scheme, steps=steps, settings=settings)
    from modelsgenesis import verbs

    before = verbs.read_recorded(resumed).config
    return pretraining_recipe(before, scheme=scheme, steps=steps, settings=settings)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pretrain")(pretrain)
