"""Markdown with YAML front matter: model cards taken apart and put together."""

import re
from dataclasses import dataclass, field
from typing import Any

from modelsgenesis.errors import ConfigurationError

BEGIN = "<!-- modelsgenesis:begin"
END = "<!-- modelsgenesis:end -->"
PLACEHOLDER = "FILL IN"
"""Marks what only a person can write; the card check lists every one that is left."""

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_SECTION = re.compile(rf"^{re.escape(BEGIN)}.*?^{re.escape(END)}[ \t]*\n?", re.DOTALL | re.MULTILINE)


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
    r"""Take a card apart.

    Raises:
        ConfigurationError: The front matter is no YAML mapping.

    Example:
        >>> split_card("---\nlicense: mit\n---\nProse").front
        {'license': 'mit'}
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the registry is read on every start
    card = card.replace("\r\n", "\n").removeprefix("\ufeff")
    found = _FRONT_MATTER.match(card)
    front: Any = {}
    if found:
        try:
            front = yaml.load(found[1], Loader=loader) or {}  # noqa: S506 - either loader is a safe one
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise ConfigurationError(f"{where}: the front matter is no YAML: {problem}; mend it by hand") from error
        if not isinstance(front, dict):
            raise ConfigurationError(f"{where}: the front matter is a {type(front).__name__}, expected a YAML mapping")
    body = card[found.end() :].lstrip("\n") if found else card
    section = _SECTION.search(body)
    if section is None:
        return CardParts(front, after=body)
    return CardParts(front, body[: section.start()], section[0], body[section.end() :])
