"""`scan` and `preview`: look before training."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import make_reporter, print_json, print_line, print_result, print_table

if TYPE_CHECKING:
    from modelsgenesis.inspection import Inspection


def scan(
    data: options.Scans,
    modality: options.Modality = "auto",
    window: options.Window = None,
    patient: options.Patient = None,
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Summarise the scans: format, shape, spacing, modality and range, and which cannot be used and why."""
    from modelsgenesis import inspection

    found = inspection.inspect_scans(
        data, modality=modality, window=window, group_pattern=patient, reporter=make_reporter(quiet=quiet)
    )
    if json_output:
        print_json(_as_json(found))
    else:
        _print(found)


def preview(
    data: options.Scans,
    output: Annotated[Path, Option("--output", "-o", help="PNG to write.")] = Path("preview.png"),
    count: Annotated[int, Option("--count", "-n", min=1, max=50, help="Number of scans, at most.")] = 4,
    modality: options.Modality = "auto",
    spacing: options.Spacing = None,
    window: options.Window = None,
    seed: Annotated[int, Option(min=0, help="Random seed of the deformations.")] = 0,
    json_output: options.Json = False,
) -> None:
    """Draw scans as stored and as prepared, and what each deformation does to a patch."""
    from modelsgenesis import inspection

    path, shown = inspection.preview(
        data, output, count=count, modality=modality, spacing=spacing, window=window, seed=seed
    )
    lines = [f"  scan {number}: {one.source}" for number, one in enumerate(shown, start=1)]
    value = {"path": str(path), "scans": [scan.source for scan in shown]}
    print_result(value, [path, *lines], as_json=json_output)


def _as_json(inspection: "Inspection") -> dict[str, object]:
    contract = inspection.contract
    return {
        "scans": [scan.to_dict() for scan in inspection.scans],
        "refused": [{"source": one.source, "reason": one.reason} for one in inspection.refused],
        "contract": None if contract is None else contract.to_dict(),
        "why": inspection.why,
    }


def _print(inspection: "Inspection") -> None:
    """Print the tables: what is usable, then what is not; names without the folder that all lie in."""
    scans, refused = inspection.scans, inspection.refused
    folder = _length_of_folder([one.reference.source for one in scans] + [one.source for one in refused])
    rows = [
        (
            one.reference.source[folder:],
            one.reference.format,
            "×".join(map(str, one.reference.shape)),
            "×".join(f"{size:.3g}" for size in one.reference.spacing or ()),
            one.reference.modality or "",
            f"{one.lowest:g} to {one.highest:g}",
            ", ".join(one.notes),
        )
        for one in scans
    ]
    if rows:
        print_table(("scan", "format", "shape", "spacing (mm)", "modality", "range", "notes"), rows, first="")
    if refused:
        print_table(("unusable", "why"), [(one.source[folder:], one.reason) for one in refused], first="")
    patients = len({one.reference.group for one in scans})
    print_line(f"{len(scans)} scans of {patients} patients, {len(refused)} unusable; {inspection.why}")


def _length_of_folder(names: Sequence[str]) -> int:
    """Return how many characters of every name are the folder that all lie in."""
    if len(names) < 2 or len({Path(name).is_absolute() for name in names}) > 1:
        return 0
    common = os.path.commonpath([Path(name).parent for name in names])
    return len(common) + 1 if common else 0
