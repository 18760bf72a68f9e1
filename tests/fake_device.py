"""A CUDA device that is not there: what would wait for it raises, and what it would be given to do is counted."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def view_of(tensor: Tensor, index: Any) -> Tensor:
    """Index by numbers, slices, None and `...`, by operators alone: Python's own asks for a CUDA that is built in."""
    index = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in index:
        place = index.index(Ellipsis)
        missing = tensor.ndim - sum(each is not None for each in index) + 1
        index[place : place + 1] = [slice(None)] * missing
    axis = 0
    for each in index:
        if isinstance(each, int):
            tensor = tensor.select(axis, each)
            continue
        if each is None:
            tensor = tensor.unsqueeze(axis)
        else:
            assert isinstance(each, slice), f"{each}: a tensor as index is not looked into here"
            start, stop, step = each.indices(tensor.shape[axis])
            tensor = torch.ops.aten.slice.Tensor(tensor, axis, start, stop, step)
        axis += 1
    return tensor


class Indexing(TorchFunctionMode):
    """Indexes tensors of the device by `view_of`."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is Tensor.__getitem__ and args[0].is_cuda:
            return view_of(*args)
        return function(*args, **(kwargs or {}))


class Counting(TorchDispatchMode):
    """Counts the operators that a CUDA device would run: neither views nor the taking of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
        name = str(function)
        is_counted = name.startswith("aten.") and not (function.is_view or "empty" in name or "view" in name)
        if is_counted and any(each.is_cuda for each in tensors):
            self.operators[name] += 1
        return result


@contextmanager
def fake_cuda() -> Iterator[Callable[..., Tensor]]:
    """Pretend that there is a CUDA device; gives what makes empty tensors of it.

    `.item()`, `.tolist()`, `nonzero()`, boolean indices and new constants raise. What functions keep for a device
    (`modelsgenesis.pretext.random.kept`) must be forgotten before and after.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), Indexing():
        yield partial(torch.empty, device="cuda")
