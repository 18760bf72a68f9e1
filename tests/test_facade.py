import ast
from pathlib import Path

import pytest

import modelsgenesis


def test_every_public_name_is_there():
    for name in dir(modelsgenesis):
        assert getattr(modelsgenesis, name) is not None


def test_the_names_for_type_checkers_are_those_at_run_time():
    tree = ast.parse(Path(modelsgenesis.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    nodes = [node for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    imported = {(node.module, alias.asname) for node in nodes for alias in node.names}
    assert imported == {(f"modelsgenesis.{module}", name) for name, module in modelsgenesis._MODULE_OF.items()}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'from_pretrianed'"):
        modelsgenesis.from_pretrianed  # noqa: B018
