"""Look at a scan or at the cases of a run in the browser: NiiVue, served to this machine alone.

The pages are those of the folder `viewer_page`. Scans are read as a network's are and served as NIfTI in RAS; label
maps get consecutive numbers, which the legend names.
"""

import json
import re
import secrets
import sys
import webbrowser
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Lock, Thread
from typing import Any, NamedTuple
from urllib.parse import unquote

import nibabel as nib
import numpy as np

from modelsgenesis.data import ScanReference, Volume, file_stem, nifti_image
from modelsgenesis.data.cases import check_same_grid, read_mask
from modelsgenesis.data.predictions import is_prediction, names_beside
from modelsgenesis.errors import (
    ConfigurationError,
    DataError,
    GenesisError,
    MissingExtraError,
    ScanError,
    counted,
    require,
)
from modelsgenesis.figures.colours import colours
from modelsgenesis.files import TEXT_LIMIT, parsing, read_json, reason_of
from modelsgenesis.inference.cases import find_cases, output_name
from modelsgenesis.prediction import four_digits
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import REPORT, write_report
from modelsgenesis.reports.cases import CASES, black_and_white
from modelsgenesis.reports.records import read_records

_TYPES = {  # what is not among them is text
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_LINKED = {".html", ".csv", ".md", ".tex", ".png", ".svg", ".json"}  # what a report links to in its folder
_DEPTH = 3  # folders below a run whose reports are shown; those of a folder of runs lie so deep
# Nothing is loaded from elsewhere, and nothing can be sent there.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' data:; img-src 'self' data: blob:"
)
# A report may come with a run of others: it runs apart from the scans, and connects to nothing.
_REPORT = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
_ENDS = "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """A label map beside a scan.

    Attributes:
        name: What the page calls it: truth, prediction, or its file.
        path: The file.
        names: Of each value in it the structure; values that are not there keep their number for a name.
    """

    name: str
    path: Path
    names: Mapping[int, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownCase:
    """A case of the viewer.

    Attributes:
        name: Of the scan.
        images: One for each channel.
        maps: Label maps on its grid.
        note: A few words for the list.
    """

    name: str
    images: Sequence[ScanReference]
    maps: Sequence[LabelFile] = ()
    note: str = ""


class Viewer(ThreadingTCPServer):
    """The server of one `view`, which begins at once; nobody but this machine reaches it, and only by `url`.

    Attributes:
        url: Of its page.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, title: str, cases: Sequence[ShownCase], reports: Mapping[str, Path], port: int = 0) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as problem:
            remedy = "choose another --port, or leave it out for a free one"
            raise ConfigurationError(f"port {port}: cannot be opened: {reason_of(problem)}; {remedy}") from problem
        self.cases, self.reports = cases, reports
        # Pages of other programs on this machine cannot guess it.
        self.token, self.lock = secrets.token_urlsafe(16), Lock()
        listed = [{"name": case.name, "note": case.note} for case in cases]
        start = "" if cases else REPORT
        self.url = f"http://127.0.0.1:{self.server_address[1]}/{self.token}/{start}"
        self.listing = {"title": title, "report": REPORT in reports, "cases": listed}
        self.load = lru_cache(maxsize=1)(load_case)
        self.thread = Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def content(self, path: str) -> tuple[bytes, str]:
        """Return what is at a path below the token and its type.

        Raises:
            LookupError: There is nothing.
            GenesisError: A scan or a label map cannot be used.
        """
        kind = _TYPES.get(Path(path).suffix, "text/plain; charset=utf-8")
        if path == "cases.json":
            return json.dumps(self.listing).encode(), kind
        if path == "niivue.js":
            return _niivue().read_bytes(), kind
        if path in ("viewer.html", "viewer.js", "viewer.css"):
            return resources.files("modelsgenesis").joinpath("viewer_page", path).read_bytes(), kind
        if path in self.reports:
            return self.reports[path].read_bytes(), kind
        asked = re.fullmatch(r"case/([0-9]{1,9})(?:\.json|/(.+))", path)
        if not asked:
            raise LookupError(path)
        with self.lock:  # a page asks for all files of a case at once
            shown, files = self.load(self.cases[int(asked[1])])
        return (files[asked[2]], "application/octet-stream") if asked[2] else (json.dumps(shown).encode(), kind)

    def wait(self) -> None:
        """Return when the viewer is closed."""
        self.thread.join()

    def close(self) -> None:
        """End the server."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a page that was closed while it loaded."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Any  # a Viewer

    def do_GET(self) -> None:
        """Answer the page of this viewer, and nobody else: a page elsewhere could lead its own name to this machine."""
        _, token, *rest = [*self.path.partition("?")[0].split("/", 2), "", ""]
        host, known = self.headers.get("Host", "").partition(":")[0].lower(), self.server.token.encode()
        if host not in ("127.0.0.1", "localhost") or not secrets.compare_digest(token.encode(), known):
            self.send_error(HTTPStatus.FORBIDDEN, "open the address that modelsgenesis view printed")
            return
        path, status = unquote(rest[0]) or "viewer.html", HTTPStatus.OK
        try:
            body, kind = self.server.content(path)
        except LookupError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        except (GenesisError, OSError) as problem:
            status, kind = HTTPStatus.UNPROCESSABLE_ENTITY, _TYPES[".json"]
            body = json.dumps({"error": str(problem)}).encode()
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": len(body),
            "Content-Security-Policy": (_REPORT if path in self.server.reports else _POLICY) + _ENDS,
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Leave the terminal alone."""


def view(
    source: str | Path,
    labels: str | Path | Sequence[str | Path] = (),
    *,
    port: int = 0,
    open_browser: bool = True,
    reporter: Reporter | None = None,
) -> Viewer:
    """Show a run, or a scan with its label maps, in the browser.

    Args:
        source: The folder of a run: its report, and the scans of its test cases with truth and prediction where it kept
            any. Or a scan, a DICOM series, a folder of scans.
        labels: Label maps of a scan; of a folder of scans folders in which they have the scans' names, as `predict_all`
            writes them.
        port: On which to serve; 0 takes a free one.
        open_browser: Open the page.
        reporter: Receives a warning of scans that cannot be shown.

    Returns:
        The server, running; `.url` is its page, `.wait()` waits for its end and `.close()` ends it.

    Raises:
        MissingExtraError: The extra `viewer` is not installed.
        DataError: There is no such file, or no label map for the scans.
        ScanError: There is no scan.
        ConfigurationError: Label maps beside a run, one for several scans, or the port is taken.

    Example:
        viewer = modelsgenesis.view("scan.nii.gz", "scan_seg.nii.gz")
        viewer.close()
    """
    path, maps = Path(source).expanduser(), [labels] if isinstance(labels, (str, Path)) else list(labels)
    _niivue()
    reporter = reporter or Reporter()
    if path.is_dir() and not (path / REPORT).exists() and read_records(path).kind:  # such as of an earlier version
        write_report(path, reporter=reporter)
    # Of folds and of a demonstration one folder below, too.
    reports, is_run = dict[str, Path](), any((*path.glob(REPORT), *path.glob(f"*/{REPORT}")))
    indices = [*path.glob(CASES), *sorted(path.glob(f"*/{CASES}"))]
    if is_run or indices:
        beside = f"{path}: is a run, which has label maps of its own; expected none beside it"
        require(not maps, ConfigurationError, beside)
        cases = [case for index in indices for case in _run_cases(index, path)]
        pages = [page for depth in range(_DEPTH + 1) for page in path.glob("*/" * depth + REPORT)]
        linked = [one for page in pages for one in page.parent.iterdir() if one.suffix in _LINKED]
        reports = {one.relative_to(path).as_posix(): one for one in linked if one.is_file() and not one.is_symlink()}
    else:
        cases = _scan_cases(path, [Path(one).expanduser() for one in maps], reporter)
    viewer = Viewer(path.resolve().name, cases, reports, port)
    if open_browser:
        webbrowser.open(viewer.url)
    return viewer


def _niivue() -> Path:
    """Return ipyniivue's widget, one file with all of NiiVue; the package is found, and not imported."""
    found = find_spec("ipyniivue")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("the viewer", "viewer")
    return Path(found.submodule_search_locations[0]) / "static" / "widget.js"


def _run_cases(index: Path, run: Path) -> Iterable[ShownCase]:
    """Yield the cases of a run's predictions that have scans."""
    content = read_json(index, DataError, 16 * TEXT_LIMIT)  # which names every slice of a series
    prefix = index.parent.parent.relative_to(run).as_posix()
    with parsing(index, DataError, what="as the cases of a run", remedy="run modelsgenesis evaluate again"):
        for case in (one for one in content["cases"] if one["images"]):  # else label maps alone were measured
            labels, maps = ["", *content["labels"][1:]], []  # no name: the background
            values = case.get("values", content["values"])
            if case["mask"]:
                names = {value: name for name, group in zip(labels, values, strict=True) for value in group}
                maps.append(LabelFile(name="truth", path=Path(case["mask"]), names=names))
            if case["prediction"]:
                predicted = index.parent / case["prediction"]
                maps.append(LabelFile(name="prediction", path=predicted, names=dict(enumerate(labels))))
            current = all(isinstance(image, dict) for image in case["images"])
            require(current, DataError, f"{index}: is of an earlier version; run modelsgenesis evaluate again")
            images = [_reference(**image) for image in case["images"]]
            name = case["name"] if prefix == "." else f"{prefix}: {case['name']}"
            yield ShownCase(name=name, images=images, maps=maps, note=case.get("note", ""))


def _reference(files: Sequence[str], **kept: Any) -> ScanReference:
    """Return a scan as a list of cases keeps it."""
    return ScanReference(path=Path(files[0]), files=tuple(map(Path, files)), **kept)


def _scan_cases(path: Path, maps: Sequence[Path], reporter: Reporter) -> list[ShownCase]:
    """Return scans as cases, each with its label maps."""
    found, skipped = find_cases(path, ("image",), single=False, reporter=reporter)
    bad = [f"{scan.source}: {scan.reason}" for scan in skipped if scan.bad]
    require(found, ScanError, f"{[*bad, path][0]}; there is no scan to show")
    for told in bad:
        reporter.note(f"skipped {told}")
    for one in maps:
        require(one.exists(), DataError, f"{one}: there is no such file; expected a label map")
        several = f"{one}: one label map for {counted(len(found), 'scan')}; name the folder of all of them"
        require(one.is_dir() or len(found) == 1, ConfigurationError, several)
    cases = []
    for case in found:
        name = output_name(case.name)
        places = [place for one in maps for place in (_maps_of(one / name) if one.is_dir() else [one])]
        cases.append(ShownCase(name=case.name, images=case.images, maps=[*map(_label_file, places)]))
    if maps and not any(case.maps for case in cases):
        name = output_name(cases[-1].name)
        raise DataError(f"{maps[0]}: holds no label map of the scans' names, such as {name}.nii.gz")
    return cases


def _maps_of(place: Path) -> list[Path]:
    """Return the label map of a case's name in a folder, whatever its format."""
    beside = sorted(place.parent.iterdir()) if place.parent.is_dir() else []
    return [one for one in beside if file_stem(one) in (place.name, f"{place.name}_seg") and file_stem(one) != one.name]


def _label_file(path: Path) -> LabelFile:
    """Return a label map, of a prediction with the structures that the JSON file beside it names."""
    names = names_beside(path) if is_prediction(path) else {}
    return LabelFile(name=file_stem(path), path=path, names={value: name for value, name in names.items() if value})


class _Map(NamedTuple):
    """A label map that was read: the names that it may hold, of each value in it the name, and voxels by name."""

    file: LabelFile
    array: np.ndarray
    known: list[str]
    names: dict[int, str]
    sizes: Counter[str]


def load_case(case: ShownCase) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a case for its page.

    Returns:
        What the page has to know: files, structures with colours and sizes, where the largest is, and remarks; and the
        files of scans and label maps, NIfTI in RAS.

    Raises:
        ScanError: A scan cannot be used. Of a label map a remark says why it is not shown.
    """
    scans, remarks, maps = [image.read() for image in case.images], list[str](), list[_Map]()
    for one in case.maps:
        try:
            maps.append(_read_map(one, scans[0]))
        except ScanError as problem:
            remarks.append(f"{one.name} is not shown: {problem}.")
    # Structures that are known by name come first, so that they keep their colours from case to case.
    named = sorted(maps, key=lambda one: not one.file.names)
    names = [name for name in dict.fromkeys(name for one in named for name in one.known) if name]
    there = [name for name in names if any(one.sizes[name] for one in maps)]
    numbers = {name: number for number, name in enumerate(there, start=1)}
    files = {f"image{index}.nii": _upright(scan, scan.array) for index, scan in enumerate(scans)}
    for index, one in enumerate(maps):
        codes = [numbers.get(name, 0) for name in one.names.values()]
        files[f"map{index}.nii"] = _upright(scans[0], _renumbered(one.array, [*one.names], np.array(codes)))
    place, planes = [0.5] * 3, files["image0.nii"].shape
    if there:
        largest = max(there, key=maps[-1].sizes.__getitem__)
        place = _place(np.asanyarray(files[f"map{len(maps) - 1}.nii"].dataobj) == numbers[largest])
    unit, voxel = scans[0].geometry.unit
    legend = [
        {"name": name, "colour": colour, "sizes": [four_digits(one.sizes[name] * voxel) for one in maps]}
        for name, colour in zip(names, colours(len(names)), strict=True)
        if name in numbers
    ]
    images = []
    for scan in scans:
        low, high = black_and_white(scan, scan.array)
        images.append({"name": Path(scan.source).name, "low": low, "high": high})
    shown = {
        "name": case.name,
        "layout": 3 if scans[0].array.ndim == 3 else int(np.argmin(planes[::-1])),  # the widget's number of the plane
        "images": images,
        "maps": [one.file.name for one in maps],
        "unit": unit,
        "legend": legend,
        "place": place,
        "remarks": remarks,
    }
    return shown, {name: image.to_bytes() for name, image in files.items()}


def _read_map(file: LabelFile, scan: Volume) -> _Map:
    mask, counts = read_mask(file.path), Counter[int]()
    check_same_grid(scan, mask)
    for plane in mask.array:  # plane by plane, which sorts no volume
        counts.update(dict(zip(*(part.tolist() for part in np.unique(plane, return_counts=True)), strict=True)))
    known = file.names or {value: str(value) for value in sorted(counts) if value}
    names, sizes = {value: known.get(value, "") for value in sorted(counts)}, Counter[str]()
    for value, name in names.items():
        sizes[name] += counts[value]
    return _Map(file, mask.array, [*known.values()], names, sizes)


def _renumbered(array: np.ndarray, values: Sequence[int], numbers: np.ndarray) -> np.ndarray:
    """Return an array with other numbers for its values, which are sorted."""
    renumbered = np.empty(array.shape, np.uint8 if numbers.max() < 256 else np.uint16)
    for plane, new in zip(array, renumbered, strict=True):
        new[...] = numbers[np.searchsorted(values, plane)]
    return renumbered


def _upright(scan: Volume, array: np.ndarray) -> nib.Nifti1Image:
    """Return an array on a scan's grid as NIfTI in RAS; a picture as it is looked at, its first row on top."""
    affine = scan.affine
    if array.ndim == 2:
        if scan.header is None:
            array, affine = array.T[:, ::-1], np.diag([*(scan.spacing or (1, 1))[::-1], 1, 1])
        array = array[..., None]
    array = np.nan_to_num(array) if array.dtype.kind == "f" else array
    return nib.as_closest_canonical(nifti_image(array, affine))


def _place(inside: np.ndarray) -> list[float]:
    """Return along each axis where most of a structure is, as a share of its length."""
    axes = [tuple(other for other in range(3) if other != axis) for axis in range(3)]
    return [
        (np.count_nonzero(inside, axis=others).argmax() + 0.5) / len(inside.swapaxes(0, axis))
        for axis, others in enumerate(axes)
    ]
