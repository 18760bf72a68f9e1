"""The viewer's server: what it shows, in which words it refuses, and that nobody else gets anything."""

import io
import json
import socket
from http.client import HTTPConnection
from types import SimpleNamespace
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dicom_files import write_dicom, write_series
from modelsgenesis import viewer as viewer_module
from modelsgenesis.data import find_scans, read_volume, write_nifti
from modelsgenesis.data.cases import LabelledCase, LabelledData
from modelsgenesis.errors import ConfigurationError, DataError, MissingExtraError, ScanError
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports.cases import KeptCases
from modelsgenesis.viewer import Viewer, view

AFFINE = np.array([[-2.0, 0, 0, 9], [0, 0, 3, 4], [0, 2, 0, 1], [0, 0, 0, 1]])  # left, superior, anterior


@pytest.fixture(autouse=True)
def bundle(tmp_path, monkeypatch):
    """The extra need not be there: of NiiVue's bundle only the place is known here."""
    (tmp_path / "ipyniivue" / "static").mkdir(parents=True)
    (tmp_path / "ipyniivue" / "static" / "widget.js").write_text("export default {};")
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path / "ipyniivue")])
    monkeypatch.setattr(viewer_module, "find_spec", lambda name: found)


@pytest.fixture
def opened():
    servers = []

    def opened(*arguments, **options) -> Viewer:
        servers.append(view(*arguments, open_browser=False, **options))
        return servers[-1]

    yield opened
    for server in servers:
        server.close()


def get(server, path="", *, host=None, token=None):
    """Return status, headers and body of an address below the server's."""
    address = urlsplit(server.url)
    connection = HTTPConnection(address.netloc, timeout=10)
    connection.request("GET", f"/{token or server.token}/{path}", headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def get_json(server, path):
    return json.loads(get(server, path)[2])


def image_of(server, path):
    image = nib.Nifti1Image.from_stream(io.BytesIO(get(server, path)[2]))
    return np.asanyarray(image.dataobj), image.affine


@pytest.fixture
def scan(tmp_path):
    """A scan in another orientation, with two structures of which the larger lies in a corner."""
    array = np.random.default_rng(0).normal(100, 20, (10, 12, 8)).astype(np.float32)
    labels = np.zeros(array.shape, np.uint8)
    labels[0:4, 0:5, 0:6] = 7
    labels[8, 9, 7] = 300 - 100
    write_nifti(tmp_path / "scan.nii.gz", array, AFFINE)
    write_nifti(tmp_path / "labels.nii.gz", labels, AFFINE)
    return tmp_path / "scan.nii.gz"


def test_a_scan_and_its_label_map_arrive_in_ras_on_one_grid(opened, scan, tmp_path):
    server = opened(scan, tmp_path / "labels.nii.gz")
    assert get_json(server, "cases.json")["cases"] == [{"name": "scan", "note": ""}]
    shown = get_json(server, "case/0.json")
    (image, affine), (labels, at) = image_of(server, "case/0/image0.nii"), image_of(server, "case/0/map0.nii")
    assert nib.aff2axcodes(affine) == nib.aff2axcodes(at) == ("R", "A", "S")
    assert image.shape == labels.shape == (10, 8, 12)
    stored = read_volume(scan)
    place = np.linalg.inv(affine) @ stored.affine @ (8, 9, 7, 1)
    assert image[tuple(place[:3].round().astype(int))] == stored.array[8, 9, 7]
    # Values are consecutive, whatever they were, and the legend tells which is which, with its size.
    assert labels[tuple(place[:3].round().astype(int))] == 2
    assert [(row["name"], row["sizes"]) for row in shown["legend"]] == [("7", ["1.44"]), ("200", ["0.012"])]
    assert (shown["unit"], shown["layout"], shown["remarks"]) == ("mL", 3, [])
    cross = [int(share * side) for share, side in zip(shown["place"], labels.shape, strict=True)]
    assert labels[tuple(cross)] == 1


def test_a_picture_is_shown_as_it_is_looked_at(opened, tmp_path):
    picture, mask = np.zeros((6, 9), np.uint8), np.zeros((6, 9), np.uint8)
    picture[0, 8] = mask[0, 8] = 255
    Image.fromarray(picture).save(tmp_path / "p1.png")
    Image.fromarray(mask).save(tmp_path / "p1_mask.png")
    server = opened(tmp_path / "p1.png", [tmp_path / "p1_mask.png"])
    shown, (image, _) = get_json(server, "case/0.json"), image_of(server, "case/0/image0.nii")
    assert (image.shape, image[8, 5, 0], shown["layout"], shown["unit"]) == ((9, 6, 1), 255, 0, "pixels")
    assert image_of(server, "case/0/map0.nii")[0][8, 5, 0] == 1
    assert shown["legend"][0]["sizes"] == ["1"]


def test_a_folder_of_predictions_goes_with_its_folder_of_scans(opened, scan, tmp_path):
    for folder in ("scans", "predicted"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / "scans" / f"{name}.nii.gz").symlink_to(scan)
    (tmp_path / "predicted" / "b.nii.gz").symlink_to(tmp_path / "labels.nii.gz")
    about = {"library_name": "modelsgenesis", "labels": {"0": "background", "7": "<b>liver", "200": "kidney", "9": "x"}}
    (tmp_path / "predicted" / "b.json").write_text(json.dumps(about))
    server = opened(tmp_path / "scans", [tmp_path / "predicted"])
    assert [case["name"] for case in get_json(server, "cases.json")["cases"]] == ["a", "b"]
    assert get_json(server, "case/0.json")["maps"] == []
    shown = get_json(server, "case/1.json")
    assert [row["name"] for row in shown["legend"]] == ["<b>liver", "kidney"]
    assert shown["legend"][0]["colour"] != shown["legend"][1]["colour"]


@pytest.fixture
def run(scan, tmp_path):
    """A run with a report and one predicted test case."""
    folder = tmp_path / "run" / "predictions"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "report.html").write_text("<title>report</title>")
    write_nifti(folder / "scan.nii.gz", np.full((10, 12, 8), 2, np.uint8), AFFINE)
    image = {"files": [str(scan)], "format": "", "shape": [], "spacing": None, "modality": None, "index": None}
    case = {"name": "scan", "images": [image], "mask": str(tmp_path / "labels.nii.gz"), "note": "Dice 0"}
    content = {"labels": ["background", "liver", "spleen"], "values": [[0], [7], [200]]}
    cases = [case | {"prediction": "scan.nii.gz"}, case | {"images": []}]  # of the other label maps alone were there
    (folder / "cases.json").write_text(json.dumps(content | {"cases": cases}))
    return tmp_path / "run"


def test_a_run_shows_its_report_and_its_cases_with_truth_and_prediction(opened, run):
    server = opened(run)
    listed = get_json(server, "cases.json")
    assert (listed["title"], listed["report"], listed["cases"]) == ("run", True, [{"name": "scan", "note": "Dice 0"}])
    shown = get_json(server, "case/0.json")
    assert shown["maps"] == ["truth", "prediction"]
    assert [row["name"] for row in shown["legend"]] == ["liver", "spleen"]
    assert shown["legend"][1]["sizes"] == ["0.012", "11.52"]
    status, headers, body = get(server, "report.html")
    assert (status, body) == (200, b"<title>report</title>")
    assert "sandbox allow-scripts;" in headers["Content-Security-Policy"]


def test_the_links_of_a_report_lead_to_what_is_beside_it(opened, run):
    deep = run / "a b" / "c" / "d"
    deep.mkdir(parents=True)
    for name in ("report.html", "results.csv", "notes.md", "curve.svg"):
        (deep / name).write_text("text")
    (deep / "stolen.csv").symlink_to(run.parent / "labels.nii.gz")
    (deep / "model.safetensors").touch()
    server = opened(run)
    for name in ("report.html", "results.csv", "notes.md", "curve.svg"):
        status, headers, body = get(server, f"a%20b/c/d/{name}")
        assert (status, body) == (200, b"text")
        assert headers["Content-Security-Policy"].startswith("sandbox")
    for name in ("stolen.csv", "model.safetensors"):
        assert get(server, f"a%20b/c/d/{name}")[0] == 404


def test_a_run_of_an_earlier_version_gets_its_report(opened, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text('{"kind": "pretraining"}')
    server = opened(tmp_path / "old")
    assert server.url.endswith("/report.html")  # there is nothing else
    assert get_json(server, "cases.json")["cases"] == []
    assert get(server, "report.html")[2].startswith(b"<!DOCTYPE html>")


def test_what_cannot_be_shown_is_said_on_the_page(opened, run, scan, tmp_path):
    write_nifti(tmp_path / "labels.nii.gz", np.zeros((3, 3, 3), np.uint8), AFFINE)
    shown = get_json(opened(run), "case/0.json")
    assert shown["maps"] == ["prediction"]
    assert "truth is not shown: " in shown["remarks"][0]
    assert "(3, 3, 3) is not the (10, 12, 8)" in shown["remarks"][0]
    scan.unlink()
    assert "there is no such file" in get_json(opened(run), "case/0.json")["error"]


def test_nobody_else_gets_anything(opened, run):
    server = opened(run)
    assert server.server_address[0] == "127.0.0.1"
    for host in ("127.0.0.1:1", "localhost"):  # such as through a tunnel
        assert get(server, host=host)[0] == 200
    refused = ("evil.example", "127.0.0.1.evil.example:80", "127.0.0.1@evil.example", "[::1")
    for how in (*({"host": host} for host in refused), {"token": "x"}):
        assert get(server, "cases.json", **how)[0] == 403
    with socket.create_connection(server.server_address) as connection:
        connection.sendall("GET /é/ HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        assert b" 403 " in connection.recv(64)
    outside = ("../run.json", "%2e%2e/report.html", "predictions/cases.json", "viewer_page/", "viewer.html/x")
    for path in (*outside, "case/", "case/1.json", "case/-1.json", "case/x.json", "case/0/map2.nii"):
        assert get(server, path)[0] == 404, path
    for path in ("", "viewer.js", "niivue.js", "case/0/image0.nii"):
        status, headers, body = get(server, path)
        assert (status, len(body)) == (200, int(headers["Content-Length"]))
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_wrong_use(opened, scan, run, tmp_path, monkeypatch):
    content = json.loads((run / "predictions" / "cases.json").read_text())
    content["cases"][0]["images"] = [[str(scan), None]]
    (tmp_path / "old" / "predictions").mkdir(parents=True)
    (tmp_path / "old" / "predictions" / "cases.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"cases\.json: is of an earlier version; run modelsgenesis evaluate again"):
        opened(tmp_path / "old")
    with pytest.raises(ConfigurationError, match="run: is a run, which has label maps of its own"):
        opened(run, scan)
    with pytest.raises(DataError, match=r"none\.nii\.gz: there is no such file"):
        opened(scan, tmp_path / "none.nii.gz")
    with pytest.raises(DataError, match=r"holds no label map of the scans' names, such as scan\.nii\.gz"):
        opened(scan, tmp_path / "ipyniivue")
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / f"{name}.nii.gz").symlink_to(scan)
    with pytest.raises(ConfigurationError, match="one label map for 2 scans; name the folder"):
        opened(tmp_path / "two", tmp_path / "labels.nii.gz")
    with pytest.raises(ConfigurationError, match=r"port \d+: cannot be opened: .*; choose another --port"):
        opened(scan, port=opened(scan).server_address[1])
    with pytest.raises(ScanError, match="no scan"):
        opened(tmp_path / "ipyniivue")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "scan.nii.gz").write_bytes(b"no scan")
    with pytest.raises(ScanError, match=r"scan\.nii\.gz: .*; there is no scan to show"):
        opened(tmp_path / "damaged")
    monkeypatch.setattr(viewer_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"the viewer needs .*modelsgenesis\[viewer\]"):
        opened(scan)


def test_a_series_and_a_picture_of_dicom_are_read_again_as_they_were_found(opened, tmp_path):
    write_series(tmp_path / "scans" / "ct", np.arange(120, dtype=np.uint16).reshape(4, 5, 6))
    write_dicom(
        tmp_path / "scans" / "xray.dcm", np.arange(30, dtype=np.uint16).reshape(5, 6), modality="DX", series="4"
    )
    scans, _ = find_scans(tmp_path / "scans")
    cases = [LabelledCase(name=f"c{index}", patient="p", images=(scan,)) for index, scan in enumerate(scans)]
    data = LabelledData(name="x", task="classification", cases=tuple(cases), labels=("healthy", "ill"))
    kept = KeptCases(tmp_path / "run", data, Reporter())
    for case in cases:
        kept.add(case, data, np.zeros(2), None)
    kept.finish([{"case": case.name, "class": "ill", "predicted": "ill", "prob_ill": 0.9} for case in cases])
    server = opened(tmp_path / "run")
    assert sorted(len(scan.shape) for scan in scans) == [2, 3]
    for index, scan in enumerate(scans):
        array = image_of(server, f"case/{index}/image0.nii")[0]
        assert sorted(array.ravel()) == sorted(scan.read().array.ravel())
