"""What lies beside a prediction for people: its picture, and names and colours for other viewers."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import Volume
from modelsgenesis.data.finding import files_within, scan_sources
from modelsgenesis.data.predictions import is_prediction, written_files
from modelsgenesis.errors import DataError
from modelsgenesis.figures.colours import colours
from modelsgenesis.inference.label_tables import write_label_tables
from modelsgenesis.reports.previews import Entry, draw_preview, structure_legend
from recorded_notes import Notes
from tiny_bundles import OBLIQUE, write_bundle

LABELS = ("background", "bright", 'dark "part"\n2')
SNAP = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([01])\s+([01])\s+([01])\s+"([^"]*)"')


def test_3d_slicer_and_itk_snap_read_names_and_colours(tmp_path):
    files = written_files(tmp_path / "liver.nii.gz")
    write_label_tables(files, LABELS)
    assert (files.slicer.name, files.itksnap.name) == ("liver.ctbl", "liver_labels.txt")
    header, *lines = files.slicer.read_text().splitlines()
    assert header.startswith("# Color table file")  # by which Slicer knows a table
    rows = [line.split() for line in lines if not line.startswith("#")]
    shades = [list(map(str, colour)) for colour in colours(2)]
    assert rows == [
        ["0", "background", "0", "0", "0", "0"],
        ["1", "bright", *shades[0], "255"],
        ["2", 'dark_"part"\\n2', *shades[1], "255"],
    ]
    lines = [line for line in files.itksnap.read_text().splitlines() if not line.startswith("#")]
    found = [SNAP.fullmatch(line).groups() for line in lines]
    assert found == [
        ("0", "0", "0", "0", "0", "0", "0", "Clear Label"),
        ("1", *shades[0], "1", "1", "1", "bright"),
        ("2", *shades[1], "1", "1", "1", "dark 'part'\\n2"),
    ]


def pixels(path):
    with Image.open(path) as picture:
        return {shade for _, shade in picture.convert("RGB").getcolors(picture.width * picture.height)}


def test_a_preview_shows_each_structure_in_its_colour(tmp_path):
    labels = np.zeros((20, 24, 16), np.uint8)
    labels[4:12, 6:16, 4:12] = 2
    labels[14:17, 6:16, 4:12] = 1
    scan = Volume(array=np.random.default_rng(0).normal(size=labels.shape), affine=OBLIQUE, source="scan")
    legend = structure_legend(LABELS, {"bright": "1 mL", LABELS[2]: "2 mL"})
    both = draw_preview(tmp_path / "both.png", "scan", scan, legend, labels, 2)
    assert {*colours(2)} <= pixels(both)
    with Image.open(both) as picture:
        assert picture.width > 2 * picture.height  # three planes beside one another
    one = draw_preview(tmp_path / "one.png", "scan", scan, structure_legend(LABELS, {}), labels * 0, 2)
    assert not {*colours(2)} & pixels(one)
    assert is_prediction(tmp_path / "one_preview.png") is False
    assert structure_legend(LABELS, {}) == [Entry("no structure was found", bold=True)]


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "scans").mkdir()
    for name in "ab":
        array = np.random.default_rng(ord(name)).integers(-1000, 1000, (20, 18, 16)).astype(np.int16)
        nib.save(nib.Nifti1Image(array, OBLIQUE), tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


def test_predictions_are_drawn_beside_them_and_found_to_be_no_scans(model, scans):
    found = modelsgenesis.predict_all(model, scans, output=scans / "out", preview=True, device="cpu")
    assert [one.preview for one in found.predictions] == [scans / "out" / f"{name}_preview.png" for name in "ab"]
    assert found.predictions[0].to_dict()["preview"].endswith("a_preview.png")
    assert {*colours(2)} & pixels(found.predictions[0].preview)
    assert {path.name for path in (scans / "out").iterdir()} == {
        *(f"{name}{ending}" for name in "ab" for ending in (".nii.gz", ".json", "_preview.png")),
        *(f"predictions{ending}" for ending in (".csv", ".json", ".ctbl", "_labels.txt")),
    }
    there, skipped = scan_sources(scans)  # as scan and pretrain find them
    assert [one.path.name for one in there] == ["a.nii.gz", "b.nii.gz"]
    aside = {f"{name}{ending}" for name in "ab" for ending in (".nii.gz", "_preview.png")}
    assert {Path(one.source).name for one in skipped} == aside
    assert {(one.reason, one.bad) for one in skipped} == {("an earlier prediction of this package", False)}
    masks, skipped = files_within(scans / "out")  # as evaluate finds label maps
    assert [mask.name for mask in masks] == ["a.nii.gz", "b.nii.gz"]
    theirs = scans / "out" / "b_preview.png"
    Image.new("L", (8, 8)).save(theirs)
    files = [scans / "a.nii.gz", scans / "b.nii.gz"]
    with pytest.raises(DataError, match=r"b_preview\.png: exists and is not a preview"):
        modelsgenesis.predict_all(model, files, output=scans / "out", preview=True, device="cpu")
    again = modelsgenesis.predict_all(model, files, output=scans / "out", device="cpu")
    assert [one.name for one in again.predictions] == ["a", "b"]
    assert not (scans / "out" / "a_preview.png").exists()  # of the predictions that were replaced
    assert theirs.exists()


def test_classes_are_drawn_beside_their_table(tmp_path):
    labels = ("healthy", "ill")
    model = write_bundle(
        tmp_path / "m", task="classification", contract=CONTRACTS["xray"], patch_size=(16, 16), labels=labels
    )
    (tmp_path / "x").mkdir()
    for name in "ab":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 24), np.uint8)).save(
            tmp_path / "x" / f"{name}.png"
        )
    found = modelsgenesis.predict_all(model, tmp_path / "x", output=tmp_path / "x", preview=True, device="cpu")
    assert [one.preview.name for one in found.predictions] == ["a_preview.png", "b_preview.png"]
    again = modelsgenesis.predict_all(model, tmp_path / "x", output=tmp_path / "x", preview=True, device="cpu")
    assert [one.name for one in again.predictions] == ["a", "b"]
    modelsgenesis.predict_all(model, tmp_path / "x", output=tmp_path / "x", device="cpu")
    assert not list((tmp_path / "x").glob("*_preview.png"))  # they would show what the new table does not say
    (tmp_path / "x" / "c.png").write_bytes((tmp_path / "x" / "a.png").read_bytes())
    (tmp_path / "x" / "c_preview.png").write_bytes((tmp_path / "x" / "a.png").read_bytes())
    with pytest.raises(DataError, match=r"c_preview\.png: .*(replace the scan|is not a preview)"):
        modelsgenesis.predict_all(model, tmp_path / "x", output=tmp_path / "x", preview=True, device="cpu")


def test_a_picture_that_cannot_be_drawn_is_a_warning(model, scans, tmp_path, monkeypatch):
    def fail(*arguments):
        raise ValueError("no font")

    monkeypatch.setattr("modelsgenesis.prediction.draw_preview", fail)
    notes = Notes()
    how = {"output": tmp_path / "x.nii.gz", "preview": True, "device": "cpu", "reporter": notes}
    found = modelsgenesis.predict_all(model, scans / "a.nii.gz", **how)
    assert found.predictions[0].path.is_file()
    assert found.predictions[0].preview is None
    assert any("x_preview.png could not be drawn: no font" in note for note in notes.notes)
