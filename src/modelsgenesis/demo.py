"""The main job on the embedded sample, offline, in minutes: pretrain, fine-tune beside scratch, predict, draw."""

from dataclasses import dataclass
from pathlib import Path

from modelsgenesis.configs import GenesisUNetConfig, PredictionConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.data import sample_data, sample_folder
from modelsgenesis.errors import Interrupted
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Run
from modelsgenesis.verbs import finetune, predict, pretrain, read_results
from modelsgenesis.verbs.finetuning import sample_split

NETWORK = GenesisUNetConfig(widths=(16, 32, 64))
PATCH = (32, 32, 12)  # the smallest sample scan has 13 slices

PRETRAINING = PretrainingConfig(
    network=NETWORK,
    patch_size=PATCH,
    steps=200,
    batch_size=16,
    learning_rate=3e-3,
    validate_every=100,
    validation_samples=16,
    workers=0,
)
# Chosen so that both arms show something in minutes, with a look at this very sample: one more reason why its figures
# prove nothing.
FINETUNING = SegmentationConfig(
    network=NETWORK,
    patch_size=PATCH,
    steps=250,
    batch_size=8,
    learning_rate=5e-3,
    foreground_share=0.75,
    augment=False,
    validate_every=250,
    validation_fraction=0.0,
    samples_per_scan=32,
    overlap=0.25,
    workers=0,
)


@dataclass(frozen=True)
class Demonstration:
    """What the demo measured and wrote.

    Attributes:
        restoration: Loss on the held-out patient beside its baselines.
        genesis: Dice on the held-out patient, fine-tuned from the pretrained network.
        scratch: The same with the same budget from random weights.
        files: What was written, by what it is.
    """

    restoration: dict[str, float]
    genesis: dict[str, float]
    scratch: dict[str, float]
    files: dict[str, Path]


def demonstrate(output: str | Path, *, device: str = "auto", reporter: Reporter | None = None) -> Demonstration:
    """Run the whole way on three embedded CT patients.

    Two patients are pretrained on without labels, one of them is fine-tuned on with labels, and the third is only
    ever measured. One patient shows that the pipeline works and proves nothing about its worth.

    Args:
        output: A new or empty folder.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        reporter: Is told the progress.

    Returns:
        What was measured and written.

    Raises:
        TrainingError: The output has something in it.
        Interrupted: A signal came.
    """
    output = Path(output)
    Run.check(output)
    try:
        return _demonstrate(output, device, reporter or Reporter())
    except Interrupted as signal:
        raise Interrupted(
            signal.signum,
            f"interrupted; a demonstration starts from the beginning: delete {output} or choose another --output",
        ) from None


def _demonstrate(output: Path, device: str, reporter: Reporter) -> Demonstration:
    data = sample_data()
    held_out = next(case for case in data.cases if case.name in sample_split(data).test)
    scans = sorted((sample_folder() / "images").iterdir())
    reporter.note("pretraining on two patients without labels")
    pretrained = pretrain(
        [scan for scan in scans if scan != held_out.images[0].path],
        output / "pretrained",
        config=PRETRAINING,
        modality="ct",
        validation_source=held_out.images[0].path,
        cache=output / "cache",
        device=device,
        reporter=reporter,
    )
    files = {"bundle": pretrained, "card": pretrained / "README.md"}
    restorations = pretrained / "figures" / "restorations.png"
    if restorations.exists():
        files["original, deformed and restored slices"] = restorations
    measured: dict[str, dict[str, float]] = {}
    for name in ("genesis", "scratch"):
        reporter.note(f"fine-tuning on one labelled patient: {name}")
        run, metrics = finetune(
            data,
            output / name,
            init=pretrained,
            from_scratch=name == "scratch",
            config=FINETUNING,
            split=sample_split(data),
            device=device,
            reporter=reporter,
        )
        measured[name] = {metric: value for metric, value in metrics.items() if metric.startswith("dice")}
        prediction = predict(
            run,
            held_out.images[0].path,
            output=output / f"{name}_prediction.nii.gz",
            config=PredictionConfig(overlap=FINETUNING.overlap),
            device=device,
        )
        files[f"prediction, {name}"] = prediction.path
    return Demonstration(read_results(pretrained), measured["genesis"], measured["scratch"], files)
