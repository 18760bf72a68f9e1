"""What every configuration shares: frozen, checked on creation, strict to and from JSON."""

import json
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from modelsgenesis.errors import ConfigurationError, nearest, printable

ConfigType = TypeVar("ConfigType", bound="Config")

_LARGEST = 2**63 - 1  # of an integer that NumPy and PyTorch can hold


@dataclass(frozen=True)
class Bounds:
    """What a number may be; stands beside its type, as in `Annotated[float, Bounds(0, 1)]`.

    Attributes:
        low: The lowest value.
        high: The highest value.
        above: Whether `low` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether a value is within."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low}" if self.above else f"{self.low}"
        return f"{low} to {self.high}" if self.high < math.inf else low if self.above else f"{low} or above"


Count = Annotated[int, Bounds(0)]
Positive = Annotated[int, Bounds(0, above=True)]
Share = Annotated[float, Bounds(0, 1)]
NonNegativeFloat = Annotated[float, Bounds(0)]
PositiveFloat = Annotated[float, Bounds(0, above=True)]
Sides = tuple[Positive, ...]
"""The sides of a patch or of a kernel, one an axis."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of the configurations.

    A subclass is a frozen, keyword-only dataclass of JSON-like fields and nested configurations. Field types and
    `Bounds` are checked here, and that every number is finite; a subclass extends `__post_init__` for what they cannot
    say.
    """

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        for field in fields(self):
            where = f"{type(self).__name__}.{field.name}"
            object.__setattr__(self, field.name, _coerce(getattr(self, field.name), hints[field.name], where))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; nested configurations become mappings, tuples become lists."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from a mapping and refuse unknown or missing keys.

        Args:
            values: Field values by name, as `to_dict` gives them.
            where: What a message should call the mapping, such as a file name.

        Raises:
            ConfigurationError: A key is unknown or missing, or a value has the wrong type or cannot be.
        """
        try:
            return cls._from_mapping(values, where or cls.__name__)
        except ConfigurationError as error:
            if str(error).startswith(printable(where)):
                raise
            raise ConfigurationError(f"{where}: {error}") from error

    @classmethod
    def _from_mapping(cls, values: Any, where: str) -> Self:
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"{where}: received {type(values).__name__}, expected a mapping")
        known = {field.name: field for field in fields(cls)}
        _check_keys(values, known, where)
        missing = [
            name
            for name, field in known.items()
            if name not in values and field.default is MISSING and field.default_factory is MISSING
        ]
        require(not missing, f"{where}: missing keys {', '.join(missing)}")
        return cls(**values)

    def override(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced; an unknown field is answered with the nearest.

        Raises:
            ConfigurationError: A field does not exist or a value has the wrong type.
        """
        _check_keys(changes, [field.name for field in fields(self)], type(self).__name__)
        return replace(self, **changes)


def _check_keys(keys: Iterable[Any], known: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in known:
            raise ConfigurationError(f"{where}: unknown key {shown(key)}; {nearest(str(key)[:60], known)}")


@cache
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


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Return `value` as `hint` wants it: lists become tuples, mappings nested configurations, ints floats."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        number, bounds = _coerce(value, arguments[0], where), arguments[1]
        require(bounds.holds(number), f"{where}: received {number}, expected {bounds}")
        return number
    if origin is Literal:
        return _coerce_choice(value, arguments, where)
    if origin in (Union, UnionType):
        return _coerce_union(value, arguments, where)
    if origin is tuple and isinstance(value, (tuple, list)):
        return _coerce_tuple(value, arguments, where)
    if origin is dict and isinstance(value, Mapping):
        return {_coerce(k, arguments[0], where): _coerce(v, arguments[1], where) for k, v in value.items()}
    if is_dataclass(hint) and isinstance(value, Mapping):
        return hint._from_mapping(value, where)  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]
    if hint in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        fits = abs(value) <= _LARGEST if isinstance(value, int) else math.isfinite(value)
        require(fits, f"{where}: received {shown(value)}, expected a finite number of 64 bits")
        value = float(value) if hint is float else value
    expected: Any = origin or hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ConfigurationError(f"{where}: received {shown(value)}, expected {getattr(hint, '__name__', hint)}")
    return value


def _coerce_choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    """Return one of the choices; one that is called `"none"` is written `none`, which reads as no value."""
    value = "none" if value is None and "none" in choices else value
    for choice in choices:
        if value == choice and isinstance(value, type(choice)) and not isinstance(value, bool):  # True == 1, 2.0 == 2
            return choice
    raise ConfigurationError(f"{where}: received {shown(value)}; {nearest(str(value)[:60], map(str, choices))}")


def _coerce_tuple(value: tuple[Any, ...] | list[Any], arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(value):
        raise ConfigurationError(f"{where}: received {len(value)} values {shown(value)}, expected {len(kinds)}")
    return tuple(_coerce(item, kind, where) for item, kind in zip(value, kinds, strict=True))


def _coerce_union(value: Any, arguments: tuple[Any, ...], where: str) -> Any:
    if value is None and NoneType in arguments:
        return None
    choices = [argument for argument in arguments if argument is not NoneType]
    if len(choices) > 1 and isinstance(value, Mapping):
        return _coerce(value, _by_discriminator(value, choices, where), where)
    problem: ConfigurationError | None = None
    for choice in choices:
        try:
            return _coerce(value, choice, where)
        except ConfigurationError as error:
            problem = problem or error
    raise problem or ConfigurationError(f"{where}: received {shown(value)}")


def _by_discriminator(value: Mapping[str, Any], choices: list[Any], where: str) -> Any:
    """Choose among configurations by their `kind` field, a `Literal` with one value."""
    by_kind = {get_args(_hints(choice)["kind"])[0]: choice for choice in choices}
    return by_kind[_coerce_choice(value.get("kind"), tuple(by_kind), f"{where}.kind")]


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
        require(bool(equals), f"setting {setting!r}: expected key=value")
        *groups, name = key.strip().split(".")
        group = changes
        for outer in groups:
            group = group.setdefault(outer, {})
            require(isinstance(group, dict), f"setting {setting!r}: {outer} has a value already")
        group[name] = _parse(text.strip())
    return _apply(config, changes)  # all at once: two fields may fit only together


def _apply(config: ConfigType, changes: Mapping[str, Any]) -> ConfigType:
    values = {}
    for name, value in changes.items():
        inner = getattr(config, name, None)
        if isinstance(value, dict) and not isinstance(inner, Config):
            raise ConfigurationError(f"{type(config).__name__}: {name!r} is not a group of settings")
        values[name] = _apply(inner, value) if isinstance(value, dict) and isinstance(inner, Config) else value
    return config.override(**values)


def _parse(text: str) -> Any:
    """Read a value: JSON, a list with commas, `none`, or a bare string."""
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
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


def require(condition: bool, message: str) -> None:
    """Raise `ConfigurationError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigurationError(message)
