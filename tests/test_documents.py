import ast
import importlib.util
import re
import textwrap
from pathlib import Path

from typer.main import get_command

import modelsgenesis
from modelsgenesis.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HOME = "https://github.com/modelsgenesis/modelsgenesis"


def test_the_readme_marks_two_commands_of_one_line_each():
    commands = dict(re.findall(r"<!-- command: (run|test) -->\s*```[a-z]*\n(.+?)\n```", README, re.DOTALL))
    assert set(commands) == {"run", "test"}
    assert all("python3 -m venv" in command and "\n" not in command for command in commands.values())


def test_the_version_is_in_the_changelog_and_the_citation():
    assert f"## [{modelsgenesis.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {modelsgenesis.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_readme_names_every_model_of_the_registry():
    for card in modelsgenesis.list_cards():
        assert f"`{card.name}`" in README


def test_licence_patent_and_purpose_are_said():
    for text in (README, (ROOT / "NOTICE").read_text()):
        for said in ("US patent 11,922,628 B2", "not affiliated with", "not a medical device"):
            assert said in " ".join(text.split())


def test_the_links_of_the_documents_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        text = document.read_text()
        targets = [document.parent / target for target in re.findall(r"\]\((?!http|#)([^)#]+)", text)]
        targets += [ROOT / target for target in re.findall(rf"\]\({HOME}/blob/main/([^)#]+)", text)]
        for target in targets:
            assert target.exists(), f"{document.name}: {target}"


def test_the_reference_of_the_site_names_every_public_name():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = re.findall(r"^::: modelsgenesis\.(\S+)$", pages, re.MULTILINE)
    names = {name.rpartition(".")[2] for name in listed}
    assert len({*listed}) == len(listed)
    public = {*dir(modelsgenesis)} - {"__version__"}
    for room in ("checkpoints", "configs", "data", "hub", "networks", "pretext"):
        tree = ast.parse((ROOT / "src" / "modelsgenesis" / room / "__init__.py").read_text())
        public |= {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert public <= names
    for path in listed:
        room, _, name = f"modelsgenesis.{path}".rpartition(".")
        assert hasattr(importlib.import_module(room), name)


def test_the_architecture_names_modules_that_there_are():
    named = re.findall(r"`([a-z_/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    assert named
    for name in named:
        assert (ROOT / "src" / "modelsgenesis" / name).is_file(), name


def test_scripts_import_what_there_is():
    for path in [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tools").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelsgenesis"):
                where = importlib.import_module(node.module)
                for name in (one.name for one in node.names):
                    assert hasattr(where, name) or importlib.import_module(f"{node.module}.{name}"), path


def test_every_page_is_in_an_index():
    for index in (ROOT / "docs" / name / "index.md" for name in ("", "recipes", "reference")):
        for page in index.parent.glob("*.md"):
            assert page == index or f"]({page.name})" in index.read_text(), f"{index}: {page.name}"
    listed = (ROOT / "docs" / "examples.md").read_text()
    for example in [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")]:
        assert f"({HOME}/blob/main/examples/{example.name})" in listed, example.name


def page_of_the_site(name):
    path = ROOT / "tools" / "docs_pages.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook.on_page_markdown((ROOT / "docs" / name).read_text())


def test_the_page_of_the_examples_shows_their_source():
    page = page_of_the_site("examples.md")
    assert "<!--" not in page
    assert not re.search("--8 ?<", page)
    for example in (ROOT / "examples").glob("*.py"):
        assert textwrap.indent(example.read_text().rstrip(), "    ") in page, example.name


def test_the_page_of_the_commands_says_what_the_command_line_takes():
    page = page_of_the_site("commands.md")
    for name, command in get_command(app).commands.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert command.help in section
        for option in (one for param in command.params for one in param.opts if one.startswith("--")):
            assert re.search(rf"`{option}\b", section), (name, option)


def test_contributing_lists_every_slow_test():
    listed = (ROOT / "CONTRIBUTING.md").read_text()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "pytest.mark." + "slow" in path.read_text():
            assert str(path.relative_to(ROOT)) in listed, path
