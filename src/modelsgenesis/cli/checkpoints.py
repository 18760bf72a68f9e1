"""`convert` and `export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import print_json

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class Format(StrEnum):
    """The published formats."""

    GENESIS_PYTORCH = "genesis-pytorch"
    GENESIS_KERAS = "genesis-keras"
    NNUNET_V1 = "nnunet-v1"
    OPENMIND = "openmind"


class Target(StrEnum):
    """The formats of others."""

    NNUNET = "nnunet"
    TORCH = "torch"
    ONNX = "onnx"


_SUFFIXES = {Target.NNUNET: ".pth", Target.TORCH: ".pt", Target.ONNX: ".onnx"}


def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: .pt, .h5, .model or .pth.")],
    out: Annotated[Path, typer.Argument(help="Folder of the bundle; must be new or empty.")],
    wanted: Annotated[Format | None, typer.Option("--format", help="What the file must be; default: find out.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Its adaptation_plan.json; default: the one beside it, or in it."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Convert a published checkpoint on disk to a bundle. No code in the file is run."""
    from modelsgenesis.checkpoints import convert_checkpoint
    from modelsgenesis.checkpoints.plan import PLAN_NAME

    beside = file.parent / PLAN_NAME
    plan = beside if plan is None and beside.is_file() else plan
    report = convert_checkpoint(
        file,
        out,
        format=wanted.value if wanted else None,
        extra_files={PLAN_NAME: plan} if plan else None,
        name=out.resolve().name,
    )
    if json_output:
        print_json(
            {
                "bundle": str(out),
                "format": report.format,
                "sha256": report.sha256,
                "parameters": report.parameters,
                "network": report.network.to_dict(),
                "renamed": dict(report.renamed),
                "dropped": dict(report.dropped),
                "notes": list(report.notes),
            }
        )
        return
    typer.echo(report.summary())
    typer.echo(out)


def export(
    model: Annotated[str, typer.Argument(help="A name of the registry, org/name on the Hub, or a folder.")],
    to: Annotated[
        Target,
        typer.Option(help="nnunet: for its -pretrained_weights; torch: a state dict of the original names; onnx."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: the model's name here.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Token of the Hub; default: HF_TOKEN or the stored one.", show_default=False),
    ] = None,
    json_output: Json = False,
) -> None:
    """Write a model for other programs."""
    from modelsgenesis import verbs
    from modelsgenesis.checkpoints import export_bundle

    bundle = verbs.load(model, revision=revision, token=token)
    name = Path(model.partition("@")[0]).resolve().name
    file = export_bundle(bundle, output or Path(f"{name}{_SUFFIXES[to]}"), to=to.value)
    if json_output:
        print_json({"file": str(file), "bytes": file.stat().st_size})
    else:
        typer.echo(file)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (convert, export):
        app.command(function.__name__)(function)
