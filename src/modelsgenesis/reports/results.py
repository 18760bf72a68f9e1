"""The page of a fine-tuning, of its folds together, and of an evaluation: what was measured, and the telling cases."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.errors import counted
from modelsgenesis.figures import measured as charts
from modelsgenesis.figures.charts import read_log, svg_of
from modelsgenesis.figures.colours import colours, hex_of
from modelsgenesis.figures.pictures import outlines, plane_title
from modelsgenesis.metrics.measures import METRICS, Row, case_scores, dice_of, explanations, metrics_of, true_classes
from modelsgenesis.metrics.tables import basis_of, results_table
from modelsgenesis.reports.cases import telling_cases
from modelsgenesis.reports.page import (
    Block,
    Chart,
    Link,
    Missing,
    Page,
    Slide,
    Slides,
    Table,
    encoded,
    try_section,
)
from modelsgenesis.reports.pictures import PICTURES, Arrays, read_pictures
from modelsgenesis.reports.pretraining import curve_blocks, refused_blocks
from modelsgenesis.reports.recipe import recipe_blocks
from modelsgenesis.reports.records import Records, dig, unfinished
from modelsgenesis.training.results import TEST_NAME, read_measured, read_rows

_SIDE = 256  # pixels of a picture's longer side
_LISTED = 20  # cases or confusions in a table
_COLUMNS = 6  # structures that have a column in the table of cases
_FIRST = 10  # of many structures the worst and the best, which come first
_LEGEND = 12  # structures that a legend names
_CLASSES = 24  # whose confusion matrix can be read
_SENTENCES = 5  # below a table


def results_page(records: Records) -> Page:
    """Return the report of a fine-tuning, finished or not, of all its folds together, or of an evaluation."""
    folder, results, evaluated = records.folder, records.results, _evaluated(records)
    pooled = dig(results, "folds") is not None and dig(results, "fold") is None
    alone, measured, segments = not (pooled or evaluated), bool(records.summary), _main(records) == "dice"
    pictures = measured and not pooled, partial(_pictures, folder)
    parts = {
        "Results": (measured, partial(_table, records)),
        "Each case": (measured and segments, partial(_each_case, records)),
        "Receiver operating characteristic": (measured and not segments, partial(_roc, records)),
        "Confusion matrix": (measured and not segments, partial(_confusions, records)),
        "Best, median and worst case" if segments else "The surest wrong predictions": pictures,
        "Folds": (pooled, partial(_folds, records)),
        "Learning curve": (alone, partial(curve_blocks, folder)),
        "Not measured": (evaluated and results.get("refused"), partial(refused_blocks, folder)),
        "Data": (not evaluated, partial(_data, records, pooled=pooled)),
        "Recipe and command": (alone, partial(recipe_blocks, records)),
    }
    sections = tuple(try_section(title, build) for title, (shown, build) in parts.items() if shown)
    remarks = [] if evaluated else unfinished(records, *_resuming(records))
    remarks += [str(one) for one in dig(results, "remarks", default=())]
    kind = "evaluation" if evaluated else "fine-tuning, folds together" if pooled else "fine-tuning"
    heads = {"title": folder.resolve().name, "kind": kind, "verdict": _verdict(records), "facts": _facts(records)}
    return Page(**heads, sections=sections, remarks=(*remarks, *records.problems))


def _evaluated(records: Records) -> bool:
    return records.kind == "evaluation"


def _on(records: Records) -> str:
    return "patient" if _evaluated(records) else "test patient"


def _rows(records: Records) -> list[Row]:
    if _evaluated(records):
        return read_measured(records.folder / "cases.csv")
    return read_rows(records.folder, records.results)


def _main(records: Records) -> str:
    """Return the metric that counts."""
    return metrics_of(str(records.results.get("task", "segmentation")))[0]


def _resuming(records: Records) -> tuple[int, str]:
    """Return how many steps are done, and the command for the others."""
    steps = read_log(records.folder / "log.csv")
    command = shlex.join(["modelsgenesis", "finetune", "--output", str(records.folder), "--resume"])
    if dig(records.run, "config", "fold") is not None:  # its folder is not the output that it was started with
        command = "repeat the command of all folds with --resume"
    return int(steps["step"][-1]) if steps else 0, command


def _verdict(records: Records) -> str:
    if not records.summary:
        none = "There are no test patients: nothing was measured."
        return none if records.results else "No test case is measured yet."
    main = _main(records)
    entry, title = dig(records.summary, main, default={}), METRICS[main].title
    on = f"on {counted(dig(records.results, 'patients', default=0), _on(records))}"
    if not isinstance(entry.get("value"), float | int):
        return f"{title} is undefined {on}: {entry.get('reason', 'there is no value')}."
    ends = [entry.get(end) for end in ("low", "high")]
    between = "" if None in ends else f" (95% interval {ends[0]:.3f} to {ends[1]:.3f})"
    over = sum(name.startswith(f"{main} ") for name in records.summary)
    kind = "structures" if main == "dice" else "classes"
    return f"{title} {entry['value']:.3f}{between} {on}{f', the mean over {over} {kind}' if over > 1 else ''}."


def _facts(records: Records) -> dict[str, str]:
    results, run, bundle = records.results, records.run, records.bundle
    labels = list(map(str, dig(results, "labels", default=())))
    kind, named = ("Structures", labels[1:]) if _main(records) == "dice" else ("Classes", labels)
    patients, cases = dig(results, "patients", default=0), dig(results, "cases", default=0)
    model, init = dig(results, "model", default=""), dig(results, "init", default=dig(run, "init", default="random"))
    return {
        "Data": str(results.get("data", "")),
        kind: ", ".join(named) if len(named) < 5 else str(len(named)),
        "Measured on": f"{counted(patients, _on(records))}, {counted(cases, 'case')}" if cases else "",
        "Initial weights": "" if _evaluated(records) else str(init),
        "Kept network": f"step {results['step']:,} of {results['steps']:,}" if "steps" in results else "",
        "Hardware": str(dig(bundle, "provenance", "environment", "hardware", default="")),
        "Model": ", ".join(map(str, model)) if isinstance(model, list) else str(model),
        "Predictions": Path(str(dig(results, "predictions", default=""))).name,
        "Cases": {"test": "those of the split's test part", "all": "all"}.get(str(results.get("part")), ""),
        "Not measured": counted(results["refused"], "case") if results.get("refused") else "",
    }


def _table(records: Records) -> Iterator[Block]:
    results, said, main = records.results, explanations(records.summary), _main(records)
    if len(said) > _SENTENCES:
        said[_SENTENCES:] = [f"{len(said) - _SENTENCES} more metrics are undefined or leave out cases"]
    folds = len(dig(records.summary, main, "folds", default=()))
    notes = [basis_of(results["patients"], results["cases"], what=_on(records), folds=folds), *said]
    options = {"alone": results["labels"][-1], "specificity": results.get("specificity"), "notes": notes}
    table = results_table({(): records.summary}, **options)
    rows, caption = list(table.rows), f"{'. '.join(table.notes)}."
    if len(rows) > 3 * _FIRST:
        values = {index: dig(record, main) for index, record in enumerate(table.records) if index}
        ranked = sorted((index for index in values if values[index] is not None), key=lambda index: values[index])
        rows = [rows[index] for index in dict.fromkeys([0, *ranked[:_FIRST], *ranked[-_FIRST:], *range(len(rows))])]
        caption += f" Below the mean come the {_FIRST} lowest and the {_FIRST} highest, then the others."
    yield Table(table.header, rows, caption)


def _each_case(records: Records) -> Iterator[Block]:
    rows = _rows(records)
    scores = case_scores(rows)
    if np.isnan(scores).all():
        yield Missing(f"No ground truth of {counted(len(rows), 'case')} holds a structure, so no Dice is defined.")
        return
    marked = {row["case"]: title.removesuffix(" case").lower() for title, row in telling_cases(rows).items()}
    low, middle, high = np.nanpercentile(scores, (0, 50, 100))
    alt = f"Dice of each case: lowest {low:.3f}, median {middle:.3f}, highest {high:.3f}"
    yield Chart(svg_of(charts.strip_chart(rows, marked if len(rows) > 2 else {})), charts.strip_caption(rows), alt)
    ranked = [rows[index] for index in np.argsort(scores, kind="stable")]  # what is undefined comes last
    structures = list(dice_of(rows[0]))
    columns = structures if 1 < len(structures) <= _COLUMNS else []
    listed: list[tuple[str, ...]] = []
    for row in ranked[:_LISTED]:
        values = [case_scores([row])[0], *(dice_of(row)[name] for name in columns)]
        listed.append((row["case"], row["patient"], *("—" if np.isnan(one) else f"{one:.3f}" for one in values)))
    told = f"The lowest Dice first{f', {_LISTED} of {len(rows):,} cases' if len(rows) > _LISTED else ''}."
    name = "cases.csv" if _evaluated(records) else TEST_NAME
    yield Table(("case", "patient", "Dice", *columns), listed, f"{told} All metrics of each case: {name}.")


def _roc(records: Records) -> Iterator[Block]:
    rows, labels, multilabel = _rows(records), records.results["labels"], bool(records.results.get("multilabel"))
    if (entry := dig(records.summary, "auc", default={})).get("value") is None:
        yield Missing(f"There is no curve: {entry.get('reason', 'no area is defined')}.")
        return
    chart = charts.roc_chart(rows, labels, records.summary, multilabel=multilabel)
    caption = charts.roc_caption(rows, labels, multilabel=multilabel)
    yield Chart(svg_of(chart), caption, f"Area under the curve {entry['value']:.3f}")


def _confusions(records: Records) -> Iterator[Block]:
    labels, rows = records.results["labels"], _rows(records)
    if records.results.get("multilabel"):
        true, said = (
            np.array([true_classes(row[key], labels, multilabel=True) for row in rows])
            for key in ("class", "predicted")
        )
        counts = np.stack([true & said, true & ~said, ~true & said, ~true & ~said]).sum(axis=1).T
        listed = [(label, *map(str, own)) for label, own in zip(labels, counts.tolist(), strict=True)]
        header = ("class", "found", "missed", "false alarm", "rightly absent")
        yield Table(header, listed, "Cases, at a probability of 0.5.")
    elif len(labels) <= _CLASSES:
        chart, caption = charts.confusion_chart(rows, labels), charts.confusion_caption(rows, labels)
        yield Chart(svg_of(chart), caption, "Confusion matrix")
    else:
        found = charts.confusion(rows, labels)
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
        yield Slides("Cases", planes, caption or "What was predicted of each image, and the truth.", legend=legend)
        return
    moves = " The slider goes from one end of the structures to the other; its middle is where the largest is largest."
    for title, views in zip(titles, drawn, strict=True):
        yield Slides(title, views, f"{title}. {caption}{moves if segments else ''}", legend=legend)


def _views(labels: Sequence[str], prefix: str, shown: Mapping[str, Any], arrays: Arrays) -> dict[str, list[Slide]]:
    """Draw the slices of a case, by plane and channel."""
    views: dict[str, list[Slide]] = {}
    channels = {view["channel"] for view in shown["views"]}
    for index, view in enumerate(shown["views"]):
        scans, *maps = (arrays.get(f"{prefix}{index}/{name}") for name in ("scan", "truth", "predicted"))
        if scans is None:
            continue
        plane = plane_title(view["plane"])
        name = f"{view['channel']}, {plane}" if len(channels) > 1 else plane
        views[name] = []
        for place, scan in enumerate(scans):
            how = {"count": len(labels) - 1, "spacing": tuple(view["spacing"]), "side": _SIDE}
            picture = outlines(scan, *(one if one is None else one[place] for one in maps), **how)
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


def _folds(records: Records) -> Iterator[Block]:
    measured = _rows(records)
    rows: list[tuple[str | Link, ...]] = []
    for fold, value in enumerate(dig(records.summary, _main(records), "folds", default=())):
        page = Path(f"fold{fold}") / "report.html"
        link = Link(f"fold {fold}", page.as_posix()) if (records.folder / page).is_file() else f"fold {fold}"
        cases = sum(row.get("fold") == fold for row in measured)
        rows.append((link, str(cases), "—" if value is None else f"{value:.3f}"))
    told = "Each fold is a run of its own, with pictures of its cases. The results above are of all together."
    yield Table(("fold", "test cases", METRICS[_main(records)].title), rows, told)


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
