"""LUNA16's candidates: points in chest CT that are nodules or are not."""

from pathlib import Path

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.sources import CubeImage, LastScan
from modelsgenesis.data.labelled.table import Row, read_rows
from modelsgenesis.errors import DataError

NAMES = ("candidates_V2.csv", "candidates.csv")
"""What the files are called, the better one first."""

COLUMNS = ("seriesuid", "coordx", "coordy", "coordz", "class")
_SIDE = 64.0  # mm; a nodule is at most 30, and its surroundings tell it from a vessel


def read_luna(path: Path, side: float = _SIDE) -> LabelledData:
    """Read the candidates whose scans are there, each as a cube of its scan.

    Args:
        path: `candidates.csv` or `candidates_V2.csv`; the scans, `<seriesuid>.mhd`, lie anywhere below its folder.
        side: Of the cubes, in mm.

    Returns:
        Cubes by series; all of one series are one patient. Candidates whose scan is not there are left out, and that
        is noted.

    Raises:
        DataError: Columns are missing, a number cannot be read, or no scan is there.

    Example:
        data = read_labelled("LUNA16")
        data.labels  # ('no nodule', 'nodule')
    """
    rows = read_rows(path, COLUMNS)
    scans = {scan.stem: scan for suffix in ("mhd", "mha", "nii.gz") for scan in path.parent.rglob(f"*.{suffix}")}
    scans |= {name.removesuffix(".nii"): scan for name, scan in scans.items()}
    series = {row["seriesuid"] for row in rows}
    missing = sorted(series - set(scans))
    if len(missing) == len(series):
        raise DataError(
            f"{path}: none of the scans of its {len(series)} series is below {path.parent}, as {missing[0]}.mhd"
        )
    numbered = [(number, row) for number, row in enumerate(rows) if row["seriesuid"] in scans]
    last = LastScan()
    cases = [_case(path, number, row, scans[row["seriesuid"]], side, last) for number, row in numbered]
    notes = [f"cubes of {side:g} mm around the candidates; all of a series are one patient"]
    if missing:
        notes.append(f"left out {len(rows) - len(cases)} candidates of {len(missing)} series whose scans are not there")
    return LabelledData(
        name=path.parent.resolve().name,
        task="classification",
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        labels=("no nodule", "nodule"),
        modality="ct",
        fit="resize",
        notes=tuple(notes),
    )


def _case(path: Path, number: int, row: Row, scan: Path, side: float, last: LastScan) -> LabelledCase:
    """Return a candidate; its world is LPS, whose first two axes point the other way than RAS."""
    try:
        x, y, z = (float(row[name]) for name in COLUMNS[1:4])
        held = {"0": 0, "1": 1}[row["class"]]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: line {number + 2}: expected three coordinates in mm and class 0 or 1") from error
    return LabelledCase(
        name=f"{row['seriesuid']}_{number:06d}",
        patient=row["seriesuid"],
        images=(CubeImage(path=scan, centre=(-x, -y, z), side=side, scans=last),),
        classes=(held,),
    )
