"""`predict` and `evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from modelsgenesis.cli.console import make_reporter, note, print_json, print_line
from modelsgenesis.cli.options import Device, Json, Quiet, Strict, Token
from modelsgenesis.cli.results import print_metrics

if TYPE_CHECKING:
    from modelsgenesis.configs import PredictionConfig
    from modelsgenesis.data import SkippedScan
    from modelsgenesis.prediction import Prediction

Ensemble = Annotated[
    list[str] | None,
    Option("--ensemble", metavar="MODEL", help="Another model, to average probabilities with; repeatable."),
]
Overlap = Annotated[float, Option(min=0, max=0.9, help="Overlap of neighbouring windows.")]
Flips = Annotated[
    str | None, Option(help="Also average over mirrored passes: all, or axes such as x,y; n axes take 2^n passes.")
]
StitchAt = Annotated[str, Option("--stitch", help="Where windows are stitched: auto (by free memory), cpu, device.")]
Precision = Annotated[str, Option(help="float32, the same on every machine; or bfloat16, faster on some hardware.")]

_AXES = {"x": 0, "y": 1, "z": 2}


def predict(
    model: Annotated[str, Argument(help="A fine-tuned model: a run, a folder, a folder of folds, or org/repo.")],
    scans: Annotated[
        list[str], Argument(metavar="INPUT...", help="Files, a folder, a DICOM series, a glob; or channels.")
    ],
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="A .nii.gz or a folder; default: <scan>_seg.nii.gz, for several scans predictions/. For classes a "
            ".csv; default: predictions.csv.",
        ),
    ] = None,
    probabilities: Annotated[bool, Option("--probabilities", help="Also write <scan>_probabilities.nii.gz.")] = False,
    ensemble: Ensemble = None,
    overlap: Overlap = 0.5,
    flips: Flips = None,
    stitch: StitchAt = "auto",
    precision: Precision = "float32",
    device: Device = "auto",
    skip_existing: Annotated[bool, Option("--skip-existing", help="Keep existing label maps.")] = False,
    strict: Strict = False,
    token: Token = None,
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
        config=prediction_config(overlap, flips, stitch, precision),
        device=device,
        skip_existing=skip_existing,
        strict=strict,
        token=token,
        reporter=make_reporter(quiet=quiet),
    )
    if json_output:
        answers = [_as_json(one, segments=found.task == "segmentation") for one in found.predictions]
        kept, failed = [str(path) for path in found.kept], _skipped(found.failed, "source")
        print_json({"task": found.task, "answers": answers, "kept": kept, "refused": failed})
    else:
        for one in found.predictions:
            print_line(one.path if found.task == "segmentation" else _described(one))
            for name, count in one.voxels.items():
                print_line(f"  {name}: {count} voxels")
        for path in found.kept:
            print_line(f"{path} (kept)")
        if found.task == "classification" and found.predictions:
            print_line(found.predictions[0].path)
    _end(found.failed, "predicted")


def evaluate(
    model: Annotated[str, Argument(help="A model, a folder of folds; or a folder or table that predict wrote.")],
    data: Annotated[str, Argument(help="Labelled data in any known layout, with the model's classes.")],
    output: Annotated[Path, Option("--output", "-o", help="Folder of results.json, cases.csv.")] = Path("evaluation"),
    split: Annotated[
        str | None, Option(metavar="FILE", help="Evaluate the test cases of this split; default: every case.")
    ] = None,
    ensemble: Ensemble = None,
    overlap: Overlap = 0.5,
    flips: Flips = None,
    stitch: StitchAt = "auto",
    precision: Precision = "float32",
    bootstrap: Annotated[int, Option(min=1, help="Resamples of the patients for the intervals.")] = 1000,
    seed: Annotated[int, Option(min=0, help="Random seed of the resampling.")] = 0,
    specificity: Annotated[float, Option(min=0, max=1, help="Specificity of the sensitivity (classification).")] = 0.9,
    device: Device = "auto",
    strict: Strict = False,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Evaluate a model, or saved predictions, on labelled scans, with 95% intervals over patients."""
    from modelsgenesis import evaluation

    found = evaluation.evaluate(
        [model, *ensemble] if ensemble else model,
        data,
        output=output,
        split=split,
        config=prediction_config(overlap, flips, stitch, precision),
        options=evaluation.MeasuringOptions(bootstrap=bootstrap, seed=seed, specificity=specificity),
        device=device,
        strict=strict,
        token=token,
        reporter=make_reporter(quiet=quiet),
    )
    count = len(found.rows)
    if json_output:
        skipped = _skipped(found.skipped, "case")
        print_json({"folder": str(found.folder), "cases": count, "metrics": found.summary, "refused": skipped})
    else:
        print_line(f"{found.folder / 'results.json'}: {count} cases, each in {found.folder / 'cases.csv'}")
        print_metrics(found.summary, alone="", specificity=specificity)
    _end(found.skipped, "measured")


def prediction_config(overlap: float, flips: str | None, stitch: str, precision: str) -> "PredictionConfig":
    """Return the configuration of the options."""
    from modelsgenesis.configs import PredictionConfig

    names = flips.split(",") if flips and flips != "all" else []
    if any(name not in _AXES for name in names):
        raise BadParameter(f"received {flips!r}, expected all, or axes of x, y, z", param_hint="--flips")
    axes = "all" if flips == "all" else [_AXES[name] for name in names]
    values = {"overlap": overlap, "flips": axes, "stitch": stitch, "precision": precision}
    return PredictionConfig.from_dict(values, where="predict")


def _described(one: "Prediction") -> str:
    scores = ", ".join(f"{name} {value:.3f}" for name, value in one.scores.items())
    return f"{one.name}: {' + '.join(one.predicted) or 'none'} ({scores})"


def _as_json(one: "Prediction", *, segments: bool) -> dict[str, object]:
    classes = {"predicted": list(one.predicted), "probabilities": one.scores}
    return {"case": one.name, "path": str(one.path), **({"voxels": one.voxels} if segments else classes)}


def _skipped(scans: "Sequence[SkippedScan]", what: str) -> list[dict[str, str]]:
    return [{what: scan.source, "reason": scan.reason} for scan in scans]


def _end(failed: "Sequence[SkippedScan]", done: str) -> None:
    """Name what failed, and end with status 1 where something did."""
    for scan in failed:
        note(f"not {done}: {scan.source}: {scan.reason}")
    if failed:
        raise Exit(1)
