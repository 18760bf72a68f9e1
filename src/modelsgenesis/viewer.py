"""Look at a scan or at the cases of a run in the browser: NiiVue, served to this machine alone.

The pages are those of the folder `viewer_page`. Scans are read as a network's are and served as NIfTI in RAS; label
maps get consecutive numbers, which the legend names.
"""

import json
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
from typing import Any
from urllib.parse import unquote

import nibabel as nib
import numpy as np

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import Geometry, ScanReference, Volume, detect_modality, file_stem, nifti_image, read_volume
from modelsgenesis.data.cases import check_same_grid, read_mask
from modelsgenesis.data.finding import scan_sources
from modelsgenesis.data.predictions import is_prediction, written_files
from modelsgenesis.data.reading import reader_of
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
from modelsgenesis.files import parsing, read_json, reason_of
from modelsgenesis.inference.cases import find_cases, output_name
from modelsgenesis.prediction import four_digits
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports import REPORT, write_report
from modelsgenesis.reports.records import read_records

CASES = "predictions/cases.json"
"""What a run folder says of its predicted cases."""

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
_RANGE = (0.5, 99.5)  # percentiles of a scan that become black and white


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
        images: One for each channel; or a path and which volume of it.
        maps: Label maps on its grid.
        note: A few words for the list.
    """

    name: str
    images: Sequence[ScanReference | tuple[str, int | None]]
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
        place, ending = Path(path), Path(path).suffix
        if path == "cases.json":
            return json.dumps(self.listing).encode(), _TYPES[ending]
        if path == "niivue.js":
            return _niivue().read_bytes(), _TYPES[ending]
        if path in ("viewer.html", "viewer.js", "viewer.css"):
            return resources.files("modelsgenesis").joinpath("viewer_page", path).read_bytes(), _TYPES[ending]
        if path in self.reports:
            return self.reports[path].read_bytes(), _TYPES.get(ending, "text/plain; charset=utf-8")
        index = int(place.parts[1].removesuffix(".json")) if place.parts[:1] == ("case",) else -1
        with self.lock:  # a page asks for all files of a case at once
            shown, files = self.load(self.cases[index] if index >= 0 else self.cases[len(self.cases)])
        if path == f"case/{index}.json":
            return json.dumps(shown).encode(), _TYPES[".json"]
        return files[place.name], "application/octet-stream"

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
        except (LookupError, ValueError):
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
        require(
            not maps, ConfigurationError, f"{path}: is a run, which has label maps of its own; expected none beside it"
        )
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
    """Yield the cases of a run's predictions."""
    content = read_json(index, DataError)
    prefix = index.parent.parent.relative_to(run).as_posix()
    with parsing(index, DataError, what="as the cases of a run", remedy="run modelsgenesis evaluate again"):
        for case in content["cases"]:
            labels, maps = ["", *content["labels"][1:]], []  # no name: the background
            values = case.get("values", content["values"])
            if case["mask"]:
                names = {value: name for name, group in zip(labels, values, strict=True) for value in group}
                maps.append(LabelFile(name="truth", path=Path(case["mask"]), names=names))
            if case["prediction"]:
                predicted = index.parent / case["prediction"]
                maps.append(LabelFile(name="prediction", path=predicted, names=dict(enumerate(labels))))
            name, images = str(case["name"]), [(str(path), number) for path, number in case["images"]]
            name = name if prefix == "." else f"{prefix}: {name}"
            yield ShownCase(name=name, images=images, maps=maps, note=str(case.get("note", "")))


def _scan_cases(path: Path, maps: Sequence[Path], reporter: Reporter) -> list[ShownCase]:
    """Return scans as cases, each with its label maps."""
    found, skipped = find_cases(path, ("image",), single=False, reporter=reporter)
    for scan in skipped:
        if scan.bad:
            reporter.note(f"skipped {scan.source}: {scan.reason}")
    missing = [one for one in maps if not one.exists()]
    require(not missing, DataError, f"{[*missing, ''][0]}: there is no such file; expected a label map")
    files = [one for one in maps if not one.is_dir()]
    several = f"{[*files, ''][0]}: one label map for {counted(len(found), 'scan')}; name the folder of all of them"
    require(len(found) == 1 or not files, ConfigurationError, several)
    cases, name = [], ""
    for case in found:
        name = output_name(case.name)
        places = [place for one in maps for place in ([one] if one in files else _maps_of(one / name))]
        shown = [LabelFile(name=file_stem(place), path=place, names=_names_beside(place)) for place in places]
        cases.append(ShownCase(name=case.name, images=case.images, maps=shown))
    lacking = f"{[*maps, ''][0]}: holds no label map of the scans' names, such as {name}.nii.gz"
    require(not maps or any(case.maps for case in cases), DataError, lacking)
    return cases


def _maps_of(place: Path) -> list[Path]:
    """Return the label map of a case's name in a folder, whatever its format."""
    beside = sorted(place.parent.iterdir()) if place.parent.is_dir() else []
    return [one for one in beside if file_stem(one) in (place.name, f"{place.name}_seg") and file_stem(one) != one.name]


def _names_beside(path: Path) -> dict[int, str]:
    """Return the structures of a prediction by the JSON file beside it; of other label maps nothing."""
    if not is_prediction(path):
        return {}
    labels = read_json(written_files(path)[1], DataError)["labels"]
    return {int(value): str(name) if int(value) else "" for value, name in labels.items()}


def load_case(case: ShownCase) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a case for its page.

    Returns:
        What the page has to know: files, structures with colours and sizes, where the largest is, and remarks; and the
        files of scans and label maps, NIfTI in RAS.

    Raises:
        ScanError: A scan cannot be used. Of a label map a remark says why it is not shown.
    """
    scans, remarks, masks = [_read(image) for image in case.images], list[str](), list[tuple[LabelFile, Volume]]()
    for one in case.maps:
        try:
            mask = read_mask(one.path)
            check_same_grid(scans[0], mask)
            masks.append((one, mask))
        except ScanError as problem:
            remarks.append(f"{one.name} is not shown: {problem}.")
    names, named, sizes = _structures(masks)
    there = [name for name in names if any(size[name] for size in sizes)]
    files = {f"image{number}.nii": _upright(scan, scan.array) for number, scan in enumerate(scans)}
    planes = files["image0.nii"].shape
    for number, ((_, mask), found) in enumerate(zip(masks, named, strict=True)):
        codes = np.array([1 + there.index(name) if name in there else 0 for name in found.values()])
        files[f"map{number}.nii"] = _upright(scans[0], _renumbered(mask.array, [*found], codes))
    unit, scale = _unit(scans[0])
    largest = there.index(max(there, key=sizes[-1].__getitem__)) if there else 0
    legend = [
        {"name": name, "colour": colour, "sizes": [four_digits(size[name] * scale) for size in sizes]}
        for name, colour in zip(names, colours(len(names)), strict=True)
        if name in there
    ]
    shown = {
        "name": case.name,
        "layout": 3 if scans[0].array.ndim == 3 else int(np.argmin(planes[::-1])),  # the widget's number of the plane
        "images": [{"name": Path(scan.source).name, **_levels(scan)} for scan in scans],
        "maps": [one.name for one, _ in masks],
        "unit": unit,
        "legend": legend,
        "place": _place(np.asanyarray(files[f"map{len(masks) - 1}.nii"].dataobj) == largest + 1)
        if there
        else (0.5,) * 3,
        "remarks": remarks,
    }
    return shown, {name: image.to_bytes() for name, image in files.items()}


def _structures(
    masks: Sequence[tuple[LabelFile, Volume]],
) -> tuple[list[str], list[dict[int, str]], list[Counter[str]]]:
    """Return the names of all structures; and of each label map those of its values, and voxels by name.

    Structures that are known by name come first, so that they keep their colours from case to case.
    """
    named, sizes = list[dict[int, str]](), list[Counter[str]]()
    for one, mask in masks:
        counts = Counter[int]()
        for plane in mask.array:  # plane by plane, which sorts no volume
            counts.update(dict(zip(*(part.tolist() for part in np.unique(plane, return_counts=True)), strict=True)))
        named.append(
            {value: one.names.get(value, "" if one.names or not value else str(value)) for value in sorted(counts)}
        )
        sizes.append(Counter())
        for value, name in named[-1].items():
            sizes[-1][name] += counts[value]
    known = [name for one, _ in masks for name in one.names.values()]
    others = sorted(
        {value for (one, _), found in zip(masks, named, strict=True) if not one.names for value in found if value}
    )
    return [name for name in dict.fromkeys([*known, *map(str, others)]) if name], named, sizes


def _read(image: ScanReference | tuple[str, int | None]) -> Volume:
    """Read a scan, of a series by the name of one of its files."""
    if isinstance(image, ScanReference):
        return image.read()
    path, index = Path(image[0]), image[1]
    if index is None and reader_of(path) == "dicom":
        series = next((one for one in scan_sources(path.parent)[0] if path in one.files), None)
        return (series or ScanReference(path=path, files=(path,), format="DICOM", shape=(), spacing=None)).read()
    return read_volume(path, index)


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


def _levels(scan: Volume) -> dict[str, float]:
    """Return which values are black and white: the window of the modality, else percentiles of a part of the voxels."""
    contract = CONTRACTS.get(detect_modality(scan) or "")
    part = scan.array[::2, ::2, ...]
    finite = part[np.isfinite(part)]
    low, high = (
        contract.window if contract and contract.window else np.percentile(finite if finite.size else [0, 1], _RANGE)
    )
    return {"low": float(low), "high": float(high)}


def _unit(scan: Volume) -> tuple[str, float]:
    """Return in what sizes of structures are told, and how much of it a voxel is."""
    size = Geometry(shape=scan.array.shape, affine=scan.affine, has_spacing=scan.has_spacing).voxel_size
    if size is None:
        return ("pixels" if scan.array.ndim == 2 else "voxels"), 1
    return ("mm²", size) if scan.array.ndim == 2 else ("mL", size / 1000)


def _place(inside: np.ndarray) -> list[float]:
    """Return along each axis where most of a structure is, as a share of its length."""
    axes = [tuple(other for other in range(3) if other != axis) for axis in range(3)]
    return [
        (np.count_nonzero(inside, axis=others).argmax() + 0.5) / len(inside.swapaxes(0, axis))
        for axis, others in enumerate(axes)
    ]
