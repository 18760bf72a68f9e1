"""The table of results as people read it: text, Markdown, LaTeX, CSV."""

from modelsgenesis.errors import DataError
from modelsgenesis.files import read_csv
from modelsgenesis.metrics.measures import explanations, summarize_rows
from modelsgenesis.metrics.tables import results_table

NAN = float("nan")


def row(case, dice, distance, unit="mm"):
    one = {"case": case, "patient": case, "distance_unit": unit}
    values = {"a_1": (dice, distance), "b|c": (0.5, 2.0)}
    for name, (overlap, far) in values.items():
        one |= {f"dice {name}": overlap, f"iou {name}": overlap / 2, f"hausdorff95 {name}": far}
    return one


def summary_of(*rows):
    labels = ["background", "a_1", "b|c"]
    return summarize_rows(rows, labels, task="segmentation", resamples=50)


def test_a_row_per_structure_in_every_format(tmp_path):
    summary = summary_of(row("p", 0.9, 1.0), row("q", 0.7, 3.0), row("r", NAN, NAN))
    table = results_table({(): summary}, notes=explanations(summary))
    assert table.header == ("structure", "Dice", "IoU", "HD95 (mm)")
    assert [cells[0] for cells in table.rows] == ["mean", "a_1", "b|c"]
    assert table.rows[1][1:] == ("0.800 (0.700–0.900)", "0.400 (0.350–0.450)", "2.00 (1.00–3.00)")
    assert "Dice of a_1: mean over 2 of 3 cases (in the others the ground truth is empty)" in table.notes
    table.write(tmp_path)
    rows = read_csv(tmp_path / "results.csv", DataError)
    assert rows[1]["structure"] == "a_1"
    assert float(rows[1]["hausdorff95_mm"]) == 2
    assert float(rows[1]["dice_low"]) == 0.7
    markdown, latex = ((tmp_path / f"results.{ending}").read_text() for ending in ("md", "tex"))
    assert r"| b\|c      |" in markdown
    assert len({len(line) for line in markdown.splitlines()[:5]}) == 1  # aligned, so that it reads as text
    assert r"a\_1 & 0.800 (0.700--0.900) & 0.400 (0.350--0.450) & 2.00 (1.00--3.00) \\" in latex.splitlines()
    assert latex.index("\\begin{tabular}{llll}") < latex.index("\\toprule") < latex.index("\\end{tabular}")


def test_distances_of_pictures_are_in_pixels_and_never_mixed_with_millimetres():
    pictures = summary_of(row("p", 0.9, 1.0, "pixels"), row("q", 0.7, 3.0, "pixels"))
    assert results_table({(): pictures}).header[-1] == "HD95 (pixels)"
    mixed = summary_of(row("p", 0.9, 1.0), row("q", 0.7, 3.0, "pixels"))
    assert mixed["hausdorff95 a_1"]["value"] is None
    assert "HD95 is undefined: cases are in mm and in pixels" in explanations(mixed)
    assert mixed["dice a_1"]["value"] == 0.8


def test_leading_columns_and_spreads():
    runs = {"value": 0.8, "std": 0.01}
    table = results_table(
        {("5", "scratch"): {"dice": runs}, ("5", "ours"): {"dice": runs}}, ("labels", "init"), alone="x"
    )
    assert table.rows[1] == ("5", "ours", "x", "0.800 ± 0.010")
    assert table.records[0] == {"labels": "5", "init": "scratch", "structure": "x", "dice": 0.8, "dice_sd": 0.01}
    assert r"0.800 $\pm$ 0.010" in table.to_latex()
    signs = results_table({(): {"dice": runs}}, alone="a<b>c|d & 5%~")
    assert r"a$<$b$>$c$|$d \& 5\%\textasciitilde{} & " in signs.to_latex()
