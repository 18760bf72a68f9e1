"""Which patients are for what in supervised training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelsgenesis.configs import FinetuningConfig
from modelsgenesis.data import LabelledData
from modelsgenesis.errors import DataError


@dataclass(frozen=True)
class Split:
    """Which patients are for what; names of cases.

    Attributes:
        training: Learnt from.
        validation: Decide which network is kept.
        test: Measured once, at the end.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def split_cases(names: Sequence[str], config: FinetuningConfig) -> Split:
    """Split patients at random by the seed.

    Test patients are `test_fraction` of all, validation patients `validation_fraction` of the others, each at least
    one where its fraction is above zero.

    Raises:
        DataError: Nobody is left to train on.

    Example:
        >>> split = split_cases([f"p{i}" for i in range(10)], FinetuningConfig())
        >>> len(split.training), len(split.validation), len(split.test)
        (7, 1, 2)
    """
    order = np.random.default_rng(config.seed).permutation(sorted(names)).tolist()
    count_test = max(round(len(order) * config.test_fraction), 1) if config.test_fraction else 0
    test, rest = order[:count_test], order[count_test:]
    count_validation = max(round(len(rest) * config.validation_fraction), 1) if config.validation_fraction else 0
    validation, training = rest[:count_validation], rest[count_validation:]
    if not training:
        raise DataError(
            f"{len(order)} labelled patients leave none to train on beside {count_test} for the test and "
            f"{count_validation} for validation: set test_fraction or validation_fraction to 0"
        )
    return Split(tuple(sorted(training)), tuple(sorted(validation)), tuple(sorted(test)))


def check_split(split: Split, data: LabelledData) -> None:
    """Refuse a split that names unknown cases or one case in two parts.

    Raises:
        DataError: The split does not fit the data.
    """
    known = {case.name for case in data.cases}
    parts = [set(part) for part in (split.training, split.validation, split.test)]
    unknown = set().union(*parts) - known
    if unknown:
        raise DataError(f"the split names {sorted(unknown)[0]!r}, which is not in {data.name}")
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = parts[first] & parts[second]
        if both:
            raise DataError(f"the split has {sorted(both)[0]!r} in two parts; a patient belongs to one")
