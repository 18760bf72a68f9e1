"""The pictures that a run keeps for its report: small, so that the report can be made again without the data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.errors import DataError
from modelsgenesis.files import open_regular, parsing, replacing

PICTURES = "report.npz"
"""Name of the file in a run or an evaluation; it is never uploaded."""

Arrays = dict[str, np.ndarray]

_LIMIT = 64 << 20  # bytes


def save_pictures(folder: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    """Write `report.npz`.

    Args:
        folder: Of the run or the evaluation.
        about: What the arrays show, as JSON values.
        arrays: Pictures in uint8 and label maps in uint16, by the names that `about` uses.

    Raises:
        DataError: It cannot be written.
    """
    with replacing(folder / PICTURES, DataError, suffix=".npz") as temporary:
        named: dict[str, Any] = {"about": np.array(json.dumps(about)), **arrays}
        np.savez_compressed(temporary, **named)


def read_pictures(folder: Path) -> tuple[dict[str, Any], Arrays]:
    """Read `report.npz`: what its arrays show, and the arrays.

    Raises:
        DataError: It is missing, damaged, or too large.
    """
    path = folder / PICTURES
    with open_regular(path, DataError, _LIMIT) as file, parsing(path, DataError, remedy="run the command again"):
        arrays = dict(np.load(file, allow_pickle=False))
        return json.loads(str(arrays.pop("about"))), arrays
