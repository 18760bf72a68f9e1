"""The prepared cases of a comparison: read once, written once, and the test patients only when they are needed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelsgenesis.comparison.payload import write_cases
from modelsgenesis.comparison.trials import Arm
from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, InputContract, require_patch_size
from modelsgenesis.data import LabelledData, PreparedCases
from modelsgenesis.data.labelled.images import Fit
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.inference.sliding_window import window_size
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.training.task_networks import IMAGE_VOXELS, PATCH_VOXELS, choose_patch_size


class Parts:
    """Prepares the parts of a split, once for each input contract, into files that the processes map.

    Args:
        data: The labelled data.
        split: Which cases are for what; those that cannot be used are taken out of it.
        folder: Where the files go.
        size: Sides that images to classify are brought to at once; None keeps their own.
        fit: How they are; see `resize_or_crop`.
        strict: A bad case is an error.
        reporter: Receives what is left out.

    Attributes:
        shapes: [*spatial] of each training image.
        digests: Of every case that was prepared, by its name.
    """

    def __init__(
        self,
        data: LabelledData,
        split: Split,
        folder: Path,
        *,
        size: tuple[int, ...] | None = None,
        fit: Fit = "auto",
        strict: bool,
        reporter: Reporter,
    ) -> None:
        self.data, self.split, self.folder, self.reporter = data, split, folder, reporter
        self._options: dict[str, Any] = {"size": size, "fit": fit, "strict": strict}
        self.shapes: list[tuple[int, ...]] = []
        self.digests: dict[str, str] = {}
        self._files: dict[tuple[InputContract, str], Path] = {}

    def prepare(self, part: str, arms: Iterable[Arm]) -> None:
        """Prepare a part for every contract of the arms.

        Raises:
            DataError: No case of the part can be used, or one only under some of the contracts.
        """
        names = set(getattr(self.split, part))
        chosen = [case for case in self.data.cases if case.name in names]
        store = PreparedCases(self.data, **self._options)
        for number, contract in enumerate(dict.fromkeys(arm.contract for arm in arms)):
            cases = store.get([case.name for case in chosen], contract, self.reporter)
            kept = {case.name for case in cases}
            if number and kept != set(getattr(self.split, part)):
                raise DataError(
                    f"{self.data.name}: {min(names - kept or names)} cannot be prepared for every arm; take it out of "
                    "the data set"
                )
            self.split = replace(
                self.split, **{part: tuple(name for name in getattr(self.split, part) if name in kept)}
            )
            self.shapes = self.shapes or [case.image.shape[1:] for case in cases]
            self.digests |= {case.name: case.digest for case in cases}
            self._files[contract, part] = self.folder / f"{part}-{number}.cases"
            write_cases(self._files[contract, part], cases)

    def files(self, arms: Mapping[str, Arm]) -> dict[str, dict[str, Path]]:
        """Return by arm the file of each part that has been prepared."""
        return {
            name: {part: path for (contract, part), path in self._files.items() if contract == arm.contract}
            for name, arm in arms.items()
        }


def settle_patches(
    arms: Mapping[str, Arm], config: FinetuningConfig, shapes: Sequence[tuple[int, ...]]
) -> tuple[FinetuningConfig, dict[str, Arm]]:
    """Return the common training with a patch, its own or by the median training image, and the arms with theirs.

    Args:
        arms: An arm with a patch of its own keeps it; one that cuts slices takes two sides of the common one.
        config: What all share.
        shapes: [*spatial] of the training images.

    Raises:
        ConfigurationError: An arm's network cannot take its patch.
    """
    if config.patch_size is None:
        divisors = [arm.divisor for arm in arms.values()]
        dims = len(shapes[0])
        common = [math.lcm(*(own[axis] for own in divisors if axis < len(own))) for axis in range(dims)]
        voxels = IMAGE_VOXELS[dims] if isinstance(config, ClassificationConfig) else PATCH_VOXELS
        config = config.override(patch_size=choose_patch_size(shapes, common, voxels))
    settled: dict[str, Arm] = {}
    for name, arm in arms.items():
        patch = (arm.config.patch_size or require_patch_size(config))[: arm.dims]
        if len(patch) != arm.dims or window_size(patch, arm.divisor) != patch:
            raise ConfigurationError(
                f"{name}: received a patch_size of {patch}, expected {arm.dims} sides that divide by {arm.divisor}"
            )
        settled[name] = replace(arm, config=arm.config.override(patch_size=patch))
    return config, settled
