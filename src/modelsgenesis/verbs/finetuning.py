"""Fine-tuning."""

from pathlib import Path

from torch import nn

from modelsgenesis.configs import InputContract, SegmentationConfig
from modelsgenesis.data import LabelledData, data_contract, read_labelled, sample_data
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import adapt, build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Run, Split, finetune_network, split_cases
from modelsgenesis.verbs.models import announce, load, public_name, seeded

SAMPLE_CONFIG = SegmentationConfig(
    steps=200, batch_size=4, validate_every=200, validation_fraction=0.0, patch_size=(48, 48, 16), samples_per_scan=32
)
"""For the embedded sample: one patient to train on, one to test on."""


def finetune(
    source: str | Path | LabelledData | None,
    output: str | Path,
    *,
    task: str = "seg",
    init: str | Path | None = None,
    from_scratch: bool = False,
    config: SegmentationConfig | None = None,
    split: Split | None = None,
    device: str = "auto",
    resume: bool = False,
    strict: bool = False,
    token: str | None = None,
    reporter: Reporter | None = None,
) -> tuple[Path, dict[str, float]]:
    """Train a segmentation network with labels and measure it on held-out patients.

    Args:
        source: A folder in the Decathlon's layout; None for the embedded sample.
        output: The run's folder, new or empty.
        task: `"seg"`.
        init: Weights to start from: a name, `org/repo`, or a folder; None trains from scratch.
        from_scratch: Take the shape and the input contract of `init`, but random weights: its control.
        config: Budget, optimiser, patch; by default the patch is chosen by the scans.
        split: Which patients are for what; by default drawn by the configuration's fractions and seed.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        resume: Go on with the run in `output`.
        strict: A bad case ends the run instead of being left out.
        token: Of the Hub, for `init`.
        reporter: Is told the progress.

    Returns:
        The run's folder, and the Dice of each structure on the test patients with their mean.

    Raises:
        DataError: The data set cannot be used.
        ConfigurationError: The task is unknown.
        TrainingError: The output holds a run already, or training failed.

    Example:
        run, measured = modelsgenesis.finetune("Task04_Hippocampus", "runs/hippocampus", init="runs/chest")
        measured["dice"]
    """
    if task not in ("seg", "segmentation"):
        raise ConfigurationError(f"task: received {task!r}; fine-tuning knows seg")
    reporter = reporter or Reporter()
    Run.check(output, resume=resume)
    if source is None:
        reporter.note("no data given: fine-tuning on the embedded sample of two CT patients, which proves nothing")
    data = source if isinstance(source, LabelledData) else _labelled(source)
    config = config or default_finetuning(source)
    hardware = choose_hardware(device, config.precision)
    reporter.note(f"computing on {hardware.describe()}")
    network, contract = _start(init, from_scratch, data, config, token, reporter)
    run = Path(output)
    measured = finetune_network(
        network=network,
        config=config,
        contract=contract,
        data=data,
        split=split or (sample_split(data) if source is None else split_cases(data, config)),
        output=run,
        hardware=hardware,
        reporter=reporter,
        init=None if init is None or from_scratch else public_name(init),
        resume=resume,
        strict=strict,
    )
    return run, measured


def default_finetuning(source: object) -> SegmentationConfig:
    """Return the default configuration; the embedded sample, a source of None, has one of its own."""
    return SAMPLE_CONFIG if source is None else SegmentationConfig()


def sample_split(data: LabelledData) -> Split:
    """Return the split of the embedded sample: the trunk to train on, the abdominal slab to test on."""
    training, test = (case.name for case in data.cases)
    return Split(training=(training,), validation=(), test=(test,))


def _labelled(source: str | Path | None) -> LabelledData:
    return sample_data() if source is None else read_labelled(source)


def _start(
    init: str | Path | None,
    from_scratch: bool,
    data: LabelledData,
    config: SegmentationConfig,
    token: str | None,
    reporter: Reporter,
) -> tuple[nn.Module, InputContract]:
    """Return the network to train and how its scans are prepared."""
    classes = len(data.labels)
    if init is None:
        shape = config.network.override(in_channels=len(data.channels), out_channels=classes, output="linear")
        return seeded(config.seed, lambda: build_network(shape)), data_contract(data)
    bundle = load(init, token=token, progress=announce(reporter))
    network, report = seeded(
        config.seed,
        lambda: adapt(
            bundle.network, task="segmentation", num_classes=classes, in_channels=len(data.channels), copy=False
        ),
    )
    if from_scratch:
        network = seeded(config.seed, lambda: build_network(network.config))  # pyright: ignore[reportArgumentType]
        reporter.note(f"random weights in the shape of {public_name(init)}")
    else:
        reporter.note(f"{public_name(init)}: {report.summary()}")
    contract = bundle.config.input
    if data.modality is not None and data.modality != contract.modality:
        reporter.note(
            f"the weights were trained on {contract.modality}, the data is {data.modality}: preparing it as "
            f"{data.modality}; expect less from them than from weights of the same modality"
        )
        return network, data_contract(data)
    return network, contract.override(channels=data.channels)
