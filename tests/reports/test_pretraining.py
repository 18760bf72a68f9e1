"""The report of a pretraining, from its folder alone: whole, cut off, and of an earlier version."""

import csv
import json
import re
import shlex
import shutil

import numpy as np
import pytest

from modelsgenesis import report
from modelsgenesis.data import SkippedScan
from modelsgenesis.hub.push import check_run
from modelsgenesis.reports.pictures import read_pictures
from modelsgenesis.reports.pretraining import keep_restorations, write_refused
from modelsgenesis.reports.recipe import recipe_blocks
from modelsgenesis.reports.records import read_records


@pytest.fixture
def run(genesis, tmp_path):
    return shutil.copytree(genesis, tmp_path / "a <b> run")


def test_a_run_ends_with_its_report(genesis):
    page = (genesis / "report.html").read_text()
    assert "patches are restored with a mean squared error of" in page
    for title in ("Restorations", "Learning curve", "Data", "Cost", "Recipe and command"):
        assert f">{title}</h2>" in page
    assert page.count('<p class="missing">') == 1
    assert '<p class="missing">Every scan was used.</p>' in page
    assert "3 training, 1 validation" in page
    assert page.count('<input type="range"') == 1
    about, pictures = read_pictures(genesis)
    assert about["step"] == 2
    assert set(pictures) == {"axial", "coronal", "sagittal"}
    assert pictures["coronal"].shape == (2, 3, 12, 16)


def test_what_a_run_keeps_for_its_report_stays_local(genesis):
    contents = check_run(genesis, include_figures=True)
    assert not [name for name in contents.files if "report" in name or "refused" in name]


def test_the_command_of_a_report_is_that_of_the_run(run):
    code, table = recipe_blocks(read_records(run))
    assert shlex.split(code.text) == ["modelsgenesis", "pretrain", "--config", str(run)]
    assert ("network.widths", "16 × 32", "16 × 32 × 64 × 128") in table.rows
    assert ("data.modality", "ct", "auto") in table.rows


def test_scans_that_were_not_used_are_listed(run):
    write_refused(run, [SkippedScan.because("a<script>.nii", "too short")] * 2)
    rows = csv.reader((run / "refused.csv").read_text().splitlines())
    assert list(rows) == [["source", "reason"], ["a<script>.nii", "too short"]]
    page = report(run).read_text()
    assert "a&lt;script&gt;.nii</th>" in page
    assert "1 scan not used; all are in refused.csv." in page
    assert "a &lt;b&gt; run</h1>" in page


def test_a_run_that_was_cut_off_and_one_of_an_earlier_version_have_reports(run):
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "finished": False}))
    for name in ("config.json", "model.safetensors", "report.npz", "refused.csv"):
        (run / name).unlink()
    (run / "log.csv").write_text("step,learning_rate,loss,samples_per_second\n1,0.1,0.5,9\n2,0.")
    (run / "validation.csv").unlink()
    page = report(run, run / "elsewhere.html").read_text()
    assert "No validation was completed: 1 step is done." in page
    assert "not finished when this page was made, at step 1 of 2" in page
    assert "No restorations are kept here" in page


def test_one_patch_of_planes_and_of_slices(tmp_path):
    for spacing, plane in (((1.0, 1.0), "image"), ((1.0, 1.0, 5.0), "axial")):
        keep_restorations(tmp_path, [np.linspace(-1, 2, 8 * 6).reshape(1, 1, 8, 6)] * 3, 7, spacing)
        about, pictures = read_pictures(tmp_path)
        assert about == {"step": 7, "spacing": [*spacing]}
        assert pictures[plane].shape == ((1, 3, 8, 6) if plane == "image" else (1, 3, 6, 8))
        assert (pictures[plane].min(), pictures[plane].max()) == (0, 255)
        assert re.search(r'alt="restored: patch 1', report_of_pictures(tmp_path))


def test_patches_are_seen_in_the_planes_of_the_patient_however_their_axes_run(tmp_path):
    volume = np.zeros((1, 1, 4, 6, 8))  # S, P, L
    volume[..., :2, :3, :4] = 1  # at the feet, in front, on the right
    keep_restorations(tmp_path, [volume] * 3, 7, (5.0, 2.0, 1.0), "SPL")
    about, pictures = read_pictures(tmp_path)
    assert about["spacing"] == [1.0, 2.0, 5.0]
    assert {plane: stack.shape[2:] for plane, stack in pictures.items()} == {
        "axial": (6, 8),
        "coronal": (4, 8),
        "sagittal": (4, 6),
    }
    keep_restorations(tmp_path, [volume[:, :, 1, :, :]] * 3, 7, (5.0, 2.0, 1.0), "LPS")
    assert set(read_pictures(tmp_path)[1]) == {"axial"}
    keep_restorations(tmp_path, [volume[..., 1]] * 3, 7, (5.0, 2.0, 1.0), "SPL")
    assert (set(read_pictures(tmp_path)[1])) == {"sagittal"}
    assert "sagittal, anterior on the left" in report_of_pictures(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"provenance": {"data": {"held_out": False}}}))
    assert "eld-out patch" not in report_of_pictures(tmp_path)


def report_of_pictures(folder):
    write_refused(folder, [])
    (folder / "validation.csv").write_text("step,restoration_loss\n7,0.5\n")
    return report(folder).read_text()
