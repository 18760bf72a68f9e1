"""Reports: what a run came to, as one page that one opens, `report.html` in its folder."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from modelsgenesis.errors import DataError, GenesisError, require
from modelsgenesis.files import reason_of
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports.comparison import comparison_page
from modelsgenesis.reports.page import Page, write_page
from modelsgenesis.reports.pretraining import pretraining_page
from modelsgenesis.reports.records import read_records
from modelsgenesis.reports.results import results_page
from modelsgenesis.reports.runs import runs_page

REPORT = "report.html"
SHARE = 0.02
"""Of a run's time that the renewals of its report may cost."""

_FIRST = 2.0  # seconds that the first renewal is taken to cost, which imports matplotlib
_PAGES = {
    "pretraining": pretraining_page,
    "finetuning": results_page,
    "evaluation": results_page,
    "comparison": comparison_page,
}


def report(run: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run, an evaluation, a comparison, or a folder of them, as one HTML page.

    It needs nothing but the folder: no data, no network. A run that was cut off has a report, too.

    Args:
        run: The folder.
        output: The page; None for `report.html` in the folder.

    Returns:
        The page.

    Raises:
        DataError: The folder holds nothing that could be reported, or the page cannot be written.

    Example:
        page = modelsgenesis.report("runs/pretrain")
    """
    folder = Path(run)
    require(folder.exists(), DataError, f"{folder}: there is no such folder; check the path")
    require(folder.is_dir(), DataError, f"{folder}: is a file; name the folder of a run")
    path = folder / REPORT if output is None else Path(output)
    require(path.suffix.lower() in (".html", ".htm"), DataError, f"{path}: a report is HTML; name a .html")
    base = quote(os.path.relpath(folder, path.parent).encode(errors="surrogateescape"))
    return write_page(replace(page_of(folder), base="" if base == "." else f"{base}/"), path)


def write_report(folder: Path, *, reporter: Reporter | None = None) -> Path:
    """Write `report.html` of a run that is going on, or has just ended.

    Args:
        folder: Of the run.
        reporter: Told of what fails, which then ends nothing; None raises it, as `report` does.
    """
    try:
        return report(folder)
    except Exception as problem:  # any at all: no report is worth a run
        if reporter is None:
            raise
        told = str(problem) if isinstance(problem, GenesisError) else reason_of(problem)
        reporter.note(f"warning: there is no new report: {told}")
        return folder / REPORT


def page_of(folder: Path) -> Page:
    """Return the report of a folder; of one that holds no run it raises a DataError."""
    records = read_records(folder)
    return _PAGES.get(records.kind, runs_page)(records)


@dataclass
class Renewals:
    """Renews the report of a run at its validations, as long as that costs less than 2% of its time.

    Attributes:
        folder: Of the run.
        reporter: Told of what fails.
    """

    folder: Path
    reporter: Reporter

    def __post_init__(self) -> None:
        self._began, self._spent, self._last = time.monotonic(), 0.0, _FIRST

    def renew(self) -> None:
        """Renew the report if it is worth its time: all renewals, and two more, of which one comes at the end."""
        now = time.monotonic()
        if self._spent + 2 * self._last < SHARE * (now - self._began):
            write_report(self.folder, reporter=self.reporter)
            self._last = time.monotonic() - now
            self._spent += self._last
