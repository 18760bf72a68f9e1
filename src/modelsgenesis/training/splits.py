"""Which patients are for what in supervised training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.configs import FinetuningConfig
from modelsgenesis.data import LabelledCase, LabelledData
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.files import read_json, write_json

_PARTS = ("training", "validation", "test")


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


def split_cases(data: LabelledData, config: FinetuningConfig) -> Split:
    """Split a data set by its patients.

    The parts that the user's own file names stay. What it does not name is drawn by `split_seed`: test patients are
    `test_fraction` of all, or with `folds` the fold of that number; validation patients are `validation_fraction` of
    the others; each at least one where its fraction is above zero. `labels` then thins the training patients.

    Raises:
        DataError: Nobody is left to train on, or the file has a patient in two parts.
        ConfigurationError: The fold or the number of labels cannot be.

    Example:
        split = split_cases(read_labelled("Task04_Hippocampus"), SegmentationConfig())
        len(split.training), len(split.validation), len(split.test)  # 140, 16, 39
    """
    patients = {part: [] for part in _PARTS} | _given(data)
    order = np.random.default_rng(config.split_seed).permutation(sorted(patients["training"])).tolist()
    if not patients["test"]:
        patients["test"], order = _draw_test(order, config)
    elif config.fold is not None:
        raise ConfigurationError(
            f"{data.name} names its own test patients; fold {config.fold} of {config.folds} cannot be made beside them"
        )
    if not patients["validation"]:
        count = max(round(len(order) * config.validation_fraction), 1) if config.validation_fraction else 0
        patients["validation"], order = order[:count], order[count:]
    patients["training"] = order
    if not order:
        raise DataError(
            f"{sum(map(len, patients.values()))} labelled patients leave none to train on beside "
            f"{len(patients['test'])} for the test and {len(patients['validation'])} for validation: tell them apart "
            "with --patient if there are more, or set test_fraction or validation_fraction to 0"
        )
    split = Split(*(_names(data, set(patients[part])) for part in _PARTS))
    return (
        split
        if config.labelled_patients is None
        else choose_labelled(split, data, config.labelled_patients, config.split_seed)
    )


def _given(data: LabelledData) -> dict[str, list[str]]:
    """Return the patients of each part that the user's file names; those to split count as training."""
    parts: dict[str, str | None] = {}
    for case in data.cases:
        if parts.setdefault(case.patient, case.part) != case.part:
            raise DataError(
                f"{data.name}: patient {case.patient!r} is in {parts[case.patient] or 'no part'} and in "
                f"{case.part or 'no part'}; a patient belongs to one part: tell them apart with --patient"
            )
    unassigned = [patient for patient, part in parts.items() if part is None]
    if unassigned and len(unassigned) < len(parts):
        raise DataError(
            f"{data.name}: {len(unassigned)} of {len(parts)} patients have no part, such as {unassigned[0]!r}; name a "
            "part for all or for none"
        )
    given: dict[str, list[str]] = {}
    for patient, part in parts.items():
        given.setdefault(part or "training", []).append(patient)
    return given


def _draw_test(order: list[str], config: FinetuningConfig) -> tuple[list[str], list[str]]:
    """Return the patients for the test and the others."""
    if config.folds and config.fold is not None:
        if config.folds > len(order):
            raise ConfigurationError(f"folds: received {config.folds}, expected at most the {len(order)} patients")
        test = order[config.fold :: config.folds]
        return test, [patient for patient in order if patient not in set(test)]
    count = max(round(len(order) * config.test_fraction), 1) if config.test_fraction else 0
    return order[:count], order[count:]


def _names(data: LabelledData, patients: set[str]) -> tuple[str, ...]:
    return tuple(sorted(case.name for case in data.cases if case.patient in patients))


def choose_labelled(split: Split, data: LabelledData, labels: str, seed: int) -> Split:
    """Keep the labels of a few training patients; validation and test stay as they are.

    The patients are the first of an order drawn from the seed, so five are among ten. For a classification the order
    takes one patient of each class first, then each class in its proportion.

    Args:
        split: Of the whole data set.
        data: The data set.
        labels: A number of training patients such as `"10"`, or a share of them such as `"10%"`.
        seed: Which patients.

    Raises:
        ConfigurationError: There are not as many training patients, or `labels` is no number.

    Example:
        few = choose_labelled(split, data, "10", seed=0)
        len(few.training)  # 10
    """
    chosen = set(split.training)
    cases = [case for case in data.cases if case.name in chosen]
    patients = sorted({case.patient for case in cases})
    count = _count(labels, len(patients))
    order = np.random.default_rng(seed).permutation(patients).tolist()
    if data.task == "classification":
        order = _stratified(order, cases)
    kept = set(order[:count])
    training = tuple(sorted(case.name for case in cases if case.patient in kept))
    return Split(training, split.validation, split.test)


def _count(labels: str, patients: int) -> int:
    """Return how many patients a number or a share means, at least one."""
    share = labels.endswith("%")
    try:
        number = float(labels.removesuffix("%")) if share else int(labels)
    except ValueError as error:
        raise ConfigurationError(
            f"labels: received {labels!r}, expected a number such as 10, or a share: 10%"
        ) from error
    count = max(round(number / 100 * patients), 1) if share and number > 0 else int(number)
    if not 0 < count <= patients:
        raise ConfigurationError(f"labels: received {labels}, expected 1 to the {patients} training patients there are")
    return count


def _stratified(order: Sequence[str], cases: Sequence[LabelledCase]) -> list[str]:
    """Reorder patients so that every beginning holds each class: one of each first, then in proportion.

    A patient with images of several classes counts for the rarest.
    """
    classes: dict[str, set[int]] = {patient: set() for patient in order}
    for case in cases:
        classes[case.patient] |= set(case.classes)
    sizes = Counter(index for held in classes.values() for index in held)
    strata = {
        patient: min(held, key=lambda index: (sizes[index], index), default=-1) for patient, held in classes.items()
    }
    totals, seen = Counter(strata.values()), Counter[int]()
    keys: dict[str, float] = {}
    for patient in order:
        stratum = strata[patient]
        keys[patient] = (seen[stratum] + 0.5) / totals[stratum] if seen[stratum] else 0.0
        seen[stratum] += 1
    return sorted(order, key=keys.__getitem__)  # stable: ties stay in the drawn order


def check_split(split: Split, data: LabelledData) -> None:
    """Refuse a split that names unknown cases, a patient in two parts, or leaves a class without example.

    Raises:
        DataError: The split does not fit the data.
    """
    patients = {case.name: case.patient for case in data.cases}
    parts = asdict(split)
    unknown = sorted(name for names in parts.values() for name in names if name not in patients)
    if unknown:
        raise DataError(f"the split names {unknown[0]!r}, which is not in {data.name}")
    seen: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if seen.setdefault(patients[name], part) != part:
                raise DataError(
                    f"the split has {patients[name]!r} in two parts, {seen[patients[name]]} and {part}; a patient "
                    "belongs to one"
                )
    if data.task == "classification":
        training = set(split.training)
        held = {index for case in data.cases if case.name in training for index in case.classes}
        absent = [name for index, name in enumerate(data.labels) if index not in held]
        if absent and training:
            raise DataError(
                f"no training example of {', '.join(map(repr, absent))} in {data.name}: take more labels, another "
                "split_seed, or leave the class out"
            )


def count_split(split: Split, data: LabelledData) -> dict[str, dict[str, Any]]:
    """Return what each part holds: patients, cases, and for a classification the cases of each class.

    Example:
        count_split(split, data)["training"]  # {"patients": 140, "cases": 140}
    """
    by_name = {case.name: case for case in data.cases}
    counts: dict[str, dict[str, Any]] = {}
    for part, names in asdict(split).items():
        cases = [by_name[name] for name in names]
        counts[part] = {"patients": len({case.patient for case in cases}), "cases": len(cases)}
        if data.task == "classification":
            held = Counter(index for case in cases for index in case.classes)
            counts[part]["classes"] = {name: held[index] for index, name in enumerate(data.labels)}
    return counts


def write_split(split: Split, path: str | Path) -> None:
    """Write a split as JSON, atomically: `training`, `validation` and `test`, each a list of names of cases.

    Raises:
        DataError: The file cannot be written.
    """
    write_json(Path(path), asdict(split), DataError)


def read_split(path: str | Path) -> Split:
    """Read what `write_split` wrote.

    Raises:
        DataError: The file is missing, is no JSON, or holds no split.

    Example:
        split = read_split("runs/hippocampus/split.json")
    """
    return make_split(read_json(Path(path), DataError), path)


def make_split(content: Any, source: object) -> Split:
    """Return a split from the JSON value of one.

    Args:
        content: The value.
        source: What a message calls it.

    Raises:
        DataError: It is no split.
    """
    if not isinstance(content, dict) or set(content) != set(_PARTS):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{source}: holds {found[:80] or 'nothing'}; expected the lists training, validation and test")
    for part, listed in content.items():
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise DataError(f"{source}: {part} is no list of names of cases")
        if len(set(listed)) < len(listed):
            raise DataError(f"{source}: {part} names a case twice; expected each once")
    return Split(**{part: tuple(content[part]) for part in _PARTS})
