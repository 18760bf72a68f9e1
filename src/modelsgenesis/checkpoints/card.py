"""The model card of a bundle: a generated section, renewed by every push, inside prose that a person owns.

A card is YAML front matter, then Markdown. The lines between the two markers are rendered from `config.json`
with `card_template.md`; everything outside of them is kept word for word. The free mappings of a provenance may come
from elsewhere, so whatever they hold is shown and nothing is computed with what is not a number.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from operator import attrgetter
from string import Template
from typing import Any

from modelsgenesis.configs import BundleConfig
from modelsgenesis.configs.base import plain
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.files import split_front_matter
from modelsgenesis.networks import build_network

BEGIN = "<!-- modelsgenesis:begin"
END = "<!-- modelsgenesis:end -->"
PLACEHOLDER = "FILL IN"
"""Marks what only a person can write."""

_PIPELINE_TAGS = {  # the Hub's name of each task
    "restoration": "image-feature-extraction",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}
_TAGS = ("medical-imaging", "models-genesis", "self-supervised-learning")
_BASELINES = ("mean_image_loss", "identity_loss")  # they say nothing without the loss beside them
_COUNTS = ("n", "patients", "cases", "subjects", "samples", "seeds", "seed", "runs")  # belong to all of a group
_STEPS = ("step", "steps", "epoch")  # not measures of quality
_NUMBER = (int, float)  # by type(): for isinstance, True is an int
_TABLE = "| | |\n|---|---|"


@dataclass(frozen=True)
class CardParts:
    """A card taken apart.

    Attributes:
        front: The front matter.
        before: A person's prose before the generated section.
        generated: The section between the markers, with them; empty when there is none.
        after: A person's prose after it.
    """

    front: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    generated: str = ""
    after: str = ""


def split_card(card: str, where: str = "README.md") -> CardParts:
    r"""Take a card apart, in a time that grows with its length and no faster.

    Raises:
        ConfigurationError: The front matter cannot be read, see `split_front_matter`.

    Example:
        >>> split_card("---\nlicense: mit\n---\nProse")
        CardParts(front={'license': 'mit'}, before='', generated='', after='Prose')
    """
    front, body = split_front_matter(card, where, ConfigurationError)
    lines = f"\n{body}"  # so that each line of the body, whose places are the same, follows a line break
    begin = lines.find(f"\n{BEGIN}")  # a regular expression over the text could take quadratic time
    end = lines.find(f"\n{END}", begin + 1) if begin >= 0 else -1
    if end < 0:
        return CardParts(front, after=body)
    after = f"{body}\n".find("\n", end) + 1
    return CardParts(front, body[:begin], body[begin:after], body[after:])


class _Card(Template):
    idpattern = "[a-z][a-z_.]*"  # dots too: `${input.window}` is a value of `config.json`


def render_card(
    config: BundleConfig, *, name: str, existing: str | CardParts = "", figures: Mapping[str, str] | None = None
) -> str:
    """Render the card of a bundle, keeping what a person wrote into an existing one.

    Args:
        config: The bundle's `config.json`; absent provenance is said to be absent.
        name: What the card is about: `org/name`, or the name of a run. The snippet loads it by this.
        existing: The card before; its prose and the keys of its header that are not ours stay.
        figures: Path, relative to the card, by title.

    Returns:
        The whole card. Without an existing one it ends with sections for a person to fill in.

    Raises:
        ConfigurationError: The existing card's front matter is not a YAML mapping.

    Example:
        card = render_card(bundle.config, name="clinic/genesis-ct", figures={"Restorations": "figures/r.png"})
    """
    import yaml

    old = split_card(existing) if isinstance(existing, str) else existing
    new = split_card(resources.files("modelsgenesis.checkpoints").joinpath("card_template.md").read_text("utf-8"))
    found = measures(config.provenance.results)
    task, origin, spec = _PIPELINE_TAGS[config.task], config.provenance, config.input
    validated = "others" if origin.data.get("validation_patients") or origin.data.get("validation_scans") else "unknown"
    if origin.data.get("held_out") is False:
        validated = "nobody"
    # The header of the template has phrases to choose from, in which values have their places too.
    choices = {"purpose": config.task, "commands": config.task, "origin": origin.origin}
    choices |= {"intensity": spec.intensity, "validated": validated}
    phrases = {name: new.front[name][choice] for name, choice in choices.items()}
    template = _Card(_Card(new.generated).safe_substitute(phrases))
    values = {"name": name, "load": f'network = modelsgenesis.from_pretrained("{name}")'}
    values |= _sections(config, found)
    values["figures"] = "\n\n".join(f"![{text(title)}]({path})" for title, path in (figures or {}).items())
    values |= {key: text(attrgetter(key)(config)) for key in template.get_identifiers() if key not in values}
    header: dict[str, Any] = {"library_name": config.library_name, "pipeline_tag": task}
    if isinstance(base := origin.source.get("repository"), str) and base:
        header["base_model"] = base
    if metrics := [one for one in found if math.isfinite(one["value"])]:  # the Hub refuses a card with NaN in it
        data = origin.data.get("name")
        data = data if isinstance(data, str) and data else f"{spec.modality} scans of the publisher"
        kind = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "private"
        result = {"task": {"type": task, "name": config.task}, "dataset": {"type": kind, "name": data}}
        header["model-index"] = [{"name": name, "results": [{**result, "metrics": metrics}]}]
    tags = old.front.get("tags") or []
    tags = [*(tags if isinstance(tags, list) else [tags]), *_TAGS, spec.modality, f"{spec.dims}d", config.task]
    header["tags"] = list(dict.fromkeys(map(text, tags)))
    # Results of another network would be wrong, so the index goes even where there are no new ones.
    header = {key: value for key, value in old.front.items() if key not in (*header, "model-index")} | header
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)
    after = old.after if (old.before + old.after).strip() else new.after
    separator = "" if old.generated or after.startswith("\n") else "\n"
    return f"---\n{front}---\n\n{old.before}{template.substitute(values)}{separator}{after}"


def _sections(config: BundleConfig, found: list[dict[str, Any]]) -> dict[str, str]:
    """Return the tables, and what else the template names, beside the values of `config.json`."""
    origin, recipe = config.provenance, "No recipe was recorded."
    if origin.recipe:
        said = [f"At most {text(origin.recipe[key])} {key}." for key in ("steps", "epochs") if origin.recipe.get(key)]
        said += [f"The network of step {text(origin.results['step'])} was kept."] if "step" in origin.results else []
        every = f"<details><summary>Every setting</summary>\n\n{_TABLE}{_rows(origin.recipe)}\n\n</details>"
        recipe = f"{' '.join(said)}\n\n{every}".lstrip()
    results = "None recorded."
    if origin.results:
        results = "| Measure | Value | n, seeds, interval, baselines |\n|---|---|---|"
        results += "".join(f"\n| {text(m['name'])} | {text(m['value'])} | {text(m.get('args', ''))} |" for m in found)
        results += _rows({key: value for key, value in origin.results.items() if isinstance(value, str)})
    if origin.results.get("collapsed"):
        results = f"**This network has collapsed: its output hardly depends on its input.**\n\n{results}"
    return {
        "kind": f"{config.input.dims}D {config.input.modality.upper()}",
        "parameters": f"{sum(each.numel() for each in build_network(config.network, 'meta').parameters()):,}",
        "source": _rows(origin.source, "Source: "),
        "shape": ", ".join(map(str, (1, len(config.input.channels), *config.patch_size))),
        "axes": ", ".join("xyz"[: config.input.dims]),
        "patch": " × ".join(map(str, config.patch_size)),
        "recipe": recipe,
        "data": _TABLE + _rows(origin.data) if origin.data else "The record says nothing about the training data.",
        "results": results,
        "environment": _TABLE + _rows({"modelsgenesis": origin.library_version, **origin.environment}),
    }


def measures(
    results: Mapping[str, Any], prefix: str = "", inherited: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Find the numbers in a free mapping of results, and write them as metrics of the Hub's `model-index`.

    A mapping with `mean` or `value` is one measure and its other keys the details; any other is a group,
    whose counts belong to each of its measures.

    Args:
        results: Numbers, text and groups by name.
        prefix: Name of the group.
        inherited: Counts of the group that this one is in.

    Example:
        >>> measures({"dice": {"mean": 0.85, "n": 20}})
        [{'type': 'dice', 'name': 'dice', 'value': 0.85, 'args': {'n': 20}}]
        >>> [one["name"] for one in measures({"dice": {"Anterior": 0.86, "Posterior": 0.84}})]
        ['dice Anterior', 'dice Posterior']
    """
    # 26 patients stand once beside all of a group's measures, and count for each of them.
    counts = {**(inherited or {}), **{key: results[key] for key in _COUNTS if key in results}}
    baselines = {name: results[name] for name in _BASELINES if name in results} if "restoration_loss" in results else {}
    found: list[dict[str, Any]] = []
    for key, value in results.items():
        if key in baselines or key in _COUNTS or key in _STEPS:
            continue
        name, details = f"{prefix} {key}".strip(), {**(baselines if key == "restoration_loss" else {}), **counts}
        group = value if isinstance(value, Mapping) else {"value": value}
        main = next((main for main in ("mean", "value") if type(group.get(main)) in _NUMBER), None)
        if main:
            details |= {inner: item for inner, item in group.items() if inner != main}
            kind = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "measure"
            metric = {"type": kind, "name": name, "value": group[main]}
            found.append({**metric, "args": plain(details)} if details else metric)
        elif group is value:
            found += measures(group, name, counts)
    return found


def text(value: Any) -> str:
    """Return a value as one line of Markdown that no cell, heading or marker can break out of.

    Example:
        >>> text({"n": 20, "interval": [0.831, 0.872]})
        'n 20; interval 0.831, 0.872'
    """
    if value is None or value in ([], ()):
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{text(key)} {text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value)) if len(value) <= 12 else f"{len(value)} values"
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|")


def _rows(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return a line of a table for each value; those of mappings within have dotted names."""
    rows = ""
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        rows += _rows(value, f"{prefix}{key}.") if nested else f"\n| {text(f'{prefix}{key}')} | {text(value)} |"
    return rows
