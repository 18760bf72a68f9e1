"""The full pipeline on the embedded sample, offline, in minutes: pretrain, fine-tune beside scratch, predict, draw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.checkpoints import read_config
from modelsgenesis.configs import GenesisUNetConfig, PredictionConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.data.cases import sample_data, sample_folder
from modelsgenesis.errors import Interrupted
from modelsgenesis.finetuning import finetune
from modelsgenesis.prediction import predict
from modelsgenesis.pretraining import pretrain
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import write_report
from modelsgenesis.training.run import Run

# The smallest sample scan has 13 slices.
_SHARED: dict[str, Any] = {"network": GenesisUNetConfig(widths=(16, 32, 64)), "patch_size": (32, 32, 12), "workers": 0}

PRETRAINING = PretrainingConfig(
    **_SHARED, steps=200, batch_size=16, learning_rate=3e-3, validate_every=100, validation_samples=16
)
# Chosen on this very sample so that both fine-tunings show something in minutes: one more reason why its figures prove
# nothing.
_BUDGET: dict[str, Any] = {"steps": 250, "batch_size": 8, "learning_rate": 5e-3, "samples_per_scan": 32}
FINETUNING = SegmentationConfig(
    **_SHARED,
    **_BUDGET,
    foreground_share=0.75,
    augment=False,
    validate_every=250,
    validation_fraction=0.0,
    overlap=0.25,
)


@dataclass(frozen=True)
class Demonstration:
    """Results and files of the demonstration.

    Attributes:
        restoration: Loss on the held-out patient beside its baselines.
        genesis: Dice on the held-out patient, fine-tuned from the pretrained network.
        scratch: Dice of the same fine-tuning from random weights.
        files: The files written, by a description of each.
    """

    restoration: dict[str, float]
    genesis: dict[str, float]
    scratch: dict[str, float]
    files: dict[str, Path]


def demonstrate(output: str | Path, *, device: str = "auto", reporter: Reporter | None = None) -> Demonstration:
    """Run the full pipeline on three embedded CT patients.

    Two patients are used for pretraining without labels, one of them for fine-tuning with labels, and the third only
    for evaluation. One patient shows that the pipeline works and proves nothing about its worth.

    Args:
        output: A new or empty folder.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        reporter: Receives the progress.

    Returns:
        The results and the files written.

    Raises:
        TrainingError: The output folder is not empty.
        Interrupted: A signal came.
    """
    output, reporter = Path(output), reporter or Reporter()
    Run.check(output)
    try:
        return _demonstrate(output, {"device": device, "reporter": reporter})
    except Interrupted as signal:
        told = f"interrupted; a demonstration starts from the beginning: delete {output} or choose another --output"
        raise Interrupted(signal.signum, told) from None


def _demonstrate(output: Path, how: dict[str, Any]) -> Demonstration:
    note = how["reporter"].note
    data = sample_data()
    held_out = next(case.images[0].path for case in data.cases if case.part == "test")
    note("pretraining on two patients without labels")
    others = [scan for scan in sorted((sample_folder() / "images").iterdir()) if scan != held_out]
    images: dict[str, Any] = {"modality": "ct", "validation_source": held_out, "cache": output / "cache"}
    pretrained = pretrain(others, output / "pretrained", config=PRETRAINING, **images, **how)
    files = {"bundle": pretrained, "card": pretrained / "README.md"}
    # A picture that cannot be drawn does not end a run.
    if (restorations := pretrained / "figures" / "restorations.png").exists():
        files["original, deformed and restored slices"] = restorations
    measured: dict[str, dict[str, float]] = {}
    for name in ("genesis", "scratch"):
        note(f"fine-tuning on one labelled patient: {name}")
        start: dict[str, Any] = {"init": pretrained, "from_scratch": name == "scratch", "config": FINETUNING}
        run, metrics = finetune(data, output / name, **start, **how)
        measured[name] = {metric: value for metric, value in metrics.items() if metric.startswith("dice")}
        path = output / f"{name}_prediction.nii.gz"
        config = PredictionConfig(overlap=FINETUNING.overlap)
        predict(run, held_out, output=path, config=config, device=how["device"])
        files[f"prediction, {name}"] = path
    if (page := write_report(output, reporter=how["reporter"])).exists():
        files["reports of all three"] = page
    return Demonstration(read_config(pretrained).provenance.results, measured["genesis"], measured["scratch"], files)
