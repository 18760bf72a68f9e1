"""The embedded sample."""

from importlib import resources
from pathlib import Path

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData
from modelsgenesis.data.labelled.sources import FileImage
from modelsgenesis.data.volume import file_stem


def sample_data() -> LabelledData:
    """Return the embedded sample: two patients of TotalSegmentator's test files with three organs.

    The scans are at 3 mm; a model drew the labels, not people. One patient is an abdominal slab of 13 slices.
    """
    folder = sample_folder()
    organs = {"background": (0,), "liver": (5,), "spleen": (1,), "back muscles": (86, 87)}
    cases = []
    for image in sorted((folder / "images").iterdir()):
        mask, name = folder / "labels" / image.name, file_stem(image)
        if mask.exists():
            cases.append(LabelledCase(name=name, patient=name, images=(FileImage(path=image),), mask=mask))
    return LabelledData(
        name="embedded sample of CT",
        task="segmentation",
        cases=tuple(cases),
        labels=tuple(organs),
        values=tuple(organs.values()),
        others_are_background=True,
        modality="ct",
    )


def sample_folder() -> Path:
    """Return the folder of the embedded scans."""
    return Path(str(resources.files("modelsgenesis"))) / "sample"
