"""Small labelled data sets on disk."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

AFFINE = np.diag([2.0, 2.0, 2.5, 1.0])


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def volume(seed: int, shape: tuple[int, ...] = (10, 9, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 20_000, shape).astype(np.int16)


def mask(*values: int, shape: tuple[int, ...] = (10, 9, 8)) -> np.ndarray:
    """A label map with a slab of each value."""
    label = np.zeros(shape, np.uint8)
    for index, value in enumerate(values):
        label[2 * index + 1 : 2 * index + 3] = value
    return label


def picture(path: Path, seed: int, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)).save(path)
    return path


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path
