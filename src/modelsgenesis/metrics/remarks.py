"""Remarks: plain sentences on what went wrong with a model, kept in its results and on its card."""

import math
from collections.abc import Mapping, Sequence

from modelsgenesis.errors import counted
from modelsgenesis.metrics.measures import CLASS_SEPARATOR, Row

_FEW = 10  # patients, below which a bootstrap over them hardly means anything


def remarks_on_cases(rows: Sequence[Row], labels: Sequence[str], *, what: str = "test") -> list[str]:
    """Remark on the measured cases: structures or classes that were never found, and how few patients there are.

    Args:
        rows: A row for each case, as `measure_case` returns it.
        labels: Class names; of a segmentation the background first.
        what: Of which patients, such as `"test"`.

    Example:
        >>> rows = [{"case": "a", "patient": "a", "dice liver": 0.0, "hausdorff95 liver": math.nan}]
        >>> remarks_on_cases(rows, ["background", "liver"])[0]
        'no structure was found in any test case: every Dice is 0'
    """
    if not rows:
        return []
    classified = "predicted" in rows[0]
    found = _classes_never_found(rows, labels) if classified else _structures_never_found(rows, labels, what)
    patients = len({row["patient"] for row in rows})
    if patients < _FEW:
        found.append(f"only {counted(patients, f'{what} patient')}: the figures say little about others")
    return found


def _structures_never_found(rows: Sequence[Row], labels: Sequence[str], what: str) -> list[str]:
    nan, missed, found = math.nan, [], False
    for label in labels[1:]:
        # Where the truth lacks a structure its Dice is not defined, and nothing was to be found.
        held = [row for row in rows if not math.isnan(row.get(f"dice {label}", nan))]
        # A distance is defined where the prediction has the structure, though perhaps elsewhere.
        found |= any(row[f"dice {label}"] > 0 or not math.isnan(row.get(f"hausdorff95 {label}", nan)) for row in held)
        if held and not any(row[f"dice {label}"] > 0 for row in held):
            cases = "the only case that has it" if len(held) == 1 else f"all {len(held)} cases that have it"
            missed.append(f"{label} was never found: its Dice is 0 in {cases}")
    return missed if found or not missed else [f"no structure was found in any {what} case: every Dice is 0"]


def _classes_never_found(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    said: list[str] = []
    for label in labels:
        held = sum(label in row["class"].split(CLASS_SEPARATOR) for row in rows)
        if held and not any(label in row["predicted"].split(CLASS_SEPARATOR) for row in rows):
            said.append(f"{label} was never predicted: {counted(held, 'case')} of it")
    return said


def remarks_on_restoration(metrics: Mapping[str, float]) -> list[str]:
    """Remark on the metrics of a pretraining: a network that restores no better than the mean image, or collapsed.

    Example:
        >>> remarks_on_restoration({"restoration_loss": 0.144, "mean_image_loss": 0.1})[0][:71]
        'on validation patches the loss is 1.44 times that of always predicting '
    """
    said: list[str] = []
    ratio = metrics["restoration_loss"] / max(metrics["mean_image_loss"], 1e-12)
    if ratio >= 1:
        worse = f"on validation patches the loss is {ratio:.2f} times that of always predicting the mean image"
        said.append(f"{worse}: the network has not learnt to restore yet; train for more steps")
    if metrics.get("collapsed"):
        said.append("the network has collapsed: its output hardly depends on its input; lower the learning rate")
    return said
