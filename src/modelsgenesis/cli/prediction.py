"""`predict` and `evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelsgenesis.cli.console import make_reporter, note, print_result
from modelsgenesis.cli.options import Device, Json, Quiet, Strict, Token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsgenesis.configs import PredictionConfig
    from modelsgenesis.prediction import Prediction, Predictions

Ensemble = Annotated[
    list[str] | None,
    typer.Option("--ensemble", metavar="MODEL", help="Another model, to average probabilities with; repeatable."),
]
Overlap = Annotated[float, typer.Option(min=0, max=0.9, help="Overlap of neighbouring windows.")]
Flips = Annotated[
    str | None,
    typer.Option(help="Also average over mirrored passes: all, or axes such as x,y; n axes take 2^n passes."),
]
StitchAt = Annotated[
    str, typer.Option("--stitch", help="Where windows are put together: auto (by free memory), cpu, device.")
]
Precision = Annotated[
    str, typer.Option(help="float32, the same on every machine; or bfloat16, faster where the hardware has it.")
]

_AXES = {"x": 0, "y": 1, "z": 2}


def predict(
    model: Annotated[str, typer.Argument(help="A fine-tuned model: a run, a folder, a folder of folds, or org/repo.")],
    scans: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Scans: files, a folder, a DICOM series, a glob, an .npz; or one file per channel."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .nii.gz or a folder; default: <scan>_seg.nii.gz, for several scans predictions/. For classes a "
            ".csv or .json; default: predictions.csv.",
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write <scan>_probabilities.nii.gz, 4D.")
    ] = False,
    ensemble: Ensemble = None,
    overlap: Overlap = 0.5,
    flips: Flips = None,
    stitch: StitchAt = "auto",
    precision: Precision = "float32",
    device: Device = "auto",
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Keep existing label maps instead of replacing them.")
    ] = False,
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
    print_result(_as_json(found), _lines(found), as_json=json_output)
    if found.failed:
        for scan in found.failed:
            note(f"not predicted: {scan.source}: {scan.reason}")
        raise typer.Exit(1)


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A fine-tuned model, a folder of folds; or a folder or table that predict wrote.")
    ],
    data: Annotated[str, typer.Argument(help="Labelled data in any known layout, with the model's classes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results.json and cases.csv.")] = Path(
        "evaluation"
    ),
    split: Annotated[
        str | None, typer.Option(metavar="FILE", help="Evaluate the test cases of this split; default: every case.")
    ] = None,
    ensemble: Ensemble = None,
    overlap: Overlap = 0.5,
    flips: Flips = None,
    stitch: StitchAt = "auto",
    precision: Precision = "float32",
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples of the patients for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the resampling.")] = 0,
    specificity: Annotated[
        float, typer.Option(min=0, max=1, help="Specificity at which the sensitivity of a classification is given.")
    ] = 0.9,
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
    refused = [{"case": scan.source, "reason": scan.reason} for scan in found.skipped]
    value = {"folder": str(found.folder), "cases": len(found.rows), "metrics": found.summary, "refused": refused}
    written = f"{found.folder / 'results.json'}: {len(found.rows)} cases, each in {found.folder / 'cases.csv'}"
    lines = [f"  {name}: {_interval(entry)}" for name, entry in found.summary.items()]
    print_result(value, [written, *lines], as_json=json_output)
    if found.skipped:
        for scan in found.skipped:
            note(f"not measured: {scan.source}: {scan.reason}")
        raise typer.Exit(1)


def _interval(entry: "Mapping[str, Any]") -> str:
    """Return a value with its interval, or why there is none."""
    if entry["value"] is None:
        return f"undefined: {entry.get('reason', 'no case has it')}"
    ends = "" if entry["low"] is None else f" ({entry['low']:.4g} to {entry['high']:.4g})"
    return f"{entry['value']:.4g}{ends}"


def prediction_config(overlap: float, flips: str | None, stitch: str, precision: str) -> "PredictionConfig":
    """Return the configuration of the options."""
    from modelsgenesis.configs import PredictionConfig

    names = flips.split(",") if flips and flips != "all" else []
    if any(name not in _AXES for name in names):
        raise typer.BadParameter(f"received {flips!r}, expected all, or axes of x, y, z", param_hint="--flips")
    axes = "all" if flips == "all" else [_AXES[name] for name in names]
    values = {"overlap": overlap, "flips": axes, "stitch": stitch, "precision": precision}
    return PredictionConfig.from_dict(values, where="predict")


def _lines(found: "Predictions") -> "Iterator[str]":
    for answer in found.predictions:
        yield str(answer.path) if found.task == "segmentation" else _described(answer)
        for name, count in answer.voxels.items():
            yield f"  {name}: {count} voxels"
    for path in found.kept:
        yield f"{path} (kept)"
    if found.task == "classification" and found.predictions:
        yield str(found.predictions[0].path)


def _described(answer: "Prediction") -> str:
    scores = ", ".join(f"{name} {value:.3f}" for name, value in answer.scores.items())
    return f"{answer.name}: {' + '.join(answer.predicted) or 'none'} ({scores})"


def _as_json(found: "Predictions") -> dict[str, object]:
    segments = found.task == "segmentation"
    return {
        "task": found.task,
        "answers": [
            {"case": one.name, "path": str(one.path)}
            | ({"voxels": one.voxels} if segments else {"predicted": list(one.predicted), "probabilities": one.scores})
            for one in found.predictions
        ],
        "kept": [str(path) for path in found.kept],
        "refused": [{"source": scan.source, "reason": scan.reason} for scan in found.failed],
    }
