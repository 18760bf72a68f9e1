"""What segmentation and classification add to the loop alike: how cases are measured, and what they amount to."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from modelsgenesis.configs import FinetuningConfig, require_patch_size
from modelsgenesis.data import LabelledData, PreparedCase
from modelsgenesis.errors import DataError
from modelsgenesis.files import parsing, read_csv, write_csv
from modelsgenesis.hardware import Hardware
from modelsgenesis.training.trainer import Objective

Row = dict[str, Any]
"""What was measured of a case: a line of `test.csv`, `case` and `patient` first."""


class SupervisedObjective(Objective):
    """Learns from labels.

    Args:
        training: Cases to learn from.
        validation: Cases that decide which network is kept; none keeps the last.
        config: Budget, patch, augmentation.
        data: The data set, whose classes are learnt.
        hardware: Where to compute.

    Raises:
        DataError: There is nothing to learn.
    """

    def __init__(
        self,
        *,
        training: Sequence[PreparedCase],
        validation: Sequence[PreparedCase],
        config: FinetuningConfig,
        data: LabelledData,
        hardware: Hardware,
    ) -> None:
        self.patch_size = require_patch_size(config)
        self.validation, self.config, self.hardware = validation, config, hardware
        self.labels, self.multilabel = data.labels, data.multilabel
        self._frozen: nn.Module | None = None
        self.prepare(training)

    @abstractmethod
    def prepare(self, training: Sequence[PreparedCase]) -> None:
        """Make the training samples, `dataset`, and whatever else follows from the training cases."""

    @abstractmethod
    def measure(self, network: nn.Module, cases: Sequence[PreparedCase]) -> list[Row]:
        """Measure a network, in evaluation mode, on cases: a row each."""

    def notes(self) -> list[str]:
        """Return what a person should know of the labels before training."""
        return []

    def freeze(self, part: nn.Module) -> None:
        """Keep a part of the network as it is: no gradient, and batch norms as in evaluation."""
        part.requires_grad_(False)
        self._frozen = part

    def hold_frozen(self) -> None:
        """Put the frozen part back into evaluation mode, which the loop left; call it before the network."""
        if self._frozen is not None:
            self._frozen.eval()


def write_rows(path: Path, rows: Sequence[Row], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV; what is undefined, NaN, is an empty cell.

    Args:
        path: The file.
        rows: All with the same keys, unless there are columns.
        columns: The header; None for the keys of the first row.
    """
    write_csv(path, rows, DataError, columns or (() if rows else ("case", "patient")))


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote: numbers become floats again, empty cells NaN, all but the texts of a case.

    Raises:
        DataError: The file is missing or no such CSV.
    """
    texts = ("case", "patient", "class", "predicted")
    rows = read_csv(path, DataError)
    with parsing(path, DataError, what="as the measurements of a run"):
        return [{key: cell if key in texts else float(cell or "nan") for key, cell in row.items()} for row in rows]


def plain(value: Any) -> Any:
    """Return a value as JSON has it: lists for tuples, None for NaN, which is what is not defined."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
