"""Whether weights have learnt from patients that are kept for testing."""

import re
from collections.abc import Iterable
from contextlib import suppress
from filecmp import cmp
from pathlib import Path

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.data.cases import LabelledData
from modelsgenesis.data.finding import find_patients
from modelsgenesis.data.reading import file_stem
from modelsgenesis.errors import DataError, counted
from modelsgenesis.files import parsing, read_json
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.run import RUN_NAME
from modelsgenesis.training.splits import Split


def refuse_seen(
    init: str, bundle: Bundle, data: LabelledData, split: Split, pattern: str | None, reporter: Reporter
) -> str:
    """Refuse weights that learnt from test patients, as far as their run says; return what is known.

    Scans that are only called as those of a test patient are a warning: many data sets have an `images/001`.

    Args:
        init: The weights, as they were named: of a run's folder its `run.json` is read.
        bundle: The weights.
        data: The data set.
        split: Its parts.
        pattern: Tells a patient from the name of a file; None where nothing does.
        reporter: Receives the warning.

    Raises:
        DataError: Test patients are among those that the run trained or validated on.
    """
    path, provenance = Path(init).expanduser() / RUN_NAME, bundle.config.provenance
    facts, finetuned, alike = provenance.data, provenance.origin == "finetuned", set[str]()
    if not path.is_file():
        left_out = facts.get("left_out_test_scans")
        told = f"its pretraining left out {left_out} scans that a split keeps for testing"
        return told if left_out else "whether it has seen test patients is not recorded"
    with parsing(path, DataError, remedy="restore it"):
        parts = read_json(path, DataError)["split"]
        listed = {*parts["training"], *parts["validation"]}
        seen = {case.patient for case in data.cases if case.name in listed and facts.get("name") == data.name}
        if not finetuned:  # which lists cases and not files
            seen, alike = seen_patients(listed, data, pattern)
    test = {case.patient for case in data.cases if case.name in split.test}
    of_all = f"of the {counted(len(test), 'test patient')}, such as"
    if found := sorted(seen & test):
        what = f"{init}: has seen {len(found)} {of_all} {found[0]!r}"
        how = "fine-tune it" if finetuned else "pretrain it with data.exclude_test_cases=SPLIT.json"
        raise DataError(f"{what}: its figures would be too good; {how} and compare with the same --split SPLIT.json")
    if found := sorted(alike & test):
        told = f"its run lists scans called as those of {len(found)} {of_all} {found[0]!r}"
        reporter.note(f"warning: {init}: {told}: if they are the same, its figures are too good")
        return told
    whole = facts.get("name") == data.name if finetuned else pattern
    return f"its run lists no {'scan of a test patient' if whole else 'file of a test case'}"


def seen_patients(names: Iterable[str], data: LabelledData, pattern: str | None = None) -> tuple[set[str], set[str]]:
    """Return the patients of a data set of whom a pretraining saw a scan, by the files that its `run.json` lists.

    Args:
        names: The scans, as messages call them.
        data: The data set.
        pattern: Tells a patient from the name of a file, as of `find_patients`; without it only the files of the data
            set are looked for, and not other scans of its patients.

    Returns:
        Those of whom it is sure: the file is the same or has the same content, or lies in a folder of the data set and
        is named by the pattern; and others, whose scans are only called alike, with their folder or by the pattern.
    """
    images: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for patient, path in ((case.patient, image.path) for case in data.cases for image in case.images):
        images.setdefault(_place(path), []).append((patient, path))
    folders = {path.parent.resolve() for found in images.values() for _, path in found}
    sure, alike = set[str](), set[str]()
    for name in set(names):
        path = Path(re.sub(r" \[.*\]$", "", name))  # of a series or one of several volumes
        for patient, image in images.get(_place(path), ()):
            if not (path.is_file() and image.is_file() and path.suffix == image.suffix):
                alike.add(patient)
            elif cmp(path, image, shallow=False):
                sure.add(patient)
        if pattern:
            here = path.exists() and path.parent.resolve() in folders
            with suppress(DataError):  # another data set names its patients otherwise
                (sure if here else alike).update(find_patients([path], pattern)[0])
    return sure, alike - sure


def _place(path: Path) -> tuple[str, str]:
    return path.absolute().parent.name, file_stem(path)
