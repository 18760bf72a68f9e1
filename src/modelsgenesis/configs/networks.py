"""The shapes of networks. `kind` tells them apart in a `config.json`."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from modelsgenesis.configs.base import Bounds, Config, require
from modelsgenesis.configs.nnunet import (
    LEVELS,
    Channels,
    Groups,
    Norm,
    NormEpsilon,
    PlainUNetConfig,
    ResidualUNetConfig,
)


@dataclass(frozen=True, kw_only=True)
class GenesisUNetConfig(Config):
    """The Genesis U-Net of Zhou et al. 2019, in two or three dimensions.

    Attributes:
        dims: Spatial dimensions, 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output: 1 to restore, the number of classes to segment.
        widths: Channels at the output of each level, highest resolution first. Sides must divide by
            `2 ** (len(widths) - 1)`.
        norm: Normalisation after each 3³ convolution.
        norm_epsilon: Added to the variance.
        statistics: Only for batch norm. `"batch"` normalises with the batch at hand in evaluation too, as the
            published network does; `"running"` with the averages kept in training, so that an output does not
            depend on what else is in the batch.
        upsampling: `"transposed"` convolutions as in the PyTorch release, `"nearest"` as in the Keras one.
        output: Last activation; a segmentation network gives logits, hence `"linear"`.
    """

    kind: Literal["genesis_unet"] = "genesis_unet"
    dims: Literal[2, 3] = 3
    in_channels: Channels = 1
    out_channels: Channels = 1
    widths: tuple[Channels, ...] = (64, 128, 256, 512)
    norm: Norm = "batch"
    norm_epsilon: NormEpsilon = 1e-5
    norm_groups: Groups = 8
    statistics: Literal["batch", "running"] = "running"
    upsampling: Literal["transposed", "nearest"] = "transposed"
    output: Literal["sigmoid", "linear"] = "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < len(self.widths) <= LEVELS, f"GenesisUNetConfig.widths: expected 1 to {LEVELS} levels")
        for width in self.widths:
            require(width % 2 == 0, f"GenesisUNetConfig.widths: {width} is not even")
            require(
                self.norm != "group" or (width // 2) % self.norm_groups == 0,
                f"GenesisUNetConfig.norm_groups: {self.norm_groups} does not divide {width // 2} channels",
            )

    def with_dims(self, dims: Literal[2, 3], depth_axis: int = -1) -> Self:
        """Return the network for 2 or 3 spatial dimensions; its kernels are cubes, so any axis may go."""
        return self.override(dims=dims)


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
        depth = len(self.encoder.widths)
        chosen = (-1,) if self.levels is None else self.levels
        require(
            len(chosen) > 0
            and all(-depth <= level < depth for level in chosen)
            and len({level % depth for level in chosen}) == len(chosen),
            f"ClassifierConfig.levels: received {self.levels}, expected different numbers from {-depth} to {depth - 1}",
        )

    @property
    def pooled_levels(self) -> tuple[int, ...]:
        """The levels counted from the highest resolution, 0."""
        depth = len(self.encoder.widths)
        return tuple(level % depth for level in ((-1,) if self.levels is None else self.levels))


NetworkConfig = UNetConfig | ClassifierConfig
"""Every network that a bundle can hold, told apart by `kind`."""


GENESIS_UNET_2019 = GenesisUNetConfig(statistics="batch")
"""The published network: 19,073,665 parameters (facts of Zhou et al. 2019 and the release)."""

GENESIS_UNET_SMALL = GenesisUNetConfig(widths=(16, 32, 64, 128), norm="instance")
"""A quarter of the published widths, 1.2 million parameters: trains on a laptop."""
