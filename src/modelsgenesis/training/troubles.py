"""What a GPU or its memory cannot do, in one line with a remedy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import TrainingError, gpu_trouble
from modelsgenesis.hardware import lacks_memory
from modelsgenesis.training import distributed


@contextmanager
def explained(network: nn.Module, config: TrainingConfig, folder: Path, step: Callable[[], int]) -> Iterator[None]:
    """Explain what goes wrong on a device in the steps of a training.

    Args:
        network: What is trained.
        config: Names the batch and the patch.
        folder: The run's.
        step: Returns the number of the step at work.

    Raises:
        TrainingError: Memory did not last, and the remedy names a batch or a patch of half the size; or the GPU failed.
    """
    try:
        yield
    except RuntimeError as error:
        if lacks_memory(error):
            raise TrainingError(
                f"out of memory at step {step()} with batch_size={config.batch_size}: start again with "
                f"{_smaller(network, config)}, or with checkpoint_activations=true"
            ) from error
        if told := gpu_trouble(error):
            raise TrainingError(
                f"{told} at step {step()}; the last checkpoint is intact: resume with the same command and --resume "
                f"--output {folder}"
            ) from error
        raise


def _smaller(network: nn.Module, config: TrainingConfig) -> str:
    """Return the setting of half the batch, or where that is as small as can be, of half the patch."""
    world = distributed.world_size()
    if config.batch_size >= 2 * world:
        return f"batch_size={config.batch_size // 2 // world * world}"
    patch: Any = list(getattr(config, "patch_size", None) or ())
    divisor: Any = getattr(network, "size_divisor", patch)
    halves = [side // 2 // step * step for side, step in zip(patch, divisor, strict=True)]
    axis = max(range(len(patch)), key=lambda axis: (halves[axis] > 0, patch[axis]), default=None)
    if axis is None or not halves[axis]:
        return "a smaller network"
    return f"patch_size={','.join(map(str, [*patch[:axis], halves[axis], *patch[axis + 1 :]]))}"
