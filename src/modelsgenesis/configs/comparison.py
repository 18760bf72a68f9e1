"""What a comparison asks: which initialisations, how many labels, how many runs, what may be tuned."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from modelsgenesis.configs.base import Bounds, Config, Positive
from modelsgenesis.errors import ConfigurationError, require

SCRATCH = "scratch"
"""As an `init`: random weights in the architecture of the first other one, the control."""

# What has to be equal in all trainings of an initialisation: shape, patch, split and seeds.
_FIXED = (
    *("network", "dims", "hidden", "levels", "patch_size", "seed", "split_seed", "labelled_patients", "folds", "fold"),
    *("bootstrap", "validation_fraction", "test_fraction"),
)

TUNING_SEED = 1_000_000
"""First seed of the runs that choose settings; measured runs count from 0, so that no run is of both kinds."""


@dataclass(frozen=True, kw_only=True)
class ArmConfig(Config):
    """One of the initialisations that are compared.

    Attributes:
        name: What tables and figures call it.
        init: `"scratch"`, or what to load: a name of the registry, `org/repo`, or a folder.
        settings: `key=value` of the fine-tuning of this one alone.
    """

    name: str
    init: str
    settings: tuple[str, ...] = ()

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for an initialisation."""
        yield self.name.strip(), "name: received an empty name"
        yield self.init.strip(), "init: received an empty name"


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig(Config):
    """A comparison: every initialisation is trained with every label count and every seed, by the same budget.

    Attributes:
        arms: The initialisations, each under a name of its own.
        labels: Label counts in patients: `"10"`, `"10%"` of the training patients, or `"all"`.
        runs: Runs of each initialisation and label count, with seeds 0, 1, 2 …
        resample_labels: Draw the labelled patients anew for each seed; else they are the same in all runs of a count.
        tune: `key=value,value,…` to choose from for each initialisation and label count, on the validation patients.
        tuning_runs: Runs of each candidate, with seeds that no measured run has.
        metric: What is tabled and tested; None for `dice` or `auc`.
    """

    arms: tuple[ArmConfig, ...]
    labels: tuple[str, ...] = ("all",)
    runs: Annotated[int, Bounds(1, TUNING_SEED)] = 10
    resample_labels: bool = False
    tune: tuple[str, ...] = ()
    tuning_runs: Positive = 3
    metric: str | None = None

    def rules(self) -> Iterable[tuple[object, str]]:
        """Hold for a comparison."""
        yield self.arms, "arms: received none, expected at least one --init"
        yield self.labels, "labels: received none, expected such as 5,10,all"
        folders = Counter(file_name(arm.name) for arm in self.arms)  # which "a b" and "a/b" would share
        double = [name for name, times in folders.items() if times > 1]
        yield not double, f"arms: two are called {' or '.join(double)}; write --init NAME=WEIGHTS"
        self.candidates()

    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """Return every combination of the values to choose from, each as `key=value` settings; one empty without any.

        Raises:
            ConfigurationError: A part of `tune` is not `key=value,value`, or is the same for all trainings.

        Example:
            >>> arm = ArmConfig(name="control", init="scratch")
            >>> ComparisonConfig(arms=(arm,), tune=("learning_rate=1e-3,3e-3",)).candidates()
            (('learning_rate=1e-3',), ('learning_rate=3e-3',))
        """
        axes: list[list[str]] = []
        for text in self.tune:
            key, _, values = (part.strip() for part in text.partition("="))
            chosen = [value.strip() for value in values.split(",") if value.strip()]
            require(bool(key and chosen), ConfigurationError, f"tune {text!r}: expected key=value,value")
            message = f"tune {text!r}: is the same for all trainings; give it with --set or --set-arm"
            require(key.split(".")[0] not in _FIXED, ConfigurationError, message)
            axes.append([f"{key}={value}" for value in chosen])
        return tuple(itertools.product(*axes))


def file_name(name: str) -> str:
    """Return a name as a file or folder may be called.

    Example:
        >>> file_name("genesis 2D, ours")
        'genesis-2D-ours'
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "arm"
