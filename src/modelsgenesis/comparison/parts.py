"""The prepared cases of a comparison: read once, written once, and the test patients only when they are needed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from modelsgenesis.comparison.payload import write_cases
from modelsgenesis.comparison.trials import Arm
from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, InputContract, require_patch_size
from modelsgenesis.data import LabelledData, prepare_cases
from modelsgenesis.data.labelled.fitting import Fit
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.evaluation import window_size
from modelsgenesis.networks import empty_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.training.parts import IMAGE_VOXELS, PATCH_VOXELS, choose_patch_size


class Parts:
    """Prepares the parts of a split, once for each input contract, into files that the processes map.

    Args:
        data: The labelled data.
        split: Which cases are for what; those that cannot be used are taken out of it.
        folder: Where the files go.
        size: Sides that images to classify are brought to at once; None keeps their own.
        fit: How they are; see `fit_image`.
        strict: A bad case is an error.
        reporter: Is told what is left out.
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
        self.data, self.split, self.folder = data, split, folder
        self.size = size
        self.fit: Fit = fit
        self.strict, self.reporter = strict, reporter
        self.shapes: list[tuple[int, ...]] = []
        self.digests: dict[str, str] = {}
        self._files: dict[tuple[InputContract, str], Path] = {}

    def prepare(self, part: str, arms: Sequence[Arm]) -> None:
        """Prepare a part for every contract of the arms.

        Raises:
            DataError: No case of the part can be used, or one only under some of the contracts.
        """
        for contract in dict.fromkeys(arm.contract for arm in arms):
            if (contract, part) not in self._files:
                self._files[contract, part] = self._write(part, contract)

    def files(self, arms: Mapping[str, Arm]) -> dict[str, dict[str, Path]]:
        """Return by arm the file of each part that has been prepared."""
        return {
            name: {part: path for (contract, part), path in self._files.items() if contract == arm.contract}
            for name, arm in arms.items()
        }

    def _write(self, part: str, contract: InputContract) -> Path:
        wanted = set(getattr(self.split, part))
        chosen = [case for case in self.data.cases if case.name in wanted]
        cases, refused = prepare_cases(chosen, self.data, contract, strict=self.strict, size=self.size, fit=self.fit)
        for refusal in refused:
            self.reporter.note(f"left out {refusal.source}: {refusal.reason}")
        self._take_out({refusal.source for refusal in refused}, part, contract)
        if part == "training" and not self.shapes:
            self.shapes = [case.image.shape[1:] for case in cases]
        self.digests |= {case.name: case.digest for case in cases}
        path = self.folder / f"{part}-{len(self._files)}.cases"
        write_cases(path, cases)
        return path

    def _take_out(self, names: set[str], part: str, contract: InputContract) -> None:
        if not names:
            return
        others = [other for other, written in self._files if written == part and other != contract]
        if others:
            raise DataError(
                f"{self.data.name}: {sorted(names)[0]} cannot be prepared for every arm; take it out of the data set"
            )
        kept = {key: tuple(name for name in value if name not in names) for key, value in asdict(self.split).items()}
        self.split = Split(**kept)


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
    divisors = {name: divisor_of(arm) for name, arm in arms.items()}
    if config.patch_size is None:
        dims = len(shapes[0])
        common = [math.lcm(*(own[axis] for own in divisors.values() if axis < len(own))) for axis in range(dims)]
        voxels = IMAGE_VOXELS[dims] if isinstance(config, ClassificationConfig) else PATCH_VOXELS
        config = config.override(patch_size=choose_patch_size(shapes, common, voxels))
    settled: dict[str, Arm] = {}
    for name, arm in arms.items():
        patch = (arm.config.patch_size or require_patch_size(config))[: arm.dims]
        if len(patch) != arm.dims or window_size(patch, divisors[name]) != patch:
            raise ConfigurationError(
                f"{name}: received a patch_size of {patch}, expected {arm.dims} sides that divide by {divisors[name]}"
            )
        settled[name] = replace(arm, config=arm.config.override(patch_size=patch))
    return config, settled


def divisor_of(arm: Arm) -> tuple[int, ...]:
    """Return what each side of the patch of an arm must divide by."""
    return empty_network(arm.shape).divisor  # pyright: ignore[reportReturnType]
