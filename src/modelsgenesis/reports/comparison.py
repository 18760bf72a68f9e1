"""The page of a comparison: which initialisation is better, in pairs, by labels and over the budget."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelsgenesis.errors import GenesisError, TrainingError, counted
from modelsgenesis.figures import comparisons as charts
from modelsgenesis.figures.charts import svg_of
from modelsgenesis.files import parsing, read_json
from modelsgenesis.metrics import comparison_texts as texts
from modelsgenesis.metrics.measures import metric_title
from modelsgenesis.reports.page import Block, Chart, Missing, Page, Section, Table, files_section, try_section
from modelsgenesis.reports.records import Records

_FILES = ("table.md", "results.csv", "results.tex", "results.json", "runs.csv", "comparison.png", "comparison.svg")


def comparison_page(records: Records) -> Page:
    """Return the page of a comparison; of one that has not finished, what there is of it."""
    folder = records.folder
    if not records.results:
        return _unfinished_page(folder, records.problems)
    try:
        with parsing(folder / "results.json", TrainingError, remedy="delete it, and the same command writes it again"):
            return _finished_page(folder, records.results)
    except GenesisError as error:
        return _unfinished_page(folder, (str(error),))


def _finished_page(folder: Path, results: texts.Results) -> Page:
    data, patients = results["data"], results["data"]["patients"]
    facts = {
        "Data": data["name"],
        "Initialisations": ", ".join(results["arms"]),
        "Labelled patients": ", ".join(results["labels"]),
        "Runs of each": str(len(results["seeds"])),
        "Test patients": str(patients["test"]),
        "Computed on": f"{results['device']}, {results['precision']}",
    }
    sections = (
        try_section("Results", lambda: _means(results)),
        try_section("Runs in pairs", lambda: _pairs(results)),
        try_section("Label efficiency", lambda: _efficiency(results)),
        try_section("Over the budget", lambda: _budget(folder, results)),
        try_section("What was run", lambda: _conditions(results)),
        Section("What this does not show", (), texts.LIMITS),
        files_section(folder, _FILES),
    )
    remarks, done = tuple(results.get("remarks", ())), len(_records(folder))
    shown = len(results["arms"]) * len(results["labels"]) * len(results["seeds"])
    if done > shown:
        remarks += (f"{done} runs are finished, more than the {shown} of this page; the same command resumes.",)
    return Page(f"{data['name']}: comparison", "comparison", texts.verdict(results), facts, sections, remarks)


def _means(results: texts.Results) -> Iterator[Block]:
    metric = metric_title(results["metric"])
    alt = f"{metric} of each initialisation by labelled patients; the table has the numbers"
    yield Chart(svg_of(charts.comparison_chart(results)), charts.comparison_caption(results), alt)
    yield Table.of(texts.comparison_table(results))


def _pairs(results: texts.Results) -> Iterator[Block]:
    pairs = dict.fromkeys(
        (one["arm"], one["reference"]) for entry in results["labels"].values() for one in entry["comparisons"]
    )
    for pair in pairs:
        alt = f"{metric_title(results['metric'])} of {' and '.join(pair)}, run by run; the table has the numbers"
        yield Chart(svg_of(charts.paired_chart(results, *pair)), charts.paired_caption(results, *pair), alt)
    table = texts.differences(results)
    yield Missing("One initialisation alone: there are no differences.") if table is None else Table.of(table)


def _efficiency(results: texts.Results) -> Iterator[Block]:
    if not results["efficiency"]:
        yield Missing("It takes two label counts or more, and two initialisations.")
        return
    alt = "Labelled patients that the reference needs, by those of each initialisation; the table has the numbers"
    yield Chart(svg_of(charts.efficiency_chart(results)), charts.EFFICIENCY_CAPTION, alt)
    header = ("initialisation", "labelled patients", "reference", "needs", "95% over the runs")
    rows = [
        (one["arm"], str(one["labels"]), one["reference"], *texts.needed_labels(one)) for one in results["efficiency"]
    ]
    yield Table(header, rows)


def _budget(folder: Path, results: texts.Results) -> Iterator[Block]:
    records = [one for one in _records(folder) if one["seed"] in results["seeds"] and one.get("curve")]
    if not records:
        yield Missing("The runs kept no validation curve: they had no validation patients, or are of an older version.")
        return
    alt = "Validation metric over the steps of training, by initialisation"
    yield Chart(svg_of(charts.budget_chart(results, records)), charts.BUDGET_CAPTION, alt)


def _conditions(results: texts.Results) -> Iterator[Block]:
    yield Table(("what", "how"), texts.conditions(results))
    if tuned := texts.tuning_lines(results):
        yield Table(("settings chosen on the validation patients", "how"), tuned, texts.TUNING)


def _unfinished_page(folder: Path, remarks: tuple[str, ...]) -> Page:
    records = _records(folder)
    finished = Counter((one["arm"], one["labels"]) for one in records)
    rows = [(arm, str(labels), str(count)) for (arm, labels), count in sorted(finished.items())]
    verdict = f"Not finished: {counted(len(records), 'run')} so far; the same command resumes."
    table = Table(("initialisation", "labelled patients", "runs finished"), rows)
    sections = (Section("Runs", (table,) if rows else (Missing("No run has finished."),)),)
    return Page(f"{folder.resolve().name}: comparison", "comparison", verdict, {}, sections, remarks)


def _records(folder: Path) -> list[Mapping[str, Any]]:
    """Return the runs that can be read."""
    found: list[Mapping[str, Any]] = []
    for path in sorted((folder / "runs").glob("*/labels-*/seed-*.json")):
        try:
            record = read_json(path, TrainingError)
        except GenesisError:
            continue  # cut off; a resume says so and names it
        if isinstance(record, dict) and {"arm", "labels", "seed"} <= record.keys():
            found.append(record)
    return found
