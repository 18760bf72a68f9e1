"""`predict` and `evaluate`, and metrics as a table, which `finetune` prints too."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Exit, Option

from modelsgenesis.cli.console import make_reporter, note, print_line, print_plan, print_result, print_table
from modelsgenesis.cli.options import Device, DryRun, Json, Quiet, Settings, Strict
from modelsgenesis.configs import PredictionConfig, apply_settings

Ensemble = Annotated[list[str] | None, Option(metavar="MODEL", help="Another model, to average with; repeatable.")]
Overlap = Annotated[float, Option(min=0, max=0.9, help="Overlap of neighbouring windows.")]
Flips = Annotated[str | None, Option(help="Average over mirrored passes: all, or axes such as x,y.")]

_OUTPUT = "A .nii.gz or a folder; default: <scan>_seg.nii.gz, of several predictions/. Of classes a .csv."
_SCANS = "Files, a folder, a DICOM series, a glob; or channels."


def predict(
    model: Annotated[str, Argument(help="A fine-tuned model: a run, a folder, a folder of folds, or org/repo.")],
    scans: Annotated[list[str], Argument(metavar="INPUT...", help=_SCANS)],
    output: Annotated[Path | None, Option("--output", "-o", help=_OUTPUT)] = None,
    probabilities: Annotated[bool, Option("--probabilities", help="Also write <scan>_probabilities.nii.gz.")] = False,
    ensemble: Ensemble = None,
    overlap: Overlap = 0.5,
    flips: Flips = None,
    settings: Settings = None,
    device: Device = "auto",
    skip_existing: Annotated[bool, Option("--skip-existing", help="Keep existing label maps.")] = False,
    strict: Strict = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Segment or classify scans; a label map has its scan's own shape, affine and orientation."""
    from modelsgenesis.prediction import predict_all

    found = predict_all(
        [model, *(ensemble or [])],
        scans,
        output=output,
        probabilities=probabilities,
        config=_prediction_config(overlap, flips, settings),
        device=device,
        skip_existing=skip_existing,
        strict=strict,
        reporter=make_reporter(quiet=quiet),
    )
    answers, lines = [], []
    for one in found.predictions:
        answer: dict[str, object] = {"case": one.name, "path": str(one.path)}
        if found.task == "segmentation":
            answers.append({**answer, "voxels": one.voxels})
            lines += [one.path, *(f"  {name}: {count} voxels" for name, count in one.voxels.items())]
        else:
            answers.append({**answer, "predicted": list(one.predicted), "probabilities": one.scores})
            scores = ", ".join(f"{name} {value:.3f}" for name, value in one.scores.items())
            lines.append(f"{one.name}: {' + '.join(one.predicted) or 'none'} ({scores})")
    lines += [f"{path} (kept)" for path in found.kept]
    if found.task == "classification" and found.predictions:
        lines.append(found.predictions[0].path)
    failed = [{"source": scan.source, "reason": scan.reason} for scan in found.failed]
    value = {"task": found.task, "answers": answers, "kept": list(map(str, found.kept)), "refused": failed}
    print_result(value, lines, as_json=json_output)
    _end(found.failed, "predicted")


def evaluate(
    model: Annotated[str, Argument(help="A model, a folder of folds; or a folder or table that predict wrote.")],
    data: Annotated[str, Argument(help="Labelled data in any known layout, with the model's classes.")],
    output: Annotated[Path, Option("--output", "-o", help="Folder of results.json, cases.csv.")] = Path("evaluation"),
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

    if dry_run:
        from modelsgenesis.data.labelled import read_labelled

        read = [model, *(ensemble or []), f"{len(read_labelled(data).cases)} labelled cases in {data}"]
        print_plan(read, [output / name for name in ("results.json", "cases.csv")], as_json=json_output)
        return
    found = evaluation.evaluate(
        [model, *ensemble] if ensemble else model,
        data,
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
    written = f"{found.folder / 'results.json'}: {count} cases, each in {found.folder / 'cases.csv'}"
    print_result(value, [written], as_json=json_output)
    if not json_output:
        print_metrics(found.summary, alone="", specificity=specificity)
    _end(found.skipped, "measured")


def _prediction_config(overlap: float, flips: str | None, settings: Sequence[str] | None) -> PredictionConfig:
    names = flips.split(",") if flips and flips != "all" else []
    if not set(names) <= set("xyz"):
        raise BadParameter(f"received {flips!r}, expected all, or axes of x, y, z", param_hint="--flips")
    axes = "all" if flips == "all" else ["xyz".index(name) for name in names]
    config = PredictionConfig.from_dict({"overlap": overlap, "flips": axes}, where="predict")
    return apply_settings(config, settings or [])


def _end(failed: Sequence[Any], done: str) -> None:
    """Name what failed, and end with status 1 where something did."""
    for scan in failed:
        note(f"not {done}: {scan.source}: {scan.reason}")
    if failed:
        raise Exit(1)


def print_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Print the content of a fine-tuning's `results.json`."""
    patients, cases, folds = results["patients"], results["cases"], results.get("folds")
    together = bool(folds) and results.get("fold") is None
    if results["test"]:
        basis = "1 test patient" if patients == 1 else f"{patients} test patients"
        basis += f", {cases} images" if cases > patients else ""
        basis += f" in {folds} folds" if together else ""
        basis += "; 95% bootstrap intervals over patients" if patients > 1 else "; no confidence interval"
        specificity = results.get("specificity", 0)
        print_metrics(results["test"], alone=results["labels"][-1], specificity=specificity, basis=basis)
    else:
        print_line("no test patients: nothing was measured")
    files = {"full results": "results.json", "each test case": "test.csv"}
    if together:  # each case is measured by the fold that did not train on it
        files["the models"] = "fold0, fold1 …"
    else:
        files |= {"split, to reuse with --split": "split.json", "model, with its card in README.md": ""}
    for line in ("", *(f"{what}: {folder / name}" for what, name in files.items())):
        print_line(line)


def print_metrics(summary: Mapping[str, Mapping[str, Any]], *, alone: str, specificity: float, basis: str = "") -> None:
    """Print a row for each class and one for their mean, then a line about each figure that leaves cases out.

    Args:
        summary: As `summarize_rows` returns it.
        alone: The row's name where no metric names a class: of two exclusive classes the second.
        specificity: At which the sensitivity is given.
        basis: A line on what the figures rest on.
    """
    from modelsgenesis.metrics.measures import METRICS, explanations  # NumPy, which --help does without

    metrics = {name: metric for name, metric in METRICS.items() if name in summary}
    titles = {name: metric.title for name, metric in metrics.items()}
    if "sensitivity" in titles:
        titles["sensitivity"] += f" at specificity {specificity:g}"
    # `dice Anterior` is the Dice of Anterior, `dice` the mean over the structures.
    each = list(dict.fromkeys(name.partition(" ")[2] for name in summary if " " in name))
    rows = [(name, f" {name}") for name in each] if each else [(alone, "")]
    rows = [("mean", ""), *rows] if len(each) > 1 else rows
    cells = [
        [name, *(_cell(summary.get(key + suffix), metric.digits) for key, metric in metrics.items())]
        for name, suffix in rows
    ]
    print_table(["", *titles.values()], cells)
    for line in filter(None, [basis, *explanations(summary)]):
        print_line(line)


def _cell(entry: Mapping[str, Any] | None, digits: int) -> str:
    """Return `0.878 (0.871–0.885)`, a dash where undefined, nothing where there is no such figure."""
    if entry is None:
        return ""
    if entry["value"] is None:
        return "—"
    value = f"{entry['value']:.{digits}f}"
    if entry["low"] is None:
        return value
    return f"{value} ({entry['low']:.{digits}f}–{entry['high']:.{digits}f})"
