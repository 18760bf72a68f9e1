"""Muon: steps that turn every direction of a kernel by as much."""

from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial that brings singular values near one in five rounds
_ROUNDS = 5
_SIZE = 0.2  # root mean square of a step over the learning rate, as of AdamW, so that a rate is one for both


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups with `kernels`: their steps are the momentum with all singular values brought to one.

    Restoring is learnt along few directions of a kernel, which AdamW follows until the deep features vary along few
    directions themselves. Here those directions take no larger steps than the others.

    Args:
        groups: Parameters, each group with a flag `kernels`; a kernel is a matrix [first axis, the others].
        options: Of AdamW.

    References:
        Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024. The size of a step: Liu et al.,
        Muon is scalable for LLM training, arXiv 2502.16982.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the parameters; like the fused AdamW not where `found_inf` is 1, and without reading it."""
        for group in self.param_groups:
            for parameter in group["params"] if group["kernels"] else ():
                if parameter.grad is not None:
                    self._turn(parameter, parameter.grad, group)
                    parameter.grad = None  # which AdamW passes over
        return super().step(closure)

    def _turn(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)  # AdamW looks for it when it loads a state
            state["momentum_buffer"] = torch.zeros_like(parameter)
        kept = state["momentum_buffer"]
        momentum = kept * _MOMENTUM + gradient
        turned = orthogonalized((gradient + _MOMENTUM * momentum).flatten(1))
        size = _SIZE * max(turned.shape) ** 0.5
        moved = parameter * (1 - group["lr"] * group["weight_decay"])
        moved = moved.sub_(turned.view_as(parameter), alpha=group["lr"] * size)
        stopped = getattr(self, "found_inf", torch.zeros((), device=parameter.device)) > 0
        for old, new in ((kept, momentum), (parameter, moved)):
            old.copy_(torch.where(stopped, old, new))


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors, all of whose singular values are near one.

    Example:
        >>> values = torch.linalg.svdvals(orthogonalized(torch.diag(torch.tensor([9.0, 1.0, 0.3]))))
        >>> bool(((values > 0.6) & (values < 1.3)).all())
        True
    """
    linear, cubic, quintic = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    found = (matrix.T if is_tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(_ROUNDS):
        square = found @ found.T
        found = linear * found + (cubic * square + quintic * square @ square) @ found
    return found.T if is_tall else found
