"""The table of results: a row per structure or class, a column per metric; as Markdown, LaTeX and CSV."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsgenesis.errors import DataError, counted
from modelsgenesis.files import write_atomically, write_csv
from modelsgenesis.metrics.measures import METRICS, Summary

_FIELDS = {"value": "", "low": "_low", "high": "_high", "std": "_sd"}
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "—": "---"}
_LATEX |= {"±": r"$\pm$", "−": "$-$", "×": r"$\times$"} | {sign: f"${sign}$" for sign in "<>|"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class ResultsTable:
    """Results as people read them; `print` shows the table, a notebook draws it.

    Attributes:
        header: Title of each column.
        rows: Cells: a value with its interval or spread, a dash where it is undefined.
        records: The numbers of each row by name, for a spreadsheet; None where undefined.
        notes: What the values rest on, and what they leave out.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """Return a Markdown table, aligned so that it reads as plain text too, and the notes below it."""
        # A bar in a name would make a column of its own.
        cells = [[cell.replace("|", r"\|") for cell in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        cells.insert(1, ["-" * width for width in widths])
        lines = [" | ".join(map(str.ljust, row, widths)) for row in cells]
        return "\n".join([*(f"| {line} |" for line in lines), *(["", *self.notes] if self.notes else [])])

    __str__ = _repr_markdown_ = to_markdown

    def to_latex(self) -> str:
        """Return a LaTeX table; it needs the package booktabs. The notes are comments above it."""
        head, *body = (" & ".join(map(_latex, row)) + r" \\" for row in (self.header, *self.rows))
        begin = [rf"\begin{{tabular}}{{{'l' * len(self.header)}}}", r"\toprule", head, r"\midrule"]
        notes = [f"% {note}" for note in (r"needs \usepackage{booktabs}", *self.notes)]
        return "\n".join([*notes, *begin, *body, r"\bottomrule", r"\end{tabular}"])

    def write(self, folder: Path) -> None:
        """Write `results.csv`, `results.md` and `results.tex`.

        Raises:
            DataError: A file cannot be written.
        """
        write_csv(folder / "results.csv", self.records, DataError)
        write_atomically(folder / "results.md", self.to_markdown() + "\n", DataError)
        write_atomically(folder / "results.tex", self.to_latex() + "\n", DataError)


def results_table(
    summaries: Mapping[tuple[str, ...], Summary],
    leading: Sequence[str] = (),
    *,
    alone: str = "",
    specificity: float | None = None,
    notes: Sequence[str] = (),
) -> ResultsTable:
    """Return the table of results: a row per structure or class and one for their mean, a column per metric.

    Args:
        summaries: As `summarize_rows` returns them, by the cells of the leading columns; instead of the ends of an
            interval, a value may have `std`, its standard deviation over runs.
        leading: Titles of these columns.
        alone: The row's name where no metric names a class: of two exclusive classes the second.
        specificity: At which the sensitivity is given.
        notes: Lines below the table.

    Example:
        >>> summary = {"dice": {"value": 0.85, "low": 0.8, "high": 0.9}, "hausdorff95": {"value": 2, "unit": "mm"}}
        >>> print(results_table({(): summary}, alone="liver"))
        | structure | Dice                | HD95 (mm) |
        | --------- | ------------------- | --------- |
        | liver     | 0.850 (0.800–0.900) | 2.00      |
    """
    given = dict.fromkeys(name for summary in summaries.values() for name in summary)
    metrics = {name: one for name, one in METRICS.items() if any(key.partition(" ")[0] == name for key in given)}
    units = {name: _unit(name, summaries.values()) for name in metrics}
    titles = [f"{one.title} ({units[name]})" if units[name] else one.title for name, one in metrics.items()]
    if specificity is not None:
        titles = [f"{one} at specificity {specificity:g}" if one == "sensitivity" else one for one in titles]
    # `dice Anterior` is the Dice of Anterior, `dice` the mean over the structures.
    each = list(dict.fromkeys(name.partition(" ")[2] for name in given if " " in name))
    parts = [(name, f" {name}") for name in each] if each else [(alone, "")]
    parts = [("mean", ""), *parts] if len(each) > 1 else parts
    kind = "class" if any(one.task == "classification" for one in metrics.values()) else "structure"
    rows, records = [], []
    for place, summary in summaries.items():
        for part, suffix in parts:
            entries = {name: summary.get(name + suffix) for name in metrics}
            rows.append((*place, part, *(cell(entries[name], one.digits) for name, one in metrics.items())))
            records.append(dict(zip((*leading, kind), (*place, part), strict=True)))
            for name, entry in entries.items():
                column = f"{name}_{units[name]}" if units[name] else name
                records[-1] |= {column + end: entry[key] for key, end in _FIELDS.items() if entry and key in entry}
    return ResultsTable((*leading, kind, *titles), tuple(rows), tuple(records), tuple(notes))


def basis_of(patients: int, cases: int, *, what: str = "patient", folds: int = 0, intervals: bool = True) -> str:
    """Return what results rest on.

    Example:
        >>> basis_of(39, 50, what="test patient")
        '39 test patients, 50 images; 95% bootstrap intervals over patients'
    """
    basis = counted(patients, what)
    basis += f", {cases} images" if cases > patients else ""
    basis += f" in {folds} folds" if folds else ""
    if not intervals:
        return basis
    return basis + ("; 95% bootstrap intervals over patients" if patients > 1 else "; no confidence interval")


def _unit(metric: str, summaries: Iterable[Summary]) -> str:
    """Return the unit of a distance."""
    entries = (entry for one in summaries for name, entry in one.items() if name.partition(" ")[0] == metric)
    return next((entry["unit"] for entry in entries if "unit" in entry), "")


def cell(entry: Mapping[str, Any] | None, digits: int) -> str:
    """Return `0.878 (0.871–0.885)`, a dash where undefined, nothing where there is no such figure."""
    if entry is None:
        return ""
    value, low, high, spread = (None if one is None else f"{one:.{digits}f}" for one in map(entry.get, _FIELDS))
    if value is None:
        return "—"
    return value + (f" ({low}–{high})" if low is not None else f" ± {spread}" if spread is not None else "")


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in cell)
