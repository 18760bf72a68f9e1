"""Check the types of every Python snippet of the documents, and of examples and notebooks, with pyright and mypy.

    python tools/check_snippets.py [FILE …]

Each snippet of README, `docs/` and `cards/` becomes a file of its own, named after its page and its first line there,
and so do the cells of each notebook together.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_INSTALLED = ("pylidc/__init__", "pylidc/utils")  # what a recipe reads others' data with; its names have any type
PYRIGHT = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
MYPY = [
    sys.executable,
    "-m",
    "mypy",
    "--python-executable",
    sys.executable,
    "--follow-imports=silent",
    "--check-untyped-defs",
]


def snippets(page: Path) -> Iterator[tuple[str, str]]:
    """Yield a name, such as `docs_hub_line_19`, and the code of each Python snippet of a Markdown page."""
    text = page.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start(1)) + 1
        place = page.relative_to(ROOT).with_suffix("") if page.is_relative_to(ROOT) else Path(page.stem)
        yield f"{re.sub(r'[^a-z0-9]+', '_', str(place).lower())}_line_{line}", found[1]


def cells(notebook: Path) -> str:
    """Return the code of a notebook's cells, one after the other."""
    listed = json.loads(notebook.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in listed if cell["cell_type"] == "code")


def main(arguments: list[str]) -> int:
    """Return 0 where neither checker finds an error, else 1."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "cards").rglob("*.md"))]
    scripts = [*sorted((ROOT / "examples").glob("*.py")), *sorted((ROOT / "docs").rglob("*.py"))]
    notebooks = sorted((ROOT / "examples").glob("*.ipynb"))
    if arguments:
        given = [Path(argument).resolve() for argument in arguments]
        kinds = (".md", ".py", ".ipynb")
        pages, scripts, notebooks = ([path for path in given if path.suffix == kind] for kind in kinds)
    with tempfile.TemporaryDirectory() as folder:
        for name in NOT_INSTALLED:
            stub = Path(folder, f"{name}.pyi")
            stub.parent.mkdir(exist_ok=True)
            stub.write_text("from typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n")
        for name, code in (one for page in pages for one in snippets(page)):
            Path(folder, f"{name}.py").write_text(code)
        for notebook in notebooks:
            Path(folder, f"notebook_{notebook.stem}.py").write_text(cells(notebook))
        files = [*map(str, sorted(Path(folder).glob("*.py"))), *map(str, scripts)]
        print(f"{len(files)} files with snippets and examples")
        cache = ["--cache-dir", str(Path(tempfile.gettempdir(), "mypy-snippets"))]
        tools = (PYRIGHT, [*MYPY, *cache])
        return max(subprocess.call([*tool, *files], cwd=folder) != 0 for tool in tools)  # noqa: S603 - both are ours


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
