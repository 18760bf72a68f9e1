"""What the site's API reference needs of our docstrings: examples that are highlighted, and links to what they name.

mkdocs.yml names this file as an extension of griffe, which reads the docstrings for mkdocstrings.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

import griffe

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
PATHS = [path for page in REFERENCE.glob("*.md") for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]
PATH_OF = {path.rpartition(".")[2]: path for path in PATHS}
_NAMED = re.compile(rf"(?<!`)`({'|'.join(PATH_OF)})`(?!`)")
_EXAMPLE = re.compile(r"^Example:\n((?: .*\n?|\n)+)", re.MULTILINE)


def highlighted(docstring: str) -> str:
    r"""Return a docstring whose `Example:` sections are griffe's `Examples:`, plain code in them fenced.

    Example:
        >>> print(highlighted("Load it.\n\nExample:\n    model = load()"))
        Load it.
        <BLANKLINE>
        Examples:
            ```python
            model = load()
            ```
        <BLANKLINE>
    """

    def section(found: re.Match[str]) -> str:
        code = textwrap.dedent(found[1]).strip("\n")
        code = code if code.startswith(">>>") else f"```python\n{code}\n```"
        return f"Examples:\n{textwrap.indent(code, '    ')}\n"

    return _EXAMPLE.sub(section, docstring)


class Examples(griffe.Extension):
    """Brings every docstring into the form that griffe and mkdocstrings know."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, once."""
        if obj.docstring:
            text = highlighted(obj.docstring.value)
            obj.docstring.value = _NAMED.sub(lambda found: f"[`{found[1]}`][{PATH_OF[found[1]]}]", text)
