"""The command line: it parses, calls one function of the Python API, and prints.

Heavy imports wait inside the commands, so that help and errors come at once.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from modelsgenesis._version import __version__
from modelsgenesis.cli import hub
from modelsgenesis.cli.checkpoints import convert, export
from modelsgenesis.cli.console import accept_any_name, print_line
from modelsgenesis.cli.data import demo, preview, scan
from modelsgenesis.cli.errors import interruptible, one_line
from modelsgenesis.cli.finetuning import compare, finetune
from modelsgenesis.cli.prediction import evaluate, predict
from modelsgenesis.cli.pretraining import pretrain


class _Commands(TyperGroup):
    """The commands; what they raise is told before Typer takes an `EOFError` for Ctrl-D and hides a broken pipe."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept `--debug` anywhere in the line, and show the help when the line is empty."""
        return super().parse_args(ctx, sorted(args, key=lambda word: word != "--debug") or ["--help"])

    def invoke(self, ctx: Any) -> Any:
        with one_line():  # in here, before Typer itself catches some of them
            return super().invoke(ctx)


app = typer.Typer(
    name="modelsgenesis",
    cls=_Commands,
    help="Models Genesis: pretrain on unlabelled scans, fine-tune with few labels, share on the Hub.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"modelsgenesis {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, as MODELSGENESIS_DEBUG=1 does.")
    ] = False,
) -> None:
    pass


for _command in (pretrain, finetune, predict, evaluate, compare, scan, preview, demo):
    app.command()(_command)
app.command("list")(hub.list_models)
for _command in (hub.info, hub.card, hub.download, hub.verify, hub.cache, hub.push, convert, export):
    app.command()(_command)


def main() -> None:
    """Run the command line; see `one_line` for how it ends."""
    accept_any_name()
    with one_line(), interruptible():
        sys.exit(app(standalone_mode=False))  # else Typer prints a wrong command line itself, in a box
