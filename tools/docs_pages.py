"""A hook of mkdocs: what is written once elsewhere, the command line and the examples, becomes part of its page."""

import json
import logging
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from modelsgenesis.cli import EXAMPLES, app

ROOT = Path(__file__).resolve().parents[1]
MARKER = "<!-- commands -->"
UNRESOLVED = re.compile(r'<span title="(modelsgenesis(?:\.[a-z]\w*)*\.[A-Z]+[a-z]\w*)"')
SOURCE = re.compile(r"^( *)<!-- source: (\S+) -->", re.MULTILINE)
VALUES = {"bool": "", "Path": "PATH", "int": "N", "float": "X", "str": "NAME"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with commands and examples in the place of their markers; mkdocs calls this."""
    markdown = markdown.replace(MARKER, commands()) if MARKER in markdown else markdown
    return SOURCE.sub(lambda found: textwrap.indent(source(ROOT / found[2]), found[1]), markdown)


def on_post_build(config: Any) -> None:
    """Warn, which ends a strict build, of public types that a signature names and no page describes."""
    log = logging.getLogger("mkdocs.docs_pages")
    for page in sorted(Path(config["site_dir"], "reference").rglob("*.html")):
        for name in sorted(set(UNRESOLVED.findall(page.read_text("utf-8")))):
            log.warning("%s: no page of docs/reference has %s", page.parent.name, name)


def source(path: Path) -> str:
    """Return a script, or the cells of a notebook, as Markdown; headings become bold, since the page has its own."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return _shown(text.rstrip(), is_code=True)
    cells = json.loads(text)["cells"]
    return "\n\n".join(_shown("".join(cell["source"]), is_code=cell["cell_type"] == "code") for cell in cells)


def _shown(text: str, *, is_code: bool) -> str:
    bold = re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.MULTILINE)
    return f"```python\n{text}\n```" if is_code else bold


def commands() -> str:
    """Return a section of Markdown for every command: what it does, what it takes, examples."""
    group: Any = get_command(app)  # of typer's own click
    examples = dict(zip(group.commands, EXAMPLES.values(), strict=True))
    return "\n".join(line for name, one in group.commands.items() for line in _section(name, one, examples[name]))


def _section(name: str, command: Any, examples: tuple[str, ...]) -> Iterator[str]:
    yield f"## {name}\n\n{command.help}\n\n```bash"
    yield from (f"modelsgenesis {line}" for line in examples)
    yield "```\n"
    for kind in ("argument", "option"):
        params = [one for one in command.params if one.param_type_name == kind and not one.hidden]
        if params:
            yield f"| {kind} | |\n|---|---|"
            yield from (f"| {_named(one)} | {_cell(one)} |" for one in params)
            yield ""


def _named(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{param.metavar or param.name.upper()}`"
    kind = str(param.type_descriptor.annotation)
    value = param.metavar or next((word for word in VALUES if word in kind), "str")
    names = ", ".join(sorted(param.opts, key=len, reverse=True))
    return f"`{f'{names} {VALUES.get(value, value)}'.strip()}`".replace("|", "\\|")


def _cell(param: Any) -> str:
    text = (param.help or "").replace("|", "\\|").replace("<", "&lt;")
    told = "default" in text or param.default in (None, False, "", "*")
    return text if told or param.param_type_name == "argument" else f"{text} Default: {param.default}."
