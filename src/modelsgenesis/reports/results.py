"""The page of a fine-tuning, of its folds together, and of an evaluation: what was measured, and the telling cases."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.errors import counted
from modelsgenesis.figures.charts import read_log, svg_of
from modelsgenesis.figures.colours import colours, hex_of
from modelsgenesis.figures.measured import (
    confusion,
    confusion_caption,
    confusion_chart,
    roc_caption,
    roc_chart,
    strip_caption,
    strip_chart,
)
from modelsgenesis.figures.pictures import outlines, plane_title
from modelsgenesis.metrics.measures import (
    METRICS,
    Row,
    Summary,
    case_scores,
    dice_of,
    explanations,
    metrics_of,
    true_classes,
)
from modelsgenesis.metrics.tables import basis_of, results_table
from modelsgenesis.reports.cases import telling_cases
from modelsgenesis.reports.page import (
    Block,
    Chart,
    Link,
    Missing,
    Page,
    Section,
    Slide,
    Slides,
    Table,
    encoded,
    try_section,
)
from modelsgenesis.reports.pictures import PICTURES, Arrays, read_pictures
from modelsgenesis.reports.pretraining import curve_blocks, refused_blocks
from modelsgenesis.reports.recipe import recipe_blocks
from modelsgenesis.reports.records import Records, dig, read_records, unfinished
from modelsgenesis.training.results import TEST_NAME, read_measured, read_rows

_SIDE = 256  # pixels of a picture's longer side
_LISTED = 20  # cases or confusions in a table
_COLUMNS = 6  # structures that have a column in the table of cases
_FIRST = 10  # of many structures the worst and the best, which come first
_BESIDE = 3  # images in a row
_LEGEND = 12  # structures that a legend names
_CLASSES = 24  # whose confusion matrix can be read
_SENTENCES = 5  # below a table


def results_page(folder: Path) -> Page:
    """Return the report of a fine-tuning, finished or not, of all its folds together, or of an evaluation."""
    records = read_records(folder)
    measured, results = _Measured(records, records.results), records.results
    pooled = dig(results, "folds") is not None and dig(results, "fold") is None
    alone = not (pooled or measured.evaluated)
    parts = {
        "Folds": (pooled, partial(_folds, measured)),
        "Learning curve": (alone, partial(curve_blocks, folder)),
        "Not measured": (measured.evaluated and results.get("refused"), partial(refused_blocks, folder)),
        "Data": (not measured.evaluated, partial(_data, records, pooled=pooled)),
        "Recipe and command": (alone, partial(recipe_blocks, records)),
    }
    sections = list(_measured_sections(measured, pictures=not pooled))
    sections += [try_section(title, build) for title, (shown, build) in parts.items() if shown]
    remarks = [] if measured.evaluated else unfinished(records, *_resuming(records))
    remarks += [str(one) for one in dig(results, "remarks", default=())]
    kind = "evaluation" if measured.evaluated else "fine-tuning, folds together" if pooled else "fine-tuning"
    facts = {name: fact for name, fact in _facts(measured).items() if fact}
    heads = {"title": folder.resolve().name, "kind": kind, "verdict": _verdict(measured), "facts": facts}
    return Page(**heads, sections=tuple(sections), remarks=(*remarks, *records.problems))


@dataclass(frozen=True)
class _Measured:
    """What was measured of test cases.

    Attributes:
        records: Of the run or the evaluation.
        results: Of them the results.
    """

    records: Records
    results: Mapping[str, Any]

    @property
    def evaluated(self) -> bool:
        """Whether they are of an evaluation, and not of a fine-tuning."""
        return self.records.kind == "evaluation"

    @property
    def noun(self) -> str:
        return "patient" if self.evaluated else "test patient"

    @property
    def summary(self) -> Summary:
        return dig(self.results, "metrics" if self.evaluated else "test", default={})

    @cached_property
    def rows(self) -> list[Row]:
        folder = self.records.folder
        return read_measured(folder / "cases.csv") if self.evaluated else read_rows(folder, self.results)

    @property
    def labels(self) -> list[str]:
        return list(self.results["labels"])

    @property
    def folds(self) -> list[float | None]:
        """The main metric of each fold, where these are the results of several together."""
        alone = self.results.get("fold") is not None
        return [] if alone else list(dig(self.summary, self.main, "folds", default=()))

    @property
    def main(self) -> str:
        """The metric that counts."""
        return metrics_of(str(self.results.get("task", "segmentation")))[0]


def _resuming(records: Records) -> tuple[int, str]:
    """Return how many steps are done, and the command for the others."""
    steps = read_log(records.folder / "log.csv")
    command = shlex.join(["modelsgenesis", "finetune", "--output", str(records.folder), "--resume"])
    if dig(records.run, "config", "fold") is not None:  # its folder is not the output that it was started with
        command = "repeat the command of all folds with --resume"
    return int(steps["step"][-1]) if steps else 0, command


def _measured_sections(measured: _Measured, *, pictures: bool) -> Iterator[Section]:
    if not measured.summary:
        return
    yield try_section("Results", partial(_table, measured))
    if measured.main == "dice":
        yield try_section("Each case", partial(_each_case, measured))
        if pictures:
            yield try_section("Best, median and worst case", partial(_pictures, measured.records.folder))
        return
    yield try_section("Receiver operating characteristic", partial(_roc, measured))
    yield try_section("Confusion matrix", partial(_confusions, measured))
    if pictures:
        yield try_section("The surest wrong predictions", partial(_pictures, measured.records.folder))


def _verdict(measured: _Measured) -> str:
    if not measured.summary:
        none = "There are no test patients: nothing was measured."
        return none if measured.results else "No test case is measured yet."
    entry, title = dig(measured.summary, measured.main, default={}), METRICS[measured.main].title
    on = f"on {counted(dig(measured.results, 'patients', default=0), measured.noun)}"
    if not isinstance(entry.get("value"), float | int):
        return f"{title} is undefined {on}: {entry.get('reason', 'there is no value')}."
    ends = [entry.get(end) for end in ("low", "high")]
    between = "" if None in ends else f" (95% interval {ends[0]:.3f} to {ends[1]:.3f})"
    over = sum(name.startswith(f"{measured.main} ") for name in measured.summary)
    kind = "structures" if measured.main == "dice" else "classes"
    return f"{title} {entry['value']:.3f}{between} {on}{f', the mean over {over} {kind}' if over > 1 else ''}."


def _facts(measured: _Measured) -> dict[str, str]:
    results, run, bundle = measured.results, measured.records.run, measured.records.bundle
    labels = list(map(str, dig(measured.results, "labels", default=())))
    named = labels[1:] if measured.main == "dice" else labels
    patients, cases = dig(results, "patients", default=0), dig(results, "cases", default=0)
    model, init = dig(results, "model", default=""), dig(results, "init", default=dig(run, "init", default="random"))
    return {
        "Data": str(results.get("data", "")),
        "Structures" if measured.main == "dice" else "Classes": ", ".join(named) if len(named) < 5 else str(len(named)),
        "Measured on": f"{counted(patients, measured.noun)}, {counted(cases, 'case')}" if cases else "",
        "Initial weights": "" if measured.evaluated else str(init),
        "Kept network": f"step {results['step']:,} of {results['steps']:,}" if "steps" in results else "",
        "Hardware": str(dig(bundle, "provenance", "environment", "hardware", default="")),
        "Model": ", ".join(map(str, model)) if isinstance(model, list) else str(model),
        "Predictions": Path(str(dig(results, "predictions", default=""))).name,
        "Cases": {"test": "those of the split's test part", "all": "all"}.get(str(results.get("part")), ""),
        "Not measured": counted(results["refused"], "case") if results.get("refused") else "",
    }


def _table(measured: _Measured) -> Iterator[Block]:
    results, said = measured.results, explanations(measured.summary)
    if len(said) > _SENTENCES:
        said[_SENTENCES:] = [f"{len(said) - _SENTENCES} more metrics are undefined or leave out cases"]
    notes = [basis_of(results["patients"], results["cases"], what=measured.noun, folds=len(measured.folds)), *said]
    options = {"alone": measured.labels[-1], "specificity": results.get("specificity"), "notes": notes}
    table = results_table({(): measured.summary}, **options)
    rows, caption = list(table.rows), f"{'. '.join(table.notes)}."
    if len(rows) > 3 * _FIRST:
        values = {index: dig(record, measured.main) for index, record in enumerate(table.records) if index}
        ranked = sorted((index for index in values if values[index] is not None), key=lambda index: values[index])
        rows = [rows[index] for index in dict.fromkeys([0, *ranked[:_FIRST], *ranked[-_FIRST:], *range(len(rows))])]
        caption += f" Below the mean come the {_FIRST} lowest and the {_FIRST} highest, then the others."
    yield Table(table.header, rows, caption)


def _each_case(measured: _Measured) -> Iterator[Block]:
    rows = measured.rows
    scores = case_scores(rows)
    if np.isnan(scores).all():
        yield Missing(f"No ground truth of {counted(len(rows), 'case')} holds a structure, so no Dice is defined.")
        return
    marked = {row["case"]: title.removesuffix(" case").lower() for title, row in telling_cases(rows).items()}
    caption = strip_caption(rows)
    low, middle, high = np.nanpercentile(scores, (0, 50, 100))
    alt = f"Dice of each case: lowest {low:.3f}, median {middle:.3f}, highest {high:.3f}. {caption}"
    yield Chart(svg_of(strip_chart(rows, marked if len(rows) > 2 else {})), caption, alt)
    ranked = [rows[index] for index in np.argsort(scores, kind="stable")]  # what is undefined comes last
    structures = list(dice_of(rows[0]))
    columns = structures if 1 < len(structures) <= _COLUMNS else []
    listed: list[tuple[str, ...]] = []
    for row in ranked[:_LISTED]:
        values = [case_scores([row])[0], *(dice_of(row)[name] for name in columns)]
        listed.append((row["case"], row["patient"], *("—" if np.isnan(one) else f"{one:.3f}" for one in values)))
    told = f"The lowest Dice first{f', {_LISTED} of {len(rows):,} cases' if len(rows) > _LISTED else ''}."
    name = "cases.csv" if measured.evaluated else TEST_NAME
    yield Table(("case", "patient", "Dice", *columns), listed, f"{told} All metrics of each case: {name}.")


def _roc(measured: _Measured) -> Iterator[Block]:
    multilabel, rows = bool(measured.results.get("multilabel")), measured.rows
    if (entry := dig(measured.summary, "auc", default={})).get("value") is None:
        yield Missing(f"There is no curve: {entry.get('reason', 'no area is defined')}.")
        return
    chart = roc_chart(rows, measured.labels, measured.summary, multilabel=multilabel)
    caption = roc_caption(rows, measured.labels, multilabel=multilabel)
    yield Chart(svg_of(chart), caption, f"Area under the curve {entry['value']:.3f}. {caption}")


def _confusions(measured: _Measured) -> Iterator[Block]:
    labels, rows = measured.labels, measured.rows
    if measured.results.get("multilabel"):
        true, said = (
            np.array([true_classes(row[key], labels, multilabel=True) for row in rows])
            for key in ("class", "predicted")
        )
        counts = np.stack([true & said, true & ~said, ~true & said, ~true & ~said]).sum(axis=1).T
        listed = [(label, *map(str, own)) for label, own in zip(labels, counts.tolist(), strict=True)]
        header = ("class", "found", "missed", "false alarm", "rightly absent")
        yield Table(header, listed, "Cases, at a probability of 0.5.")
    elif len(labels) <= _CLASSES:
        caption = confusion_caption(rows, labels)
        yield Chart(svg_of(confusion_chart(rows, labels)), caption, caption)
    else:
        found = confusion(rows, labels)
        wrong = Counter({place: int(count) for place, count in np.ndenumerate(found) if place[0] != place[1]})
        most = [(labels[true], labels[said], str(count)) for (true, said), count in wrong.most_common(_LISTED) if count]
        told = f"The most frequent confusions of {len(labels)} classes."
        yield Table(("ground truth", "predicted", "cases"), most, told)


def _pictures(folder: Path) -> Iterator[Block]:
    if not (folder / PICTURES).exists():
        yield Missing("No pictures are kept here: an earlier version made these results, or nothing could be shown.")
        return
    about, arrays = read_pictures(folder)
    segments = any(name.endswith("/truth") for name in arrays)
    if not about["shown"]:
        yield Missing("There is none: no prediction is wrong, or no ground truth holds a structure.")
        return
    drawn = [_views(about["labels"], f"{index}/", one, arrays) for index, one in enumerate(about["shown"])]
    titles = [f"{one['title']}, {one['case']}: {one['note']}" for one in about["shown"]]
    caption, legend = "Solid: ground truth; dashed: prediction." if segments else "", _legend(about["labels"], arrays)
    if all(len(slides) == 1 for views in drawn for slides in views.values()):  # images, one beside the other
        planes = {
            f"{title}{f', {name}' if len(views) > 1 else ''}": slides
            for title, views in zip(titles, drawn, strict=True)
            for name, slides in views.items()
        }
        for first in range(0, len(planes), _BESIDE):
            row = dict(list(planes.items())[first : first + _BESIDE])
            yield Slides("Cases", row, caption or "What was predicted of each image, and the truth.", legend=legend)
        return
    moves = " The slider goes from one end of the structures to the other; its middle is where the largest is largest."
    for title, views in zip(titles, drawn, strict=True):
        yield Slides(title, views, f"{title}. {caption}{moves if segments else ''}", legend=legend)


def _views(labels: Sequence[str], prefix: str, shown: Mapping[str, Any], arrays: Arrays) -> dict[str, list[Slide]]:
    """Draw the slices of a case, by plane and channel."""
    views: dict[str, list[Slide]] = {}
    channels = {view["channel"] for view in shown["views"]}
    for index, view in enumerate(shown["views"]):
        layers = [arrays.get(f"{prefix}{index}/{name}") for name in ("scan", "truth", "predicted")]
        if (scans := layers[0]) is None:
            continue
        plane = plane_title(view["plane"])
        name = f"{view['channel']}, {plane}" if len(channels) > 1 else plane
        views[name] = []
        for place in range(len(scans)):
            scan, truth, predicted = (None if layer is None else layer[place] for layer in layers)
            how = {"count": len(labels) - 1, "spacing": tuple(view["spacing"]), "side": _SIDE}
            picture = outlines(scans[place] if scan is None else scan, truth, predicted, **how)
            number = f"slice {place + 1} of {len(scans)}" if len(scans) > 1 else ""
            views[name].append(Slide(encoded(picture), number, f"{shown['case']}, {name}, {number}: {shown['note']}"))
    return views


def _legend(labels: Sequence[str], arrays: Arrays) -> dict[str, str]:
    """Return the colours of the structures that are seen most."""
    shades = [hex_of(colour) for colour in colours(len(labels) - 1)]
    seen = [array.ravel() for name, array in arrays.items() if not name.endswith("/scan")]
    counts = np.bincount(np.concatenate([*seen, [0]]), minlength=len(labels))[: len(labels)]
    most = sorted(np.argsort(-counts[1:], kind="stable")[:_LEGEND].tolist())
    return {str(labels[index + 1]): shades[index] for index in most if counts[index + 1]}


def _folds(measured: _Measured) -> Iterator[Block]:
    rows: list[tuple[str | Link, ...]] = []
    for fold, value in enumerate(measured.folds):
        page = Path(f"fold{fold}") / "report.html"
        link = Link(f"fold {fold}", page.as_posix()) if (measured.records.folder / page).is_file() else f"fold {fold}"
        cases = sum(row.get("fold") == fold for row in measured.rows)
        rows.append((link, str(cases), "—" if value is None else f"{value:.3f}"))
    told = "Each fold is a run of its own, with pictures of its cases. The results above are of all together."
    yield Table(("fold", "test cases", METRICS[measured.main].title), rows, told)


def _data(records: Records, *, pooled: bool) -> Iterator[Block]:
    split = dig(records.results, "split", default={})
    if isinstance(split, Mapping) and split:
        kinds = ("patients", "cases")
        rows = [(part, *(str(dig(counts, kind, default="")) for kind in kinds)) for part, counts in split.items()]
        yield Table(("part", *kinds), rows, "No patient is in two parts; split.json names the cases.")
    elif split := dig(records.run, "split", default={}):
        rows = [(part, str(len(names))) for part, names in split.items()]
        yield Table(("part", "cases"), rows, "As the run was asked for; split.json names the cases.")
    if not pooled:  # each fold's page says what it refused
        yield from refused_blocks(records.folder)
