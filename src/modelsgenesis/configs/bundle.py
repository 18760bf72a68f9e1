"""The contents of a bundle's `config.json`: the network, the input that it expects, the origin of the weights.

The shapes of networks are told apart by `kind`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal, Self

from modelsgenesis.configs.base import Bounds, Config, Share, Sides, shown
from modelsgenesis.errors import ConfigurationError

Modality = Literal["ct", "mri", "xray", "ultrasound", "ct-8bit", "photo", "shape"]
Task = Literal["restoration", "segmentation", "classification"]

Intensity = Annotated[float, Bounds(-1e12, 1e12)]
"""A value of a scan, in its own units; computed in float32, whose squares have to be finite."""

_PATCH_LIMIT = 512**3  # voxels; the largest in use have a tenth of it, and memory grows with it
_NAME_LIMIT = 200  # letters

# The bounds are far beyond any network in use; a configuration of others must not fill the memory of who reads it.
Channels = Annotated[int, Bounds(1, 2**14)]
Norm = Literal["batch", "instance", "group"]
_Axes = tuple[Annotated[int, Bounds(1, 31)], ...]
_Depth = Annotated[int, Bounds(1, 64)]
_LEVELS = 16


def _different_names(names: tuple[str, ...]) -> tuple[str, ...]:
    bad = [name for name, count in Counter(names).items() if count > 1 or not name.strip() or len(name) > _NAME_LIMIT]
    if bad:
        raise ConfigurationError(f"{shown(bad)} are empty, too long, or occur twice; give each a name of its own")
    return names


Names = Annotated[tuple[str, ...], _different_names]
"""Of channels or classes."""


@dataclass(frozen=True, kw_only=True)
class _EncoderDecoderConfig(Config):
    """The fields of every encoder-decoder.

    Attributes:
        dims: Spatial dimensions, 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output: 1 to restore, the number of classes to segment.
        widths: Channels at the output of each level or stage, highest resolution first.
        norm: Normalisation after each convolution.
        norm_epsilon: Added to the variance.
        norm_groups: Groups of channels, only for group norm.
        statistics: Only for batch norm. `"batch"` normalises with the batch at hand in evaluation too, as the
            published network does; `"running"` with the averages kept in training, so that an output does not
            depend on what else is in the batch.
        output: Last activation; a segmentation network gives logits, hence `"linear"`.
    """

    dims: Literal[2, 3] = 3
    in_channels: Channels = 1
    out_channels: Channels = 1
    widths: tuple[Channels, ...]
    norm: Norm = "instance"
    norm_epsilon: Annotated[float, Bounds(1e-12, 1)] = 1e-5
    norm_groups: Annotated[int, Bounds(1, 2**14)] = 8
    statistics: Literal["batch", "running"] = "running"
    output: Literal["sigmoid", "linear"] = "linear"

    least_levels: ClassVar[int] = 1
    narrowest: ClassVar[int] = 1
    """By what a width is divided where its level has the fewest channels."""

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for every encoder-decoder."""
        levels, least, narrowest = len(self.widths), self.least_levels, self.narrowest
        yield least <= levels <= _LEVELS, f"widths: received {levels} levels, expected {least} to {_LEVELS}"
        odd = [width for width in self.widths if width % narrowest]
        yield not odd, f"widths: {odd} are odd, expected numbers that divide by {narrowest}"
        bad = [width // narrowest for width in self.widths if width // narrowest % self.norm_groups]
        yield self.norm != "group" or not bad, f"norm_groups: {self.norm_groups} does not divide {bad} channels"

    unet = property(lambda self: self)
    """The encoder-decoder itself, as `ClassifierConfig.unet` is the one whose encoder classifies."""
    outputs = property(attrgetter("out_channels"))
    """Channels of the output, or classes."""


@dataclass(frozen=True, kw_only=True)
class GenesisUNetConfig(_EncoderDecoderConfig):
    """The Genesis U-Net of Zhou et al. 2019, in two or three dimensions, with 3³ convolutions.

    Sides of an input must divide by `2 ** (len(widths) - 1)`. The other attributes are those of every encoder-decoder.

    Attributes:
        upsampling: `"transposed"` convolutions as in the PyTorch release, `"nearest"` as in the Keras one.
    """

    kind: Literal["genesis_unet"] = "genesis_unet"
    widths: tuple[Channels, ...] = (64, 128, 256, 512)
    norm: Norm = "batch"
    upsampling: Literal["transposed", "nearest"] = "transposed"
    output: Literal["sigmoid", "linear"] = "sigmoid"

    narrowest: ClassVar[int] = 2  # the first convolution of a level has half of its channels

    def with_dims(self, dims: Literal[2, 3]) -> Self:
        """Return the network for 2 or 3 spatial dimensions."""
        return self.override(dims=dims)


@dataclass(frozen=True, kw_only=True)
class _NnUNetConfig(_EncoderDecoderConfig):
    """The fields that the plain and the residual U-Net share; lists have one entry per stage, full resolution first.

    Attributes:
        kernels: Kernel of each stage, one size per axis; empty for 3 everywhere.
        strides: Stride of the first convolution of each stage, one per axis; empty for 1, then 2 everywhere.
        decoder_convolutions: Convolutions of each decoder stage, deepest first; empty for the kind's default.
        convolution_bias: Whether convolutions have a bias.
        upsampling_bias: Whether transposed convolutions have one.
        head_bias: Whether the last 1³ convolution has one.
        negative_slope: Slope of the leaky ReLU below 0.
    """

    widths: tuple[Channels, ...] = (32, 64, 128, 256, 320, 320)
    kernels: tuple[_Axes, ...] = ()
    strides: tuple[_Axes, ...] = ()
    decoder_convolutions: tuple[_Depth, ...] = ()
    convolution_bias: bool = True
    upsampling_bias: bool = True
    head_bias: bool = True
    negative_slope: Share = 0.01

    least_levels: ClassVar[int] = 2
    default_decoder_convolutions: ClassVar[int] = 2
    encoder_field: ClassVar[str]
    """Names the field with the depth of each encoder stage."""

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for the family; what is empty gets its default first, so that what is stored says all of the shape."""
        yield from super().rules()
        cube, stages = (self.dims * (1,), self.dims * (2,), self.dims * (3,)), len(self.widths)
        defaults = {
            "kernels": (cube[2],) * stages,
            "strides": (cube[0],) + (cube[1],) * (stages - 1),
            "decoder_convolutions": (self.default_decoder_convolutions,) * (stages - 1),
            self.encoder_field: (2,) * stages,
        }
        for name, default in defaults.items():
            values = getattr(self, name) or default
            object.__setattr__(self, name, values)
            yield len(values) == len(default), f"{name}: received {len(values)} entries, expected {len(default)}"
        for axes in (*self.kernels, *self.strides):
            yield len(axes) == self.dims, f"kernels, strides: {axes} is not one number for each of {self.dims} axes"
        yield all(size % 2 for axes in self.kernels for size in axes), "kernels: expected odd sizes"
        yield prod(self.strides[0]) == 1, "strides: the first stage must keep the resolution"

    def with_dims(self, dims: Literal[2, 3]) -> Self:
        """Return the network for 2 or 3 spatial dimensions, which gains or loses the last axis.

        A new axis gets, in each stage, the largest of the kernel sizes and strides of the others.
        """

        def changed(axes: _Axes) -> _Axes:
            return (*axes, max(axes))[:dims]

        # An axis that all stages share: a kernel of 1 and a stride of 1 along it would ignore the new dimension.
        kernels, strides = (tuple(map(changed, stages)) for stages in (self.kernels, self.strides))
        return self.override(dims=dims, kernels=kernels, strides=strides)


@dataclass(frozen=True, kw_only=True)
class PlainUNetConfig(_NnUNetConfig):
    """Stacked convolutions: nnU-Net v1's generic U-Net and nnU-Net v2's PlainConvUNet.

    Attributes:
        convolutions: Convolutions of each encoder stage; empty for 2 everywhere.
    """

    kind: Literal["plain_unet"] = "plain_unet"
    convolutions: tuple[_Depth, ...] = ()

    encoder_field: ClassVar[str] = "convolutions"


@dataclass(frozen=True, kw_only=True)
class ResidualUNetConfig(_NnUNetConfig):
    """Residual blocks in the encoder: nnU-Net v2's ResidualEncoderUNet.

    Attributes:
        blocks: Residual blocks of each encoder stage; empty for 2 everywhere. A stem of one convolution
            precedes the first.
    """

    kind: Literal["residual_unet"] = "residual_unet"
    blocks: tuple[_Depth, ...] = ()

    default_decoder_convolutions: ClassVar[int] = 1
    encoder_field: ClassVar[str] = "blocks"


UNetConfig = GenesisUNetConfig | PlainUNetConfig | ResidualUNetConfig
"""Every encoder-decoder, told apart by `kind`."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Config):
    """An encoder with a classification head: global average pooling, a dense layer, a layer to the classes.

    Attributes:
        encoder: The network whose encoder is used.
        num_classes: Outputs.
        hidden: Width of the dense layer in between; 1024 in the paper, 0 for a linear head.
        levels: Encoder levels whose global averages the head sees, one after the other; 0 is the highest resolution,
            -1 the deepest. None is the deepest alone, as in the paper.
    """

    kind: Literal["classifier"] = "classifier"
    encoder: UNetConfig
    num_classes: Channels
    hidden: Annotated[int, Bounds(0, 2**16)] = 1024
    levels: tuple[int, ...] | None = None

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for the levels that the head sees."""
        depth, chosen = len(self.encoder.widths), (-1,) if self.levels is None else self.levels
        different = {level % depth for level in chosen if -depth <= level < depth}
        expected = f"different numbers from {-depth} to {depth - 1}"
        yield 0 < len(chosen) == len(different), f"levels: received {self.levels}, expected {expected}"

    @property
    def pooled_levels(self) -> tuple[int, ...]:
        """The levels counted from the highest resolution, 0."""
        depth = len(self.encoder.widths)
        return tuple(level % depth for level in ((-1,) if self.levels is None else self.levels))

    unet = property(attrgetter("encoder"))
    outputs = property(attrgetter("num_classes"))


NetworkConfig = UNetConfig | ClassifierConfig
"""Every network that a bundle can hold, told apart by `kind`."""


GENESIS_UNET_2019 = GenesisUNetConfig(statistics="batch")
"""The published network: 19,073,665 parameters (facts of Zhou et al. 2019 and the release)."""

GENESIS_UNET_SMALL = GenesisUNetConfig(widths=(16, 32, 64, 128), norm="instance")
"""A quarter of the published widths, 1.2 million parameters: trains on a laptop."""

NNUNET_V1_GENESIS = PlainUNetConfig(
    out_channels=2, strides=((1, 1, 1), *((2, 2, 2),) * 4, (1, 2, 2)), upsampling_bias=False, head_bias=False
)
"""The network of `genesis_nnunet_luna16_006.model`: 30,785,184 parameters."""

RESENC_L = ResidualUNetConfig(blocks=(1, 3, 4, 6, 6, 6))
"""ResEnc-L of nnU-Net, as OpenMind trained it: 102,348,965 parameters."""


@dataclass(frozen=True, kw_only=True)
class InputContract(Config):
    """The preparation of a scan for a network; the same in pretraining, fine-tuning and prediction.

    Attributes:
        modality: What the scans are; `"ct-8bit"` are CT slices saved as pictures, which hold no HU, `"photo"` what a
            camera or a microscope took, and `"shape"` masks.
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
    channels: Names = ("image",)

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for every input."""
        for name in {"standardize": ("mean", "deviation"), "zscore": ()}.get(self.intensity, (self.intensity,)):
            yield getattr(self, name) is not None, f"{name}: intensity {self.intensity!r} needs it"
        for name, pair in (("window", self.window), ("percentiles", self.percentiles)):
            yield pair is None or pair[0] < pair[1], f"{name}: {pair} does not increase"
        sizes = self.dims if self.spacing is None else len(self.spacing)
        yield sizes == self.dims, f"spacing: {self.spacing} is not {self.dims} sizes in mm"
        # One letter of each pair of directions: L or R, P or A, I or S, in any order.
        told = "RAS" if self.orientation is None else self.orientation
        axes = sorted(told.translate(str.maketrans("LAI", "RPS")))
        expected = "one letter of LR, one of AP, one of IS, such as RAS"
        yield axes == ["P", "R", "S"], f"orientation: received {self.orientation!r:.60}, expected {expected}"

    def with_dims(self, dims: Literal[2, 3]) -> Self:
        """Return the contract for a network of 2 or 3 dimensions; one of 2 sees slices of volumes, in their spacing."""
        if dims > self.dims:
            return self.override(dims=dims, spacing=None, orientation=self.orientation or "RAS")
        return self.override(dims=dims, spacing=self.spacing and self.spacing[:dims])


CONTRACTS: dict[str, InputContract] = {
    "ct": InputContract(modality="ct", intensity="window", window=(-1000.0, 1000.0)),  # HU, of 2019
    "mri": InputContract(modality="mri", intensity="percentiles", percentiles=(0.5, 99.5)),
    "xray": InputContract(modality="xray", dims=2, intensity="percentiles", percentiles=(0.5, 99.5), orientation=None),
    "ultrasound": InputContract(
        modality="ultrasound", dims=2, intensity="percentiles", percentiles=(0.5, 99.5), orientation=None
    ),
    # Slices saved as pictures: whatever window was chosen then lies between 0 and 255.
    "ct-8bit": InputContract(modality="ct-8bit", dims=2, intensity="window", window=(0.0, 255.0), orientation=None),
    "photo": InputContract(
        modality="photo", dims=2, intensity="percentiles", percentiles=(0.5, 99.5), orientation=None
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
        source: Origin of converted weights: repository, revision, file, sha256, format, converter_version. Of trained
            ones the Hub repository of what they started from, if any.
        init: Name of what training started from, None for random weights.
        recipe: The training configuration.
        data: Counts, modality, spacing of the training data.
        results: Metrics at the end, beside their baselines.
        environment: Versions and hardware.
    """

    origin: Literal["pretrained", "finetuned", "adapted", "converted", "untrained"]
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
    labels: Names = ()
    multilabel: bool = False
    patch_size: Sides
    provenance: Provenance

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold between the parts; a bundle that contradicts itself would fail in a prediction, or give wrong voxels."""
        network, contract, unet = self.network, self.input, self.network.unet
        classifies, restores = network.kind == "classifier", self.task == "restoration"
        expected = "a classification has a classifier, the other tasks an encoder-decoder"
        right = classifies == (self.task == "classification")
        yield right, f"network: received {network.kind} for the task {self.task}; {expected}"
        yield classifies or not self.multilabel, "multilabel: only a classification can be"
        for what, ours, theirs in (
            ("input.dims", contract.dims, unet.dims),
            ("input.channels", len(contract.channels), unet.in_channels),
            ("patch_size", len(self.patch_size), unet.dims),
        ):
            yield ours == theirs, f"{what}: received {ours}, but the network has {theirs}"
        voxels, outputs = prod(self.patch_size), 0 if restores else network.outputs
        yield voxels <= _PATCH_LIMIT, f"patch_size: {voxels:,} voxels, expected at most {_PATCH_LIMIT:,}"
        expected = f"{outputs}: " + ("none for restoration" if restores else "one for each output of the network")
        yield len(self.labels) == outputs, f"labels: received {len(self.labels)} names, expected {expected}"
