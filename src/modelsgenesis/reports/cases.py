"""The test cases of a run: their predictions, kept for the viewer, and small pictures of those that tell most.

Of a segmentation these are the best, the median and the worst case, of a classification the surest wrong predictions.
Which they are is known when all are measured, so their few scans are then read again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import orientations
from nibabel.affines import voxel_sizes

from modelsgenesis.data import Volume, detect_modality, read_volume, write_nifti
from modelsgenesis.data.cases import LabelledCase, LabelledData, label_indices, read_mask
from modelsgenesis.data.predictions import labels_record, written_files
from modelsgenesis.data.preparation import interpolate, nearest
from modelsgenesis.errors import DataError
from modelsgenesis.figures.pictures import PLANES, take_slice
from modelsgenesis.files import write_json
from modelsgenesis.inference.cases import TABLE, check_outputs, output_name
from modelsgenesis.inference.label_tables import write_label_tables
from modelsgenesis.metrics.measures import CLASS_SEPARATOR, Row, case_scores
from modelsgenesis.reporting import Reporter
from modelsgenesis.reports.pictures import Arrays, save_pictures
from modelsgenesis.training.bundles import try_drawing

PREDICTIONS, CASES = "predictions", "predictions/cases.json"
"""The folder of label maps in a run or an evaluation, and the list of cases in it."""

_KEPT = ("format", "shape", "spacing", "modality", "index")  # of a scan beside its files, to read it again
_SIDE = 224  # pixels of a kept slice's longer side, at most
_SLICES = 11  # of a plane; the middle one goes through the largest structure
_MARGIN = 0.4  # of a structure's longest side, that is shown around it
_LEAST_MARGIN = 12  # voxels
_AIR = -950  # HU, up to which a CT shows nothing
_WRONG = 6  # wrong predictions that are shown at most
_SAMPLE = 1 << 20  # voxels that the contrast is chosen by
_CHANNELS = 4  # of a case that are shown at most


@dataclass
class KeptCases:
    """Keeps what is predicted of test cases; what cannot be kept is a note, and never the end of a run.

    Attributes:
        folder: Of the run or the evaluation; gets `predictions/` and `report.npz`.
        data: The data set of the cases.
        reporter: Receives the notes.
    """

    folder: Path
    data: LabelledData
    reporter: Reporter
    _cases: dict[str, tuple[LabelledCase, LabelledData]] = field(default_factory=dict, init=False)

    def check(self, cases: Sequence[LabelledCase]) -> None:
        """Refuse to replace files of somebody else, before any work.

        Args:
            cases: Whose predictions will be kept.

        Raises:
            DataError: There are predictions that are not of an evaluation, one would replace an image or a mask, or
                they cannot be written.
        """
        if self._list.parent.exists() and not self._list.is_file():
            raise DataError(f"{self._list.parent}: exists and is not of an evaluation; choose another output folder")
        inputs = (path for case in cases for path in (*(image.path for image in case.images), case.mask) if path)
        outputs = (file for case in cases for file in written_files(self._path(case))[:2])
        check_outputs((self._list, *outputs), self.folder, inputs)

    def add(self, case: LabelledCase, data: LabelledData, predicted: np.ndarray, scan: Volume | None) -> None:
        """Keep the prediction of a case that was measured; the arguments are those of `measure_case`."""
        self._cases[case.name] = (case, data)
        if scan is not None:
            what = f"warning: the prediction of {case.name}"
            try_drawing(lambda: self._keep(self._path(case), data, predicted, scan), self.reporter, what)

    def _keep(self, path: Path, data: LabelledData, predicted: np.ndarray, scan: Volume) -> None:
        if not self._list.exists():  # by which the folder can be written again if this is cut off
            self._write_list([])
        write_json(written_files(path).about, labels_record(data.labels), DataError)
        write_nifti(path, predicted, scan)

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the list of the cases, and the pictures of those that tell most.

        Args:
            rows: What was measured of each.
        """
        known = [(row, *self._cases[row["case"]]) for row in rows if row["case"] in self._cases]
        entries = (self._entry(row, case, data) for row, case, data in known)
        try_drawing(lambda: self._write_list(list(entries)), self.reporter, "warning: the list of cases")
        try_drawing(lambda: self._draw(rows), self.reporter, "warning: pictures of the cases")

    def _path(self, case: LabelledCase) -> Path:
        name = str(output_name(case.name))
        # What describes the label map would be the list of cases.
        return self._list.parent / (f"{name}_seg.nii.gz" if name.casefold() == self._list.stem else f"{name}.nii.gz")

    @property
    def _list(self) -> Path:
        return self.folder / CASES

    def _write_list(self, listed: Sequence[Mapping[str, Any]]) -> None:
        values = [list(group) for group in self.data.values]
        write_json(self._list, {"labels": list(self.data.labels), "values": values, "cases": listed}, DataError)
        if self.data.task == "segmentation":
            write_label_tables(written_files(self._list.with_name(TABLE)), self.data.labels)

    def _draw(self, rows: Sequence[Row]) -> None:
        shown: list[dict[str, Any]] = []
        arrays: Arrays = {}
        for title, row in telling_cases(rows, multilabel=self.data.multilabel).items():
            views, own = self._pictures(*self._cases[row["case"]])
            arrays |= {f"{len(shown)}/{name}": array for name, array in own.items()}
            shown.append({"title": title, "case": row["case"], "note": self._note(row), "views": views})
        save_pictures(self.folder, {"labels": list(self.data.labels), "shown": shown}, arrays)

    def _entry(self, row: Row, case: LabelledCase, data: LabelledData) -> dict[str, Any]:
        """Return where the files of a case are, for the viewer."""
        path = self._path(case)
        entry: dict[str, Any] = {"name": case.name, "note": self._note(row)}
        entry["images"] = [
            {"files": [str(file.absolute()) for file in image.files], **{name: getattr(image, name) for name in _KEPT}}
            for image in case.images
        ]
        entry["mask"] = case.mask and str(case.mask.absolute())
        entry["prediction"] = path.relative_to(self._list.parent).as_posix() if path.is_file() else None
        # A label map that says itself what its values mean.
        return entry | ({"values": [list(group) for group in data.values]} if data.values != self.data.values else {})

    def _note(self, row: Row) -> str:
        return note_of(row, multilabel=self.data.multilabel)

    def _pictures(self, case: LabelledCase, data: LabelledData) -> tuple[list[dict[str, Any]], Arrays]:
        """Read a case again, and return what its slices show, and the slices."""
        channels = {name: image.read() for name, image in zip(data.channels[:_CHANNELS], case.images, strict=False)}
        if case.mask is None:
            return slices_of(channels, {})
        mask = read_mask(case.mask)
        maps = {"truth": label_indices(mask.array, data, str(case.mask))}
        maps["predicted"] = read_volume(self._path(case)).array
        return slices_of(channels, {name: replace(mask, array=array) for name, array in maps.items()})


# --- which cases ------------------------------------------------------------------------------------------------


def telling_cases(rows: Sequence[Row], *, multilabel: bool = False) -> dict[str, Row]:
    """Return the cases that are shown, by what they are: best, median, worst; or the surest wrong predictions."""
    if rows and "predicted" in rows[0]:
        wrong = [row for row in rows if row["predicted"] != row["class"]]
        wrong.sort(key=lambda row: _surest(row, multilabel)[0], reverse=True)
        return {f"Wrong {number}": row for number, row in enumerate(wrong[:_WRONG], start=1)}
    scores = case_scores(rows)
    ranked = [rows[index] for index in np.argsort(scores, kind="stable") if not np.isnan(scores[index])]
    if len(ranked) < 2:
        return {"The only case": ranked[0]} if ranked else {}
    median = {"Median case": ranked[(len(ranked) - 1) // 2]} if len(ranked) > 2 else {}
    return {"Best case": ranked[-1], **median, "Worst case": ranked[0]}


def _surest(row: Row, multilabel: bool) -> tuple[float, str]:
    """Return how sure a prediction is, and of which class; where several may hold at once, of those that are wrong."""
    soft = {name.removeprefix("prob_"): value for name, value in row.items() if name.startswith("prob_")}
    if not multilabel:
        return max((value, name) for name, value in soft.items())
    true, said = (set(row[key].split(CLASS_SEPARATOR)) for key in ("class", "predicted"))
    return max(((abs(soft[name] - 0.5), name) for name in soft if name in true ^ said), default=(0.0, ""))


def note_of(row: Row, *, multilabel: bool = False) -> str:
    """Return the result of a case in a few words.

    Example:
        >>> note_of({"case": "a", "dice liver": 0.871, "dice spleen": np.nan})
        'Dice 0.871'
        >>> note_of({"case": "b", "class": "ill", "predicted": "healthy", "prob_healthy": 0.9, "prob_ill": 0.1})
        'predicted healthy (0.90), truth ill'
    """
    if "predicted" in row:
        name = _surest(row, multilabel)[1]
        sure = f" ({f'{name} ' if multilabel else ''}{row[f'prob_{name}']:.2f})" if name else ""
        return f"predicted {row['predicted'] or 'none'}{sure}, truth {row['class'] or 'none'}"
    score = case_scores([row])[0]
    return "no structure in the ground truth" if np.isnan(score) else f"Dice {score:.3f}"


# --- slices -----------------------------------------------------------------------------------------------------


def slices_of(channels: Mapping[str, Volume], maps: Mapping[str, Volume]) -> tuple[list[dict[str, Any]], Arrays]:
    """Cut slices through a case: in each plane some that move from one end of the structures to the other.

    The middle one goes where the largest structure is largest. What is far from all structures is cut off, so that a
    small one can be seen.

    Args:
        channels: What is seen, by its name; none where only label maps are there.
        maps: Class indices on the same grid: `truth` and `predicted`, or none.

    Returns:
        Of each view its `plane`, the `channel`, and the `spacing` of its rows and columns; and of the n-th view the
        arrays `n/scan`, uint8, `n/truth` and `n/predicted`, uint16: [slices, rows, columns].
    """
    turned = {name: _upright(volume) for name, volume in {**channels, **maps}.items()}
    shape, sizes = next((array.shape, sizes) for array, sizes in turned.values())
    empty = np.zeros(shape, np.uint8)
    truth, predicted = (turned[name][0] if name in turned else empty for name in ("truth", "predicted"))
    held = (truth > 0) | (predicted > 0)
    box = _box(held, sizes)
    structure = _largest(truth[box] if truth[box].any() else predicted[box])
    layers = {name: turned[name][0][box] for name in maps}
    views: list[dict[str, Any]] = []
    cut: Arrays = {}
    for number, channel in enumerate(channels or [""]):
        ground = turned[channel][0][box] if channel else empty[box]
        ends = black_and_white(channels[channel], ground) if channel else (0.0, 255.0)
        # Of further channels one plane is enough.
        planes = dict(list(PLANES.items())[: 1 if number else 3]) if len(shape) == 3 else {"image": None}
        for plane, axis in planes.items():
            rows, columns = (0, 1) if axis is None else [one for one in (2, 1, 0) if one != axis]
            places = [None] if axis is None else _places(held[box], structure, axis)
            stacks = {
                name: np.stack([array if place is None else take_slice(array, axis or 0, place) for place in places])
                for name, array in {"scan": ground, **layers}.items()
            }
            stacks["scan"] = _levels(stacks["scan"], *ends)
            steps = tuple(max(side / _SIDE, 1.0) for side in stacks["scan"].shape[1:])
            cut |= {f"{len(views)}/{name}": _shrunk(stack, steps, name) for name, stack in stacks.items()}
            spacing = [sizes[rows] * steps[0], sizes[columns] * steps[1]]
            views.append({"plane": plane, "channel": channel, "spacing": spacing})
    return views, cut


def _upright(volume: Volume) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return a volume in RAS, an image as it is, and the voxel sizes along its axes."""
    sizes = voxel_sizes(volume.affine)
    if volume.array.ndim == 2:
        return volume.array, tuple(sizes[:2].tolist())
    turn = orientations.io_orientation(volume.affine)
    return orientations.apply_orientation(volume.array, turn), tuple(sizes[np.argsort(turn[:, 0])].tolist())


def _box(held: np.ndarray, sizes: tuple[float, ...]) -> tuple[slice, ...]:
    """Return what lies around all structures; everything where there are none."""
    if not held.any():
        return (slice(None),) * held.ndim
    others = [tuple(other for other in range(held.ndim) if other != axis) for axis in range(held.ndim)]
    ends = [np.flatnonzero(held.any(axis=axes))[[0, -1]].tolist() for axes in others]
    margin = _MARGIN * max((last - first + 1) * size for (first, last), size in zip(ends, sizes, strict=True))
    around = [max(round(margin / size), _LEAST_MARGIN) for size in sizes]
    return tuple(slice(max(first - more, 0), last + 1 + more) for (first, last), more in zip(ends, around, strict=True))


def _largest(labels: np.ndarray) -> np.ndarray:
    """Return where the largest structure is."""
    # A slab at a time: counting makes integers of 8 bytes.
    most = int(labels.max(initial=0)) + 1
    counts = sum((np.bincount(slab.ravel(), minlength=most) for slab in labels), np.zeros(most, int))
    return labels == 1 + counts[1:].argmax() if len(counts) > 1 else np.zeros(labels.shape, bool)


def _places(held: np.ndarray, structure: np.ndarray, axis: int) -> list[int]:
    """Return where to cut along an axis, as often before as behind the slice in which the structure is largest."""
    others = tuple(other for other in range(3) if other != axis)
    counts, inside = np.count_nonzero(structure, axis=others), np.flatnonzero(held.any(axis=others))
    first, last = (inside[0], inside[-1]) if inside.size else (0, len(counts) - 1)
    centre = counts.argmax() if counts.any() else (first + last) // 2
    half = _SLICES // 2 + 1
    return [round(place) for place in (*np.linspace(first, centre, half)[:-1], *np.linspace(centre, last, half))]


def _shrunk(stack: np.ndarray, steps: tuple[float, ...], name: str) -> np.ndarray:
    shape = tuple(round(side / step) for side, step in zip(stack.shape[1:], steps, strict=True))
    small = interpolate(stack, shape, steps) if name == "scan" else nearest(stack, shape, steps)
    return small.round().astype(np.uint8 if name == "scan" else np.uint16)


def black_and_white(scan: Volume, array: np.ndarray) -> tuple[float, float]:
    """Return what is black and what is white in a scan, or in a part of it that is shown.

    They are the percentiles that leave out 1% of some voxels, and the air of a CT.
    """
    step = max(round((array.size / _SAMPLE) ** (1 / array.ndim)), 1)
    values = array[(slice(None, None, step),) * array.ndim]
    values = values[np.isfinite(values)]
    inside = values[values > (_AIR if detect_modality(scan) == "ct" else values.min(initial=0))]
    low, high = np.percentile(inside if inside.size else [0.0, 1.0], (1, 99)).tolist()
    return low, high


def _levels(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return an array in the levels of 8 bits."""
    scaled = (np.nan_to_num(array).astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    return np.clip(scaled, 0, 255)
