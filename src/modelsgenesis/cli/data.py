"""`scan`, `preview` and `demo`: look at the data, and at the whole pipeline, before training."""

import os
from pathlib import Path
from typing import Annotated

from typer import Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import describe_metrics, make_reporter, print_json, print_line, print_result, print_table
from modelsgenesis.errors import counted


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

    reporter = make_reporter(quiet=quiet)
    found = inspection.inspect_scans(data, modality=modality, window=window, group_pattern=patient, reporter=reporter)
    if json_output:
        skipped = [{"source": one.source, "reason": one.reason} for one in found.skipped]
        contract = found.contract and found.contract.to_dict()
        print_json({"scans": found.scans, "refused": skipped, "contract": contract, "why": found.why})
        return
    names = [*(one["source"] for one in found.scans), *(one.source for one in found.skipped)]
    folder = os.path.commonprefix(names).rfind(os.sep) + 1  # noqa: RUF071 - all that they share, up to a separator
    rows = [
        (
            one["source"][folder:],
            one["format"],
            "×".join(map(str, one["shape"])),
            "×".join(f"{size:.3g}" for size in one["spacing"] or ()),
            one["modality"] or "",
            "{:g} to {:g}".format(*one["range"]),
            ", ".join(one["notes"]),
        )
        for one in found.scans
    ]
    print_table(("scan", "format", "shape", "spacing (mm)", "modality", "range", "notes"), rows)
    if found.skipped:
        print_table(("not used", "why"), [(one.source[folder:], one.reason) for one in found.skipped])
    bad = sum(one.bad for one in found.skipped)
    patients = len({one["patient"] for one in found.scans})
    counts = f"{bad} unusable, {len(found.skipped) - bad} left aside"
    print_line(f"{counted(len(found.scans), 'scan')} of {counted(patients, 'patient')}, {counts}; {found.why}")


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
    sources = [one.source for one in shown]
    lines = [f"  scan {number}: {source}" for number, source in enumerate(sources, start=1)]
    print_result({"path": str(path), "scans": sources}, [path, *lines], as_json=json_output)


def demo(
    output: Annotated[
        Path | None, Option("--output", "-o", help="A new folder; default: genesis-demo, then genesis-demo-2 …")
    ] = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    json_output: options.Json = False,
) -> None:
    """Do the main job on an embedded CT sample, offline: pretrain, fine-tune, predict a scan and draw it."""
    from modelsgenesis.demo import demonstrate

    output = options.run_folder(output, "genesis-demo")
    shown = demonstrate(output, device=device, reporter=make_reporter(quiet=quiet, folder=output))
    if json_output:
        print_json({**vars(shown), "files": {name: str(path) for name, path in shown.files.items()}})
        return
    print_line(f"restoring the held-out patient (mean squared error): {describe_metrics(shown.restoration)}")
    rows = [(key.removeprefix("dice ") if key != "dice" else "mean", f"{one:.3f}") for key, one in shown.dice.items()]
    print_table(("structure", "Dice on the held-out patient"), rows)
    for name, path in shown.files.items():
        print_line(f"{name}: {path}")
    print_line("One patient shows that it works. Whether a Genesis helps was measured on many:")
    for name, table in shown.measured.items():
        for line in ("", f"{name}, compared with scratch (see modelsgenesis card {name}):", *table.splitlines()):
            print_line(line)
