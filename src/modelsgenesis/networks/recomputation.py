"""Less memory for more time: activations computed anew in the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from modelsgenesis.networks.layers import BatchNorm


def recompute_activations(network: nn.Module) -> nn.Module:
    """Let every level of a U-Net keep its input alone and compute the rest anew for the gradients, in place.

    The results are the same; the running averages of batch norms move once a step, as ever. Tensors keep their
    names.

    Args:
        network: Encoder-decoder or classifier of this package.

    Returns:
        The network.
    """
    for part in (network.encoder, getattr(network, "decoder", None)):
        levels = getattr(part, "levels", None) or getattr(part, "stages", None)
        for level in levels or ():
            contexts = partial(_contexts, level)
            level.forward = partial(checkpoint, level.forward, use_reentrant=False, context_fn=contexts)
    return network


def _contexts(level: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what surrounds the first pass and the one that computes anew."""
    return nullcontext(), _recomputing(level)


@contextmanager
def _recomputing(level: nn.Module) -> Iterator[None]:
    norms = [module for module in level.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.recomputing = True
    try:
        yield
    finally:
        for norm in norms:
            norm.recomputing = False
