"""Keeping the test cases of recorded splits out of pretraining."""

import re
from collections.abc import Sequence
from pathlib import Path

from modelsgenesis.data import ScanReference, file_stem
from modelsgenesis.errors import DataError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.splits import read_split


def leave_out_test_cases(
    scans: Sequence[ScanReference],
    held_out: Sequence[ScanReference],
    splits: Sequence[str | Path],
    reporter: Reporter,
) -> tuple[list[ScanReference], list[ScanReference], int]:
    """Take out the scans that a split keeps for testing, and every other scan of the same patients.

    Args:
        scans: To train on.
        held_out: To validate on.
        splits: JSON files; each test case is the name of a file without its suffix, or a patient.
        reporter: Is told how many were left out.

    Returns:
        The scans and the held-out scans that are left, and how many different scans were taken out.

    Raises:
        DataError: A file is no split, or its test cases are not among the scans; nothing would be left to train on.
    """
    everything = list(dict.fromkeys([*scans, *held_out]))
    patients: set[str] = set()
    for path in splits:
        tested = set(read_split(path).test)
        found = {scan.group for scan in everything if _names(scan) & tested}
        if not found:
            shown = f"such as {sorted(tested)[0]!r}" if tested else "an empty list"
            raise DataError(
                f"{path}: none of its {len(tested)} test cases, {shown}, is among the {len(everything)} scans; "
                "expected names of their files or patients (see --patient)"
            )
        patients |= found
    left = [[scan for scan in part if scan.group not in patients] for part in (scans, held_out)]
    if not left[0]:
        raise DataError("the splits to leave out name every scan; nothing is left to train on")
    count = sum(scan.group in patients for scan in everything)
    reporter.note(f"left out {count} scans of {len(patients)} patients that recorded splits keep for testing")
    return left[0], left[1], count


def _names(scan: ScanReference) -> set[str]:
    """Return what a split may call a scan: its patient, its file, with and without suffix, channel and folder."""
    stem, name = file_stem(scan.path), scan.path.name
    names = {scan.group, name, stem, re.sub(r"_\d{4}$", "", stem)}
    return names | {f"{scan.path.parent.name}/{one}" for one in names - {scan.group}}
