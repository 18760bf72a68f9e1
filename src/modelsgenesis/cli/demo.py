"""`demo`."""

from pathlib import Path
from typing import Annotated

import typer

from modelsgenesis.cli.console import make_reporter, print_json


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="A new or empty folder.")] = Path("genesis-demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run the whole way on an embedded sample of CT, offline: pretrain, fine-tune beside scratch, predict."""
    from rich.console import Console
    from rich.table import Table

    from modelsgenesis.demo import demonstrate

    shown = demonstrate(output, device=device, reporter=make_reporter(quiet=quiet))
    if json_output:
        files = {name: str(path) for name, path in shown.files.items()}
        print_json(
            {"restoration": shown.restoration, "genesis": shown.genesis, "scratch": shown.scratch, "files": files}
        )
        return
    console = Console(highlight=False)
    losses = Table(title="Restoring the held-out patient (mean squared error, lower is better)")
    for name in ("restored", "mean image", "identity"):
        losses.add_column(name, justify="right")
    keys = ("restoration_loss", "mean_image_loss", "identity_loss")
    losses.add_row(*(f"{shown.restoration[key]:.4f}" for key in keys))
    console.print(losses)
    dice = Table(title="Segmenting the held-out patient (Dice, higher is better)")
    dice.add_column("structure")
    dice.add_column("from the Genesis", justify="right")
    dice.add_column("from scratch", justify="right")
    for key in shown.genesis:
        name = key.removeprefix("dice ") if key != "dice" else "mean"
        dice.add_row(name, f"{shown.genesis[key]:.3f}", f"{shown.scratch[key]:.3f}")
    console.print(dice)
    console.print(
        "One patient and one run, with settings chosen on this very sample, show that the pipeline works. They prove "
        "nothing about which is better.\n"
    )
    for name, path in shown.files.items():
        console.print(f"{name}: {path}", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)
