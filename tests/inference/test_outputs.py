"""Output paths, chosen before the first file is written: nothing of the user's is lost."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelsgenesis.data import ScanReference
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.inference.cases import Case, output_name, output_paths


def case(path, name=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"scan")
    return Case(
        name=name or path.name.partition(".")[0],
        images=(ScanReference(path=path, files=(path,), format="NIfTI", shape=(8, 8, 8), spacing=None),),
    )


def choose(cases, output, task="segmentation", **options):
    return output_paths(cases, output, task=task, **{"many": len(cases) > 1, **options})[0]


@given(some.text(min_size=1))
def test_any_name_becomes_a_file_within_the_folder(name):
    found = output_name(name)
    for part in found.parts:
        assert part not in ("/", "..")
        assert len(f"{part}_probabilities.nii.gz".encode()) <= 255
        assert part.isprintable() or set(part) & set("\u00a0\u3000\u2003\u2002\u2009")
    assert output_name(str(found)) == found


def test_names_stay_apart_and_what_is_not_unicode_is_left_out():
    names = ["a\nb", "a\rb", "a_b", "a\x85b", "a\\b", "x" * 300, "x" * 301, "../../x", "/x", "../y", "M\udcfcller"]
    found = [str(output_name(name)) for name in names]
    assert len(set(found)) == len(names) - 1
    assert [found[2], *found[7:10]] == ["a_b", "x", "x", "y"]


@pytest.mark.parametrize(
    ("task", "given", "output", "written"),
    [
        ("segmentation", 1, None, ["s0_seg.nii.gz"]),
        ("segmentation", 1, "new/deep", ["new/deep/s0.nii.gz"]),
        ("segmentation", 2, None, ["predictions/s0.nii.gz", "predictions/s1.nii.gz"]),
        ("segmentation", 2, "out.v2", ["out.v2/s0.nii.gz", "out.v2/s1.nii.gz"]),
        ("classification", 2, None, ["predictions.csv"] * 2),
        ("classification", 1, "new", ["new/predictions.csv"]),
    ],
)
def test_where_predictions_go(tmp_path, monkeypatch, task, given, output, written):
    monkeypatch.chdir(tmp_path)
    cases = [case(tmp_path / f"s{index}.mha") for index in range(given)]
    assert [str(path) for _, path in choose(cases, output and Path(output), task)] == written


@pytest.mark.parametrize("link", [os.link, lambda file, other: other.symlink_to(file.resolve()), None])
@pytest.mark.parametrize("name", ["s.nii.gz", "s_probabilities.nii.gz"])
def test_a_prediction_replaces_no_scan_by_whatever_name(tmp_path, link, name):
    one, other = case(tmp_path / "in" / "s.nii.gz"), case(tmp_path / "in" / "other" / name)
    output = tmp_path / "out" if link else tmp_path / "in" / "other"
    if link:
        output.mkdir()
        link(other.images[0].path, output / name)
    with pytest.raises(DataError, match="replace the scan itself"):
        choose([one, other], output)


def test_a_link_within_the_output_leads_nowhere(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="a link leads out of"):
        choose([case(tmp_path / "s.nii", "sub/x")], tmp_path / "out")


@pytest.mark.parametrize("names", [("a", "A"), ("\u00e9", "e\u0301"), ("x", "x_probabilities"), ("x", "../x")])
def test_predictions_that_would_be_one_anothers_are_refused(tmp_path, names):
    cases = [case(tmp_path / f"{index}.nii", name) for index, name in enumerate((*names, "good"))]
    with pytest.raises(DataError, match="two scans would have this file; rename one"):
        choose(cases, tmp_path / "out")


@pytest.mark.parametrize(("task", "ending"), [("segmentation", ".nii.gz"), ("classification", ".csv")])
@pytest.mark.parametrize("content", ["by hand", "[[", '{"labels": {}}'])
def test_files_of_somebody_else_stay_and_own_predictions_are_replaced(tmp_path, task, ending, content):
    one, output = case(tmp_path / "in" / "s.nii"), tmp_path / f"s{ending}"
    there = output if content == "by hand" else tmp_path / "s.json"
    there.write_text(content)
    with pytest.raises(DataError, match=f"{there.name}: exists and is not a prediction"):
        choose([one], output, task)
    there.unlink()
    chosen = choose([one], output, task)
    output.write_text("a prediction")
    assert choose([one], output, task, keep=True) == chosen
    (tmp_path / "s.json").write_text(json.dumps({"labels": {"0": "background"}, "library_name": "modelsgenesis"}))
    assert choose([one], output, task) == chosen == [(one, output)]


@pytest.mark.parametrize(
    ("task", "output", "error", "word"),
    [
        ("segmentation", "x.nii.gz", ConfigurationError, "one file"),
        ("segmentation", "x.png", ConfigurationError, "written as NIfTI"),
        ("classification", "x.nii.gz", ConfigurationError, "as a table"),
        ("segmentation", "file/sub", DataError, "cannot be written in"),
        ("segmentation", "folder", DataError, "is a folder"),
    ],
)
def test_outputs_that_cannot_be(tmp_path, task, output, error, word):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "s.nii.gz").mkdir(parents=True)
    with pytest.raises(error, match=word):
        choose([case(tmp_path / "s.nii.gz")], tmp_path / output, task, many=True)
