"""The main job on the embedded sample, offline, in a minute or two: pretrain, fine-tune, predict a scan, draw it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.checkpoints import read_config
from modelsgenesis.configs import GenesisUNetConfig, PredictionConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.data.cases import sample_data, sample_folder
from modelsgenesis.errors import Interrupted
from modelsgenesis.finetuning import finetune
from modelsgenesis.hub.registry import list_cards
from modelsgenesis.prediction import predict_all
from modelsgenesis.pretraining import pretrain
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import write_report
from modelsgenesis.training.run import Run

# The smallest sample scan has 13 slices.
_SHARED: dict[str, Any] = {"network": GenesisUNetConfig(widths=(16, 32, 64)), "patch_size": (32, 32, 12), "workers": 0}

PRETRAINING = PretrainingConfig(
    **_SHARED, steps=100, batch_size=16, learning_rate=3e-3, validate_every=50, validation_samples=16
)
# Chosen on this very sample so that something is found in a minute: one more reason why its figures prove nothing.
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
        dice: Dice on the held-out patient.
        files: The files written, by a description of each.
        measured: For each Genesis in the package the table of its card that compares it with scratch, as Markdown.
    """

    restoration: dict[str, float]
    dice: dict[str, float]
    files: dict[str, Path]
    measured: dict[str, str]


def demonstrate(output: str | Path, *, device: str = "auto", reporter: Reporter | None = None) -> Demonstration:
    """Do the main job on three embedded CT patients.

    Two patients are used for pretraining without labels, one of them for fine-tuning with labels, and the third is
    measured and predicted. One patient shows that it works; what a Genesis is worth is told by the cards of those in
    the package, which were compared with scratch on many.

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
    files: dict[str, Path | None] = {"pretrained network": pretrained}  # a picture that cannot be drawn ends no run
    files["original, deformed and restored slices"] = pretrained / "figures" / "restorations.png"
    note("fine-tuning on one labelled patient")
    run, metrics = finetune(data, output / "finetuned", init=pretrained, config=FINETUNING, **how)
    note("predicting the third patient")
    config = PredictionConfig(overlap=FINETUNING.overlap)
    [found] = predict_all(run, held_out, output=output / "prediction", preview=True, config=config, **how).predictions
    files |= {"prediction": found.path, "its picture": found.preview}
    files |= {"reports of both trainings": write_report(output, reporter=how["reporter"])}
    dice = {metric: value for metric, value in metrics.items() if metric.startswith("dice")}
    written = {name: path for name, path in files.items() if path and path.exists()}
    return Demonstration(read_config(pretrained).provenance.results, dice, written, measured_tables())


def measured_tables() -> dict[str, str]:
    """Return, for each Genesis in the package, the table of its card that compares it with scratch, as Markdown."""
    shipped = {card.name: card.text for card in list_cards() if card.source.repository is None}
    tables = {
        name: re.search(r"## Compared with scratch[\s\S]*?\n((?:\|.*\n)+)", text) for name, text in shipped.items()
    }
    return {name: table[1].rstrip() for name, table in tables.items() if table}
