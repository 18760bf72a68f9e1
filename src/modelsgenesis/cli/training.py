"""`pretrain`, `finetune` and `predict`."""

from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; must be new or empty.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any field of the recipe, such as learning_rate=1e-3."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad scan instead of leaving it out.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Modality = Annotated[str, typer.Option(help="ct, mri, xray, ultrasound, or auto.")]
PushToHub = Annotated[bool, typer.Option("--push-to-hub", help="Publish the bundle at the end.")]
HubModelId = Annotated[str | None, typer.Option(help="org/name on the Hub; default: your name / the run's name.")]
Private = Annotated[bool, typer.Option("--private", help="Publish privately.")]
Token = Annotated[str | None, typer.Option(help="Token of the Hub; default: HF_TOKEN or the stored one.")]


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
        _publish(run, hub_model_id, private, token, to_stderr=json_output)


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
        _publish(run, hub_model_id, private, token, to_stderr=json_output)


def predict(
    model: Annotated[str, typer.Argument(help="A segmentation model: a run, a folder, or org/repo.")],
    scan: Annotated[list[str], typer.Argument(help="The scan; one file a channel.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="NIfTI to write; default: beside you, <scan>_seg.nii.gz."),
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Also write the class probabilities into this 4D NIfTI.")
    ] = None,
    overlap: Annotated[float, typer.Option(min=0, max=0.9, help="Of neighbouring windows.")] = 0.5,
    device: Device = "auto",
    token: Token = None,
    json_output: Json = False,
) -> None:
    """Segment a scan; the answer has the scan's own shape, affine and orientation."""
    from modelsgenesis import verbs

    prediction = verbs.predict(
        model, scan, output=output, probabilities=probabilities, overlap=overlap, device=device, token=token
    )
    if json_output:
        print_json({"path": str(prediction.path), "voxels": prediction.voxels})
        return
    typer.echo(str(prediction.path))
    for name, count in prediction.voxels.items():
        typer.echo(f"  {name}: {count} voxels")


def numbers_of(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return the numbers of an option such as `1,1,2.5`."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"received {text!r}, expected numbers with commas between", param_hint=option
        ) from None


def _publish(run: Path, repository: str | None, private: bool, token: str | None, *, to_stderr: bool) -> None:
    """Publish a finished run; a failure says that the run is intact and which command repeats the push."""
    from modelsgenesis import verbs

    typer.echo(verbs.push_to_hub(run, repository, private=private, token=token).url, err=to_stderr)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (pretrain, finetune, predict):
        app.command(function.__name__)(function)
