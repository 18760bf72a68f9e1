"""What a reviewer of a model card would miss."""

import re
from collections.abc import Mapping
from typing import Any

from modelsgenesis.configs.front_matter import PLACEHOLDER, split_card
from modelsgenesis.errors import ConfigurationError

IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
"""An image link of Markdown: title and path."""

LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0
    cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
    gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl mpl-2.0 odc-by odbl
    openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr unknown other
    """.split()
)
"""Identifiers of licences that the Hub's header takes; a licence of one's own is `other` with a name and a link."""


def review_card(card: str) -> list[str]:
    """List what a reviewer would miss in a card, each in one line; an empty list is a complete card.

    Example:
        >>> review_card("# A model")[0]
        'header: no license; choose one of the identifiers of the Hub, or other with license_name and license_link'
    """
    try:
        parts = split_card(card)
    except ConfigurationError as error:
        return [str(error)]
    body = f"{parts.before}{parts.generated}{parts.after}"
    left = [line.strip(" -*\t") for line in body.splitlines() if PLACEHOLDER in line]
    return [
        *_header(parts.front),
        *_index(parts.front.get("model-index")),
        *_prose(body),
        *(f"to fill in: {line}" for line in left),
    ]


def _header(front: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    license_ = front.get("license")
    if not license_:
        found.append(
            "header: no license; choose one of the identifiers of the Hub, or other with license_name and license_link"
        )
    elif license_ not in LICENSES:
        found.append(f"header: license {license_!r} is no identifier of the Hub; use other with license_name")
    elif license_ == "other" and not (front.get("license_name") and front.get("license_link")):
        found.append("header: license other needs license_name and license_link")
    if front.get("library_name") != "modelsgenesis":
        found.append("header: library_name is not modelsgenesis")
    found += [f"header: no {key}" for key in ("pipeline_tag", "tags") if not front.get(key)]
    if "datasets" not in front:
        found.append(
            "header: no datasets; name those on the Hub, or describe the data in the text and give an empty list"
        )
    return found


def _index(index: Any) -> list[str]:
    """Return what the results lack: a number without n, seeds, an interval and a baseline says little."""
    results = [result for model in index or [] for result in model.get("results", [])]
    if not results:
        return ["results: none in model-index"]
    wanted = {
        "n": ("n", "cases", "subjects", "samples"),
        "seeds": ("seeds", "seed", "runs"),
        "an interval": ("interval", "ci", "confidence_interval", "deviation", "std"),
        "a baseline": ("baseline", "scratch", "identity_loss", "mean_image_loss"),
    }
    found: list[str] = []
    for metric in (metric for result in results for metric in result.get("metrics", [])):
        known = " ".join(str(key) for key in metric.get("args", {})).lower().split()
        lacking = [what for what, names in wanted.items() if not any(key.startswith(names) for key in known)]
        if lacking:
            found.append(f"results: {metric.get('name', metric.get('type'))} without {', '.join(lacking)}")
    return found


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
