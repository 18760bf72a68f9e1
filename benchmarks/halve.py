"""MedMNIST's binary volumes at half their sides.

python benchmarks/halve.py adrenalmnist3d_64.npz adrenalmnist3d_32.npz
"""

import sys
from typing import Any

import numpy as np
from einops import reduce


def halve(volumes: np.ndarray) -> np.ndarray:
    """Return [n, x / 2, y / 2, z / 2] uint8 of 0 and 255: what most of each 2×2×2 block is."""
    means = reduce(volumes.astype(np.float32), "n (x i) (y j) (z k) -> n x y z", "mean", i=2, j=2, k=2)
    return 255 * (means >= 128).astype(np.uint8)


if __name__ == "__main__":
    given = np.load(sys.argv[1]).items()
    arrays: dict[str, Any] = {key: halve(array) if array.ndim == 4 else array for key, array in given}
    np.savez_compressed(sys.argv[2], **arrays)
