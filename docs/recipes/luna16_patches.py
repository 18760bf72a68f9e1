"""Cut LUNA16's candidates into patches and a table for `finetune` and `compare`: is a point in a chest CT a nodule?

Run it: python docs/recipes/luna16_patches.py LUNA16 PATCHES
Takes every nodule and ten other candidates of each scan, of half a million. A patch has 64×64×32 voxels of its scan,
as in the paper; the scans `<seriesuid>.mhd` lie anywhere below the folder.
"""

import csv
import random
import sys
from pathlib import Path

import numpy as np

from modelsgenesis.data import file_stem, read_volume, write_nifti

SIDES = np.array((64, 64, 32))
OTHERS = 10


def cut_patches(luna: Path, output: Path) -> Path:
    """Write the patches and `patches.csv`, and return the table."""
    scans = {file_stem(path): path for ending in ("mhd", "nii.gz") for path in luna.rglob(f"*.{ending}")}
    candidates: dict[str, list[dict[str, str]]] = {}
    with next(luna.glob("candidates*.csv")).open(newline="") as file:
        for row in csv.DictReader(file):
            candidates.setdefault(row["seriesuid"], []).append(row)
    rows, draw = [], random.Random(0)
    for series in sorted(candidates.keys() & scans.keys()):
        scan = read_volume(scans[series])
        padded = np.pad(scan.array, [(side, side) for side in SIDES], constant_values=scan.array.min())
        nodules = [row for row in candidates[series] if row["class"] == "1"]
        others = [row for row in candidates[series] if row["class"] == "0"]
        for number, row in enumerate(nodules + draw.sample(others, min(OTHERS, len(others)))):
            # LUNA16's world is LPS, whose first two axes point the other way than those of RAS.
            point = np.array([float(row[f"coord{axis}"]) for axis in "XYZ"]) * (-1, -1, 1)
            first = np.rint(np.linalg.inv(scan.affine) @ (*point, 1))[:3].astype(int) - SIDES // 2
            inside = tuple(slice(start + side, start + 2 * side) for start, side in zip(first, SIDES, strict=True))
            affine = scan.affine.copy()
            affine[:3, 3] += affine[:3, :3] @ first
            patch = write_nifti(output / f"{series}_{number:03d}.nii.gz", padded[inside], affine)
            rows.append((patch.name, "nodule" if row["class"] == "1" else "no nodule", series))
    table = output / "patches.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "patient"), *rows])
    return table


if __name__ == "__main__":
    print(cut_patches(Path(sys.argv[1]), Path(sys.argv[2])))
