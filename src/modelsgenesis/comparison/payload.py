"""Prepared cases that several processes read from one file: mapped into memory, not copied for each of them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from modelsgenesis.data import PreparedCase
from modelsgenesis.files import replacing


def write_cases(path: Path, cases: Sequence[PreparedCase]) -> None:
    """Write cases, without the voxels of their volumes: these lie in the image already.

    Only the process that wrote such a file, and the workers that it starts, ever read it: it is a pickle.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    content = []
    for case in cases:
        arrays = [None if array is None else torch.from_numpy(array) for array in (case.image, case.label)]
        content.append((replace(case, image=np.empty(0), label=None), *arrays))
    with replacing(path) as temporary:
        torch.save(content, temporary)


@cache
def read_cases(path: Path) -> list[PreparedCase]:
    """Return what `write_cases` wrote; its arrays are mapped from the file, and a change to them stays private."""
    content = torch.load(path, mmap=True, weights_only=False)
    return [
        replace(case, image=image.numpy(), label=None if label is None else label.numpy())
        for case, image, label in content
    ]
