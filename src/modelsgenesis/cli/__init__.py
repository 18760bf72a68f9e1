"""The command line: it parses, calls one function of the Python API, and prints.

Heavy imports wait inside the commands, so that help and errors come at once.
"""

import typer

from modelsgenesis._version import __version__
from modelsgenesis.cli import checkpoints, comparison, data, demo, finetuning, hub, prediction, pretraining
from modelsgenesis.cli.ending import end_with_error, end_with_signal, interruptible
from modelsgenesis.errors import GenesisError, Interrupted

app = typer.Typer(
    name="modelsgenesis",
    help="Models Genesis: pretrain on unlabelled scans, fine-tune with few labels, share on the Hub.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modelsgenesis {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


for module in (pretraining, finetuning, prediction, comparison, data, demo, hub, checkpoints):
    module.register(app)


def main() -> None:
    """Run the command line; an error of this package becomes one line and status 1, a signal 128 and its number."""
    try:
        with interruptible():
            app()
    except GenesisError as error:
        end_with_error(error)
    except Interrupted as interrupted:
        end_with_signal(interrupted)
