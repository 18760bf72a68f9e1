"""Somebody in a notebook: what a cell ends with is a line or a small table, and Tab shows the API alone."""

from html.parser import HTMLParser

import nibabel as nib

CELLS = """
import pathlib
import modelsgenesis as mg
import nibabel as nib
import numpy as np

def show(value):  # as a notebook does with the value of a cell
    print(repr(value))
    page.append(f"<p>{value._repr_html_()}</p>")

page = ["<!doctype html><title>cells</title>"]
model = mg.from_pretrained("genesis-hippocampus-mri-3d-small", task="seg", labels=["background", "anterior"])
show(model)
show(model.report)
show(next(card for card in mg.list_cards("genesis-*") if card.name == model.name))
values = np.random.default_rng(0).normal(100, 20, (32, 32, 24)).astype(np.float32)
prediction = mg.predict(model, nib.Nifti1Image(values, np.eye(4)), device="cpu")
show(prediction)
nib.save(prediction.image, "labels.nii.gz")
print(len(dir(mg)), "import_module" in dir(mg))
pathlib.Path("page.html").write_text("\\n".join(page))
"""


class Paragraphs(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "p":
            self.texts.append("")
        if tag not in ("br", "p"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == "p" or self.open.pop() == tag

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data


def test_cells_show_a_line_and_a_page_that_opens(user):
    (user.home / "cells.py").write_text(CELLS)
    *shown, names = user.types("python cells.py").stdout.splitlines()
    kinds = ("GenesisModel(", "AdaptationReport(", "ModelCard(", "Prediction(")
    assert len(shown) == len(kinds)
    assert all(line.startswith(kind) and len(line) < 300 for line, kind in zip(shown, kinds, strict=True))
    assert int(names.split()[0]) < 45
    assert names.endswith("False")
    page = Paragraphs()
    page.feed((user.home / "page.html").read_text())
    assert "Classes: background, anterior" in page.texts[0]
    assert "voxels" in page.texts[3]
    assert page.open == []
    assert nib.load(user.home / "labels.nii.gz").shape == (32, 32, 24)
