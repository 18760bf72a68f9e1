"""What a bundle's `config.json` says: the network, the input that it expects, where the weights come from."""

from dataclasses import dataclass, field
from typing import Any, Literal

from modelsgenesis.configs.base import Config, require
from modelsgenesis.configs.networks import NetworkConfig

Modality = Literal["ct", "mri", "xray", "ultrasound", "shape"]
Task = Literal["restoration", "segmentation", "classification"]


@dataclass(frozen=True, kw_only=True)
class InputContract(Config):
    """How a scan becomes what a network expects; the same in pretraining, fine-tuning and prediction.

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
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    mean: float | None = None
    deviation: float | None = None
    spacing: tuple[float, ...] | None = None
    orientation: str | None = "RAS"
    channels: tuple[str, ...] = ("image",)

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = {
            "window": ("window",),
            "percentiles": ("percentiles",),
            "standardize": ("mean", "deviation"),
        }
        for name in needed.get(self.intensity, ()):
            require(getattr(self, name) is not None, f"InputContract: intensity {self.intensity!r} needs {name}")
        for name, pair in (("window", self.window), ("percentiles", self.percentiles)):
            require(pair is None or pair[0] < pair[1], f"InputContract.{name}: {pair} does not increase")
        if self.percentiles is not None:
            low, high = self.percentiles
            require(low >= 0 and high <= 100, f"InputContract.percentiles: {self.percentiles} not within 0 to 100")
        require(self.deviation is None or self.deviation > 0, "InputContract.deviation: expected above 0")
        if self.spacing is not None:
            require(
                len(self.spacing) == self.dims and min(self.spacing) > 0,
                f"InputContract.spacing: {self.spacing} is not {self.dims} positive sizes in mm",
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
    """Where weights come from. Free mappings hold JSON values; no path and no name of a scan belongs in them.

    Attributes:
        origin: How the weights came to be.
        library_version: Version of this package that wrote the bundle.
        source: Of converted weights: repository, revision, file, sha256, format, converter_version.
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
        multilabel: Of a classification: whether several classes, or none, may hold for an image; its outputs are then
            independent of one another.
        patch_size: Voxels of the sub-volumes of training, which prediction uses for its windows.
        provenance: Where the weights come from.
    """

    format_version: Literal[1] = 1
    library_name: Literal["modelsgenesis"] = "modelsgenesis"
    task: Task
    network: NetworkConfig
    input: InputContract
    labels: tuple[str, ...] = ()
    multilabel: bool = False
    patch_size: tuple[int, ...]
    provenance: Provenance
