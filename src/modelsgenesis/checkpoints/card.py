"""The model card of a bundle: a generated section, renewed by every push, inside prose that a person owns.

A card is YAML front matter, then Markdown. The lines between the two markers are rendered from `config.json`
with `card_template.md`; everything outside of them is kept word for word. The free mappings of a provenance may come
from elsewhere, so whatever they hold is shown and nothing is computed with what is not a number.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from string import Template
from typing import Any

from modelsgenesis.configs import SCHEMES, BundleConfig, PretextConfig
from modelsgenesis.configs.base import plain
from modelsgenesis.configs.front_matter import CardParts, split_card
from modelsgenesis.networks import build_network

PIPELINE_TAGS = {
    "restoration": "image-feature-extraction",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}
"""The Hub's name of each task."""

_BASELINES = {
    "mean_image_loss": "always predicting the mean image",
    "identity_loss": "returning the input as it is",
}  # they say nothing without the loss beside them
_COUNTS = ("n", "patients", "cases", "subjects", "samples", "seeds", "seed", "runs")  # belong to all of a group
_STEPS = ("step", "steps", "epoch")  # not measures of quality
_LONGEST_LIST = 12


@dataclass(frozen=True)
class Measure:
    """One number.

    Attributes:
        name: Such as `dice Anterior`.
        value: The number.
        details: What it rests on: n, seeds, interval, baselines.
    """

    name: str
    value: float
    details: dict[str, Any] = field(default_factory=dict)


class _Card(Template):
    idpattern = "[a-z][a-z_.]*"  # dots too: `${input.window}` is a value of `config.json`


def render_card(
    config: BundleConfig, *, name: str, existing: str = "", figures: Mapping[str, str] | None = None
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
    old = split_card(existing)
    template = split_card(resources.files("modelsgenesis.checkpoints").joinpath("card_template.md").read_text("utf-8"))
    found = measures(config.provenance.results)
    values = {key: text(value) for key, value in _flat(config.to_dict())}
    values |= _sections(config, name, found) | {
        "figures": "\n\n".join(f"![{text(title)}]({path})" for title, path in (figures or {}).items())
    }
    ours = _front(config, name, found, old.front.get("tags"))
    # Results of another network would be wrong, so the index goes even where there are no new ones.
    kept = {key: value for key, value in old.front.items() if key not in ours and key != "model-index"}
    after = old.after if (old.before + old.after).strip() else template.after
    separator = "" if old.generated or after.startswith("\n") else "\n"
    generated = _Card(template.generated).substitute(values)
    return CardParts({**kept, **ours}, old.before, generated, separator + after).join()


def _sections(config: BundleConfig, name: str, found: list[Measure]) -> dict[str, str]:
    """Return what the template names beside the values of `config.json`."""
    origin, spec, dims = config.provenance, config.input, config.input.dims
    restores, init = config.task == "restoration", text(origin.init)
    parameters = sum(parameter.numel() for parameter in build_network(config.network, "meta").parameters())
    kind = f"{dims}D {spec.modality.upper()}"
    purpose = (
        f"A network for {kind} that restores deformed patches (Models Genesis): no label was used. "
        "Its encoder starts classification models, its encoder-decoder segmentation models."
        if restores
        else f"A network for {config.task} of {text(config.labels)} in {kind}, built on Models Genesis."
    )
    origins = {
        "pretrained": "Pretrained with this package" + (f", going on from {init}." if origin.init else "."),
        "finetuned": f"Fine-tuned from {init if origin.init else 'random weights'}.",
        "converted": "Converted from the published weights named below; the values are unchanged.",
        "untrained": "**Its weights are random: it was not trained.**",
    }
    commands = {
        True: f"modelsgenesis finetune DATA --task seg --init {name}  # or cls; a few labels of your own\n"
        f"modelsgenesis pretrain SCANS --init {name}  # go on without labels: its restoring head is in it",
        False: f"modelsgenesis predict {name} scan.nii.gz",
    }
    intensity = {
        "window": f"clipped to {spec.window} (HU for CT), scaled to [0, 1]",
        "percentiles": f"clipped to percentiles {spec.percentiles} of the foreground, scaled to [0, 1]",
        "standardize": f"(value − {spec.mean}) / {spec.deviation}",
        "zscore": "the scan's own mean subtracted, divided by its own standard deviation",
    }
    results = [f"| {text(m.name)} | {text(m.value)} | {text(m.details)} |" for m in found]
    results += [f"| {text(key)} | {text(value)} | |" for key, value in origin.results.items() if isinstance(value, str)]
    return {
        "name": text(name),
        "load": f'network = modelsgenesis.from_pretrained("{name}")',
        "summary": f"{purpose} {origins[origin.origin]}",
        "commands": commands[restores],
        "kind": kind,
        "parameters": f"{parameters:,}",
        "source": "".join(f"\n| Source: {text(key)} | {text(value)} |" for key, value in _flat(origin.source)),
        "shape": ", ".join(map(str, (1, len(spec.channels), *config.patch_size))),
        "axes": ", ".join("xyz"[:dims]),
        "intensity": intensity[spec.intensity],
        "patch": " × ".join(map(str, config.patch_size)),
        "recipe": recipe_section(origin.recipe, origin.results),
        "data": _table(_spaced(origin.data))
        or "Nothing was recorded about the training data; see the end of this card.",
        "validated": validation_sentence(origin.data),
        "meaning": meaning(origin.results),
        "results": "\n".join(["| Measure | Value | n, seeds, interval, baselines |", "|---|---|---|", *results])
        if origin.results
        else "No result was recorded.",
        "environment": _table({"modelsgenesis": origin.library_version, **_spaced(origin.environment)}),
    }


def recipe_section(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the training in a sentence, then every setting, folded away.

    Args:
        recipe: The configuration's fields.
        results: Have the step of the network that was kept.
    """
    if not recipe:
        return "No recipe was recorded."
    budget = " or ".join(f"{text(recipe[key])} {key}" for key in ("steps", "epochs") if recipe.get(key))
    said = [f"At most {budget}"] if budget else []
    said += [f"the network of step {text(results['step'])} was kept"] if "step" in results else []
    blocks = ["; ".join(said) + "."] if said else []
    scheme = next((name for name, known in SCHEMES.items() if _is_recorded(known, recipe.get("pretext"))), "")
    blocks += [f"Scheme {scheme}: {_deformations(SCHEMES[scheme])}."] if scheme else []
    every = f"<details><summary>Every setting</summary>\n\n{_table(recipe)}\n\n</details>"
    return "\n\n".join([*blocks, every])


def _is_recorded(known: PretextConfig, recorded: Any) -> bool:
    """Compare a scheme with what a recipe recorded; a field that came later has to be off: 0 or empty."""
    if not isinstance(recorded, Mapping):
        return False
    values = known.to_dict()
    same = all(recorded[name] == value if name in recorded else not value for name, value in values.items())
    return same and recorded.keys() <= values.keys()


def _deformations(pretext: PretextConfig) -> str:
    used = {
        "non-linear intensity": pretext.intensity_probability,
        "local shuffling": pretext.shuffle_probability,
        "out-painting": pretext.painting_probability * (1 - pretext.inpainting_share),
        "in-painting": pretext.painting_probability * pretext.inpainting_share,
    }
    return ", ".join(name for name, share in used.items() if share) or "only flips, an autoencoder: the control"


def validation_sentence(data: Mapping[str, Any]) -> str:
    """Return what the record says about the limits of the validation."""
    if data.get("held_out") is False:
        return "Nobody was held out: validated on other patches of the training scans, which is optimistic."
    what = next((what for what in ("patient", "scan") if data.get(f"validation_{what}s")), "")
    if not what:
        return "The record says nothing about a validation; see the end of this card."
    count = data[f"validation_{what}s"]
    who = f"{text(count)} {what}{'' if count == 1 else 's'}"
    return f"Validated on {who} from the same source; other scanners and hospitals were not tried."


# --- results -------------------------------------------------------------------------------------------------


def measures(results: Mapping[str, Any], prefix: str = "", inherited: Mapping[str, Any] | None = None) -> list[Measure]:
    """Find the numbers in a free mapping of results.

    A mapping with `mean` or `value` is one measure and its other keys the details; any other is a group,
    whose counts belong to each of its measures.

    Args:
        results: Numbers, text and groups by name.
        prefix: Name of the group.
        inherited: Counts of the group that this one is in.

    Example:
        >>> measures({"dice": {"mean": 0.85, "n": 20}})
        [Measure(name='dice', value=0.85, details={'n': 20})]
        >>> [m.name for m in measures({"dice": {"Anterior": 0.86, "Posterior": 0.84}})]
        ['dice Anterior', 'dice Posterior']
    """
    # 26 patients stand once beside all of a group's measures, and count for each of them.
    counts = {**(inherited or {}), **{key: results[key] for key in _COUNTS if key in results}}
    baselines = {name: results[name] for name in _BASELINES if name in results} if "restoration_loss" in results else {}
    found: list[Measure] = []
    for key, value in results.items():
        if key in baselines or key in _COUNTS or key in _STEPS:
            continue
        name, details = f"{prefix} {key}".strip(), {**(baselines if key == "restoration_loss" else {}), **counts}
        group = value if isinstance(value, Mapping) else {"value": value}
        main = next((main for main in ("mean", "value") if _is_number(group.get(main))), None)
        if main:
            rest = {inner: item for inner, item in group.items() if inner != main}
            found.append(Measure(name, group[main], {**details, **rest}))
        elif group is value:
            found += measures(group, name, counts)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def meaning(results: Mapping[str, Any]) -> str:
    """Return what the restoration loss says beside its baselines; "" without one."""
    loss = results.get("restoration_loss")
    pairs = [(results[key], what) for key, what in _BASELINES.items() if _is_number(results.get(key)) and results[key]]
    shares = [f"{loss / base:.2f} times that of {what}" for base, what in pairs] if _is_number(loss) else []
    said = f"On the validation patches the loss is {' and '.join(shares)}." if shares else ""
    if results.get("collapsed"):
        said += " **This network has collapsed: its output hardly depends on its input.**"
    return said.strip()


def _front(config: BundleConfig, name: str, found: list[Measure], tags: Any) -> dict[str, Any]:
    """Return the keys of the header that are ours, with the tags of a person before our own."""
    spec, repository = config.input, config.provenance.source.get("repository")
    ours = ["medical-imaging", "models-genesis", "self-supervised-learning", spec.modality, f"{spec.dims}d"]
    theirs = tags if isinstance(tags, list) else [tags] if tags else []
    index = model_index(config, name, found)
    return {
        "library_name": config.library_name,
        "pipeline_tag": PIPELINE_TAGS[config.task],
        **({"base_model": repository} if isinstance(repository, str) and repository else {}),
        **({"model-index": index} if index else {}),
        "tags": list(dict.fromkeys(text(tag) for tag in (*theirs, *ours, config.task))),
    }


def model_index(config: BundleConfig, name: str, found: list[Measure]) -> list[dict[str, Any]]:
    """Return the Hub's `model-index`: every finite measure, with its details as `args`; empty without any."""
    metrics = [
        {"type": _identifier(measure.name, "_") or "measure", "name": measure.name, "value": measure.value}
        | ({"args": plain(measure.details)} if measure.details else {})
        for measure in found
        if math.isfinite(measure.value)  # the Hub refuses a card with NaN in it
    ]
    data = config.provenance.data.get("name")
    data = data if isinstance(data, str) and data else f"{config.input.modality} scans of the publisher"
    task = {"type": PIPELINE_TAGS[config.task], "name": config.task}
    result = {
        "task": task,
        "dataset": {"type": _identifier(data, "-") or "private", "name": data},
        "metrics": metrics,
    }
    return [{"name": name, "results": [result]}] if metrics else []


def _identifier(name: str, joint: str) -> str:
    return re.sub(r"[^a-z0-9]+", joint, name.lower()).strip(joint)


# --- Markdown ------------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """Return a value as one line of Markdown that no cell, heading or marker can break out of.

    Example:
        >>> text({"n": 20, "interval": [0.831, 0.872]})
        'n 20; interval 0.831, 0.872'
    """
    if value is None or value in ([], (), {}):
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{text(key)} {text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        short = len(value) <= _LONGEST_LIST
        return ", ".join(text(item) for item in value) if short else f"{len(value)} values"
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Go through the values of a mapping; those of mappings within have dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {text(key)} | {text(value)} |" for key, value in _flat(values)]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""


def _spaced(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", " "): value for key, value in values.items()}
