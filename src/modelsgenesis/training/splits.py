"""Which patients are for what in supervised training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsgenesis.configs import FinetuningConfig
from modelsgenesis.configs.base import shown
from modelsgenesis.configs.training import count_labelled
from modelsgenesis.errors import ConfigurationError, DataError, require, some
from modelsgenesis.files import read_json, write_json

if TYPE_CHECKING:  # pretraining reads splits, too, and needs nothing of labelled data
    from modelsgenesis.data.cases import LabelledData

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


def split_cases(data: "LabelledData", config: FinetuningConfig) -> Split:
    """Split a data set by its patients.

    The parts that the user's own file names stay. What it does not name is drawn by `split_seed`: test patients are
    `test_fraction` of all, or with `folds` the fold of that number; validation patients are `validation_fraction` of
    the others, if there are several; each at least one where its fraction is above zero. Of a classification each part
    has the classes in proportion: a class of three patients or more is in all of them where they are large enough.
    `labelled_patients` then thins the training part.

    Raises:
        DataError: Nobody is left to train on, or the file has a patient in two parts.
        ConfigurationError: The fold or the number of labels cannot be.

    Example:
        split = split_cases(read_labelled("Task04_Hippocampus"), SegmentationConfig())
        len(split.training), len(split.validation), len(split.test)  # 140, 16, 39
    """
    patients = _named_patients(data)
    # Sorted before they are drawn, so that the order of the files does not matter.
    order = np.random.default_rng(config.split_seed).permutation(sorted(patients["training"])).tolist()
    strata = _strata(order, data)
    if config.fold is not None:
        if patients["test"]:
            raise ConfigurationError(f"{data.name} defines its own test patients; folds cannot be made")
        if config.folds > len(order):
            raise ConfigurationError(f"folds: received {config.folds}, expected at most the {len(order)} patients")
        # Every patient is in the test part of one fold, each class dealt out in turn.
        dealt = sorted(order, key=strata.__getitem__)
        patients["test"] = dealt[config.fold :: config.folds]
    elif not patients["test"]:
        patients["test"] = _interleaved(order, strata)[: _share(config.test_fraction, len(order))]
    order = [patient for patient in order if patient not in set(patients["test"])]
    if not patients["validation"] and len(order) > 1:  # a single one is to be learnt from
        count, order = _share(config.validation_fraction, len(order)), _interleaved(order, strata)
        patients["validation"], order = order[:count], order[count:]
    if not order:
        raise DataError(
            f"{data.name}: no patient is left for training after {len(patients['test'])} for the test and "
            f"{len(patients['validation'])} for validation: lower the fractions, or tell patients apart with --patient"
        )
    chosen = [set(order), set(patients["validation"]), set(patients["test"])]
    split = Split(*(tuple(sorted(case.name for case in data.cases if case.patient in part)) for part in chosen))
    labels = config.labelled_patients
    return split if labels is None else choose_labelled(split, data, labels, config.split_seed)


def _share(fraction: float, count: int) -> int:
    return max(round(count * fraction), 1) if fraction else 0


def _named_patients(data: "LabelledData") -> dict[str, list[str]]:
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
        told = f"{len(unassigned)} of {len(parts)} patients have no part, such as {unassigned[0]!r}"
        raise DataError(f"{data.name}: {told}; name a part for all or for none")
    return {name: [patient for patient, part in parts.items() if (part or "training") == name] for name in _PARTS}


def choose_labelled(split: Split, data: "LabelledData", labels: str, seed: int) -> Split:
    """Keep the labels of a few training patients; validation and test stay as they are.

    The patients are the first of an order drawn from the seed, so five are among ten. For a classification the order
    takes one patient of each class first, then each class in its proportion.

    Args:
        split: The whole data set.
        data: The data set.
        labels: A number of training patients such as `"10"`, or a share of them such as `"10%"`.
        seed: Random seed of the choice.

    Raises:
        ConfigurationError: There are not as many training patients, or `labels` is not a number.

    Example:
        few = choose_labelled(split, data, "10", seed=0)
        len(few.training)  # 10
    """
    names = set(split.training)
    cases = [case for case in data.cases if case.name in names]
    patients = sorted({case.patient for case in cases})
    # Always the same order for a seed, so that a learning curve adds patients and exchanges none.
    count = count_labelled(labels, len(patients))
    order = np.random.default_rng(seed).permutation(patients).tolist()
    order = _interleaved(order, _strata(order, data), single=0.0)  # one that is alone is learnt from
    kept = set(order[:count])
    return Split(tuple(sorted(case.name for case in cases if case.patient in kept)), split.validation, split.test)


def _strata(patients: Sequence[str], data: "LabelledData") -> dict[str, int]:
    """Return the class that each patient counts for, the rarest of several; of a segmentation all are alike."""
    classes: dict[str, set[int]] = {patient: set() for patient in patients}
    for case in data.cases:
        classes.get(case.patient, set()).update(case.classes)
    # Of how many patients each class is, since these are drawn and not images.
    sizes = Counter(index for held in classes.values() for index in held)
    return {
        patient: min(held, key=lambda index: (sizes[index], index), default=-1) for patient, held in classes.items()
    }


def _interleaved(order: Sequence[str], strata: Mapping[str, int], single: float = 1.0) -> list[str]:
    """Reorder patients so that every beginning holds each class: one of each first, then in proportion.

    Args:
        order: As they were drawn; stays where all are of one class.
        strata: Their classes.
        single: Where the only patient of a class stands, from first, 0, to last, 1.
    """
    if len(set(strata.values())) == 1:
        return list(order)
    totals, seen = Counter(strata[patient] for patient in order), Counter[int]()
    keys: dict[str, float] = {}
    for patient in order:
        # The k-th patient of n stands at (k + 1/2) / n, so that classes of any size interleave; the first comes first.
        stratum = strata[patient]
        first = single if totals[stratum] == 1 else 0.0
        keys[patient] = (seen[stratum] + 0.5) / totals[stratum] if seen[stratum] else first
        seen[stratum] += 1
    return sorted(order, key=keys.__getitem__)  # stable: ties stay in the drawn order


def check_split(split: Split, data: "LabelledData") -> None:
    """Refuse a split that names unknown cases, or a patient in two parts.

    Raises:
        DataError: The split does not fit the data.
    """
    patients = {case.name: case.patient for case in data.cases}
    place: dict[str, str] = {}
    for part, names in asdict(split).items():
        for name in names:
            require(name in patients, DataError, f"the split names {name!r}, which is not in {data.name}")
            patient = patients[name]
            first = place.setdefault(patient, part)
            told = f"the split has {patient!r} in two parts, {first} and {part}; a patient belongs to one part"
            require(first == part, DataError, told)


def count_split(split: Split, data: "LabelledData") -> dict[str, dict[str, Any]]:
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
        DataError: The file is missing, is not JSON, or does not hold a split.

    Example:
        split = read_split("runs/hippocampus/split.json")
    """
    return make_split(read_json(Path(path), DataError), path)


def make_split(content: Any, source: object) -> Split:
    """Return a split from its JSON value, read from `source`.

    Raises:
        DataError: It is not a split.
    """
    lists = [content.get(part) for part in _PARTS] if isinstance(content, dict) and len(content) == 3 else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise DataError(f"{source}: received {shown(content)}, expected lists of cases: training, validation and test")
    for part in _PARTS:
        twice = [name for name, count in Counter(content[part]).items() if count > 1]
        require(not twice, DataError, f"{source}: {part} names {some(twice)} twice; expected each once")
    return Split(**{part: tuple(content[part]) for part in _PARTS})
