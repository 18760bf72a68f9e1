"""`pretrain`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json, print_result
from modelsgenesis.configs import PretrainingConfig, pretraining_recipe

_RECIPES = "small (a laptop, 1,000 steps), default (one GPU, 100,000 steps), 2019 (as published, 10,000 epochs)."


@dataclass(frozen=True, kw_only=True)
class Switches(options.Switches):
    """Settings of `pretrain` beside its configuration.

    Attributes:
        scheme: Deformations of the ablation in Zhou et al. 2019, a name of `SCHEMES`.
        tensorboard: Also write a TensorBoard log.
    """

    scheme: str | None = None
    tensorboard: bool = False


def pretrain(
    data: Annotated[
        str | None, Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.", show_default=False)
    ] = None,
    output: options.Run = Path("runs/pretrain"),
    config_file: options.ConfigFile = None,
    recipe: Annotated[str | None, Option(help=_RECIPES, show_default="small")] = None,
    init: options.Init = None,
    modality: options.Modality = "auto",
    patient: options.Patient = None,
    steps: options.Steps = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    cache: Annotated[Path | None, Option(help="Folder of prepared volumes; default: in your cache.")] = None,
    resume: Annotated[bool, Option("--resume", help="Resume the run in the output folder or in DATA.")] = False,
    push_to_hub: options.PushToHub = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Pretrain on unlabelled scans: deform patches and learn to restore them."""
    # Imported here, since `--help` is to answer without loading torch.
    from modelsgenesis import pretraining
    from modelsgenesis.checkpoints import read_config

    if resume and data is not None and (Path(data) / "run.json").is_file():
        data, output = None, Path(data)
    switches, settings = options.separate(settings, Switches())
    is_auto = "batch_size=auto" in settings  # fills the memory of a GPU
    settings = [setting for setting in settings if setting != "batch_size=auto"]
    base: str | PretrainingConfig = recipe or "small"
    if config_file is not None:
        if recipe is not None:
            raise typer.BadParameter("received --recipe too; the file is a whole configuration", param_hint="--config")
        base = PretrainingConfig.from_file(config_file)
    elif resume and recipe is None:
        base = pretraining.read_run(output).config
    given = {"source": data, "patient_pattern": patient, "cache": cache}
    given["modality"] = None if modality == "auto" else modality
    config = pretraining_recipe(base, scheme=switches.scheme, steps=steps, settings=settings).with_data(init, **given)
    if dry_run:
        print_json(config.to_dict())
        return
    if not config.data.source and not resume:
        raise typer.BadParameter("missing: the scans to pretrain on", param_hint="DATA")
    push_to_hub = options.check_publishing(push_to_hub)
    run = pretraining.pretrain(
        None,
        output,
        config=config,
        fit_batch=is_auto,
        device=device,
        resume=resume,
        strict=switches.strict,
        tensorboard=switches.tensorboard,
        reporter=make_reporter(quiet=quiet),
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one reports and publishes
        return
    results = read_config(run).provenance.results
    lines = [f"{run}: model of step {results['step']}", describe_metrics(results)]
    lines += [f"remark: {one}" for one in results.get("remarks", ())]
    print_result({"run": str(run), "results": results}, lines, as_json=json_output)
    if push_to_hub:
        options.publish(run, push_to_hub, to_stderr=json_output)
