"""The report of a pretraining: did the network learn to restore, from what, and at what cost."""

import math
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt

from modelsgenesis.data import SkippedScan
from modelsgenesis.errors import DataError, counted
from modelsgenesis.figures.charts import PAGE, curve_caption, curve_chart, kept, read_log, svg_of
from modelsgenesis.figures.pictures import PLANES, outlines, plane_title, take_slice
from modelsgenesis.files import read_csv, write_csv
from modelsgenesis.reports.page import Block, Chart, Missing, Page, Slide, Slides, Table, encoded, try_section
from modelsgenesis.reports.pictures import read_pictures, save_pictures
from modelsgenesis.reports.recipe import recipe_blocks, told
from modelsgenesis.reports.records import Records, dig, unfinished

REFUSED = "refused.csv"
"""The scans that a run did not use, and why; it stays local, for it names files."""

_PATCHES = 6  # shown at most
_SIDE = 256  # pixels of a picture's longer side
_LISTED = 100  # scans that were not used, shown at most
_NAMES = {  # of facts and input contract, in the order of the table
    "modality": "modality",
    "training_scans": "training scans",
    "training_patients": "training patients",
    "validation_scans": "validation scans",
    "validation_patients": "validation patients",
    "left_out_test_scans": "scans left out, which other runs test on",
    "held_out": "validation patients are held out",
    "median_shape": "median shape (voxels)",
    "median_spacing_mm": "median spacing (mm)",
    "spacing": "resampled to (mm)",
    "orientation": "axes",
    "intensity": "intensities by",
    "window": "intensities that become 0 and 1",
    "percentiles": "percentiles that become 0 and 1",
}
_SHOWN = ("original", "deformed", "restored")


def write_refused(folder: Path, refused: Sequence[SkippedScan]) -> None:
    """Write `refused.csv`: each scan that a run does not use, and why.

    Raises:
        DataError: It cannot be written.
    """
    rows = {one.source: {"source": one.source, "reason": one.reason} for one in refused}  # each once
    write_csv(folder / REFUSED, list(rows.values()), DataError, ("source", "reason"))


def keep_restorations(
    folder: Path, images: Sequence[np.ndarray], step: int, spacing: Sequence[float], orientation: str | None = None
) -> None:
    """Write `report.npz`: middle slices of at most six patches, original, deformed and restored.

    Args:
        folder: Of the run.
        images: Original, deformed and restored, each [n, 1, *patch] in [0, 1].
        step: Of the network that restored them.
        spacing: Of the voxels in mm, along each axis.
        orientation: Codes of the axes of volumes; None for RAS.
    """
    stacked = np.stack([(image[:_PATCHES, 0].clip(0, 1) * 255).round().astype(np.uint8) for image in images], axis=1)
    if len(spacing) < 3:
        cut = {"image": stacked}
    else:  # volumes, or slices across their last axis, are turned to RAS
        turn = axcodes2ornt(orientation or "RAS")
        axes = turn[:, 0].astype(int).tolist()
        spacing = [spacing[axes.index(axis)] for axis in range(3)]
        shown = PLANES if stacked.ndim == 5 else {plane: axis for plane, axis in PLANES.items() if axis == axes[2]}
        volumes = [[apply_orientation(np.atleast_3d(one), turn) for one in patch] for patch in stacked]
        cut = {
            plane: np.stack([[take_slice(one, axis, one.shape[axis] // 2) for one in patch] for patch in volumes])
            for plane, axis in shown.items()
        }
    save_pictures(folder, {"step": step, "spacing": [float(size) for size in spacing]}, cut)


def pretraining_page(records: Records) -> Page:
    """Return the report of a pretraining, finished or not."""
    folder = records.folder
    steps, measured = read_log(folder / "log.csv"), read_log(folder / "validation.csv")
    best = best_validation(measured)
    done = int(steps["step"][-1]) if steps else int(best.get("step", 0))
    planned, data = dig(records.run, "config", "steps"), dig(records.bundle, "provenance", "data", default={})
    split = dig(records.run, "split", default={})
    scans = {part: data.get(f"{part}_scans", len(split.get(part, ()))) for part in ("training", "validation")}
    facts = {
        "Restoration loss": f"{best['restoration_loss']:.4g}" if best else "",
        "Kept network": f"step {best['step']:,.0f}" if best else "none yet",
        "Steps": f"{done:,} of {planned:,}" if isinstance(planned, int) else f"{done:,}",
        "Scans": ", ".join(f"{count:,} {part}" for part, count in scans.items()) if any(scans.values()) else "",
        "Initial weights": str(records.run.get("init") or "random") if records.run else "",
        "Time": _time(records, steps),
    }
    resume = f"modelsgenesis pretrain --resume {shlex.quote(str(folder))}"
    remarks = map(str, dig(records.bundle, "provenance", "results", "remarks", default=()))
    sections = (
        try_section("Restorations", partial(_restorations, records)),
        try_section("Learning curve", partial(curve_blocks, folder)),
        try_section("Data", partial(_data, records)),
        try_section("Cost", partial(_cost, records, steps, done)),
        try_section("Recipe and command", partial(recipe_blocks, records)),
    )
    return Page(
        title=folder.resolve().name,
        kind="pretraining",
        verdict=_verdict(records, best, done),
        facts=facts,
        sections=sections,
        remarks=(*unfinished(records, done, resume), *remarks, *records.problems),
    )


def best_validation(measured: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the validation whose network was kept: the lowest loss, and of equal ones the newest."""
    known = np.isfinite(measured.get("restoration_loss", np.empty(0))).any()
    return {name: float(values[kept(measured)]) for name, values in measured.items()} if known else {}


def _verdict(records: Records, best: dict[str, float], done: int) -> str:
    if not best:
        return f"No validation was completed: {counted(done, 'step')} {'is' if done == 1 else 'are'} done."
    loss = best["restoration_loss"]
    said = f"{_patches(records)} are restored with a mean squared error of {loss:.4g}"
    names = {"mean_image_loss": "always predicting the mean image", "identity_loss": "leaving them deformed"}
    ratios = [f"{loss / best[name]:.2f} times that of {what}" for name, what in names.items() if best.get(name)]
    return f"{': '.join([said, ' and '.join(ratios)] if ratios else [said])}."


def _patches(records: Records) -> str:
    held_out = dig(records.bundle, "provenance", "data", "held_out", default=True)
    return "Held-out patches" if held_out else "Other patches of the training scans"


def _time(records: Records, steps: dict[str, np.ndarray]) -> str:
    """Return how long the run took, or where its bundle does not say so what its steps took alone."""
    hours = dig(records.bundle, "provenance", "environment", "hours")
    speeds, batch = steps.get("samples_per_second", np.empty(0)), dig(records.run, "config", "batch_size", default=0)
    seconds = 3600 * hours if isinstance(hours, (int, float)) else float(np.nansum(batch / speeds[speeds > 0]))
    for unit, size in {"days": 86400, "hours": 3600, "min": 60}.items():
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds else ""


def curve_blocks(folder: Path) -> Iterator[Block]:
    """Yield the learning curve of a run."""
    logs = folder / "log.csv", folder / "validation.csv"
    if not any(log.exists() for log in logs):
        yield Missing("No step was logged: there is neither a log.csv nor a validation.csv.")
        return
    caption, figure = curve_caption(logs[1]), curve_chart(*logs)
    figure.set_size_inches(PAGE, 2.8)
    yield Chart(svg_of(figure), caption, "Losses over the steps")


def _restorations(records: Records) -> Iterator[Block]:
    if not (records.folder / "report.npz").exists():
        yield Missing("No restorations are kept here: no validation was completed, or an earlier version made this.")
        return
    about, arrays = read_pictures(records.folder)
    spacing, step = about["spacing"], about["step"]
    axes = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1), "image": (0, 1)}  # that rows and columns go along
    shown: dict[str, list[Slide]] = {}
    for index in range(max(map(len, arrays.values()))):
        for plane, stack in arrays.items():
            rows, columns = (spacing[axis] if axis < len(spacing) else 1.0 for axis in axes[plane])
            where = f"patch {index + 1}" if plane == "image" else f"patch {index + 1}, {plane_title(plane)}"
            error = np.abs(stack[index, 2].astype(np.int16) - stack[index, 0]).astype(np.uint8)
            views = dict(zip((*_SHOWN, "absolute error"), (*stack[index], error), strict=True))
            drawn = {name: outlines(view, spacing=(rows, columns), side=_SIDE) for name, view in views.items()}
            shown[where] = [Slide(encoded(picture), name, f"{name}: {where}") for name, picture in drawn.items()]
    first = next(iter(shown.values()))
    yield Slides(
        "One patch",
        {slide.label: [slide] for slide in first},
        f"{_patches(records)}: the first, network of step {step:,}.",
    )
    yield Slides(
        "Move from original to restored",
        shown,
        f"{_patches(records)}, middle slices. The slider, or the arrow keys, go from the "
        "original to what the network saw, what it restored, and how far that is off.",
        start=2,
    )


def _data(records: Records) -> Iterator[Block]:
    data = dig(records.bundle, "provenance", "data", default={})
    facts = {**data, **dig(records.run, "input", default={})}
    rows = [(name, _in_words(key, facts[key])) for key, name in _NAMES.items() if facts.get(key) not in (None, ())]
    if rows:
        yield Table(("what", "value"), rows, "The scans, and how they are prepared.")
    yield from refused_blocks(records.folder)


def refused_blocks(folder: Path) -> Iterator[Block]:
    """Yield what a run did not use, and why."""
    try:
        refused = read_csv(folder / REFUSED, DataError)
    except DataError:
        yield Missing(f"There is no {REFUSED}, which says which scans were not used, or it cannot be read.")
        return
    if refused:
        listed = [(row.get("source", ""), row.get("reason", "")) for row in refused[:_LISTED]]
        more = f", the first {_LISTED} of {len(refused):,}" if len(refused) > _LISTED else ""
        caption = f"{counted(len(refused), 'scan')} not used{more}; all are in {REFUSED}."
        yield Table(("not used", "why"), listed, caption)
    else:
        yield Missing("Every scan was used.")


def _in_words(key: str, value: Any) -> str:
    if key == "modality":
        return value.upper() if value in ("ct", "mri") else str(value)
    if key == "window":
        low, high = (f"{end:g}".replace("-", "−") for end in value)
        return f"{low} to {high}"
    return told([float(f"{one:.4g}") for one in value]) if key == "median_spacing_mm" else told(value)


def _cost(records: Records, steps: dict[str, np.ndarray], done: int) -> Iterator[Block]:
    environment = dig(records.bundle, "provenance", "environment", default={})
    batch = dig(records.run, "config", "batch_size")
    speeds = steps.get("samples_per_second", np.empty(0))
    rows = {
        "time": _time(records, steps),
        "hardware": environment.get("hardware", ""),
        "samples": f"{done * batch:,} in {counted(done, 'step')} of {batch}" if batch else counted(done, "step"),
        "samples per second": f"{np.nanmedian(speeds):.3g} (median)" if speeds.size else "",
        "parameters": _parameters(records.folder / "model.safetensors"),
        "software": ", ".join(f"{name} {environment[name]}" for name in ("python", "torch") if name in environment),
    }
    yield Table(("what", "value"), [(name, str(value)) for name, value in rows.items() if value])


def _parameters(path: Path) -> str:
    """Return the number of weights in a bundle, without the averages of normalisation."""
    from safetensors import safe_open

    if not path.is_file():
        return ""
    with safe_open(path, framework="numpy") as weights:
        names = [name for name in weights.keys() if "running_" not in name and "num_batches" not in name]  # noqa: SIM118
        return f"{sum(math.prod(weights.get_slice(name).get_shape()) for name in names):,}"
