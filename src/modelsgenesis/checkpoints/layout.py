"""What a published format is: names and shapes of its tensors, and the network here that they make up."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from modelsgenesis.configs import UNetConfig

Weights = Mapping[str, Tensor]


@dataclass
class Prepared:
    """The weights of a file, each once and under one name, with what it took to get there.

    Attributes:
        weights: Tensors by their original names, less prefixes and aliases.
        dropped: Names in the file that were not needed, with the reason.
        notes: What a reader of the report should know.
    """

    weights: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """A published format of a state dict. Importing and exporting go through the same names.

    Attributes:
        anchors: Ends of keys of which a file of this format has one. What stands before it, such as
            `module.`, stands before every key.
        published: The network that was published so; a file that is no other is compared with it.
        describe: From weights to the network that they belong to, judged by names and shapes alone.
        original: From the name of a tensor here, and the network, to its name there.
        prepare: Removes what a file holds twice and adds what it lacks but any network of its kind has.
    """

    anchors: tuple[str, ...]
    published: UNetConfig
    describe: Callable[[Weights], UNetConfig]
    original: Callable[[str, Any], str]
    prepare: Callable[[dict[str, Tensor]], Prepared] = Prepared

    def prefix(self, weights: Weights) -> str | None:
        """Return what stands before every key of this format, None if the weights are not of it."""
        found = [
            name.removesuffix(anchor)
            for name in weights
            for anchor in self.anchors
            if name == anchor or name.endswith(f".{anchor}")
        ]
        return min(found, key=len, default=None)


def count(weights: Weights, pattern: str) -> int:
    """Count the names `pattern` with 0, 1, 2 … in place of `#` that there are without a gap.

    Example:
        >>> count({"a.0.w": None, "a.1.w": None, "a.3.w": None}, "a.#.w")
        2
    """
    index = 0
    while pattern.replace("#", str(index)) in weights:
        index += 1
    return index


def counts(weights: Weights, pattern: str, stages: Iterable[int]) -> tuple[int, ...]:
    """Count as `count` does for each stage, whose number takes the place of `@`."""
    return tuple(count(weights, pattern.replace("@", str(stage))) for stage in stages)
