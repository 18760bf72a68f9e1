"""The command line: it parses, calls one function of the Python API, and prints.

Heavy imports wait inside the commands, so that help and errors come at once.
"""

import sys
from collections.abc import Callable
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
from modelsgenesis.cli.reports import report
from modelsgenesis.cli.viewer import view


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
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, as MODELSGENESIS_DEBUG=1 does.")
    ] = False,
) -> None:
    pass


# The commands in the order of the help, each with examples for its own.
EXAMPLES: dict[Callable[..., None], tuple[str, ...]] = {
    pretrain: (
        "pretrain scans --modality ct -o runs/ct",
        "pretrain scans --init genesis-chest-ct-3d --set data.spacing=1,1,2",
        "pretrain --resume runs/ct",
    ),
    finetune: (
        "finetune --task seg",
        "finetune Task04_Hippocampus --init runs/ct --labels 10",
        "finetune images --set folds=5 --set learning_rate=1e-3",
    ),
    predict: (
        "predict runs/finetune scan.nii.gz -o liver.nii.gz",
        "predict runs/finetune scans --flips all --preview",
    ),
    evaluate: ("evaluate runs/finetune Task04_Hippocampus", "evaluate predictions labels -o evaluation"),
    compare: ("compare Task04_Hippocampus --init scratch --init ct=runs/ct --labels 5 --set ct:encoder_only=true",),
    report: ("report runs/ct --open", "report runs -o all.html"),
    scan: ("scan scans", "scan dicom --json"),
    view: ("view scan.nii.gz liver.nii.gz", "view runs/finetune --port 8000 --no-open"),
    preview: ("preview scans -n 2 -o preview.png",),
    demo: ("demo -o genesis-demo",),
    hub.list_models: ("list", "list 'genesis-*' --modality mri"),
    hub.info: ("info genesis-chest-ct-3d",),
    hub.card: ("card genesis-chest-ct-3d",),
    hub.download: ("download genesis-chest-ct-3d -o chest",),
    hub.verify: ("verify genesis-hippocampus-mri-3d-small",),
    hub.cache: ("cache", "cache --prune --dry-run"),
    hub.push: ("push runs/ct --hub-model-id clinic/genesis-ct --dry-run",),
    convert: ("convert Genesis_Chest_CT.pt chest --dry-run",),
    export: ("export genesis-chest-ct-3d --to nnunet -o genesis.pth",),
}
for _command, _examples in EXAMPLES.items():
    _name = "list" if _command is hub.list_models else None  # a function of that name would hide Python's
    app.command(_name, epilog="\n\n".join(f"modelsgenesis {line}" for line in _examples))(_command)


def main() -> None:
    """Run the command line; see `one_line` for how it ends."""
    accept_any_name()
    with one_line(), interruptible():
        sys.exit(app(standalone_mode=False))  # else Typer prints a wrong command line itself, in a box
