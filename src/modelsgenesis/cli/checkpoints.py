"""`convert` and `export`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import print_plan, print_result
from modelsgenesis.errors import CheckpointError, require
from modelsgenesis.files import require_new

_SUFFIXES = {"nnunet": ".pth", "torch": ".pt"}


def convert(
    file: Annotated[Path, Argument(help="A published checkpoint: .pt, .h5, .model or .pth.")],
    out: Annotated[Path, Argument(help="Folder of the bundle; must be new or empty.")],
    wanted: Annotated[
        str | None, Option("--format", help="Expected format, such as openmind; default: detected.")
    ] = None,
    plan: Annotated[Path | None, Option(help="adaptation_plan.json; default: beside or in the file.")] = None,
    dry_run: options.DryRun = False,
    json_output: options.Json = False,
) -> None:
    """Convert a published checkpoint to a bundle. No code in the file is run."""
    from modelsgenesis.checkpoints import convert_checkpoint  # torch, which --help and completion do without

    if dry_run:
        require(file.is_file(), CheckpointError, f"{file}: there is no such file; check the path")
        require_new(out, folder=True)
        print_plan([file], [f"{out}/"], as_json=json_output)
        return
    report = convert_checkpoint(file, out, format=wanted, plan=plan, name=out.resolve().name)
    print_result({"bundle": str(out), **asdict(report)}, [report.summary(), out], as_json=json_output)


def export(
    model: options.Model,
    to: Annotated[
        Literal["nnunet", "torch"],
        Option(help="nnunet: for nnU-Net's -pretrained_weights; torch: a state dict with the original names."),
    ],
    output: Annotated[Path | None, Option("--output", "-o", help="The file; default: named after the model.")] = None,
    plans: options.Plans = None,
    revision: options.Revision = None,
    dry_run: options.DryRun = False,
    json_output: options.Json = False,
) -> None:
    """Write a model for other programs."""
    from modelsgenesis import models
    from modelsgenesis.checkpoints import export_bundle
    from modelsgenesis.hub.download import resolve

    output = output or Path(f"{Path(model.partition('@')[0]).resolve().name}{_SUFFIXES[to]}")
    if dry_run:
        resolve(model, revision)  # a name that leads nowhere is told now
        require_new(output)
        print_plan([f"weights of {model}"], [output], as_json=json_output)
        return
    file = export_bundle(models.load(model, revision=revision), output, to=to, plans=plans)
    print_result({"file": str(file), "bytes": file.stat().st_size}, [file], as_json=json_output)
