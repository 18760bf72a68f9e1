"""What a labelled sample costs: patches to segment and images to classify, as they are and augmented.

    python benchmarks/augmentation.py [--items 200]

The processor's time of one thread: of a plain sample, and of an augmented one its loading and, in batches of 4, what
the device of the training does.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from modelsgenesis.configs import ClassificationConfig, SegmentationConfig
from modelsgenesis.data.augmentation import Change, LabelledImages, LabelledPatches, augment
from modelsgenesis.data.cases import PreparedCase

CASES = 16
BATCH = 4


def scans(shape: tuple[int, ...]) -> list[PreparedCase]:
    """Return cases with two structures in their middle."""
    random = np.random.default_rng(0)
    label = np.zeros(shape, np.uint8)
    for value in (1, 2):
        label[tuple(slice(side // 4 * value, side // 4 * (value + 1)) for side in shape)] = value
    return [
        PreparedCase(
            name=str(index),
            patient=str(index),
            image=random.random((1, *shape), np.float32),
            label=label,
            classes=(index % 2,),
        )
        for index in range(CASES)
    ]


def milliseconds(dataset: Any, items: int) -> tuple[float, float]:
    """Return the processor's time a sample: of its loading, and of its augmentation in a batch."""
    for item in range(CASES):
        dataset[item]
    spent = [0.0, 0.0]
    for first in range(0, items, BATCH):
        start = time.process_time()
        image, truth, *changes = default_collate([dataset[item] for item in range(first, first + BATCH)])
        loaded = time.process_time()
        for change in changes:
            augment(image, truth, Change(*change))
        spent = [spent[0] + loaded - start, spent[1] + time.process_time() - loaded]
    loading, augmenting = (1000 * seconds / items for seconds in spent)
    return loading, augmenting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200)
    items = parser.parse_args().items
    torch.set_num_threads(1)
    made = {
        "patches of 40×56×40 out of 36×50×36": lambda augment: LabelledPatches(
            scans((36, 50, 36)), SegmentationConfig(patch_size=(40, 56, 40), augment=augment)
        ),
        "patches of 64×64×32 out of 128×128×96": lambda augment: LabelledPatches(
            scans((128, 128, 96)), SegmentationConfig(patch_size=(64, 64, 32), augment=augment)
        ),
        "images of 128×128": lambda augment: LabelledImages(
            scans((128, 128)), ClassificationConfig(patch_size=(128, 128), augment=augment), classes=2
        ),
        "images of 64×64×64": lambda augment: LabelledImages(
            scans((64, 64, 64)), ClassificationConfig(patch_size=(64, 64, 64), augment=augment), classes=2
        ),
    }
    for name, make in made.items():
        plain, _ = milliseconds(make(False), items)
        loading, augmenting = milliseconds(make(True), items)
        rate = 1000 / (loading + augmenting)
        print(f"{name}: {plain:.2f} ms, augmented {loading:.2f} + {augmenting:.2f} ms ({rate:.0f} a second)")


if __name__ == "__main__":
    main()
