"""`predict`."""

from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import print_json
from modelsgenesis.cli.options import Device, Json, Token


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


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict")(predict)
