"""MedMNIST's binary volumes at half their sides, and as files that `pretrain` reads.

    python benchmarks/halve.py adrenalmnist3d_64.npz adrenalmnist3d_32.npz adrenal --split SPLIT.json

The folder gets a NIfTI file for each training and validation volume of the split; test volumes stay out of it.
"""

import argparse
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from modelsgenesis.data import read_labelled
from modelsgenesis.training.splits import read_split


def halve(volumes: np.ndarray) -> np.ndarray:
    """Return [n, x / 2, y / 2, z / 2] uint8 of 0 and 255: what most of each 2×2×2 block is."""
    n, *sides = volumes.shape
    blocks = volumes.reshape(n, *(part for side in sides for part in (side // 2, 2)))
    return 255 * (blocks.mean(axis=(2, 4, 6)) >= 128).astype(np.uint8)


def main() -> None:
    """Write the file and the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("given", type=Path)
    parser.add_argument("halved", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    options = parser.parse_args()
    arrays: dict[str, Any] = {
        key: halve(value) if value.ndim == 4 else value for key, value in np.load(options.given).items()
    }
    np.savez_compressed(options.halved, **arrays)
    split = read_split(options.split)
    wanted = {*split.training, *split.validation}
    options.folder.mkdir(parents=True, exist_ok=True)
    volumes = [volume for part in ("train", "val", "test") for volume in arrays.get(f"{part}_images", ())]
    for case, volume in zip(read_labelled(options.halved).cases, volumes, strict=True):
        if case.name in wanted:
            nib.save(nib.Nifti1Image(volume, np.eye(4)), options.folder / f"{case.name}.nii.gz")


if __name__ == "__main__":
    main()
