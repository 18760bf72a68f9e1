"""A hook of mkdocs: the page of the commands is made from the command line itself, so that it cannot lag behind."""

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from modelsgenesis.cli import EXAMPLES, app

MARKER = "<!-- commands -->"
VALUES = {"bool": "", "Path": "PATH", "int": "N", "float": "X", "str": "NAME"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with every command in the place of its marker, if it has one; mkdocs calls this."""
    return markdown.replace(MARKER, commands()) if MARKER in markdown else markdown


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
