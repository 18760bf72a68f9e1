"""The contents of a bundle's `config.json`: the network, the input that it expects, the origin of the weights."""

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any, Literal

from modelsgenesis.configs.base import Bounds, Config, Sides, shown
from modelsgenesis.configs.networks import NetworkConfig
from modelsgenesis.errors import ConfigurationError, require

Modality = Literal["ct", "mri", "xray", "ultrasound", "shape"]
Task = Literal["restoration", "segmentation", "classification"]

Intensity = Annotated[float, Bounds(-1e12, 1e12)]
"""A value of a scan, in its own units; computed in float32, whose squares have to be finite."""

_PATCH_LIMIT = 512**3  # voxels; the largest in use have a tenth of it, and memory grows with it
_NAME_LIMIT = 200  # letters


@dataclass(frozen=True, kw_only=True)
class InputContract(Config):
    """The preparation of a scan for a network; the same in pretraining, fine-tuning and prediction.

    Attributes:
        modality: What the scans are.
        dims: Spatial dimensions of the arrays, 2 or 3.
        intensity: The map of intensities. `"window"` clips to `window` (HU for CT) and scales to [0, 1];
            `"percentiles"` clips to the `percentiles` of the foreground and scales to [0, 1]; `"standardize"`
            subtracts `mean` and divides by `deviation` (in the scan's units); `"zscore"` uses the scan's own
            mean and deviation. The deformations need [0, 1]: the first two.
        window: Lower and upper bound in the scan's units.
        percentiles: Lower and upper percentile, 0 to 100.
        mean: For `"standardize"`.
        deviation: For `"standardize"`.
        spacing: Voxel size in mm along each axis, or None to keep the scan's own.
        orientation: Axis codes of the canonical orientation; None for images without one.
        channels: Names of the channels in order.
    """

    modality: Modality
    dims: Literal[2, 3] = 3
    intensity: Literal["window", "percentiles", "standardize", "zscore"]
    window: tuple[Intensity, Intensity] | None = None
    percentiles: tuple[Annotated[float, Bounds(0, 100)], Annotated[float, Bounds(0, 100)]] | None = None
    mean: Intensity | None = None
    deviation: Annotated[float, Bounds(1e-12, 1e12)] | None = None
    spacing: tuple[Annotated[float, Bounds(1e-4, 1e4)], ...] | None = None
    orientation: str | None = "RAS"
    channels: tuple[str, ...] = ("image",)

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = {"standardize": ("mean", "deviation"), "zscore": ()}
        for name in needed.get(self.intensity, (self.intensity,)):
            require(
                getattr(self, name) is not None,
                ConfigurationError,
                f"InputContract: intensity {self.intensity!r} needs {name}",
            )
        for name, pair in (("window", self.window), ("percentiles", self.percentiles)):
            require(
                pair is None or pair[0] < pair[1], ConfigurationError, f"InputContract.{name}: {pair} does not increase"
            )
        require(
            self.spacing is None or len(self.spacing) == self.dims,
            ConfigurationError,
            f"InputContract.spacing: {self.spacing} is not {self.dims} sizes in mm",
        )
        # One letter of each pair of directions: L or R, P or A, I or S, in any order.
        axes = sorted((self.orientation or "").translate(str.maketrans("LAI", "RPS")))
        if self.orientation is not None and axes != ["P", "R", "S"]:
            raise ConfigurationError(
                f"InputContract.orientation: received {shown(self.orientation)}, expected one letter of LR, one of AP, "
                "one of IS, such as RAS"
            )
        _check_names("InputContract.channels", self.channels)


def _check_names(where: str, names: tuple[str, ...]) -> None:
    """Refuse names by which nothing could be told apart, and such as no table has room for."""
    bad = [name for name, times in Counter(names).items() if times > 1 or not name.strip() or len(name) > _NAME_LIMIT]
    if bad:
        raise ConfigurationError(
            f"{where}: {shown(bad)} are empty, too long, or occur twice; give each a name of its own"
        )


CT_WINDOW = (-1000.0, 1000.0)
"""HU window of the 2019 recipe."""

CONTRACTS: dict[str, InputContract] = {
    "ct": InputContract(modality="ct", intensity="window", window=CT_WINDOW),
    "mri": InputContract(modality="mri", intensity="percentiles", percentiles=(0.5, 99.5)),
    "xray": InputContract(modality="xray", dims=2, intensity="percentiles", percentiles=(0.5, 99.5), orientation=None),
    "ultrasound": InputContract(
        modality="ultrasound", dims=2, intensity="percentiles", percentiles=(0.5, 99.5), orientation=None
    ),
    "shape": InputContract(modality="shape", intensity="window", window=(0.0, 1.0)),
}
"""The default contract of each modality."""


@dataclass(frozen=True, kw_only=True)
class Provenance(Config):
    """The origin of weights. Free mappings hold JSON values; no path and no name of a scan belongs in them.

    A number in them that is not finite, such as the Dice of a structure that nobody has, is written as `null`.

    Attributes:
        origin: How the weights came to be.
        library_version: Version of this package that wrote the bundle.
        source: Origin of converted weights: repository, revision, file, sha256, format, converter_version.
        init: Name of what training started from, None for random weights.
        recipe: The training configuration.
        data: Counts, modality, spacing of the training data.
        results: Metrics at the end, beside their baselines.
        environment: Versions and hardware.
    """

    origin: Literal["pretrained", "finetuned", "converted", "untrained"]
    library_version: str
    source: dict[str, Any] = field(default_factory=dict)
    init: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BundleConfig(Config):
    """The whole of `config.json`.

    Attributes:
        format_version: Rises when an old reader could misunderstand a new file.
        library_name: Always this package, for the Hub.
        task: What the network was trained for.
        network: Its shape.
        input: The input that it expects.
        labels: Class names in the order of the output channels; empty for restoration.
        multilabel: For a classification: whether several classes, or none, may hold for an image; its outputs are then
            independent of one another.
        patch_size: Voxels of the training patches; prediction slides over a scan in patches of this size.
        provenance: Where the weights come from.
    """

    format_version: Literal[1] = 1
    library_name: Literal["modelsgenesis"] = "modelsgenesis"
    task: Task
    network: NetworkConfig
    input: InputContract
    labels: tuple[str, ...] = ()
    multilabel: bool = False
    patch_size: Sides
    provenance: Provenance

    def __post_init__(self) -> None:
        super().__post_init__()
        network, contract, head = self.network, self.input, "BundleConfig"
        # A bundle that contradicts itself would only fail in the middle of a prediction, or give wrong voxels.
        unet, classifies, restores = network.unet, network.kind == "classifier", self.task == "restoration"
        require(
            classifies == (self.task == "classification"),
            ConfigurationError,
            f"{head}.network: received {network.kind} for the task {self.task}; a classification has a classifier, the "
            "other tasks an encoder-decoder",
        )
        require(
            classifies or not self.multilabel, ConfigurationError, f"{head}.multilabel: only a classification can be"
        )
        for what, ours, theirs in (
            ("input.dims", contract.dims, unet.dims),
            ("input.channels", len(contract.channels), unet.in_channels),
            ("patch_size", len(self.patch_size), unet.dims),
        ):
            require(ours == theirs, ConfigurationError, f"{head}.{what}: received {ours}, but the network has {theirs}")
        voxels = prod(self.patch_size)
        require(
            voxels <= _PATCH_LIMIT,
            ConfigurationError,
            f"{head}.patch_size: {voxels:,} voxels, expected at most {_PATCH_LIMIT:,}",
        )
        expected = 0 if restores else network.outputs
        require(
            len(self.labels) == expected,
            ConfigurationError,
            f"{head}.labels: received {len(self.labels)} names, expected {expected}: "
            + ("none for restoration" if restores else f"one for each output of a {self.task} network"),
        )
        _check_names(f"{head}.labels", self.labels)
