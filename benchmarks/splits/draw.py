"""Draw the recorded splits again, by patient, from the folder that holds the data sets.

python benchmarks/splits/draw.py DATA [--output FOLDER] [NAME ...]

The same data gives the same files. The two of lung nodules share their test patients, so that one Genesis serves both.
`adrenal.json`, which keeps the published validation part, and `chestxray8.json`, which an earlier version drew, are not
drawn again.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelsgenesis.configs import FinetuningConfig
from modelsgenesis.data.cases import LabelledData
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.training.splits import Split, check_split, count_split, read_split, split_cases, write_split

FOLDER = Path(__file__).parent

LARGER = {"test_fraction": 0.25, "validation_fraction": 0.15}
"""Of small data sets: the shares of patients for test and validation."""

# Where the labels are, what reading them needs, the shares of patients for test and validation.
TARGETS: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "hippocampus": ("Task04_Hippocampus", {}, {}),
    "lung_nodules": ("LungNodules2D/nodules.csv", {"modality": "ct-8bit"}, {}),
    "lung_malignancy": ("LungNodules2D/malignancy.csv", {"modality": "ct-8bit"}, {}),
    "left_atrium": ("LeftAtrium", {}, LARGER),
    "cardiac": (
        "CardiacMR",
        {"patient_pattern": r"(patient\d+)"},
        LARGER,
    ),
    "sarcoma": ("SarcomaCT", {}, LARGER),
    "breast": ("BreastUS", {"modality": "ultrasound"}, LARGER),
}
# Patients of the first keep their part in the second.
FOLLOWS = {"lung_malignancy": "lung_nodules"}


def draw(root: Path, name: str, output: Path = FOLDER) -> tuple[LabelledData, Split]:
    """Return the data of a target and its split by patient.

    Args:
        root: The folder of the data sets.
        name: One of `TARGETS`.
        output: Where the split is that this one follows, if it follows one.
    """
    place, options, shares = TARGETS[name]
    data = read_labelled(root / place, **options)
    split = split_cases(data, FinetuningConfig().override(**shares))
    if name in FOLLOWS:
        split = _follow(data, split, output / f"{FOLLOWS[name]}.json", read_labelled(root / TARGETS[FOLLOWS[name]][0]))
    check_split(split, data)
    return data, split


def _follow(data: LabelledData, split: Split, path: Path, before: LabelledData) -> Split:
    """Return a split in which the patients of an earlier one keep their part."""
    parts = ("training", "validation", "test")
    part_of = {name: part for part in parts for name in getattr(split, part)}
    first = {name: part for part in parts for name in getattr(read_split(path), part)}
    fixed = {case.patient: first[case.name] for case in before.cases}
    cases = [replace(case, part=fixed.get(case.patient, part_of[case.name])) for case in data.cases]
    return Split(*(tuple(sorted(case.name for case in cases if case.part == part)) for part in parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for name in arguments.names or TARGETS:
        data, split = draw(arguments.data, name, arguments.output)
        write_split(split, arguments.output / f"{name}.json")
        parts = count_split(split, data)
        print(f"{name}: " + "; ".join(f"{part} {count}" for part, count in parts.items()))


if __name__ == "__main__":
    main()
