"""The report of a folder of runs: a row for each, with its main figure and a link to its own report."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from modelsgenesis.errors import DataError, counted, require
from modelsgenesis.figures.charts import read_log
from modelsgenesis.files import reason_of
from modelsgenesis.metrics.comparison_texts import verdict
from modelsgenesis.metrics.measures import METRICS, metric_title
from modelsgenesis.metrics.tables import cell
from modelsgenesis.reports.page import Block, Link, Page, Table, files_section, try_section
from modelsgenesis.reports.pretraining import best_validation
from modelsgenesis.reports.records import Records, dig, read_records

_DEPTH = 3  # folders below the one that is reported
_MOST = 1000  # runs that are listed
_KINDS = {"finetuning": "fine-tuning"}  # as people write it
_FILES = {".nii", ".gz", ".png", ".csv", ".md", ".tex"}  # beside the runs, that a person may want to open


def runs_page(records: Records) -> Page:
    """Return the report of a folder that holds runs; each row links to the run's own report.

    Raises:
        DataError: There is no run in it.
    """
    folder = records.folder
    runs = list(_find_runs(folder))
    expected = "expected a run, an evaluation, a comparison, or a folder of them"
    require(runs, DataError, f"{folder}: holds none; {expected}")
    finished = sum(_is_finished(run) for run in runs)
    told = f"{counted(len(runs), 'run')}, {'all' if finished == len(runs) else finished} finished."
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix in _FILES)
    sections = (try_section("Runs", partial(_table, folder, runs)), files_section(folder, names[:_MOST]))
    return Page(folder.resolve().name, "folder of runs", told, {}, sections)


def _find_runs(folder: Path, depth: int = _DEPTH) -> Iterator[Records]:
    """Yield the runs below a folder, by name; not those within a comparison, nor the folds of a fine-tuning."""
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        records = read_records(path)
        if records.kind:
            yield records
        elif depth > 1:
            yield from _find_runs(path, depth - 1)


def _table(folder: Path, runs: list[Records]) -> Iterator[Block]:
    """Yield the table of runs that lie below a folder."""
    rows = [_row(folder, run) for run in runs[:_MOST]]
    more = f" The first {_MOST:,} of {len(runs):,}." if len(runs) > _MOST else ""
    missing = not all(isinstance(row[0], Link) for row in rows)
    told = " A name without a link has no report yet: modelsgenesis report RUN writes it." if missing else ""
    header = ("run", "kind", "initial weights", "main figure", "finished")
    yield Table(header, rows, f"The folders, by name.{more}{told}")


def _row(folder: Path, run: Records) -> tuple[str | Link, ...]:
    name, page = run.folder.relative_to(folder).as_posix(), run.folder / "report.html"
    linked = Link(name, page.relative_to(folder).as_posix()) if page.is_file() else name
    init = run.run.get("init") or ("random" if run.run else "")
    try:
        figure = _main_figure(run)
    except Exception as problem:  # any at all: what one run recorded costs no other its row
        figure = f"its results cannot be read: {reason_of(problem)}"
    return linked, _KINDS.get(run.kind, run.kind), str(init), figure, "yes" if _is_finished(run) else "no"


def _is_finished(run: Records) -> bool:
    """Return whether nothing is left to do in a run."""
    return bool(run.run.get("finished") if run.run else run.results)


def _main_figure(run: Records) -> str:
    """Return the result of a run that counts: the restoration loss, Dice or AUC; "" before there is one."""
    if run.kind == "pretraining":
        best = best_validation(read_log(run.folder / "validation.csv"))
        return f"restoration loss {best['restoration_loss']:.4g}" if best else ""
    if run.kind == "comparison":
        return verdict(run.results) if run.results else ""
    name = next((name for name in ("dice", "auc", *METRICS) if dig(run.summary, name, "value") is not None), "")
    return f"{metric_title(name)} {cell(run.summary[name], METRICS[name].digits)}" if name else ""
