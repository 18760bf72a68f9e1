"""A batch or a patch that fills the memory there is, on request."""

from dataclasses import replace
from functools import partial

from modelsgenesis.data import VolumeCache
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import Processes
from modelsgenesis.training.memory import SHARE, Trial, available_memory, largest_batch, largest_patch
from modelsgenesis.verbs.starting import Start
from modelsgenesis.verbs.subvolumes import smallest_sides


def fit_to_memory(
    start: Start,
    store: VolumeCache,
    *,
    batch: bool,
    patch: bool,
    hardware: Hardware,
    processes: Processes,
    reporter: Reporter,
) -> Start:
    """Work out the largest patch, then the largest batch, that fit; as little as was asked for.

    Args:
        start: The network and the configuration.
        store: The prepared scans: a patch is to fit all of them, a batch holds no more than an epoch.
        batch: Whether to work out `batch_size`.
        patch: Whether to work out `patch_size`.
        hardware: Where to compute.
        processes: Share the batch; rank 0 works it out.
        reporter: Is told the result.

    Returns:
        The start with the new configuration.

    Raises:
        ConfigurationError: Nothing fits, or the system does not tell its memory.
    """
    if not (batch or patch):
        return start
    budget = int(SHARE * processes.first(partial(available_memory, hardware)))
    config = start.config
    if patch:
        share = config.override(batch_size=max(config.batch_size // processes.world_size, 1))
        trial = Trial(start.network, share, hardware)
        limits = smallest_sides(store, config) or config.patch_size
        config = config.override(patch_size=processes.first(partial(largest_patch, trial, budget, limits)))
        reporter.note(f"patch_size={','.join(map(str, config.patch_size))} is what {budget / 2**30:.1f} GiB hold")
    if batch:
        trial = Trial(start.network, config, hardware)
        most = max(len(store) * config.samples_per_scan // processes.world_size, 1)
        fits = processes.first(partial(largest_batch, trial, budget, most))
        config = config.override(batch_size=fits * processes.world_size)
        why = "there are no more samples" if fits == most else f"what {budget / 2**30:.1f} GiB hold"
        reporter.note(f"batch_size={config.batch_size}: {why}")
    return replace(start, config=config)
