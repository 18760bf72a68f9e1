"""Where answers go, decided before the first is written: nothing of the user's is lost."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelsgenesis.data import FileImage
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.inference.cases import Case
from modelsgenesis.inference.outputs import label_map_paths, output_name, table_path, write_labels, write_table


def case(path, name=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"scan")
    return Case(name=name or path.name.partition(".")[0], images=(FileImage(path=path),), files=(path,))


@given(some.text(min_size=1))
def test_any_name_becomes_a_file_within_the_folder(name):
    found = output_name(name)
    assert not found.is_absolute()
    assert ".." not in found.parts
    for part in found.parts:
        assert len(f"{part}_probabilities.nii.gz".encode()) <= 255
        assert part.isprintable() or set(part) & set("\u00a0\u3000\u2003\u2002\u2009")
    assert output_name(str(found)) == found


def test_names_stay_apart_and_what_is_no_unicode_becomes_it():
    names = ["a\nb", "a\rb", "a_b", "a\x85b", "a\\b", "x" * 300, "x" * 301, "../../x", "/x", "../y", "M\udcfcller"]
    found = [str(output_name(name)) for name in names]
    assert len(set(found)) == len(names) - 1
    assert found[2] == "a_b"
    assert found[7:] == ["x", "x", "y", "Müller"]


@pytest.mark.parametrize(
    ("given", "output", "written"),
    [
        (1, None, ["s0_seg.nii.gz"]),
        (1, "x.nii.gz", ["x.nii.gz"]),
        (1, "x.NII", ["x.NII"]),
        (1, "new/deep", ["new/deep/s0.nii.gz"]),
        (2, None, ["predictions/s0.nii.gz", "predictions/s1.nii.gz"]),
        (2, "out.v2", ["out.v2/s0.nii.gz", "out.v2/s1.nii.gz"]),
    ],
)
def test_where_answers_go(tmp_path, monkeypatch, given, output, written):
    monkeypatch.chdir(tmp_path)
    cases = [case(tmp_path / f"s{index}.mha") for index in range(given)]
    places, _ = label_map_paths(cases, output and Path(output), many=given > 1)
    assert [str(place.path) for place in places] == written
    stem = written[0].partition(".nii" if output != "x.NII" else ".NII")[0]
    assert (str(places[0].labels), str(places[0].probabilities)) == (f"{stem}.json", f"{stem}_probabilities.nii.gz")


@pytest.mark.parametrize("link", [os.link, lambda file, other: other.symlink_to(file.resolve()), None])
@pytest.mark.parametrize("name", ["s.nii.gz", "s_probabilities.nii.gz"])
def test_an_answer_replaces_no_scan_by_whatever_name(tmp_path, link, name):
    one, other = case(tmp_path / "in" / "s.nii.gz"), case(tmp_path / "in" / "other" / name)
    output = tmp_path / "out" if link else tmp_path / "in" / "other"
    if link:
        output.mkdir()
        link(other.files[0], output / name)
    with pytest.raises(DataError, match="replace the scan itself"):
        label_map_paths([one, other], output, many=True, inputs=[*one.files, *other.files])
    with pytest.raises(DataError, match="replace the scan itself"):
        label_map_paths([one], output, many=False, inputs=other.files)


def test_a_link_within_the_output_leads_nowhere(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="a link leads out of"):
        label_map_paths([case(tmp_path / "s.nii", "sub/x")], tmp_path / "out", many=True)


@pytest.mark.parametrize("names", [("a", "A"), ("\u00e9", "e\u0301"), ("x", "x_probabilities"), ("x", "../x")])
def test_answers_that_would_be_one_anothers_are_refused_and_the_others_are_not(tmp_path, names):
    cases = [case(tmp_path / f"{index}.nii", name) for index, name in enumerate((*names, "good"))]
    places, refused = label_map_paths(cases, tmp_path / "out", many=True)
    assert [place.path.name for place in places] == ["good.nii.gz"]
    assert [one.source for one in refused] == [str(tmp_path / "0.nii"), str(tmp_path / "1.nii")]
    assert all("that of another scan; rename one" in one.reason for one in refused)


@pytest.mark.parametrize("output", ["", "s.nii.gz"])
@pytest.mark.parametrize(
    ("name", "content"), [("s.nii.gz", "by hand"), ("s.json", '{"EchoTime": 1}'), ("s.json", "[["), ("s.json", "{}")]
)
def test_files_of_somebody_else_stay_and_own_answers_are_replaced(tmp_path, output, name, content):
    one, there = case(tmp_path / "in" / "s.nii"), tmp_path / name
    there.write_text(content)
    with pytest.raises(DataError, match=f"{name}: is there already"):
        label_map_paths([one], tmp_path / output, many=False)
    there.unlink()
    ((place,), _) = label_map_paths([one], tmp_path / output, many=False)
    place.path.write_text("an answer")
    assert label_map_paths([one], tmp_path / output, many=False, keep=True)[0] == [place]
    write_labels(place, ("background", "a"), {"library_name": "modelsgenesis"})
    assert label_map_paths([one], tmp_path / output, many=False)[0] == [place]


def test_a_table_and_its_twin_replace_only_their_own(tmp_path):
    table, about = tmp_path / "classes.csv", {"library_name": "modelsgenesis"}
    for name, content in (("classes.csv", "case;by hand"), ("classes.json", json.dumps({"labels": {}, **about}))):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=f"{name}: is there already"):
            table_path(table)
        with pytest.raises(DataError, match="replace the scan itself"):
            table_path(table, [tmp_path / name])
        (tmp_path / name).unlink()
    rows = [("=x\n", ("a", "b"), {"a": 1 / 3, "b": 0.5})]
    assert write_table(table_path(table), rows, ("a", "b"), about) == table == table_path(table)
    assert table.read_bytes() == b'case,predicted,probability a,probability b\r\n"\'=x\n",a; b,0.333333,0.5\r\n'
    exact = json.loads((tmp_path / "classes.json").read_text())
    assert exact["cases"] == [{"case": "=x\n", "predicted": ["a", "b"], "probabilities": {"a": 1 / 3, "b": 0.5}}]


def test_outputs_that_cannot_be(tmp_path):
    one = case(tmp_path / "s.nii.gz")
    with pytest.raises(ConfigurationError, match="one file"):
        label_map_paths([one], tmp_path / "x.nii.gz", many=True)
    with pytest.raises(ConfigurationError, match="label maps are written as NIfTI"):
        label_map_paths([one], tmp_path / "x.png", many=False)
    with pytest.raises(ConfigurationError, match="classes are written as a table"):
        table_path(tmp_path / "x.nii.gz")
    (tmp_path / "file").touch()
    (tmp_path / "folder.nii.gz").mkdir()
    for output, word in (("file/sub", "cannot be written in"), ("folder.nii.gz", "is a folder")):
        with pytest.raises(DataError, match=word):
            label_map_paths([one], tmp_path / output, many=False)
