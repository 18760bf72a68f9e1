"""What a comparison of starting points asks: which arms, how many labels, how many runs, what may be tuned."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from modelsgenesis.configs.base import Bounds, Config, Positive, require
from modelsgenesis.errors import ConfigurationError, nearest

SCRATCH = "scratch"
"""As an `init`: random weights in the shape of the first other one, the control."""

_FIXED = (
    *(
        "network",
        "hidden",
        "levels",
        "patch_size",
        "seed",
        "split_seed",
        "labelled_patients",
        "folds",
        "fold",
        "bootstrap",
    ),
    *("validation_fraction", "test_fraction"),
)
"""Settings that are settled before a trial: shape, patch, split, seeds."""

TUNING_SEED = 1_000_000
"""First seed of the runs that choose settings; the measured runs count from 0 and stay below."""


@dataclass(frozen=True, kw_only=True)
class ArmConfig(Config):
    """One of the starting points that are compared.

    Attributes:
        name: What tables and figures call it.
        init: `"scratch"`, or what to load: a name of the registry, `org/repo`, or a folder.
        settings: `key=value` of the training of this arm alone.
        dims: Spatial dimensions of the network; None keeps those of the weights. An arm of 2 cuts volumes into slices.
    """

    name: str
    init: str
    settings: tuple[str, ...] = ()
    dims: Literal[2, 3] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.name.strip()), "ArmConfig.name: received an empty name")
        require(bool(self.init.strip()), "ArmConfig.init: received an empty name")

    @property
    def scratch(self) -> bool:
        """Whether the arm starts from random weights."""
        return self.init == SCRATCH


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig(Config):
    """A comparison: every arm is trained with every label count and every seed, by the same budget.

    Attributes:
        arms: The starting points, each under a name of its own.
        schemes: The poster's schemes of which a Genesis is pretrained and compared as well.
        labels: Label counts in patients: `"10"`, `"10%"` of the training patients, or `"all"`.
        runs: Runs of each arm and label count, with seeds 0, 1, 2 …
        resample_labels: Draw the labelled patients anew for each seed; else they are the same in all runs of a count.
        tune: `key=value,value,…` to choose from for each arm and label count, on the validation patients alone.
        tuning_runs: Runs of each candidate, with seeds that no measured run has.
        metric: What is tabled and tested; None for `dice` or `auc`.
    """

    arms: tuple[ArmConfig, ...]
    schemes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ("all",)
    runs: Annotated[int, Bounds(1, TUNING_SEED)] = 10
    resample_labels: bool = False
    tune: tuple[str, ...] = ()
    tuning_runs: Positive = 3
    metric: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.arms) > 0, "ComparisonConfig.arms: received none, expected at least one --init")
        names = [file_name(arm.name) for arm in self.arms]
        for name in names:
            require(
                names.count(name) == 1, f"ComparisonConfig.arms: two are called {name!r}; write --init NAME=WEIGHTS"
            )
        require(len(self.labels) > 0, "ComparisonConfig.labels: received none, expected such as 5,10,all")
        self.candidates()

    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """Return every combination of the values to choose from, each as `key=value` settings; one empty without any.

        Raises:
            ConfigurationError: A part of `tune` is no `key=value,value`.

        Example:
            >>> arm = ArmConfig(name="control", init="scratch")
            >>> ComparisonConfig(arms=(arm,), tune=("learning_rate=1e-3,3e-3",)).candidates()
            (('learning_rate=1e-3',), ('learning_rate=3e-3',))
        """
        axes: list[list[str]] = []
        for text in self.tune:
            key, equals, values = text.partition("=")
            chosen = [value.strip() for value in values.split(",") if value.strip()]
            require(bool(equals and key.strip() and chosen), f"tune {text!r}: expected key=value,value")
            fixed = key.split(".")[0].strip() in _FIXED
            require(
                not fixed, f"tune {text!r}: is the same for all trainings of an arm; give it with --set or --set-arm"
            )
            axes.append([f"{key.strip()}={value}" for value in chosen])
        return tuple(itertools.product(*axes))


def file_name(name: str) -> str:
    """Return the name of an arm as a file or folder may be called.

    Example:
        >>> file_name("genesis 2D, ours")
        'genesis-2D-ours'
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "arm"


def make_arms(
    inits: Sequence[str], names: Sequence[str], settings: Sequence[str] = (), dims: Sequence[int] = ()
) -> tuple[ArmConfig, ...]:
    """Return the arms that a command line names.

    Args:
        inits: What each starts from.
        names: What each is called, in the same order.
        settings: `arm:key=value`, for one arm alone.
        dims: One: of every arm, weights of others adapted. Two: every scratch arm is made of each, other arms keep
            those of their weights.

    Raises:
        ConfigurationError: A setting names no arm, or a number of dimensions is not 2 or 3.

    Example:
        >>> [arm.name for arm in make_arms(["scratch", "runs/ct"], ["scratch", "ct"], dims=[2, 3])]
        ['scratch 2D', 'scratch 3D', 'ct']
    """
    pairs: list[tuple[str, str, int | None]] = []
    for init, name in zip(inits, names, strict=True):
        own_dims = list(dims) if dims and (init == SCRATCH or len(dims) == 1) else [None]
        pairs += [(f"{name} {d}D" if len(own_dims) > 1 else name, init, d) for d in own_dims]
    own: dict[str, list[str]] = {name: [] for name, _, _ in pairs}
    for text in settings:
        name, colon, setting = text.partition(":")
        if not colon or "=" not in setting:
            raise ConfigurationError(f"set-arm {text!r}: expected arm:key=value, such as scratch:learning_rate=3e-3")
        if name not in own:
            raise ConfigurationError(f"set-arm {text!r}: there is no arm {name!r}; {nearest(name, own)}")
        own[name].append(setting)
    return tuple(
        ArmConfig.from_dict({"name": name, "init": init, "settings": tuple(own[name]), "dims": d})
        for name, init, d in pairs
    )
