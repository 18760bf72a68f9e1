"""The preparation of a model's scans as a transform of MONAI's."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from torch import Tensor

from modelsgenesis.configs import BundleConfig
from modelsgenesis.data import Volume, prepare_label
from modelsgenesis.data.cases import check_same_grid, fit_to_patch, prepare_channels, read_mask, whole_numbers
from modelsgenesis.data.memory import loaded_scans
from modelsgenesis.errors import ScanError, require
from modelsgenesis.inference.cases import find_case
from modelsgenesis.inference.preprocessing import padded


class PrepareScand(MapTransform):
    """Read and prepare the scan of a dictionary as a model expects it, and its label map on the same grid.

    Args:
        config: Of the model.
        divisor: What each side of an input must divide by.
        image: Key of the scan: anything that `find_case` takes.
        label: Key of a label map, where the dictionary has one: a path, a nibabel image, or an array on the scan's
            grid. Of a classification it stays as it is.

    The dictionary gets tensors of MONAI's with an affine: float32 [channels, *spatial] and int32 [1, *spatial].

    Raises:
        ScanError: The scan or its label map cannot be used.
    """

    def __init__(self, config: BundleConfig, divisor: tuple[int, ...], image: str, label: str) -> None:
        super().__init__((image, label), allow_missing_keys=True)
        self.config, self.divisor, self.image, self.label = config, divisor, image, label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the prepared scan and label map."""
        contract, changed = self.config.input, dict(data)
        there = ", ".join(map(str, data))
        require(self.image in data, ScanError, f"the dictionary has no {self.image!r}; it has {there}")
        case = find_case(data[self.image], contract.channels, dims=contract.dims, affine=data.get("affine"))
        scans = [one.read() for one in case.images]
        image, frame = prepare_channels(scans, contract)
        axes = f"{frame.source}: has {frame.array.ndim} axes; in MONAI a model of {contract.dims} takes its slices"
        require(image.ndim == contract.dims + 1, ScanError, axes)
        if self.config.task == "classification":
            image = fit_to_patch(image, self.config, frame.source)
        about = {"filename_or_obj": str(case.images[0].path), "affine": torch.from_numpy(frame.affine)}
        changed[self.image] = MetaTensor(padded(torch.from_numpy(image), self.divisor), meta=about)
        if self.label in data and self.config.task != "classification":
            label = self._label(data[self.label], scans[0])
            changed[self.label] = MetaTensor(padded(label[None], self.divisor), meta=about)
        return changed

    def _label(self, label: Any, scan: Volume) -> Tensor:
        """Return a label map, [*spatial] on the prepared grid of its scan."""
        if isinstance(label, (str, Path)):
            mask = read_mask(Path(label))
        else:
            affine = None if hasattr(label, "affine") else scan.affine
            mask = whole_numbers(loaded_scans(label, channels=1, dims=scan.array.ndim, affine=affine)[0].read())
        check_same_grid(scan, mask)
        prepared = prepare_label(replace(scan, array=mask.array.astype(np.int32)), self.config.input)
        return torch.from_numpy(prepared.array)
