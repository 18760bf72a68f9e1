"""`pretrain`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json, print_result
from modelsgenesis.configs import SCHEMES, PretrainingConfig, pretraining_recipe

_RECIPES = "small (a laptop, 1,000 steps), default (one GPU, 100,000 steps), 2019 (as published, 10,000 epochs)."
_SCHEMES = f"Deformations of the ablation in Zhou et al. 2019: {', '.join(SCHEMES)}."


def pretrain(
    data: Annotated[
        str | None, Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.", show_default=False)
    ] = None,
    output: options.Run = Path("runs/pretrain"),
    config_file: options.ConfigFile = None,
    recipe: Annotated[str | None, Option(help=_RECIPES, show_default="small")] = None,
    scheme: Annotated[str | None, Option(help=_SCHEMES)] = None,
    init: options.Init = None,
    modality: options.Modality = "auto",
    spacing: options.Spacing = None,
    window: options.Window = None,
    patient: options.Patient = None,
    steps: options.Steps = None,
    batch_size: Annotated[str | None, Option(metavar="N|auto", help="Samples per step; auto: fill the GPU.")] = None,
    patch_size: Annotated[str | None, Option(metavar="X,Y,Z", help="Voxels per patch.")] = None,
    validation: Annotated[str | None, Option(help="Scans to validate on; default: some patients.")] = None,
    leave_out: Annotated[list[Path] | None, Option(metavar="SPLIT.json", help="Exclude its test cases.")] = None,
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
    # Imported here, since `--help` is to answer without loading torch.
    from modelsgenesis import pretraining
    from modelsgenesis.checkpoints import read_config

    if resume and data is not None and (Path(data) / "run.json").is_file():
        data, output = None, Path(data)
    is_auto = batch_size == "auto"
    fixed = options.as_settings({"batch_size": None if is_auto else batch_size, "patch_size": patch_size})
    base: str | PretrainingConfig = recipe or "small"
    if config_file is not None:
        if recipe is not None:
            raise typer.BadParameter("received --recipe too; the file is a whole configuration", param_hint="--config")
        base = PretrainingConfig.from_file(config_file)
    elif resume and recipe is None:
        base = pretraining.read_run(output).config
    config = pretraining_recipe(base, scheme=scheme, steps=steps, settings=[*(settings or []), *fixed]).with_data(
        init,
        source=data,
        validation_source=validation,
        exclude_test_cases=leave_out,
        modality=None if modality == "auto" else modality,
        spacing=spacing,
        window=window,
        patient_pattern=patient,
        cache=cache,
    )
    if show_config:
        print_json(config.to_dict())
        return
    if not config.data.source and not resume:
        raise typer.BadParameter("missing: the scans to pretrain on", param_hint="DATA")
    run = pretraining.pretrain(
        None,
        output,
        config=config,
        fit_batch=is_auto,
        device=device,
        resume=resume,
        strict=strict,
        tensorboard=tensorboard,
        token=token,
        reporter=make_reporter(quiet=quiet),
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one reports and publishes
        return
    results = read_config(run).provenance.results
    lines = [f"{run}: model of step {results['step']}", describe_metrics(results)]
    print_result({"run": str(run), "results": results}, lines, as_json=json_output)
    if push_to_hub:
        options.publish(run, hub_model_id, private, token, to_stderr=json_output)
