"""`pretrain`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import describe_metrics, make_reporter, note, print_plan, print_result
from modelsgenesis.cli.settings import PretrainingSwitches, separate
from modelsgenesis.configs import RECIPES, PretrainingConfig, pretraining_of_plans, pretraining_recipe

_RECIPES = "small (a laptop, 1,000 steps; the default), default (one GPU, 100,000), 2019 (as published, 10,000 epochs)."


def pretrain(
    data: Annotated[
        str | None, Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, Option("--output", "-o", help="A new folder; default: runs/pretrain, then runs/pretrain-2 …")
    ] = None,
    config_file: options.ConfigFile = None,
    recipe: Annotated[str | None, Option(help=_RECIPES, autocompletion=options.one_of(*RECIPES))] = None,
    init: options.Init = None,
    modality: options.Modality = "auto",
    plans: options.Plans = None,
    patient: options.Patient = None,
    steps: options.Steps = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    cache: Annotated[Path | None, Option(help="Folder of prepared volumes; default: in your cache.")] = None,
    resume: Annotated[bool, Option("--resume", help="Resume the run in DATA or --output, or the latest.")] = False,
    push_to_hub: options.PushToHub = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Pretrain on unlabelled scans: deform patches and learn to restore them."""
    # Imported here, since `--help` is to answer without loading torch.
    from modelsgenesis import pretraining
    from modelsgenesis.checkpoints import read_config
    from modelsgenesis.reports import REPORT

    if resume and data is not None and (Path(data) / "run.json").is_file():
        data, output = None, Path(data)
    output = options.run_folder(output, "runs/pretrain", resume=resume)
    switches, settings = separate(settings, PretrainingSwitches())
    is_auto = "batch_size=auto" in settings  # fills the memory of a GPU
    settings = [setting for setting in settings if setting != "batch_size=auto"]
    base: str | PretrainingConfig = recipe or "small"
    if config_file is not None:
        if recipe is not None:
            raise typer.BadParameter("received --recipe too; the file is a whole configuration", param_hint="--config")
        is_run = config_file.is_dir()
        base = pretraining.read_run(config_file).config if is_run else PretrainingConfig.from_file(config_file)
    elif resume and recipe is None:
        base = pretraining.read_run(output).config
    if plans is not None:
        base = pretraining_of_plans(plans, pretraining_recipe(base))
    given = {"source": data, "patient_pattern": patient, "cache": cache}
    given["modality"] = None if modality == "auto" else modality
    config = pretraining_recipe(base, scheme=switches.scheme, steps=steps, settings=settings).with_data(init, **given)
    if not config.data.source and not resume and not dry_run:
        raise typer.BadParameter("missing: the scans to pretrain on", param_hint="DATA")
    repository = options.choose_repository(push_to_hub, switches.hub_model_id, output, dry_run=dry_run)
    if dry_run:
        plan_pretraining(config, output, repository, resume=resume, is_auto=is_auto)
        return
    run = pretraining.pretrain(
        None,
        output,
        config=config,
        fit_batch=is_auto,
        device=device,
        resume=resume,
        strict=switches.strict,
        tensorboard=switches.tensorboard,
        reporter=make_reporter(quiet=quiet, folder=output),
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one reports and publishes
        return
    results = read_config(run).provenance.results
    lines = [f"{run}: model of step {results['step']}; report: {run / REPORT}", describe_metrics(results)]
    lines += [f"remark: {one}" for one in results.get("remarks", ())]
    print_result({"run": str(run), "results": results}, lines, as_json=json_output)
    if repository:
        options.publish(run, repository, to_stderr=json_output)


def plan_pretraining(
    config: PretrainingConfig, output: Path, repository: str | None, *, resume: bool, is_auto: bool
) -> None:
    """Print the configuration, and what would be read, written and sent."""
    from modelsgenesis.data.finding import find_scans
    from modelsgenesis.training.run import Run

    Run.check(output, resume=resume)
    read = [f"weights of {config.init}"] if config.init else []
    for source in (config.data.source, config.data.validation_source):
        found, _ = find_scans(source, group_pattern=config.data.patient_pattern) if source else ([], [])
        read += [f"{len(found)} scans in {', '.join(source)}"] if source else []
    send = [f"the model and its card to {repository} on the Hub, private"] if repository else []
    print_plan(read, [f"{output}/"], send, config=config.to_dict(), as_json=True)
    if is_auto:
        note("batch_size=auto is found on the GPU as a run starts: give --set batch_size=auto again beside --config")
