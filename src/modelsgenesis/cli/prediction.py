"""`predict` and `evaluate`, and metrics as a table, which `finetune` prints too."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Exit, Option

from modelsgenesis.cli.console import make_reporter, note, print_json, print_line, print_plan, print_result, print_table
from modelsgenesis.cli.options import Device, DryRun, Json, Patient, Quiet, Settings, Strict, run_folder
from modelsgenesis.configs import PredictionConfig, apply_settings
from modelsgenesis.errors import counted

if TYPE_CHECKING:
    from modelsgenesis.metrics.tables import ResultsTable

Ensemble = Annotated[list[str] | None, Option(metavar="MODEL", help="Another model, to average with; repeatable.")]
Overlap = Annotated[float, Option(min=0, max=0.9, help="Overlap of neighbouring windows.")]
Flips = Annotated[str | None, Option(help="Average over mirrored passes: all, or axes such as x,y; default: none.")]

_OUTPUT = "A .nii.gz or a folder; default: <scan>_seg.nii.gz, of several predictions/. Of classes a .csv."
TABLES = "results.csv, .md, .tex"
_EVALUATION = ("report.html", "results.json", TABLES, "cases.csv", "refused.csv", "report.npz", "predictions/")

_SCANS = "Files, a folder, a DICOM series, a glob, or the channels of a case."


def predict(
    model: Annotated[str, Argument(help="A fine-tuned model: a run, a folder, a folder of folds, or org/repo.")],
    scans: Annotated[list[str], Argument(metavar="INPUT...", help=_SCANS)],
    output: Annotated[Path | None, Option("--output", "-o", help=_OUTPUT)] = None,
    probabilities: Annotated[bool, Option("--probabilities", help="Also write <scan>_probabilities.nii.gz.")] = False,
    preview: Annotated[
        bool, Option("--preview", help="Also draw <scan>_preview.png: the scan with its prediction.")
    ] = False,
    ensemble: Ensemble = None,
    overlap: Overlap = 0.5,
    flips: Flips = None,
    settings: Settings = None,
    device: Device = "auto",
    skip_existing: Annotated[bool, Option("--skip-existing", help="Keep existing label maps.")] = False,
    strict: Strict = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what would be predicted and written, and stop.")] = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Segment or classify scans; a label map has its scan's own shape, affine and orientation."""
    from modelsgenesis.data.predictions import written_files
    from modelsgenesis.prediction import predict_all

    found = predict_all(
        [model, *(ensemble or [])],
        scans,
        output=output,
        probabilities=probabilities,
        preview=preview,
        config=_prediction_config(overlap, flips, settings),
        device=device,
        skip_existing=skip_existing,
        strict=strict,
        dry_run=dry_run,
        reporter=make_reporter(quiet=quiet),
    )
    if dry_run:
        classes = ", ".join(found.about["labels"].values())
        read = [f"model {model} ({classes})", *(one.file for one in found.predictions)]
        places = dict.fromkeys(filter(None, [*(one.path for one in found.predictions), found.table]))
        soft = {place for place in places if probabilities and place != found.table}
        write = [file for place in places for file in written_files(place)[: 3 if place in soft else 2]]
        write += [one.preview for one in found.predictions if one.preview]
        if found.predictions and found.task == "segmentation":
            write += written_files([*places][-1])[4:]  # names and colours of the labels
        print_plan(read, write, as_json=json_output)
        _end(found.failed, "predicted")
        return
    lines: list[object] = []
    for one in found.predictions:
        if found.task == "segmentation":
            lines += [one.path, *(f"  {line}" for line in one.lines)]
        else:
            lines.append(f"{one.name}: {', '.join(one.lines)}")
        lines += [f"  {one.preview}"] if one.preview else []
    lines += [*(f"{path} (kept)" for path in found.kept), *filter(None, [found.table])]
    value = {
        "task": found.task,
        "about": found.about,
        "predictions": [one.to_dict() for one in found.predictions],
        "kept": list(map(str, found.kept)),
        "table": found.table and str(found.table),
        "failed": [{"source": scan.source, "reason": scan.reason} for scan in found.failed],
    }
    print_result(value, lines, as_json=json_output)
    _end(found.failed, "predicted")


def evaluate(
    model: Annotated[
        str,
        Argument(help="A model, a folder of folds; or saved predictions: a folder of label maps, a table of classes."),
    ],
    data: Annotated[
        str,
        Argument(help="Labelled data with the model's classes; for saved label maps also a folder of the true ones."),
    ],
    output: Annotated[
        Path | None, Option("--output", "-o", help="Folder of the results; default: evaluation, then evaluation-2 …")
    ] = None,
    patient: Patient = None,
    split: Annotated[str | None, Option(metavar="FILE", help="Evaluate its test cases; default: all.")] = None,
    ensemble: Ensemble = None,
    overlap: Overlap = 0.5,
    flips: Flips = None,
    settings: Settings = None,
    bootstrap: Annotated[int, Option(min=1, help="Resamples of the patients for the intervals.")] = 1000,
    seed: Annotated[int, Option(min=0, help="Random seed of the resampling.")] = 0,
    specificity: Annotated[float, Option(min=0, max=1, help="Specificity of the sensitivity (classification).")] = 0.9,
    device: Device = "auto",
    strict: Strict = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Evaluate a model, or saved predictions, on labelled scans, with 95% intervals over patients."""
    from modelsgenesis import evaluation
    from modelsgenesis.data.labelled import read_labelled

    output = run_folder(output, "evaluation")
    reporter, saved = make_reporter(quiet=quiet), evaluation.saved_predictions(model)
    maps = saved and evaluation.read_label_maps(Path(data), saved, reporter, patient)
    labelled = maps or read_labelled(data, patient_pattern=patient)
    if dry_run:
        read = [model, *(ensemble or []), counted(len(labelled.cases), "labelled case") + f" in {data}"]
        read += [f"{split}, whose test cases alone are evaluated"] if split else []
        print_plan(read, [output / name for name in _EVALUATION], as_json=json_output)
        return
    found = evaluation.evaluate(
        [model, *ensemble] if ensemble else model,
        labelled,
        output=output,
        split=split,
        config=_prediction_config(overlap, flips, settings),
        bootstrap=bootstrap,
        seed=seed,
        specificity=specificity,
        device=device,
        strict=strict,
        reporter=make_reporter(quiet=quiet),
    )
    count = len(found.rows)
    skipped = [{"case": scan.source, "reason": scan.reason} for scan in found.skipped]
    value = {"folder": str(found.folder), "cases": count, "metrics": found.summary, "refused": skipped}
    if json_output:
        print_json(value)
    else:
        files = {
            "report": "report.html",
            "full results": "results.json",
            "this table": TABLES,
            "each case": "cases.csv",
        }
        print_results(found.table, found.folder, files)
    _end(found.skipped, "measured", told=not quiet)


def _prediction_config(overlap: float, flips: str | None, settings: Sequence[str] | None) -> PredictionConfig:
    names = flips.split(",") if flips and flips != "all" else []
    if not set(names) <= set("xyz"):
        raise BadParameter(f"received {flips!r}, expected all, or axes of x, y, z", param_hint="--flips")
    axes = "all" if flips == "all" else ["xyz".index(name) for name in names]
    config = PredictionConfig.from_dict({"overlap": overlap, "flips": axes}, where="predict")
    return apply_settings(config, settings or [])


def _end(failed: Sequence[Any], done: str, *, told: bool = False) -> None:
    """Name what failed unless the display has told it, and end with status 1 where something did."""
    for scan in failed if not told else ():
        note(f"not {done}: {scan.source}: {scan.reason}")
    if failed:
        raise Exit(1)


def print_results(table: "ResultsTable", folder: Path, files: Mapping[str, str]) -> None:
    """Print a table of results with its notes, then where what was written is, by what it is."""
    if table.rows:
        print_table(["", *table.header[1:]], table.rows)
    for line in (*table.notes, "", *(f"{what}: {folder / name}" for what, name in files.items())):
        print_line(line)
