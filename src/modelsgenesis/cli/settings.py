"""What `--set` takes of a command: the fields of its configuration, and switches beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from typer import Context

from modelsgenesis.configs import (
    SCHEMES,
    ClassificationConfig,
    PredictionConfig,
    PretrainingConfig,
    SegmentationConfig,
    apply_settings,
)
from modelsgenesis.configs.base import ALIASES, Config, setting_names, similar_settings


@dataclass(frozen=True, kw_only=True)
class Switches(Config):
    """What `--set` says beside the fields of a configuration: it changes a command, not what is learnt.

    Attributes:
        strict: Stop at the first unusable scan instead of skipping it.
    """

    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingSwitches(Switches):
    """Of `finetune`, and of `pretrain` too.

    Attributes:
        hub_model_id: `org/name` on the Hub for `--push-to-hub`; None for your name and the run's.
    """

    hub_model_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingSwitches(TrainingSwitches):
    """Of `pretrain`.

    Attributes:
        scheme: Deformations of the ablation in Zhou et al. 2019, a name of `SCHEMES`.
        tensorboard: Also write a TensorBoard log.
    """

    scheme: str | None = None
    tensorboard: bool = False


@dataclass(frozen=True, kw_only=True)
class ComparisonSwitches(Switches):
    """Of `compare`.

    Attributes:
        task: `seg` or `cls`; None for what the labels are for.
        metric: What is tested; None for dice or auc.
        dims: `2` or `3` adapts every network; `2,3` trains scratch in both, on slices and on volumes.
        resample_labels: Draw the labelled patients anew for each seed.
        tuning_runs: Runs of each candidate of `--tune`.
        keep_models: Keep the trained model of every run.
    """

    task: str | None = None
    metric: str | None = None
    dims: int | tuple[int, ...] = ()
    resample_labels: bool = False
    tuning_runs: int = 3
    keep_models: bool = False


SwitchesType = TypeVar("SwitchesType", bound=Switches)

_TASKS = (SegmentationConfig, ClassificationConfig)
KINDS: dict[str, tuple[type[Config], ...]] = {
    "pretrain": (PretrainingConfig, PretrainingSwitches),
    "finetune": (*_TASKS, TrainingSwitches),
    "compare": (*_TASKS, ComparisonSwitches),
    **dict.fromkeys(("predict", "evaluate"), (PredictionConfig,)),
}
"""Of each command the configurations whose fields `--set` takes."""

# What does the same as options of other commands, libraries and versions.
_INSTEAD = {
    "show_config": "--dry-run prints the configuration",
    "token": "set HF_TOKEN, or run hf auth login once",
    "private": "a new repository is private unless pushed with --public",
    "set_arm": "compare takes --set NAME:KEY=VALUE",
}


def separate(settings: Sequence[str] | None, switches: SwitchesType) -> tuple[SwitchesType, list[str]]:
    """Return the switches as `--set` says them, and the settings that are left for the configuration."""
    own = [setting for setting in settings or () if setting.partition("=")[0].strip() in vars(switches)]
    return apply_settings(switches, own), [setting for setting in settings or () if setting not in own]


def separate_comparison(settings: Sequence[str] | None) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return what `--set` says of the comparison, of all initialisations, and of one each as `NAME:KEY=VALUE`."""
    of_one = [setting for setting in settings or () if ":" in setting.partition("=")[0]]
    switches, of_all = separate([one for one in settings or () if one not in of_one], ComparisonSwitches())
    dims = switches.dims
    return {**vars(switches), "dims": (dims,) if isinstance(dims, int) else dims}, of_all, of_one


def as_settings(fields: Mapping[str, object]) -> list[str]:
    """Return options as `--set` would say them; None was not given, and `steps` are all of the budget."""
    # The recipe's epochs would end the training before the steps that were asked for.
    given = [f"{name}={value}".lower() for name, value in fields.items() if value is not None]
    return [*given, "epochs=none"] if fields.get("steps") else given


def complete_setting(context: Context, incomplete: str) -> list[str]:
    """Complete `--set` to the keys of a command, with each value where there are few."""
    words = []
    for kind in KINDS[str(context.info_name)]:
        hints = get_type_hints(kind)
        keys = setting_names(kind).values()
        groups = {key.partition(".")[0] for key in keys if "." in key}
        for key in (key for key in keys if key not in groups):
            values = get_args(hints.get(key)) if get_origin(hints.get(key)) is Literal else ("",)
            words += [f"{key}={value}" for value in (SCHEMES if key == "scheme" else values)]
    return sorted({word for word in words if word.startswith(incomplete)})


def remedy_of(command: str, option: str, near: Iterable[str] = ()) -> str | None:
    """Return what to write for an unknown option, such as `--window` or `--lr`; None where options are nearer.

    Example:
        >>> remedy_of("pretrain", "--window"), remedy_of("pretrain", "--inti", ["--init"])
        ('it is a setting: --set data.window=VALUE', None)
    """
    key, words = option.lstrip("-").replace("-", "_"), {name.lstrip("-").replace("-", "_") for name in near}
    found = {name.rpartition(".")[2]: name for kind in KINDS.get(command, ()) for name in similar_settings(key, kind)}
    if key in _INSTEAD:
        return _INSTEAD[key]
    meant = ALIASES.get(key, key)
    meant = meant if meant in found else next(iter(get_close_matches(key, [*words, *found], n=1)), None)
    return f"it is a setting: --set {found[meant]}=VALUE" if meant in found and meant not in words else None
