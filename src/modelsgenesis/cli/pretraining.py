"""`pretrain`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json, print_result
from modelsgenesis.configs import RECIPES, SCHEMES, PretrainingConfig, pretraining_recipe

_FOR = {"default": "one GPU", "small": "a laptop", "2019": "as published"}


def describe_recipe(name: str, config: PretrainingConfig) -> str:
    """Return a recipe on one line, from its own fields.

    Example:
        >>> describe_recipe("small", RECIPES["small"])
        'small (a laptop): 1,000 steps of 4 patches of 64×64×32, widths 16-128, adamw 0.001'
    """
    purpose = f" ({_FOR[name]})" if name in _FOR else ""
    patch, widths = "×".join(map(str, config.patch_size)), config.network.widths
    budget = f"{config.steps:,} steps" if config.steps else f"{config.epochs:,} epochs"
    return (
        f"{name}{purpose}: {budget} of {config.batch_size} patches of {patch}, widths {widths[0]}-{widths[-1]}, "
        f"{config.optimizer} {config.learning_rate:g}"
    )


_RECIPES = "\n\n".join(["One of", *(describe_recipe(name, config) for name, config in RECIPES.items())])


def _patch_size(text: str) -> str:
    sides = text.split(",")
    if text != "auto" and not (len(sides) in (2, 3) and all(side.isdecimal() for side in sides)):
        raise typer.BadParameter(f"received {text!r}, expected two or three numbers such as 64,64,32, or auto")
    return text


def pretrain(
    data: Annotated[
        str | None, Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.", show_default=False)
    ] = None,
    output: options.Run = Path("runs/pretrain"),
    recipe: Annotated[str | None, Option(help=_RECIPES, show_default="small")] = None,
    scheme: Annotated[
        str | None, Option(help=f"Deformations of the ablation in Zhou et al. 2019: {', '.join(SCHEMES)}.")
    ] = None,
    init: options.Init = None,
    modality: options.Modality = "auto",
    spacing: options.Spacing = None,
    window: options.Window = None,
    patient: options.Patient = None,
    steps: options.Steps = None,
    batch_size: Annotated[
        str | None, Option(metavar="N|auto", help="Samples per step; auto: as memory allows.")
    ] = None,
    patch_size: Annotated[
        str | None, Option(parser=_patch_size, metavar="X,Y,Z|auto", help="Voxels per patch; auto: as memory allows.")
    ] = None,
    validation: Annotated[str | None, Option(help="Scans to validate on; default: some patients.")] = None,
    leave_out: Annotated[
        list[Path] | None, Option(metavar="SPLIT.json", help="Exclude its test cases; repeatable.")
    ] = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    cache: Annotated[Path | None, Option(help="Folder of prepared volumes; default: in your cache.")] = None,
    resume: Annotated[bool, Option("--resume", help="Resume the run in the output folder or in DATA.")] = False,
    strict: options.Strict = False,
    tensorboard: Annotated[bool, Option("--tensorboard", help="Also write a TensorBoard log.")] = False,
    show_config: Annotated[bool, Option("--show-config", help="Print the configuration and stop.")] = False,
    push_to_hub: options.PushToHub = False,
    hub_model_id: options.HubModelId = None,
    private: options.Private = False,
    token: options.Token = None,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Pretrain on unlabelled scans: deform patches and learn to restore them."""
    if resume and data is not None and (Path(data) / "run.json").is_file():
        data, output = None, Path(data)
    sizes = {"batch_size": batch_size, "patch_size": patch_size}
    fixed = options.as_settings({name: size for name, size in sizes.items() if size != "auto"})
    changes = [*(settings or []), *fixed]
    config = pretraining_recipe(_base(output if resume else None, recipe), scheme=scheme, steps=steps, settings=changes)
    if show_config:
        print_json(config.to_dict())
        return
    if data is None and not resume:
        raise typer.BadParameter("missing: the scans to pretrain on", param_hint="DATA")
    from modelsgenesis import models, pretraining

    run = pretraining.pretrain(
        data,
        output,
        config=config,
        init=init,
        validation_source=validation,
        leave_out=leave_out or [],
        modality=modality,
        spacing=spacing,
        window=window,
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
    results = models.read_results(run)
    lines = [f"{run}: model of step {results['step']}", describe_metrics(results)]
    print_result({"run": str(run), "results": results}, lines, as_json=json_output)
    if push_to_hub:
        options.publish(run, hub_model_id, private, token, to_stderr=json_output)


def _base(resumed: Path | None, recipe: str | None) -> str | PretrainingConfig:
    """Return what the options change: a recipe, or of a resumed run the configuration that it has."""
    if resumed is None or recipe is not None:
        return recipe or "small"
    from modelsgenesis.pretraining import read_recorded

    return read_recorded(resumed).config
