"""Splitting by patient."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from modelsgenesis.errors import ConfigurationError, DataError


class Grouped(Protocol):
    """Whatever knows its patient: a `ScanReference`, a cache's entry."""

    @property
    def group(self) -> str:
        """The patient."""
        ...


def split_by_group(scans: Sequence[Grouped], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Hold patients out, so that no patient is on both sides.

    The split depends on the set of patients and the seed, and not on the order of the scans.

    Args:
        scans: Whatever has a `group`.
        fraction: Share of the patients to hold out; at least one, and never all.
        seed: Which ones.

    Returns:
        Indices of the scans to train with, and of the ones held out.

    Raises:
        DataError: There are fewer than two patients.
        ConfigurationError: The fraction is not between 0 and 1.

    Example:
        training, held_out = split_by_group(scans, 0.2, seed=0)
    """
    if not 0 < fraction < 1:
        raise ConfigurationError(f"fraction: received {fraction}, expected between 0 and 1")
    groups = sorted({scan.group for scan in scans})
    if len(groups) < 2:
        raise DataError(
            f"{len(scans)} scans of {len(groups)} patient; expected at least 2 to hold one out: tell them apart with "
            "--patient"
        )
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held_out = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[:count]}
    sides = ([], [])
    for index, scan in enumerate(scans):
        sides[scan.group in held_out].append(index)
    return sides
