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
from modelsgenesis.metrics.measures import METRICS, explanations, metric_title
from modelsgenesis.metrics.tables import basis_of, results_table
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
_BASELINES_ARE = (
    "Baselines: `identity_loss` of returning the input as it is, `mean_image_loss` of always predicting the mean image."
)
_PARTS = ("test", "validation")
_UNITS = [("unit", name) for name in ("mm", "pixels", "voxels")]
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
    # The Hub refuses a card with NaN in it.
    found = [one for one in measures(config.provenance.results) if math.isfinite(one["value"])]
    task, origin, spec = _PIPELINE_TAGS[config.task], config.provenance, config.input
    validated = "others" if origin.data.get("validation_patients") or origin.data.get("validation_scans") else "unknown"
    if origin.data.get("held_out") is False:
        validated = "nobody"
    # The header of the template has phrases to choose from, in which values have their places too.
    choices = {"purpose": config.task, "commands": config.task, "origin": origin.origin}
    choices |= {"intensity": spec.intensity, "validated": validated}
    phrases = {name: new.front[name][choice] for name, choice in choices.items()}
    template = _Card(_Card(new.generated).safe_substitute(phrases))
    values = {"name": name, "load": f'model = modelsgenesis.from_pretrained("{name}")'}
    values |= _sections(config)
    values["figures"] = "\n\n".join(f"![{text(title)}]({path})" for title, path in (figures or {}).items())
    values |= {key: text(attrgetter(key)(config)) for key in template.get_identifiers() if key not in values}
    header: dict[str, Any] = {"library_name": config.library_name, "pipeline_tag": task}
    if isinstance(base := origin.source.get("repository"), str) and base:
        header |= {"base_model": base} | ({} if origin.origin == "converted" else {"base_model_relation": "finetune"})
    if found:
        header["model-index"] = [{"name": name, "results": _index(config, found)}]
    tags = old.front.get("tags") or []
    tags = [*(tags if isinstance(tags, list) else [tags]), *_TAGS, spec.modality, f"{spec.dims}d", config.task]
    header["tags"] = list(dict.fromkeys(map(text, tags)))
    # Results of another network would be wrong, so the index goes even where there are no new ones.
    header = {key: value for key, value in old.front.items() if key not in (*header, "model-index")} | header
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)
    after = old.after if (old.before + old.after).strip() else new.after
    separator = "" if old.generated or after.startswith("\n") else "\n"
    return f"---\n{front}---\n\n{old.before}{template.substitute(values)}{separator}{after}"


def _index(config: BundleConfig, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of the Hub's `model-index`: for each part of the data its metrics, under the Hub's names."""
    data, task = config.provenance.data.get("name"), _PIPELINE_TAGS[config.task]
    data = data if isinstance(data, str) and data else f"{config.input.modality} scans of the publisher"
    dataset = {"type": re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "private", "name": data}
    metrics: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        part, _, name = one["name"].partition(" ")
        part, name = (part, name) if part in _PARTS else ("", one["name"])
        if known := METRICS.get(name.partition(" ")[0]):
            one |= {"type": known.hub, "name": metric_title(name)}
        metrics.setdefault(part, []).append(one)
    # Each with a mapping of its own: of a shared one YAML would make an alias.
    return [
        {
            "task": {"type": task, "name": config.task},
            "dataset": {**dataset, **({"split": part} if part else {})},
            "metrics": own,
        }
        for part, own in metrics.items()
    ]


def _tables(config: BundleConfig) -> tuple[list[str], dict[str, Any]]:
    """Return a table of what was measured on each part of the patients, and the results that are in none of them."""
    origin = config.provenance
    tables, others, specificity = [], dict(origin.results), origin.recipe.get("specificity")
    shared = {"alone": "".join(config.labels[-1:]), "specificity": specificity if type(specificity) is float else None}
    for part in _PARTS:
        group = group if isinstance(group := others.get(part), Mapping) else {}
        if summary := {name: figure for name, value in group.items() if (figure := _figure(name, value))}:
            counts = [group[key] for key in ("patients", "cases") if type(group.get(key)) is int]
            notes = [basis_of(*counts, what=f"{part} patient", intervals=part == "test")] if len(counts) == 2 else []
            table = results_table({(): summary}, **shared, notes=[*notes, *explanations(summary)])
            tables.append(f"On the {part} patients:\n\n{table}")
            others[part] = {name: value for name, value in group.items() if name not in summary}
    return tables, others


def _figure(name: str, value: Any) -> dict[str, Any] | None:
    """Return what a record holds of a metric; None where it is none, or its name would need escapes in a table."""
    entry = value if isinstance(value, Mapping) else {"value": value}
    found = {key: item for key, item in entry.items() if type(item) in _NUMBER or (key, item) in _UNITS}
    return found if name.partition(" ")[0] in METRICS and text(name) == name and "value" in found else None


def _sections(config: BundleConfig) -> dict[str, str]:
    """Return the tables, and what else the template names, beside the values of `config.json`."""
    origin, recipe, count = config.provenance, "No recipe was recorded.", len(config.input.channels)
    if origin.recipe:
        said = [f"At most {text(origin.recipe[key])} {key}." for key in ("steps", "epochs") if origin.recipe.get(key)]
        said += [f"The network of step {text(origin.results['step'])} was kept."] if "step" in origin.results else []
        every = f"<details><summary>Every setting</summary>\n\n{_TABLE}{_rows(origin.recipe)}\n\n</details>"
        recipe = f"{' '.join(said)}\n\n{every}".lstrip()
    tables, others = _tables(config)
    rows = [f"| {text(m['name'])} | {text(m['value'])} | {text(m.get('args', ''))} |" for m in measures(others)]
    rows += _rows({key: value for key, value in others.items() if isinstance(value, str)}).splitlines()[1:]
    if rows:
        tables.append("\n".join(["| Measure | Value | n, seeds, interval, baselines |", "|---|---|---|", *rows]))
    tables += [_BASELINES_ARE] if "restoration_loss" in others else []
    if isinstance(remarks := others.get("remarks"), list) and remarks:
        tables.append("\n".join(["Remarks:", "", *(f"- {text(remark)}" for remark in remarks)]))
    results = "\n\n".join(tables) or "None recorded."
    if origin.results.get("collapsed"):
        results = f"**This network has collapsed: its output hardly depends on its input.**\n\n{results}"
    return {
        "kind": f"{config.input.dims}D {config.input.modality.upper()}",
        "parameters": f"{sum(each.numel() for each in build_network(config.network, 'meta').parameters()):,}",
        "source": _rows(origin.source, "Source: "),
        "each": "" if count == 1 else f"  # of this model a list of {count} files, one for each channel",
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
