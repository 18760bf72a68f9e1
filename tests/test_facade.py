import ast
from pathlib import Path

import pytest

import modelsgenesis


def test_every_public_name_is_there():
    for name in modelsgenesis.__all__:
        assert getattr(modelsgenesis, name) is not None
    assert set(modelsgenesis.__all__) <= set(dir(modelsgenesis))


def test_the_names_for_type_checkers_are_those_at_run_time():
    tree = ast.parse(Path(modelsgenesis.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(modelsgenesis.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'from_pretrianed'"):
        modelsgenesis.from_pretrianed  # noqa: B018
