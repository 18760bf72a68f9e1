"""`view` on the command line: the address on stdout, and an end by Ctrl-C in one line."""

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis import viewer
from modelsgenesis.errors import Interrupted


def interrupt(self):
    raise Interrupted(2, "interrupted")


def test_the_address_is_the_result_and_ctrl_c_closes_the_viewer(command, tmp_path, monkeypatch):
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "scan.nii")
    opened = list[str]()
    monkeypatch.setattr(viewer, "_niivue", lambda: tmp_path)
    monkeypatch.setattr(viewer.Viewer, "wait", interrupt)
    monkeypatch.setattr(viewer.webbrowser, "open", opened.append)
    shown = command("view", tmp_path / "scan.nii", "--no-open")
    assert (shown.status, opened) == (0, [])
    assert shown.out.startswith("http://127.0.0.1:")
    assert shown.err.splitlines() == ["only this machine can open this address; Ctrl-C closes the viewer", "closed"]
    shown = command("view", tmp_path / "scan.nii")
    assert opened == [shown.out.strip()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.nii.gz"], "none.nii.gz"),
        (["scan.nii", "--port", "70000"], "--port"),
        (["scan.nii", "lost.nii.gz"], "lost.nii.gz: there is no such file; expected a label map"),
    ],
)
def test_wrong_use_is_one_line(command, tmp_path, monkeypatch, arguments, said):
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "scan.nii")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(viewer, "_niivue", lambda: tmp_path)
    shown = command("view", *arguments, "--no-open")
    assert shown.status in (1, 2)
    assert said in shown.err
    assert shown.err.count("\n") == 1


def test_without_the_extra_the_command_names_it(command, tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "find_spec", lambda name: None)
    shown = command("view", tmp_path)
    assert (shown.status, shown.out) == (1, "")
    assert "pip install 'modelsgenesis[viewer]'" in shown.err
