"""The shapes of networks. `kind` tells them apart in a `config.json`."""

from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar, Literal, Self

from modelsgenesis.configs.base import Bounds, Config, Share
from modelsgenesis.errors import ConfigurationError, require

# The bounds are far beyond any network in use; a configuration of others must not fill the memory of who reads it.
Channels = Annotated[int, Bounds(1, 2**14)]
Norm = Literal["batch", "instance", "group"]
_Axes = tuple[Annotated[int, Bounds(1, 31)], ...]
_Depth = Annotated[int, Bounds(1, 64)]
_LEVELS = 16


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

    def __post_init__(self) -> None:
        super().__post_init__()
        name, levels, groups = type(self).__name__, len(self.widths), self.norm_groups if self.norm == "group" else 1
        right = self.least_levels <= levels <= _LEVELS
        require(
            right,
            ConfigurationError,
            f"{name}.widths: received {levels} levels, expected {self.least_levels} to {_LEVELS}",
        )
        odd = [width for width in self.widths if width % self.narrowest]
        require(
            not odd,
            ConfigurationError,
            f"{name}.widths: {odd} are odd, expected numbers that divide by {self.narrowest}",
        )
        bad = [width // self.narrowest for width in self.widths if width // self.narrowest % groups]
        require(not bad, ConfigurationError, f"{name}.norm_groups: {groups} does not divide {bad} channels")

    @property
    def unet(self) -> Self:
        """The encoder-decoder itself, as `ClassifierConfig.unet` is the one whose encoder classifies."""
        return self

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return self.out_channels


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

    def with_dims(self, dims: Literal[2, 3], depth_axis: int = -1) -> Self:
        """Return the network for 2 or 3 spatial dimensions; its kernels are cubes, so any axis may go."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        name, stages = type(self).__name__, len(self.widths)
        self._per_stage("kernels", ((3,) * self.dims,) * stages)
        self._per_stage("strides", ((1,) * self.dims,) + ((2,) * self.dims,) * (stages - 1))
        self._per_stage("decoder_convolutions", (self.default_decoder_convolutions,) * (stages - 1))
        for axes in (*self.kernels, *self.strides):
            require(
                len(axes) == self.dims,
                ConfigurationError,
                f"{name}: {axes} is not one number for each of {self.dims} axes",
            )
        require(
            all(size % 2 for axes in self.kernels for size in axes),
            ConfigurationError,
            f"{name}.kernels: expected odd sizes",
        )
        require(
            prod(self.strides[0]) == 1, ConfigurationError, f"{name}.strides: the first stage must keep the resolution"
        )

    def _per_stage(self, field: str, default: tuple[int | _Axes, ...]) -> None:
        """Fill in what is empty, and refuse what has not one entry per stage."""
        values = getattr(self, field) or default
        object.__setattr__(self, field, values)  # of a frozen dataclass; what is stored says all of the shape
        name = f"{type(self).__name__}.{field}"
        require(
            len(values) == len(default),
            ConfigurationError,
            f"{name}: received {len(values)} entries, expected {len(default)}",
        )

    def with_dims(self, dims: Literal[2, 3], depth_axis: int = -1) -> Self:
        """Return the network for 2 or 3 spatial dimensions, which gains or loses the axis `depth_axis`.

        A new axis gets, in each stage, the largest of the kernel sizes and strides of the others.
        """
        at = depth_axis % 3

        def changed(axes: _Axes) -> _Axes:
            if dims < len(axes):
                return axes[:at] + axes[at + 1 :]
            return (*axes[:at], max(axes), *axes[at:]) if dims > len(axes) else axes

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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._per_stage("convolutions", (2,) * len(self.widths))


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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._per_stage("blocks", (2,) * len(self.widths))


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

    def __post_init__(self) -> None:
        super().__post_init__()
        depth, chosen = len(self.encoder.widths), (-1,) if self.levels is None else self.levels
        different = {level % depth for level in chosen if -depth <= level < depth}
        require(
            0 < len(chosen) == len(different),
            ConfigurationError,
            f"ClassifierConfig.levels: received {self.levels}, expected different numbers from {-depth} to {depth - 1}",
        )

    @property
    def pooled_levels(self) -> tuple[int, ...]:
        """The levels counted from the highest resolution, 0."""
        depth = len(self.encoder.widths)
        return tuple(level % depth for level in ((-1,) if self.levels is None else self.levels))

    @property
    def unet(self) -> UNetConfig:
        """The encoder-decoder whose encoder is used."""
        return self.encoder

    @property
    def outputs(self) -> int:
        """Classes."""
        return self.num_classes


NetworkConfig = UNetConfig | ClassifierConfig
"""Every network that a bundle can hold, told apart by `kind`."""


GENESIS_UNET_2019 = GenesisUNetConfig(statistics="batch")
"""The published network: 19,073,665 parameters (facts of Zhou et al. 2019 and the release)."""

GENESIS_UNET_SMALL = GenesisUNetConfig(widths=(16, 32, 64, 128), norm="instance")
"""A quarter of the published widths, 1.2 million parameters: trains on a laptop."""

NNUNET_V1_GENESIS = PlainUNetConfig(
    out_channels=2,
    strides=((1, 1, 1), *((2, 2, 2),) * 4, (1, 2, 2)),
    upsampling_bias=False,
    head_bias=False,
)
"""The network of `genesis_nnunet_luna16_006.model`: 30,785,184 parameters."""

RESENC_L = ResidualUNetConfig(blocks=(1, 3, 4, 6, 6, 6))
"""ResEnc-L of nnU-Net, as OpenMind trained it: 102,348,965 parameters."""
