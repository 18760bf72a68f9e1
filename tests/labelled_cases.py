"""Labelled cases in memory, small enough to be learnt in a second."""

import numpy as np

from modelsgenesis.configs import CONTRACTS, ClassificationConfig, GenesisUNetConfig, SegmentationConfig
from modelsgenesis.data.cases import LabelledCase, LabelledData, PreparedCase
from modelsgenesis.training.splits import Split

NETWORK = GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance")
COMMON = {"network": NETWORK, "patch_size": (16, 16), "warmup_steps": 2, "learning_rate": 1e-2, "bootstrap": 50}
COMMON |= {"augment": False, "workers": 0, "precision": "float32"}
CLASSIFY = ClassificationConfig(**COMMON, steps=40, batch_size=8, validate_every=20, hidden=0, levels=(0, 1))
SEGMENT = SegmentationConfig(**COMMON, steps=4, batch_size=2, validate_every=2, samples_per_scan=2, overlap=0.0)
CONTRACT = CONTRACTS["xray"]


def image_of(seed, held):
    """Noise with a bright square for class 1, a bright stripe for class 2."""
    image = np.random.default_rng(seed).random((1, 16, 16)).astype(np.float32) * 0.3
    image[0, 4:10, 4:10] += 0.7 * (1 in held)
    image[0, 13:15] += 0.7 * (2 in held)
    return image


def prepared(index, held, patient=None):
    """A case to classify."""
    facts = {"name": f"image_{index}", "patient": patient or f"patient_{index}", "classes": tuple(held)}
    return PreparedCase(image=image_of(index, held), **facts)


def masked(index, values=(1, 2)):
    """A case to segment: a bright square is 1, a bright stripe 2."""
    label = np.zeros((16, 16), np.uint8)
    if 1 in values:
        label[4:10, 4:10] = 1
    if 2 in values:
        label[13:15] = 2
    return PreparedCase(name=f"image_{index}", patient=f"patient_{index}", image=image_of(index, values), label=label)


def data_of(cases, labels, task="classification", **more):
    """The data set that prepared cases are of."""
    listed = [LabelledCase(name=case.name, patient=case.patient, images=(), classes=case.classes) for case in cases]
    facts = {"name": "squares", "task": task, "modality": "xray", "dims": 2, **more}
    return LabelledData(cases=tuple(listed), labels=tuple(labels), **facts)


def split_of(**parts):
    """The split of prepared cases."""
    return Split(**{part: tuple(case.name for case in cases) for part, cases in parts.items()})
