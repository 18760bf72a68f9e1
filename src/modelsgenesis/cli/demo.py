"""`demo`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json, print_line, print_table


def demo(
    output: Annotated[Path, Option("--output", "-o", help="A new or empty folder.")] = Path("genesis-demo"),
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Run the full pipeline on an embedded CT sample, offline: pretrain, fine-tune beside scratch, predict."""
    from modelsgenesis.demo import demonstrate

    shown = demonstrate(output, device=device, reporter=make_reporter(quiet=quiet))
    if json_output:
        files = {name: str(path) for name, path in shown.files.items()}
        print_json(
            {"restoration": shown.restoration, "genesis": shown.genesis, "scratch": shown.scratch, "files": files}
        )
        return
    print_line(f"restoring the held-out patient (mean squared error): {describe_metrics(shown.restoration)}")
    print_line()
    rows = [
        (key.removeprefix("dice ") if key != "dice" else "mean", f"{dice:.3f}", f"{shown.scratch[key]:.3f}")
        for key, dice in shown.genesis.items()
    ]
    print_table(("Dice on the held-out patient", "pretrained", "from scratch"), rows)
    print_line(
        "One patient and one run, with settings chosen on this very sample, show that the pipeline works. They prove "
        "nothing about which is better."
    )
    print_line()
    for name, path in shown.files.items():
        print_line(f"{name}: {path}")
