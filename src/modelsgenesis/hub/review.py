"""What a reviewer of a model card would miss."""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from modelsgenesis.configs.front_matter import PLACEHOLDER, split_card
from modelsgenesis.errors import ConfigurationError, printable

# An image link of Markdown: title and path, neither with brackets, so that a search is linear in the text.
IMAGE = re.compile(r"!\[([^\[\]]*)\]\(([^()\s]+)\)")

# What the Hub's header takes as a licence; one of one's own is `other` with a name and a link.
LICENSES = frozenset(resources.files("modelsgenesis.hub").joinpath("licenses.txt").read_text("utf-8").split())


def review_card(card: str) -> list[str]:
    """List what a reviewer would miss in a card, each in one line; an empty list is a complete card.

    Example:
        >>> review_card("# A model")[0]
        'header: no license; choose an identifier of the Hub, or other with license_name'
    """
    try:
        parts = split_card(card)
    except ConfigurationError as error:
        return [str(error)]
    body = f"{parts.before}{parts.generated}{parts.after}"
    left = [f"to fill in: {line.strip(' -*	')}" for line in body.splitlines() if PLACEHOLDER in line]
    found = [*_header(parts.front), *_index(parts.front.get("model-index")), *_prose(body), *left]
    return [printable(problem) for problem in found]


def _header(front: Mapping[str, Any]) -> list[str]:
    license_ = front.get("license")
    own = front.get("license_name") and front.get("license_link")
    datasets = "no datasets; name those on the Hub, or give [] and describe the data in the text"
    problems = {
        "no license; choose an identifier of the Hub, or other with license_name": not license_,
        f"license {license_!r} is no identifier of the Hub; use other with license_name": license_
        and str(license_) not in LICENSES,
        "license other needs license_name and license_link": license_ == "other" and not own,
        "library_name is not modelsgenesis": front.get("library_name") != "modelsgenesis",
        **{f"no {key}": not front.get(key) for key in ("pipeline_tag", "tags")},
        datasets: "datasets" not in front,
    }
    return [f"header: {problem}" for problem, found in problems.items() if found]


def _index(index: Any) -> list[str]:
    """Return what the results lack: a number without n, seeds, an interval and a baseline says little."""
    results = [result for model in _mappings(index) for result in _mappings(model.get("results"))]
    if not results:
        return ["results: none in model-index"]
    wanted = {
        "n": ("n", "cases", "subjects", "samples"),
        "seeds": ("seeds", "seed", "runs"),
        "an interval": ("interval", "ci", "confidence_interval", "deviation", "std"),
        "a baseline": ("baseline", "scratch", "identity_loss", "mean_image_loss"),
    }
    found: list[str] = []
    for metric in (metric for result in results for metric in _mappings(result.get("metrics"))):
        known = [str(key).lower() for arguments in _mappings([metric.get("args")]) for key in arguments]
        lacking = [what for what, names in wanted.items() if not any(key.startswith(names) for key in known)]
        if lacking:
            found.append(f"results: {metric.get('name', metric.get('type'))} without {', '.join(lacking)}")
    return found


def _mappings(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []


def _prose(body: str) -> list[str]:
    text = body.lower()
    wanted = {
        "not a medical device": "says nowhere that it is not a medical device",
        "intended use": "no intended use",
        "limit": "no limits",
        "consent": "no word on consent or ethics approval",
        "licence|license": "no word on the licences of data and weights",
        "```python": "no snippet that loads it",
        "@|doi|arxiv": "no citation",
        "!\\[": "no figure",
    }
    return [f"text: {problem}" for pattern, problem in wanted.items() if not re.search(pattern, text)]
