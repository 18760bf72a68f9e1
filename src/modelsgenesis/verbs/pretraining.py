"""Pretraining, from a folder of scans to a bundle."""

from collections.abc import Sequence
from pathlib import Path

from modelsgenesis.configs import RECIPES, PretrainingConfig
from modelsgenesis.data import ScanReference, find_scans
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.reporting import Reporter, Reporters
from modelsgenesis.training import Run, pretrain_network
from modelsgenesis.training.tensorboard import FOLDER_NAME, TensorBoardReporter
from modelsgenesis.verbs.leaving_out import leave_out_test_cases
from modelsgenesis.verbs.models import public_name
from modelsgenesis.verbs.starting import choose_input, start_pretraining
from modelsgenesis.verbs.subvolumes import names_of, prepare_scans, public_facts, refuse, split_subvolumes

Source = str | Path | Sequence[str | Path]


def pretrain(
    source: Source,
    output: str | Path,
    *,
    config: PretrainingConfig = RECIPES["small"],
    init: str | Path | None = None,
    modality: str = "auto",
    spacing: tuple[float, ...] | None = None,
    window: tuple[float, ...] | None = None,
    validation_source: Source | None = None,
    leave_out: str | Path | Sequence[str | Path] = (),
    group_pattern: str | None = None,
    device: str = "auto",
    cache: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    tensorboard: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Pretrain on unlabelled scans and keep the best network as a bundle.

    Args:
        source: Scans: a folder, file, glob, list file, `dataset.json`, or several of these.
        output: The run's folder, new or empty.
        config: Recipe; see `modelsgenesis.configs.pretraining_recipe`.
        init: Go on from these weights instead of random ones.
        modality: Of the scans; `"auto"` decides from tags and values.
        spacing: Voxel size in mm to resample to; None keeps each scan's own.
        window: CT window in HU.
        validation_source: Scans to validate on; None holds out a share of the patients of `source`.
        leave_out: Recorded splits, JSON files, whose test cases must not be seen: they are neither trained nor
            validated on, nor is any other scan of the same patients.
        group_pattern: A regular expression whose first group is the patient in a file's name; see `find_scans`.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        cache: Folder of the prepared volumes; by default one in the user's cache that runs share.
        resume: Go on with the run in `output`.
        strict: A bad scan ends the run instead of being left out.
        tensorboard: Write scalars and figures for TensorBoard into `output/tensorboard` too.
        token: Of the Hub, for `init`.
        reporter: Is told the progress.

    Returns:
        The run's folder.

    Raises:
        DataError: There is no usable scan, or none that a split to leave out names.
        ConfigurationError: Patch, network, weights and scans do not fit together.
        TrainingError: The output holds a run already, or training failed.

    Example:
        run = modelsgenesis.pretrain("scans/", "runs/chest")
        network = modelsgenesis.from_pretrained(run)
    """
    reporter = reporter or Reporter()
    Run.check(output, resume=resume)
    if tensorboard:
        reporter = Reporters(reporter, TensorBoardReporter(Path(output) / FOLDER_NAME, reporter))
    hardware = choose_hardware(device, config.precision)
    start = start_pretraining(init, config, token, reporter)
    scans, held_out, left_out = _find(source, validation_source, leave_out, group_pattern, strict, reporter)
    contract = choose_input(
        [*scans, *held_out], start, modality=modality, spacing=spacing, window=window, reporter=reporter
    )
    store = prepare_scans([*scans, *held_out], contract, cache, strict, reporter)
    training, validation = split_subvolumes(store, {scan.group for scan in held_out}, start, strict, reporter)
    reporter.note(f"computing on {hardware.describe()}")
    run = pretrain_network(
        network=start.network,
        config=start.config,
        contract=contract,
        training=training,
        validation=validation,
        output=output,
        split={"training": names_of(training), "validation": names_of(validation)},
        data={**public_facts(training, validation), **left_out},
        hardware=hardware,
        reporter=reporter,
        init=None if init is None else public_name(init),
        pretrained=start.pretrained,
        resume=resume,
    )
    if training.refused_share:
        reporter.note(f"{training.refused_share:.0%} of the sub-volumes drawn were refused: rule {config.rule}")
    return run


def _find(
    source: Source,
    validation_source: Source | None,
    leave_out: str | Path | Sequence[str | Path],
    group_pattern: str | None,
    strict: bool,
    reporter: Reporter,
) -> tuple[list[ScanReference], list[ScanReference], dict[str, int]]:
    """Return the scans of `source`, those to validate on that are not among them, and how many were left out."""
    scans, refused = find_scans(source, group_pattern=group_pattern)
    held_out: list[ScanReference] = []
    if validation_source is not None:
        held_out, more = find_scans(validation_source, group_pattern=group_pattern)
        refused += more
    refuse(list(dict.fromkeys(refused)), strict, reporter)
    splits = [leave_out] if isinstance(leave_out, (str, Path)) else list(leave_out)
    if not splits:
        return scans, held_out, {}
    scans, held_out, count = leave_out_test_cases(scans, held_out, splits, reporter)
    return scans, held_out, {"left_out_test_scans": count}
