"""How whole scans go through a network."""

from dataclasses import dataclass
from typing import Literal

from modelsgenesis.configs.base import Config, require

Stitch = Literal["auto", "cpu", "device"]


@dataclass(frozen=True, kw_only=True)
class PredictionConfig(Config):
    """Windows, mirrored passes, and where the windows are put together.

    Attributes:
        overlap: Of neighbouring windows, 0 to below 1.
        flips: Axes of the prepared image along which it is mirrored as well, or `"all"`: n axes make 2^n passes, whose
            probabilities are averaged. In RAS 0 is left to right, 1 posterior to anterior, 2 inferior to superior.
        stitch: Where the windows are put together: on the network's `"device"`, on the `"cpu"`, or `"auto"`: on the
            device, and where its memory does not hold that in parts, then on the CPU.
        windows_at_once: Windows that the network sees together. On a CPU a window alone can take torch's slow
            convolutions; many take memory and save no time.
        precision: Number format of the network. `"float32"` gives the same answer on every machine; `"bfloat16"` is
            faster where the hardware multiplies it, and moves a few voxels at borders.
    """

    overlap: float = 0.5
    flips: Literal["all"] | tuple[int, ...] = ()
    stitch: Stitch = "auto"
    windows_at_once: int = 4
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.overlap < 1, f"PredictionConfig.overlap: received {self.overlap}, expected 0 to below 1")
        require(
            self.flips == "all"
            or (len(set(self.flips)) == len(self.flips) and all(0 <= axis < 3 for axis in self.flips)),
            f"PredictionConfig.flips: received {self.flips}, expected different axes of 0, 1, 2",
        )
        require(
            self.windows_at_once > 0,
            f"PredictionConfig.windows_at_once: received {self.windows_at_once}, expected above 0",
        )
