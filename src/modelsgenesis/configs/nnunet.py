"""The shapes of the nnU-Net family: U-Nets whose stages each have their own kernel and stride."""

from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar, Literal, Self

from modelsgenesis.configs.base import Bounds, Config, Share, require

Norm = Literal["batch", "instance", "group"]

# The bounds are far beyond any network in use; a configuration of others must not fill the memory of who reads it.
Channels = Annotated[int, Bounds(1, 2**14)]
Groups = Annotated[int, Bounds(1, 2**14)]
NormEpsilon = Annotated[float, Bounds(1e-12, 1)]
LEVELS = 16
_Axes = tuple[Annotated[int, Bounds(1, 31)], ...]
_Depth = Annotated[int, Bounds(1, 64)]


@dataclass(frozen=True, kw_only=True)
class _NnUNetConfig(Config):
    """What the plain and the residual U-Net share. A list with one entry a stage begins at full resolution.

    Attributes:
        dims: Spatial dimensions, 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        widths: Channels of each stage.
        kernels: Kernel of each stage, one size an axis; empty for 3 everywhere.
        strides: Stride of the first convolution of each stage, one an axis; empty for 1, then 2 everywhere.
        decoder_convolutions: Convolutions of each decoder stage, deepest first; empty for the kind's default.
        norm: Normalisation after each convolution.
        norm_epsilon: Added to the variance.
        norm_groups: Only for group norm.
        statistics: Only for batch norm, see `GenesisUNetConfig`.
        convolution_bias: Whether convolutions have a bias.
        upsampling_bias: Whether transposed convolutions have one.
        head_bias: Whether the last 1³ convolution has one.
        negative_slope: Of the leaky ReLU.
        output: Last activation.
    """

    dims: Literal[2, 3] = 3
    in_channels: Channels = 1
    out_channels: Channels = 1
    widths: tuple[Channels, ...] = (32, 64, 128, 256, 320, 320)
    kernels: tuple[_Axes, ...] = ()
    strides: tuple[_Axes, ...] = ()
    decoder_convolutions: tuple[_Depth, ...] = ()
    norm: Norm = "instance"
    norm_epsilon: NormEpsilon = 1e-5
    norm_groups: Groups = 8
    statistics: Literal["batch", "running"] = "running"
    convolution_bias: bool = True
    upsampling_bias: bool = True
    head_bias: bool = True
    negative_slope: Share = 0.01
    output: Literal["sigmoid", "linear"] = "linear"

    default_decoder_convolutions: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        name, stages = type(self).__name__, len(self.widths)
        require(1 < stages <= LEVELS, f"{name}.widths: received {stages} stages, expected 2 to {LEVELS}")
        self._per_stage("kernels", ((3,) * self.dims,) * stages)
        self._per_stage("strides", ((1,) * self.dims,) + ((2,) * self.dims,) * (stages - 1))
        self._per_stage("decoder_convolutions", (self.default_decoder_convolutions,) * (stages - 1))
        for axes in (*self.kernels, *self.strides):
            require(len(axes) == self.dims, f"{name}: {axes} is not one number for each of {self.dims} axes")
        require(all(size % 2 for axes in self.kernels for size in axes), f"{name}.kernels: expected odd sizes")
        require(prod(self.strides[0]) == 1, f"{name}.strides: the first stage must keep the resolution")
        if self.norm == "group":
            bad = [width for width in self.widths if width % self.norm_groups]
            require(not bad, f"{name}.norm_groups: {self.norm_groups} does not divide the widths {bad}")

    def _per_stage(self, field: str, default: tuple[int | _Axes, ...]) -> None:
        """Fill in what is empty, and refuse what has not one entry a stage."""
        values = getattr(self, field) or default
        object.__setattr__(self, field, values)
        name = f"{type(self).__name__}.{field}"
        require(len(values) == len(default), f"{name}: received {len(values)} entries, expected {len(default)}")

    def with_dims(self, dims: Literal[2, 3], depth_axis: int = -1) -> Self:
        """Return the network for 2 or 3 spatial dimensions, which gains or loses the axis `depth_axis`.

        A new axis gets, in each stage, the largest of the kernel sizes and strides of the others.
        """

        def changed(axes: _Axes) -> _Axes:
            at = depth_axis % 3
            if dims < len(axes):
                return axes[:at] + axes[at + 1 :]
            return (*axes[:at], max(axes), *axes[at:]) if dims > len(axes) else axes

        return self.override(
            dims=dims,
            kernels=tuple(changed(axes) for axes in self.kernels),
            strides=tuple(changed(axes) for axes in self.strides),
        )


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


NNUNET_V1_GENESIS = PlainUNetConfig(
    out_channels=2,
    strides=((1, 1, 1), *((2, 2, 2),) * 4, (1, 2, 2)),
    upsampling_bias=False,
    head_bias=False,
)
"""The network of `genesis_nnunet_luna16_006.model`: 30,785,184 parameters."""

RESENC_L = ResidualUNetConfig(blocks=(1, 3, 4, 6, 6, 6))
"""ResEnc-L of nnU-Net, as OpenMind trained it: 102,348,965 parameters."""
