"""The Hub's rules for the header of a model card, as far as they are documented."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "bsd-3-clause", "openrail", "other", "unknown"}


def yaml_errors(card: str) -> list[str]:
    """Return what the Hub would refuse."""
    found = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", card, re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(front, dict):
        return ["the front matter must be a mapping"]
    return [*_values(front), *_model_index(front.get("model-index", []))]


def _values(front: dict[str, Any]) -> Iterator[str]:
    if "license" in front and front["license"] not in LICENSES:
        yield f'"license" must be one of {sorted(LICENSES)}'
    for key in ("tags", "datasets", "metrics", "language"):
        value = front.get(key, [])
        if not (isinstance(value, (list, str)) and all(isinstance(item, str) for item in value)):
            yield f'"{key}" must be strings'
    for key in ("library_name", "pipeline_tag"):
        if key in front and not isinstance(front[key], str):
            yield f'"{key}" must be a string'
    base = front.get("base_model", [])
    for name in [base] if isinstance(base, str) else base:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            yield f'"base_model" with value "{name}" is not valid'


def _model_index(index: list[Any]) -> Iterator[str]:
    for result in (result for model in index for result in model["results"]):
        if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
            yield '"model-index" needs a task type, a dataset type and a dataset name'
        if not all("type" in metric and "value" in metric for metric in result["metrics"]):
            yield '"model-index" metrics need a type and a value'
