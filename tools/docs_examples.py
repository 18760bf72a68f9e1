"""What the site's API reference needs of our docstrings: an `Example:` becomes Python that is highlighted.

mkdocs.yml names this file as an extension of griffe, which reads the docstrings for mkdocstrings.
"""

import re
import textwrap
from typing import Any

import griffe

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
    """Brings the examples of every docstring into the form that griffe knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, once."""
        if obj.docstring:
            obj.docstring.value = highlighted(obj.docstring.value)
