"""Prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsgenesis.data import file_stem, write_nifti
from modelsgenesis.evaluation import predict_scan
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.verbs.models import load


@dataclass(frozen=True)
class Prediction:
    """What `predict` wrote.

    Attributes:
        path: The label map.
        labels: Class indices, uint8, in the scan's own shape.
        voxels: Number of voxels by class name, the background left out.
        probabilities: The file of probabilities, None if not asked for.
    """

    path: Path
    labels: np.ndarray
    voxels: dict[str, int]
    probabilities: Path | None = None


def predict(
    model: str | Path,
    scan: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    probabilities: str | Path | None = None,
    overlap: float = 0.5,
    device: str = "auto",
    token: str | None = None,
) -> Prediction:
    """Segment a scan and write the answer in the scan's own shape, affine and orientation.

    Args:
        model: A segmentation model: a run, a folder, or `org/repo`.
        scan: The scan's file; several for several channels.
        output: NIfTI to write; by default `<scan>_seg.nii.gz` in the working folder.
        probabilities: 4D NIfTI to write the class probabilities to.
        overlap: Of neighbouring windows, 0 to below 1.
        device: `"auto"`, `"cpu"`, `"cuda"` …
        token: Of the Hub.

    Returns:
        The path, the labels and how many voxels each class has.

    Raises:
        ConfigurationError: The model does not segment.
        ScanError: The scan cannot be read or used.
        DataError: The output cannot be written.

    Example:
        prediction = modelsgenesis.predict("runs/hippocampus", "scan.nii.gz")
        prediction.voxels  # {'Anterior': 1723, 'Posterior': 1502}
    """
    paths = [scan] if isinstance(scan, (str, Path)) else list(scan)
    bundle = load(model, token=token)
    hardware = choose_hardware(device)
    network = hardware.place_network(bundle.network)
    labels, soft, geometry = predict_scan(network, bundle.config, paths, overlap=overlap, hardware=hardware)
    path = Path(output) if output is not None else Path(f"{file_stem(Path(paths[0]))}_seg.nii.gz")
    write_nifti(path, labels, geometry)
    if probabilities is not None:
        write_nifti(probabilities, np.moveaxis(soft, 0, -1), geometry)
    names = bundle.config.labels[1:]
    return Prediction(
        path,
        labels,
        {name: int((labels == index).sum()) for index, name in enumerate(names, start=1)},
        None if probabilities is None else Path(probabilities),
    )
