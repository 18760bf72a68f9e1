"""What every configuration shares: frozen, checked on creation, strict to and from JSON."""

import json
import math
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from modelsgenesis.errors import ConfigurationError, did_you_mean, require
from modelsgenesis.files import read_json

ConfigType = TypeVar("ConfigType", bound="Config")

_LARGEST = 2**63 - 1  # the largest integer that NumPy and PyTorch can hold
_WORDS = {
    tuple: "values such as 64,64,32",
    dict: "a mapping",
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
}
# What other libraries call a setting; not what is spelt alike.
ALIASES = {
    alias: name
    for name, aliases in {
        "learning_rate": "lr max_lr base_lr initial_lr",
        "batch_size": "bs batch",
        "steps": "iterations iters max_iterations",
        "patch_size": "patch roi_size crop_size image_size",
        "clip_norm": "grad_clip gradient_clip_val max_norm",
        "validate_every": "val_interval eval_steps",
        "precision": "amp fp16 bf16 dtype",
        "widths": "filters features base_filters",
        "weight_decay": "wd",
        "patience": "early_stopping",
        "init": "pretrained",
        "seed": "random_state",
        "exclude_test_cases": "leave_out",
        "labelled_patients": "labels",
        "validation_source": "val",
    }.items()
    for alias in aliases.split()
}


@dataclass(frozen=True)
class Bounds:
    """The values that a number may have; stands beside its type, as in `Annotated[float, Bounds(0, 1)]`.

    Attributes:
        low: Lowest value.
        high: Highest value.
        above: Whether `low` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def __call__(self, value: Any) -> Any:
        """Return a value that is within."""
        if not (self.low <= value <= self.high) or (self.above and value == self.low):
            low = f"above {self.low}" if self.above else f"{self.low}"
            expected = f"{low} to {self.high}" if self.high < math.inf else low if self.above else f"{low} or above"
            raise ConfigurationError(f"received {shown(value)}, expected {expected}")
        return value


Count = Annotated[int, Bounds(0)]
Positive = Annotated[int, Bounds(0, above=True)]
Share = Annotated[float, Bounds(0, 1)]
NonNegativeFloat = Annotated[float, Bounds(0)]
PositiveFloat = Annotated[float, Bounds(0, above=True)]
# A path is kept absolute, so that a run that is resumed elsewhere finds it; links are not followed, and it may be a
# pattern.
FilePath = Annotated[str, lambda path: os.path.abspath(os.path.expanduser(path))]  # noqa: PTH100, PTH111
Sides = tuple[Positive, ...]
"""The sides of a patch or of a kernel, one per axis."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of the configurations.

    A subclass is a frozen, keyword-only dataclass of JSON-like fields and nested configurations. Field types are
    checked here, and that every number is finite; what stands beside a type in `Annotated` returns a value as it is
    kept, or refuses it. Where more must hold, a method `rules` yields it: pairs of a condition, and of a message that
    begins with the name of a field.
    """

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        for field in fields(self):
            try:
                value = _coerce(getattr(self, field.name), hints[field.name])
            except ConfigurationError as error:
                # A message from within a configuration begins with its own field: the dotted name is what --set takes.
                within = isinstance(getattr(self, field.name), Mapping) and _configs(hints[field.name])
                raise ConfigurationError(f"{field.name}{'.' if within else ': '}{error}") from error
            object.__setattr__(self, field.name, value)  # the only way to set a field of a frozen dataclass
        for holds, message in getattr(self, "rules", tuple)():
            if not holds:
                raise ConfigurationError(message)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; nested configurations become mappings, tuples become lists."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        """Build from a mapping and refuse unknown or missing keys.

        Args:
            values: Field values by name, as `to_dict` gives them.
            where: Name of the mapping in messages, such as a file.

        Raises:
            ConfigurationError: A key is unknown or missing, or a value is of the wrong type or out of bounds.
        """
        known = {one.name: one.default is MISSING and one.default_factory is MISSING for one in fields(cls)}
        at = f"{where}: " if where else ""
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"{at}received {shown(values)}, expected a mapping")
        for key in values:
            if key not in known:  # to look for the nearest takes as long as all else here
                name = key[:60] if isinstance(key, str) else shown(key)
                raise ConfigurationError(f"{at}{name}: no such setting; {_nearest(name, cls)}")
        if missing := [name for name, is_required in known.items() if is_required and name not in values]:
            raise ConfigurationError(f"{at}{', '.join(missing)}: missing, expected a value")
        try:
            return cls(**values)
        except ConfigurationError as error:
            raise ConfigurationError(f"{at}{error}") from error

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a JSON file, such as `--dry-run` prints; errors as of `from_dict`."""
        return cls.from_dict(read_json(Path(path), ConfigurationError), where=str(path))

    def override(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced; an unknown field is an error that names the nearest one.

        Raises:
            ConfigurationError: A field does not exist or a value has the wrong type.
        """
        return self.from_dict({**vars(self), **changes})


# Resolving annotations takes as long as everything else here.
_hints = cache(partial(get_type_hints, include_extras=True))


def setting_names(kind: type[Config]) -> dict[str, str]:
    """Return the dotted name that `--set` takes of each setting, by its last part; an outer one hides those within."""
    places = {field.name: field.name for field in fields(kind)}
    for outer, hint in _hints(kind).items():
        for inner in _configs(hint):
            for field in fields(inner):
                places.setdefault(field.name, f"{outer}.{field.name}")
    return places


def similar_settings(key: str, kind: type[Config]) -> list[str]:
    """Return the dotted names of the settings that a key may mean: of that name or, as others call it, a near one."""
    places, meant = setting_names(kind), ALIASES.get(key.lower(), key)
    close = [meant] if meant in places else get_close_matches(meant, places, n=3, cutoff=0.6)
    close = close or [name for name in places if meant and name.startswith(meant)]
    return [places[name] for name in close]


def _nearest(key: str, kind: type[Config]) -> str:
    """Return the end of a message about an unknown key: where such a setting is, or what it is called here."""
    close = similar_settings(key, kind)
    return f"did you mean {' or '.join(close)}?" if close else did_you_mean(key, [one.name for one in fields(kind)])


def _configs(hint: Any) -> list[Any]:
    """Return the configurations that a field may hold."""
    return [one for one in (hint, *get_args(hint)) if is_dataclass(one)]


def plain(value: Any) -> Any:
    """Return JSON types; a number that is not finite, such as a metric of nothing, becomes None."""
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _coerce(value: Any, hint: Any) -> Any:
    """Return `value` as `hint` wants it: lists become tuples, mappings nested configurations, ints floats."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return arguments[1](_coerce(value, arguments[0]))
    if kind in (Union, UnionType):
        return _coerce_union(value, arguments)
    if kind is tuple and isinstance(value, (str, PurePath)) and arguments[0] == FilePath:
        value = (value,)  # one path, or several
    if kind is tuple and isinstance(value, (tuple, list)):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise ConfigurationError(f"received {shown(value)}, expected {len(kinds)} values")
        return tuple(map(_coerce, value, kinds))
    if kind is dict and isinstance(value, Mapping):
        return {_coerce(k, arguments[0]): _coerce(v, arguments[1]) for k, v in value.items()}
    if is_dataclass(kind) and isinstance(value, Mapping):
        return kind.from_dict(value)  # pyright: ignore[reportAttributeAccessIssue]
    return value if kind is Any else _coerce_plain(value, kind, arguments)


def _coerce_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the value as the first type that takes it; a mapping names its configuration by the field `kind`."""
    if value is None and NoneType in arguments:
        return None
    choices: list[Any] = [argument for argument in arguments if argument is not NoneType]
    *others, last = choices
    if others and hasattr(last, "kind") and isinstance(value, Mapping):
        kinds, kind = [choice.kind for choice in choices], value.get("kind")
        if kind not in kinds:  # to look for the nearest takes as long as all else here
            raise ConfigurationError(f"kind: received {shown(kind)}; {did_you_mean(str(kind)[:60], kinds)}")
        return choices[kinds.index(kind)].from_dict(value)
    for choice in others:
        with suppress(ConfigurationError):
            return _coerce(value, choice)
    return _coerce(value, last)


def _coerce_plain(value: Any, kind: Any, choices: tuple[Any, ...]) -> Any:
    """Return a number, a text or one of the choices; of these `"none"` is written `none`, which reads as no value."""
    if kind is Literal:
        value = "none" if value is None and "none" in choices else value
        for choice in choices:
            if value == choice and isinstance(value, type(choice)) and not isinstance(value, bool):  # True == 1 == 1.0
                return choice
        raise ConfigurationError(f"received {shown(value)}; {did_you_mean(str(value)[:60], map(str, choices))}")
    if kind is str and isinstance(value, PurePath):
        return str(value)
    expected = _WORDS.get(kind, "a mapping of settings")
    if kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) <= (_LARGEST if isinstance(value, int) else sys.float_info.max):  # not of NaN
            value = float(value) if kind is float else value
        else:
            kind, expected = NoneType, "a finite number of 64 bits"
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # for Python, True is an int
        raise ConfigurationError(f"received {shown(value)}, expected {expected}")
    return value


def apply_settings(config: ConfigType, settings: Sequence[str]) -> ConfigType:
    """Return a copy of a configuration with fields set from text.

    Args:
        config: Any configuration.
        settings: `key=value`; dots reach into nested configurations, commas separate the values of a tuple, and
            values are written as in JSON or, for strings, bare.

    Raises:
        ConfigurationError: A key does not exist (the nearest is named) or a value has the wrong type.
    """
    values = config.to_dict()
    for setting in settings:
        key, equals, text = setting.partition("=")
        require(equals, ConfigurationError, f"setting {setting!r}: expected key=value")
        *groups, name = key.strip().split(".")
        group = values
        for outer in groups:
            group = group.setdefault(outer, {})  # an unknown one is refused below, with the nearest
            require(isinstance(group, dict), ConfigurationError, f"setting {setting!r}: {outer} has no settings within")
        group[name] = _parse(text.strip())
    # All at once, since two fields may fit together only: dims and patch_size, or epochs and steps.
    return type(config).from_dict(values)


def _parse(text: str) -> Any:
    """Read a value: JSON, a list with commas, `none`, or a bare string."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if "," in text and not text.startswith(("[", "{")):
        return [_parse(part.strip()) for part in text.split(",") if part.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**30 else f"a number of {x.bit_length():,} bits"  # Python refuses to write it


_REPR = _Repr()
_REPR.maxlevel, _REPR.maxstring = 2, 60


def shown(value: object) -> str:
    """Return a value for a message: short, whatever the value holds.

    Example:
        >>> shown([[1] * 100, 10**400])
        '[[1, 1, 1, 1, 1, 1, ...], a number of 1,329 bits]'
    """
    return _REPR.repr(value)
