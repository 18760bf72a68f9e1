"""Markdown with YAML front matter: model cards taken apart and put together."""

import re
from dataclasses import dataclass, field
from typing import Any

from modelsgenesis.errors import ConfigurationError
from modelsgenesis.files import check_plain, parsing

BEGIN = "<!-- modelsgenesis:begin"
END = "<!-- modelsgenesis:end -->"
PLACEHOLDER = "FILL IN"
"""Marks what only a person can write; the card check lists every one that is left."""

_BYTES, _EVENTS, _DEPTH = 1 << 20, 50_000, 32  # of a front matter; cards have a hundredth
_NUMBER = re.compile(r"[-+0-9_.:eE]{100,}|[-+]?0[bx][0-9a-fA-F_]{100,}")  # whose value Python would compute for minutes


@dataclass(frozen=True)
class CardParts:
    """A card taken apart.

    Attributes:
        front: The front matter.
        before: A person's prose before the generated section.
        generated: The section between the markers, with them; empty when there is none.
        after: A person's prose after it.
    """

    front: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    generated: str = ""
    after: str = ""

    def join(self) -> str:
        """Return the card as text."""
        import yaml

        front = yaml.safe_dump(self.front, sort_keys=False, allow_unicode=True, width=1000) if self.front else ""
        head = f"---\n{front}---\n\n" if front else ""
        return f"{head}{self.before}{self.generated}{self.after}"


def split_card(card: str, where: str = "README.md") -> CardParts:
    r"""Take a card apart, in a time that grows with its length and no faster.

    Raises:
        ConfigurationError: The front matter is not a YAML mapping, or has aliases, which could multiply.

    Example:
        >>> split_card("---\nlicense: mit\n---\nProse").front
        {'license': 'mit'}
    """
    front, body = {}, card.replace("\r\n", "\n").removeprefix("\ufeff")
    lines = body.split("\n")
    rules = (number for number, line in enumerate(lines) if line.rstrip(" \t") == "---")
    if next(rules, None) == 0 and (last := next(rules, 0)):
        front = _read_yaml("\n".join(lines[1:last]), where)
        body = "\n".join(lines[last + 1 :]).lstrip("\n")  # `join` writes the blank line again
    begin = _find_line(body, BEGIN)  # not a regular expression over the text, which could take quadratic time
    end = _find_line(body, END, begin + 1) if begin >= 0 else -1
    if end < 0:
        return CardParts(front, after=body)
    after = end + len(body[end:].partition("\n")[0]) + 1
    return CardParts(front, body[:begin], body[begin:after], body[after:])


def _find_line(text: str, start: str, at: int = 0) -> int:
    """Return where the first line from `at` on begins that starts so, else -1."""
    return 0 if at == 0 and text.startswith(start) else text.find(f"\n{start}", max(at - 1, 0)) + 1 or -1


def _read_yaml(text: str, where: str) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the registry is read on every start
    with parsing(where, ConfigurationError, what="as front matter", remedy="fix it by hand"):
        try:
            _check_events(yaml, text, loader)
            front = yaml.load(text, Loader=loader) or {}  # noqa: S506 - either loader is a safe one
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())[:300]
            raise ConfigurationError(f"{where}: the front matter is not YAML: {problem}; fix it by hand") from error
    if not isinstance(front, dict):
        raise ConfigurationError(f"{where}: the front matter is a {type(front).__name__}, expected a YAML mapping")
    check_plain(front, where, ConfigurationError)
    return front


def _check_events(yaml: Any, text: str, loader: Any) -> None:
    """Look at a document, of which nothing is built yet, for what would take memory or time out of proportion."""
    depth, problem = 0, ""
    for number, event in enumerate(yaml.parse(text[:_BYTES], Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            problem = "it has an alias; write out what it stands for"
        elif number > _EVENTS or depth > _DEPTH or len(text) > _BYTES:
            problem = f"it has more than {_BYTES:,} letters, {_EVENTS:,} values or {_DEPTH} levels"
        elif isinstance(event, yaml.ScalarEvent) and not event.implicit[1] and _NUMBER.fullmatch(event.value):
            problem = f"it has a number of {len(event.value)} letters"  # not in quotes, or tagged as one
        if problem:
            raise yaml.YAMLError(problem)
