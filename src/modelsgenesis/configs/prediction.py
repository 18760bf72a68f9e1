"""How whole scans go through a network."""

from dataclasses import dataclass
from typing import Annotated, Literal

from modelsgenesis.configs.base import Bounds, Config, Positive, require


@dataclass(frozen=True, kw_only=True)
class PredictionConfig(Config):
    """Windows, mirrored passes, and where the windows are stitched.

    Attributes:
        overlap: Overlap of neighbouring windows, 0 to 0.99.
        flips: Axes of the prepared image along which it is mirrored as well, or `"all"`: n axes make 2^n passes, whose
            probabilities are averaged. In RAS 0 is left to right, 1 posterior to anterior, 2 inferior to superior.
        stitch: Where the windows are put together: on the network's `"device"`, on the `"cpu"`, or `"auto"`: on the
            device, and where its memory does not hold that in parts, then on the CPU.
        windows_at_once: Windows that the network sees together. On a CPU a window alone can take torch's slow
            convolutions; many take memory and save no time.
        precision: Number format of the network. `"float32"` gives the same label map on every machine; `"bfloat16"` is
            faster where the hardware multiplies it, and moves a few voxels at borders.
    """

    overlap: Annotated[float, Bounds(0, 0.99)] = 0.5  # at 1 a window would never advance
    flips: Literal["all"] | tuple[int, ...] = ()
    stitch: Literal["auto", "cpu", "device"] = "auto"
    windows_at_once: Positive = 4
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.flips == "all" or (len(set(self.flips)) == len(self.flips) and set(self.flips) <= {0, 1, 2}),
            f"PredictionConfig.flips: received {self.flips}, expected different axes of 0, 1, 2",
        )
