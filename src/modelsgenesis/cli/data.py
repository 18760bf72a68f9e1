"""`scan` and `preview`: look before training."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelsgenesis.cli.console import make_reporter, print_json
from modelsgenesis.cli.options import Json, Modality, Quiet, numbers_of

if TYPE_CHECKING:
    from modelsgenesis.verbs import Inspection

Scans = Annotated[str, typer.Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.")]
Window = Annotated[str | None, typer.Option(help="Intensities that become 0 and 1, such as -1000,1000.")]
_WIDTH = 200
PATIENT_HELP = "A regular expression whose first group is the patient in a file's name."


def scan(
    data: Scans,
    modality: Modality = "auto",
    window: Window = None,
    patient: Annotated[str | None, typer.Option("--patient", metavar="PATTERN", help=PATIENT_HELP)] = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Tell what is there: format, shape, spacing, modality, range, and what is refused and why."""
    from modelsgenesis import verbs

    inspection = verbs.inspect_scans(
        data,
        modality=modality,
        window=_pair(numbers_of(window, "--window")),
        group_pattern=patient,
        reporter=make_reporter(quiet=quiet),
    )
    if json_output:
        print_json(_as_json(inspection))
    else:
        _print(inspection)


def preview(
    data: Scans,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("preview.png"),
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=50, help="Scans at most.")] = 4,
    modality: Modality = "auto",
    spacing: Annotated[str | None, typer.Option(help="Voxel size in mm, such as 1,1,1.")] = None,
    window: Window = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the deformations.")] = 0,
    json_output: Json = False,
) -> None:
    """Draw scans as stored, as prepared, and what each deformation does to a sub-volume."""
    from modelsgenesis import verbs

    path, shown = verbs.preview(
        data,
        output,
        count=count,
        modality=modality,
        spacing=numbers_of(spacing, "--spacing"),
        window=_pair(numbers_of(window, "--window")),
        seed=seed,
    )
    if json_output:
        print_json({"path": str(path), "scans": [scan.source for scan in shown]})
        return
    typer.echo(str(path))
    for number, one in enumerate(shown, start=1):
        typer.echo(f"  scan {number}: {one.source}")


def _pair(numbers: tuple[float, ...] | None) -> tuple[float, float] | None:
    if numbers is None:
        return None
    if len(numbers) != 2:
        shown = ",".join(f"{number:g}" for number in numbers)
        raise typer.BadParameter(f"received {shown}, expected two numbers", param_hint="--window")
    return numbers[0], numbers[1]


def _as_json(inspection: "Inspection") -> dict[str, object]:
    contract = inspection.contract
    return {
        "scans": [scan.to_dict() for scan in inspection.scans],
        "refused": [{"source": one.source, "reason": one.reason} for one in inspection.refused],
        "contract": None if contract is None else contract.to_dict(),
        "why": inspection.why,
    }


def _print(inspection: "Inspection") -> None:
    """Print the tables: what is usable, then what is refused; names without the folder of all."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)  # for a pipe or a file
    shorten = _common_folder(inspection)
    if inspection.scans:
        table = Table("scan", "format", "shape", "spacing mm", "modality", "range", "notes", box=None)
        for scan in inspection.scans:
            one = scan.reference
            spacing = "" if one.spacing is None else "×".join(f"{size:.3g}" for size in one.spacing)
            values = f"{scan.lowest:g} to {scan.highest:g}"
            shape, notes = "×".join(map(str, one.shape)), ", ".join(scan.notes)
            row = (one.source[shorten:], one.format, shape, spacing, one.modality or "", values, notes)
            table.add_row(*map(_plain, row))
        console.print(table)
    if inspection.refused:
        table = Table("refused", "why", box=None)
        for refusal in inspection.refused:
            table.add_row(_plain(refusal.source[shorten:]), _plain(refusal.reason))
        console.print(table)
    patients = len({scan.reference.group for scan in inspection.scans})
    counted = f"{len(inspection.scans)} scans of {patients} patients, {len(inspection.refused)} refused"
    console.print(f"{counted}; {inspection.why}", markup=False, soft_wrap=True)


def _common_folder(inspection: "Inspection") -> int:
    """Return how many characters of every name are the folder that all lie in."""
    names = [scan.reference.source for scan in inspection.scans]
    names += [refusal.source for refusal in inspection.refused]
    if len(names) < 2 or len({Path(name).is_absolute() for name in names}) > 1:
        return 0
    common = os.path.commonpath([Path(name).parent for name in names])
    return len(common) + 1 if common else 0


def _plain(text: str) -> str:
    """Keep square brackets in names from being taken for rich's markup."""
    from rich.markup import escape

    return escape(text)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (scan, preview):
        app.command(function.__name__)(function)
