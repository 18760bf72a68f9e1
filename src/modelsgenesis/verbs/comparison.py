"""Comparing starting points on labelled data: does a Genesis help, by how much, and how certain is that?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.comparison.parts import Parts
from modelsgenesis.comparison.records import Records
from modelsgenesis.comparison.session import TABLE_NAME, Session
from modelsgenesis.comparison.trials import Arm
from modelsgenesis.configs import (
    RECIPES,
    ClassificationConfig,
    FinetuningConfig,
    PretrainingConfig,
    SegmentationConfig,
    apply_settings,
)
from modelsgenesis.configs.comparison import ComparisonConfig, make_arms
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import DataError
from modelsgenesis.finetuning import read_task, resolve_config
from modelsgenesis.models import public_name
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.training.splits import check_split, read_split, split_cases
from modelsgenesis.verbs.comparison_arms import make_ready
from modelsgenesis.verbs.comparison_schemes import pretrain_schemes


@dataclass(frozen=True)
class Comparison:
    """What `compare` wrote.

    Attributes:
        folder: Where: `table.md`, `results.json`, `runs.csv`, figures, and a file a run.
        results: The content of `results.json`.
        table: The content of `table.md`.
    """

    folder: Path
    results: dict[str, Any]
    table: str


def default_training(task: str) -> FinetuningConfig:
    """Return the training of a comparison: that of fine-tuning, without loader processes beside those that train."""
    return (SegmentationConfig if task == "segmentation" else ClassificationConfig)(workers=0)


def compare(
    source: str | Path | LabelledData,
    output: str | Path,
    *,
    comparison: ComparisonConfig,
    config: FinetuningConfig | None = None,
    settings: Sequence[str] = (),
    split: Split | str | Path | None = None,
    pretraining: PretrainingConfig = RECIPES["small"],
    task: str | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
    jobs: int = 1,
    keep_models: bool = False,
    device: str = "auto",
    strict: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Train every arm with every label count and seed by the same budget, and say how they differ.

    A folder that holds a part of the comparison is gone on with: finished runs are not repeated, and more runs,
    label counts or arms may be asked for than before.

    Args:
        source: Labelled data: a folder or file that `read_labelled` knows, or what it returned.
        output: Folder of the comparison: new, or of the same one.
        comparison: Arms, label counts, runs, what to tune.
        config: The training that all arms share; its fractions and `split_seed` make the split.
        settings: `key=value` on top of it.
        split: Which cases are for what, or a file that says it; by default drawn.
        pretraining: The recipe of the schemes that are compared, but for their deformations.
        task: `"seg"` or `"cls"`; None takes what the data is for.
        modality: What the images are; None takes what the data says.
        patient_pattern: A regular expression on a file's name whose first group is the patient.
        jobs: Processes that train at the same time, each on its share of the cores; 1 on a GPU.
        keep_models: Keep the weights of every run.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        strict: A bad case is an error instead of being left out.
        token: Of the Hub.
        reporter: Is told the progress.

    Returns:
        Where the results are, and the results.

    Raises:
        DataError: The data or the split cannot be used.
        ResumeError: The folder holds another comparison; the message lists the differences.
        TrainingError: A run failed.
        Interrupted: A signal came; what had finished is kept, and the same call goes on.

    Example:
        comparison = describe_comparison(["scratch", "genesis=runs/pretrain"], labels=["5", "10"])
        print(compare("Task04_Hippocampus", "runs/compared", comparison=comparison).table)
    """
    reporter = reporter or Reporter()
    data = read_task(source, task=task, modality=modality, patient_pattern=patient_pattern)
    for note in data.notes:
        reporter.note(note)
    config = resolve_config(apply_settings(config or default_training(data.task), settings), data)
    parts = _split(data, config, split, comparison)
    records = Records(output)
    try:
        chosen = comparison.arms
        if comparison.schemes:
            chosen += pretrain_schemes(
                comparison.schemes,
                data,
                parts,
                records.folder / "schemes",
                pretraining,
                patient_pattern=patient_pattern,
                device=device,
                reporter=reporter,
            )
        with records.work_folder() as work:
            arms = make_ready(chosen, data, config, work / "weights", token=token, reporter=reporter)
            session = Session(
                data=data,
                comparison=comparison,
                config=config,
                arms=arms,
                records=records,
                parts=Parts(data, parts, work, **_sized(config, arms), strict=strict, reporter=reporter),
                jobs=jobs,
                device=device,
                models=records.folder / "models" if keep_models else None,
                reporter=reporter,
            )
            results = session.run()
    finally:
        records.close()
    return Comparison(records.folder, results, (records.folder / TABLE_NAME).read_text())


def describe_comparison(
    inits: Sequence[str], *, arm_settings: Sequence[str] = (), dims: Sequence[int] = (), **options: Any
) -> ComparisonConfig:
    """Return a comparison in the words of the command line.

    Args:
        inits: `scratch`, a name, `org/repo` or a folder for each arm; `NAME=` before it says what to call it.
        arm_settings: `arm:key=value`, for one arm alone.
        dims: Dimensions of the scratch arms.
        options: More of `ComparisonConfig`.

    Raises:
        ConfigurationError: Something in it cannot be.

    Example:
        >>> [arm.name for arm in describe_comparison(["scratch", "ours=runs/pretrain"]).arms]
        ['scratch', 'ours']
    """
    pairs = [_named(init) for init in inits]
    arms = make_arms([init for _, init in pairs], [name for name, _ in pairs], arm_settings, dims)
    return ComparisonConfig.from_dict({"arms": [arm.to_dict() for arm in arms], **options})


def _named(text: str) -> tuple[str, str]:
    name, equals, init = text.partition("=")
    return (name, init) if equals and not Path(text).exists() else (public_name(text), text)


def _split(
    data: LabelledData, config: FinetuningConfig, split: Split | str | Path | None, comparison: ComparisonConfig
) -> Split:
    if isinstance(split, (str, Path)):
        split = read_split(split)
    split = split or split_cases(data, config.override(labelled_patients=None))
    check_split(split, data)
    if not split.test:
        raise DataError(f"{data.name}: the split has no test patients, so nothing could be compared")
    if comparison.tune and not split.validation:
        raise DataError(f"{data.name}: the split has no validation patients to choose settings on")
    return split


def _sized(config: FinetuningConfig, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """Return the `size` and `fit` that images to classify may be brought to at once, where all arms want the same."""
    if not isinstance(config, ClassificationConfig):
        return {}
    wanted = {(arm.config.patch_size, getattr(arm.config, "fit", None)) for arm in arms.values()}
    return {"size": config.patch_size, "fit": config.fit} if wanted == {(config.patch_size, config.fit)} else {}
