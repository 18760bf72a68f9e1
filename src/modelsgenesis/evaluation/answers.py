"""From probabilities on prepared grids to an answer in the scan's own shape and orientation.

A class at a time: besides the probabilities on the prepared grid, only a few volumes of one class are in memory,
however many classes there are and however fine the scan's own grid is.
"""

from collections.abc import Sequence

import numpy as np

from modelsgenesis.data import to_native
from modelsgenesis.evaluation.ensembles import SoftAnswer


def native_channel(answers: Sequence[SoftAnswer], index: int) -> np.ndarray:
    """Return the probability of one class, float32 [*scan's shape]; it may be a view of the answer's."""
    channels = [to_native(answer.probabilities[index], answer.prepared, order=1) for answer in answers]
    return channels[0] if len(channels) == 1 else np.sum(channels, axis=0)


def native_labels(answers: Sequence[SoftAnswer]) -> np.ndarray:
    """Return the most probable class of each voxel of the scan.

    Probabilities are brought to the scan's own grid before the classes are compared, which keeps their borders smooth;
    a class at a time gives what all at once would.

    Args:
        answers: Of a case.

    Returns:
        uint8 [*scan's shape]; uint16 for more than 256 classes.
    """
    classes = len(answers[0].probabilities)
    best = native_channel(answers, 0)
    if any(np.may_share_memory(best, answer.probabilities) for answer in answers):
        best = best.copy()
    labels = np.zeros(best.shape, np.uint8 if classes <= 256 else np.uint16)
    for index in range(1, classes):
        channel = native_channel(answers, index)
        higher = channel > best
        labels[higher] = index
        np.copyto(best, channel, where=higher)
        del channel, higher  # before the next one is made
    return labels


def native_probabilities(answers: Sequence[SoftAnswer]) -> np.ndarray:
    """Return the probabilities of all classes, float32 [*scan's shape, classes]: as large as that is."""
    first = native_channel(answers, 0)
    classes = len(answers[0].probabilities)
    result = np.empty((*first.shape, classes), np.float32, order="F")  # as NIfTI stores it
    for index in range(classes):
        result[..., index] = native_channel(answers, index) if index else first
    return result
