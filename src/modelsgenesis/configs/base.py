"""What every configuration shares: frozen, checked on creation, strict to and from JSON."""

import json
import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from modelsgenesis.errors import ConfigurationError, did_you_mean, require
from modelsgenesis.files import read_json

ConfigType = TypeVar("ConfigType", bound="Config")

_LARGEST = 2**63 - 1  # the largest integer that NumPy and PyTorch can hold
_NAMES = {tuple: "values such as 64,64,32", dict: "a mapping"}


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

    def check(self, value: Any) -> Any:
        """Return a value that is within."""
        high_enough = self.low < value if self.above else self.low <= value
        if not (high_enough and value <= self.high):
            _refuse(value, str(self))
        return value

    def __str__(self) -> str:
        low = f"above {self.low}" if self.above else f"{self.low}"
        return f"{low} to {self.high}" if self.high < math.inf else low if self.above else f"{low} or above"


class AbsolutePath:
    """Stands beside `str`: a path is kept absolute, so that a run that is resumed elsewhere finds it."""

    def check(self, value: str) -> str:
        """Return an absolute path; links are not followed, and it may be a pattern."""
        return os.path.abspath(os.path.expanduser(value))  # noqa: PTH100, PTH111 - pathlib would follow links


Count = Annotated[int, Bounds(0)]
Positive = Annotated[int, Bounds(0, above=True)]
Share = Annotated[float, Bounds(0, 1)]
NonNegativeFloat = Annotated[float, Bounds(0)]
PositiveFloat = Annotated[float, Bounds(0, above=True)]
FilePath = Annotated[str, AbsolutePath()]
Sides = tuple[Positive, ...]
"""The sides of a patch or of a kernel, one per axis."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of the configurations.

    A subclass is a frozen, keyword-only dataclass of JSON-like fields and nested configurations. Field types and
    bounds are checked here, and that every number is finite; a subclass extends `__post_init__` for what they cannot
    say.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            try:
                value = _coerce(getattr(self, field.name), _hints(type(self))[field.name])
            except ConfigurationError as error:
                raise ConfigurationError(f"{type(self).__name__}.{field.name}: {error}") from error
            object.__setattr__(self, field.name, value)  # the only way to set a field of a frozen dataclass

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
        known = fields(cls)
        try:
            if not isinstance(values, Mapping):
                _refuse(values, "a mapping")
            _check_keys(values, known, cls.__name__)
            required = [one.name for one in known if one.default is MISSING and one.default_factory is MISSING]
            missing = [name for name in required if name not in values]
            require(not missing, ConfigurationError, f"{cls.__name__}: missing keys {', '.join(missing)}")
            return cls(**values)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}" if where else str(error)) from error

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a JSON file, such as `--show-config` prints; errors as of `from_dict`."""
        return cls.from_dict(read_json(Path(path), ConfigurationError), where=str(path))

    def override(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced; an unknown field is answered with the nearest.

        Raises:
            ConfigurationError: A field does not exist or a value has the wrong type.
        """
        _check_keys(changes, fields(self), type(self).__name__)
        return replace(self, **changes)


def _check_keys(keys: Iterable[Any], known: Iterable[Field[Any]], where: str) -> None:
    names = [field.name for field in known]
    for key in keys:
        if key not in names:  # to look for the nearest takes as long as all else here
            raise ConfigurationError(f"{where}: unknown key {shown(key)}; {did_you_mean(str(key)[:60], names)}")


@cache  # resolving annotations takes as long as everything else here
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


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
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return arguments[1].check(_coerce(value, arguments[0]))
    if origin is Literal:
        return _coerce_choice(value, arguments)
    if origin in (Union, UnionType):
        return _coerce_union(value, arguments)
    if origin is tuple and isinstance(value, (str, PurePath)) and arguments[0] == FilePath:
        value = (value,)  # one path, or several
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            _refuse(value, f"{len(kinds)} values")
        return tuple(_coerce(item, kind) for item, kind in zip(value, kinds, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {_coerce(k, arguments[0]): _coerce(v, arguments[1]) for k, v in value.items()}
    if is_dataclass(hint) and isinstance(value, Mapping):
        return cast("type[Config]", hint).from_dict(value)
    return _coerce_plain(value, origin or hint)


def _coerce_plain(value: Any, kind: Any) -> Any:
    if kind is str and isinstance(value, PurePath):
        return str(value)
    if kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not (abs(value) <= _LARGEST if isinstance(value, int) else math.isfinite(value)):
            _refuse(value, "a finite number of 64 bits")
        value = float(value) if kind is float else value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # for Python, True is an int
        _refuse(value, _NAMES.get(kind, kind.__name__))
    return value


def _coerce_choice(value: Any, choices: tuple[Any, ...]) -> Any:
    """Return one of the choices; one that is called `"none"` is written `none`, which reads as no value."""
    value = "none" if value is None and "none" in choices else value
    for choice in choices:
        if value == choice and isinstance(value, type(choice)) and not isinstance(value, bool):  # True == 1, 2.0 == 2
            return choice
    raise ConfigurationError(f"received {shown(value)}; {did_you_mean(str(value)[:60], map(str, choices))}")


def _coerce_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the value as the first type that takes it; a mapping names its configuration by the field `kind`."""
    choices = [argument for argument in arguments if argument is not NoneType]
    if value is None and len(choices) < len(arguments):
        return None
    if len(choices) > 1 and isinstance(value, Mapping):
        by_kind = {get_args(_hints(choice)["kind"])[0]: choice for choice in choices}
        choices = [by_kind[_coerce_choice(value.get("kind"), tuple(by_kind))]]
    *others, last = choices
    for choice in others:
        with suppress(ConfigurationError):
            return _coerce(value, choice)
    return _coerce(value, last)


def apply_settings(config: ConfigType, settings: Sequence[str]) -> ConfigType:
    """Return a copy of a configuration with fields set from text.

    Args:
        config: Any configuration.
        settings: `key=value`; dots reach into nested configurations, commas separate the values of a tuple, and
            values are written as in JSON or, for strings, bare.

    Raises:
        ConfigurationError: A key does not exist (the nearest is named) or a value has the wrong type.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        require(bool(equals), ConfigurationError, f"setting {setting!r}: expected key=value")
        *groups, name = key.strip().split(".")
        group = changes
        for outer in groups:
            group = group.setdefault(outer, {})
            require(isinstance(group, dict), ConfigurationError, f"setting {setting!r}: {outer} has a value already")
        group[name] = _parse(text.strip())
    # All at once, since two fields may fit together only: dims and patch_size, or epochs and steps.
    return type(config).from_dict(_merge(config.to_dict(), changes)) if changes else config


def _merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace nested values; what is no group in `values` is replaced as a whole, and then refused by its type."""
    merged = dict(values)
    for name, change in changes.items():
        inner = merged.get(name)
        merged[name] = _merge(inner, change) if isinstance(change, dict) and isinstance(inner, dict) else change
    return merged


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


def _refuse(value: Any, expected: str) -> NoReturn:
    """Raise the error of a wrong value; not by `require`, which would write the message for right ones, too."""
    raise ConfigurationError(f"received {shown(value)}, expected {expected}")
