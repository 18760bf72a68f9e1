"""The page of a fine-tuning, of folds and of an evaluation."""

import json

import numpy as np
import pytest

from modelsgenesis.errors import DataError
from modelsgenesis.figures.colours import colours, hex_of
from modelsgenesis.figures.measured import confusion_chart, roc_chart, strip_caption, strip_chart
from modelsgenesis.files import sha256_of, write_csv
from modelsgenesis.hub.push import check_run
from modelsgenesis.metrics.measures import UNIT, summarize_rows
from modelsgenesis.reports import page_of
from modelsgenesis.reports.page import Chart, Link, Missing, Table, render
from modelsgenesis.reports.pictures import save_pictures

HOSTILE = "<script>alert('x')</script>"
NAN = float("nan")


def blocks(page, title):
    return next(section.blocks for section in page.sections if section.title == title)


def segmented(count=6, structures=("liver", "spleen"), empty=()):
    """Rows of cases whose Dice grows; those at the places `empty` have no structure."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(count):
        dice = {name: NAN if index in empty else float(random.uniform(index / count, 1)) for name in structures}
        measured = {f"{metric} {name}": value for metric in ("dice", "iou") for name, value in dice.items()}
        rows.append({"file": "x", "case": f"{HOSTILE}{index}", "patient": f"p{index}", UNIT: "mm", **measured})
    return rows


def classified(count=40, labels=("healthy", "ill"), folds=1):
    random = np.random.default_rng(1)
    rows = []
    for index in range(count):
        true = index % len(labels)
        soft = random.dirichlet(np.ones(len(labels)) + 3 * np.eye(len(labels))[true])
        chosen = {"class": labels[true], "predicted": labels[int(soft.argmax())]}
        chosen |= {f"prob_{name}": float(value) for name, value in zip(labels, soft, strict=True)}
        rows.append({"file": "x", "case": f"c{index}", "patient": f"p{index // 2}", "fold": index % folds, **chosen})
    return rows


def evaluation(folder, rows, labels, task="segmentation", **more):
    """The folder of an evaluation, as `evaluate` writes it."""
    summary = summarize_rows(rows, labels, task=task, resamples=20, multilabel=more.get("multilabel", False))
    content = {"task": task, "data": "x", "model": "m", "part": "all", "labels": labels, "patients": len(rows)}
    content |= {"cases": len(rows), "refused": 0, "metrics": summary, **more}
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    write_csv(folder / "cases.csv", rows, DataError)
    return page_of(folder)


def test_a_fine_tuning_ends_in_a_page_that_shows_its_cases_and_none_of_it_is_uploaded(finetuned):
    run, measured = finetuned
    page = page_of(run)
    assert page.verdict.startswith(f"Dice {measured['dice']:.3f} on 1 test patient, the mean over 2 structures.")
    assert any("only 1 test patient" in remark for remark in page.remarks)
    assert isinstance(blocks(page, "Each case")[0], Chart)
    (slides,) = blocks(page, "Best, median and worst case")
    assert [*slides.planes][:2] == ["axial, right on the left", "coronal, right on the left"]
    assert slides.legend == {"bright": "#0072b2", "dark": "#e69f00"}
    assert blocks(page, "Data")[0].rows[2] == ("test", "1", "1")
    text = (run / "report.html").read_text()
    assert "data:image/webp" in text
    assert not {"report.html", "report.npz", "refused.csv"} & set(check_run(run, include_figures=True).files)
    assert not any("predictions" in name for name in check_run(run, include_figures=True).files)


def test_folds_link_to_their_pages(tmp_path):
    rows = classified(12, folds=3)
    summary = summarize_rows(rows, ["healthy", "ill"], task="classification", resamples=20)
    summary["auc"]["folds"] = [0.5, None, 1.0]
    results = {"task": "classification", "labels": ["healthy", "ill"], "patients": 6, "cases": 12, "folds": 3}
    write_csv(tmp_path / "test.csv", rows, DataError)
    results |= {"fold": None, "test": summary, "rows_sha256": sha256_of(tmp_path / "test.csv")}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0" / "report.html").touch()
    page = page_of(tmp_path)
    (folds,) = blocks(page, "Folds")
    expected = [(Link("fold 0", "fold0/report.html"), "4", "0.500"), ("fold 1", "4", "—"), ("fold 2", "4", "1.000")]
    assert list(folds.rows) == expected
    assert not any(isinstance(block, Missing) for block in blocks(page, "Data"))
    assert "Mean of the curves of 3 folds" in blocks(page, "Receiver operating characteristic")[0].caption


@pytest.mark.parametrize(("cases", "structures"), [(500, 2), (12, 200), (1, 1)])
def test_many_cases_and_structures_stay_readable(tmp_path, cases, structures):
    names = [f"structure {index} {HOSTILE}" for index in range(structures)]
    rows = segmented(cases, names, empty=range(cases // 3))
    page = evaluation(tmp_path / "out", rows, ["background", *names])
    chart, table = blocks(page, "Each case")
    assert len(chart.svg) < 1_000_000
    assert len(table.rows) <= 20
    assert structures == 1 or float(table.rows[0][2]) <= float(table.rows[1][2])
    (results,) = blocks(page, "Results")
    assert len(results.rows) == (structures + 1 if structures > 1 else 1)
    if structures == 200:
        values = [float(row[1].split()[0]) for row in results.rows[1:21]]
        assert values == sorted(values)
        assert values[-1] == max(float(row[1].split()[0]) for row in results.rows)
        assert "8 with the lowest and the 4 with the highest" in strip_caption(rows)
    text = render(page)
    assert "<script>alert" not in text
    assert len(text) < 5_000_000


def test_cases_without_any_structure_are_said(tmp_path):
    page = evaluation(tmp_path / "out", segmented(3, empty=range(3)), ["background", "liver", "spleen"])
    assert page.verdict.startswith("Dice is undefined on 3 patients: no case has the structure")
    assert blocks(page, "Each case") == (
        Missing("No ground truth of 3 cases holds a structure, so no Dice is defined."),
    )
    assert "earlier version" in blocks(page, "Best, median and worst case")[0].text
    rows = segmented(5, empty=(0, 1))
    assert "Not shown: 2 cases without any structure" in strip_caption(rows)
    assert strip_chart(rows, {rows[2]["case"]: "worst"}).axes


def test_strips_have_the_colours_of_outlines_and_names_that_do_not_overlap():
    structures = ("absent", "liver", "spleen")
    rows = [{**row, "dice absent": NAN} for row in segmented(9, structures)]
    marked = {rows[0]["case"]: "worst", rows[1]["case"]: "median", rows[8]["case"]: "best"}
    for index, value in {0: 0.50, 1: 0.51, 8: 0.95}.items():
        rows[index] |= {"dice liver": value, "dice spleen": value}
    axis = strip_chart(rows, marked).axes[0]
    points = [line.get_color() for line in axis.lines if line.get_marker() == "o" and line.get_fillstyle() == "full"]
    assert points == ["#000000", *map(hex_of, colours(3)[1:])]
    assert [text.get_text() for text in axis.texts] == ["worst, median", "best"]
    assert "Without a strip, as no ground truth has it: absent." in strip_caption(rows)


def test_classes_have_curves_and_confusions(tmp_path):
    page = evaluation(tmp_path / "two", classified(), ["healthy", "ill"], "classification")
    (chart,) = blocks(page, "Receiver operating characteristic")
    assert "ill against healthy. Band: 95% bootstrap interval over patients" in chart.caption
    (confusions,) = blocks(page, "Confusion matrix")
    assert "on the diagonal" in confusions.caption
    many = tuple(f"kind {index}" for index in range(30))
    rows = classified(300, many, folds=3)
    page = evaluation(tmp_path / "many", rows, list(many), "classification")
    (chart,) = blocks(page, "Receiver operating characteristic")
    assert "In colour the 7 with the smallest areas. Mean of the curves of 3 folds" in chart.caption
    (confusions,) = blocks(page, "Confusion matrix")
    assert isinstance(confusions, Table)
    alike = [{**row, "class": "ill"} for row in classified()]
    (missing,) = blocks(evaluation(tmp_path / "one", alike, ["healthy", "ill"], "classification"), "Confusion matrix")
    assert isinstance(missing, Chart)
    page = evaluation(tmp_path / "several", classified(), ["healthy", "ill"], "classification", multilabel=True)
    (table,) = blocks(page, "Confusion matrix")
    assert sum(map(int, table.rows[0][1:])) == 40


def test_the_curve_and_the_matrix_show_what_was_measured():
    rows = classified(4)
    for row, score in zip(rows, (0.2, 0.9, 0.4, 0.3), strict=True):
        row["prob_ill"] = score
    axis = roc_chart(rows, ["healthy", "ill"], {"auc": {"value": 0.75}}).axes[0]
    curve = axis.lines[1].get_xydata()
    assert {(0, 0.5), (0.5, 1.0)} <= {tuple(point) for point in curve.tolist()}
    texts = [text.get_text() for text in confusion_chart(classified(), ["healthy", "ill"]).axes[0].texts]
    assert sum(map(int, texts)) == 40


def test_pictures_of_images_stand_side_by_side_without_a_slider(tmp_path):
    views = [{"plane": "image", "channel": "grey", "spacing": [1, 1]}]
    shown = [{"title": HOSTILE, "case": f"c{index}", "note": "predicted ill", "views": views} for index in range(2)]
    arrays = {f"{index}/0/scan": np.full((1, 20, 30), 99, np.uint8) for index in range(2)}
    page = evaluation(tmp_path / "out", classified(), ["healthy", "ill"], "classification")
    save_pictures(tmp_path / "out", {"labels": ["healthy", "ill"], "shown": shown}, arrays)
    (slides,) = blocks(page_of(tmp_path / "out"), "The surest wrong predictions")
    assert list(slides.planes) == [f"{HOSTILE}, c{index}: predicted ill" for index in range(2)]
    assert slides.count == 1
    (tmp_path / "out" / "report.npz").write_bytes(b"PK damaged")
    (missing,) = blocks(page_of(tmp_path / "out"), "The surest wrong predictions")
    assert "could not be drawn: " in missing.text
    assert page.title == "out"


def test_a_run_that_was_cut_off_says_how_far_it_came(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"kind": "finetuning", "config": {"steps": 40}}))
    (tmp_path / "log.csv").write_text("step,loss\n1,0.5\n2,0.4\n3,0.")
    page = page_of(tmp_path)
    assert page.verdict == "No test case is measured yet."
    assert "at step 2 of 40. If it was cut off, resume it: modelsgenesis finetune" in page.remarks[0]
    assert isinstance(blocks(page, "Learning curve")[0], Chart)
    spaced = tmp_path / "my run"
    spaced.mkdir()
    run = {"kind": "finetuning", "config": {"steps": 40}}
    (spaced / "run.json").write_text(json.dumps(run))
    assert f"--output '{spaced}' --resume" in page_of(spaced).remarks[0]
    (spaced / "run.json").write_text(json.dumps({**run, "config": {"steps": 40, "fold": 0}}))
    assert page_of(spaced).remarks[0].endswith("repeat the command of all folds with --resume")
