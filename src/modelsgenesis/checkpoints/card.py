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
from string import Template
from typing import Any

from modelsgenesis.configs import RECIPES, SCHEMES, BundleConfig, InputContract, PretextConfig, PretrainingConfig
from modelsgenesis.configs.base import plain
from modelsgenesis.configs.front_matter import CardParts, split_card
from modelsgenesis.errors import ConfigurationError

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
_HOURS = {"wall_hours": "time", "cpu_hours": "CPU time, all cores", "gpu_hours": "GPU time, all devices"}
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
    generated = Template(template.generated).substitute(_fields(config, name, found, figures or {}))
    ours = _front(config, name, found, old.front.get("tags"))
    kept = {key: value for key, value in old.front.items() if key not in ours and key != "model-index"}
    after = old.after if (old.before + old.after).strip() else template.after
    separator = "" if old.generated or after.startswith("\n") else "\n"
    return CardParts({**kept, **ours}, old.before, generated, separator + after).join()


def _front(config: BundleConfig, name: str, found: list[Measure], tags: Any) -> dict[str, Any]:
    """Return the keys of the header that are ours, with the tags of a person before our own."""
    contract, repository = config.input, config.provenance.source.get("repository")
    ours = ["medical-imaging", "models-genesis", "self-supervised-learning", contract.modality, f"{contract.dims}d"]
    theirs = tags if isinstance(tags, list) else [tags] if tags else []
    index = model_index(config, name, found)
    return {
        "library_name": config.library_name,
        "pipeline_tag": PIPELINE_TAGS[config.task],
        **({"base_model": repository} if isinstance(repository, str) and repository else {}),
        **({"model-index": index} if index else {}),
        "tags": list(dict.fromkeys(text(tag) for tag in (*theirs, *ours, config.task))),
    }


def _fields(config: BundleConfig, name: str, found: list[Measure], figures: Mapping[str, str]) -> dict[str, str]:
    origin, sides = config.provenance, config.patch_size
    environment = {"modelsgenesis": origin.library_version, **origin.environment}
    nothing_known = "Nothing was recorded about the training data; see the end of this card."
    return {
        "name": text(name),
        "summary": _summary(config),
        "overview": _rows(_overview(config)),
        "load": f'network = modelsgenesis.from_pretrained("{name}")',
        "use": _use(config, name),
        "shape": ", ".join(str(size) for size in (1, len(config.input.channels), *sides)),
        "axes": ", ".join(("x", "y", "z")[: len(sides)]),
        "input": _rows(_input(config.input, sides)),
        "recipe": recipe_section(origin.recipe, origin.results),
        "data": _table({key.replace("_", " "): value for key, value in origin.data.items()}) or nothing_known,
        "limits": limits(config),
        "results": _results(origin.results, found),
        "figures": "\n\n".join(f"![{text(title)}]({path})" for title, path in figures.items()),
        "environment": _table({_HOURS.get(k, k.replace("_", " ")): _hours(k, v) for k, v in environment.items()}),
    }


def _summary(config: BundleConfig) -> str:
    kind, init = f"{config.input.dims}D {config.input.modality.upper()}", config.provenance.init
    what = f"A network for {config.task} of {text(config.labels)} in {kind}, built on Models Genesis."
    if config.task == "restoration":
        what = (
            f"A network for {kind} that restores deformed patches (Models Genesis): no label was used. "
            "Its encoder starts classification models, its encoder-decoder segmentation models."
        )
    origin = {
        "pretrained": "Pretrained with this package" + (f", going on from {text(init)}." if init else "."),
        "finetuned": f"Fine-tuned from {text(init or 'random weights')}.",
        "converted": "Converted from the published weights named below; the values are unchanged.",
        "untrained": "**Its weights are random: it was not trained.**",
    }
    return f"{what} {origin[config.provenance.origin]}"


def _use(config: BundleConfig, name: str) -> str:
    """Return the commands that go on from this model."""
    commands = [f"modelsgenesis predict {name} scan.nii.gz"]
    if config.task == "restoration":
        commands = [
            f"modelsgenesis finetune DATA --task seg --init {name}  # or cls; a few labels of your own",
            f"modelsgenesis pretrain SCANS --init {name}  # go on without labels: its restoring head is in it",
        ]
    return "\n".join(("```bash", *commands, "```"))


def _overview(config: BundleConfig) -> dict[str, Any]:
    from modelsgenesis.networks import build_on_meta

    parameters = sum(parameter.numel() for parameter in build_on_meta(config.network).parameters())
    return {
        "Task": config.task,
        "Network": config.network.kind,
        "Parameters": f"{parameters:,}",
        **({"Classes": ", ".join(config.labels)} if config.labels else {}),
        **({"Started from": config.provenance.init} if config.provenance.init else {}),
        **{f"Source: {key}": value for key, value in config.provenance.source.items()},
    }


def _input(contract: InputContract, patch_size: tuple[int, ...]) -> dict[str, Any]:
    intensity = {
        "window": f"clipped to {contract.window} (HU for CT), scaled to [0, 1]",
        "percentiles": f"clipped to percentiles {contract.percentiles} of the foreground, scaled to [0, 1]",
        "standardize": f"(value − {contract.mean}) / {contract.deviation}",
        "zscore": "the scan's own mean subtracted, divided by its own standard deviation",
    }
    return {
        "Modality": contract.modality,
        "Dimensions": contract.dims,
        "Channels": ", ".join(contract.channels),
        "Intensity": intensity[contract.intensity],
        "Spacing": f"{contract.spacing} mm" if contract.spacing else "the scan's own",
        "Orientation": contract.orientation or "the image's own",
        "Patch in training": " × ".join(str(size) for size in patch_size),
    }


# --- training -----------------------------------------------------------------------------------------------


def recipe_section(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the training in words and a short table, then every setting, folded away.

    Args:
        recipe: The configuration's fields.
        results: Have the step of the network that was kept.
    """
    if not recipe:
        return "No recipe was recorded."
    kept = f"; the network of step {text(results['step'])} was kept" if "step" in results else ""
    budget = " or ".join(f"{text(recipe[key])} {key}" for key in ("steps", "epochs") if recipe.get(key))
    setting = {key: text(value) for key, value in recipe.items()}
    short: dict[str, Any] = {"Budget": f"at most {budget}{kept}"} if budget else {}
    if setting.keys() >= {"batch_size", "patch_size"}:
        short["Batch"] = f"{setting['batch_size']} patches of {setting['patch_size'].replace(', ', '×')} voxels"
    if setting.keys() >= {"optimizer", "learning_rate", "warmup_steps", "schedule"}:
        warm = f"{setting['warmup_steps']} steps of warm-up, then {setting['schedule']}"
        short["Optimiser"] = f"{setting['optimizer']}, learning rate {setting['learning_rate']}, {warm}"
    short |= {"Seed": recipe["seed"]} if "seed" in recipe else {}
    every = f"<details><summary>Every setting</summary>\n\n{_table(recipe)}\n\n</details>"
    return "\n\n".join(block for block in (_nearest_recipe(recipe), _table(short), every) if block)


def _nearest_recipe(recipe: Mapping[str, Any]) -> str:
    """Return the named recipe with the fewest differences, and these; "" for what is not a pretraining of today."""
    try:
        config = PretrainingConfig.from_dict(recipe if "pretext" in recipe else {"": None})
    except ConfigurationError:
        return ""
    found = {name: _differences(config.to_dict(), known.to_dict()) for name, known in RECIPES.items()}
    name = min(found, key=lambda name: len(found[name]))
    changes = [f"- {text(change)}" for change in found[name]]
    said = f"The nearest named recipe is `{name}`; {'the differences are:' if changes else 'nothing differs.'}"
    scheme = next((name for name, known in SCHEMES.items() if known == config.pretext), "custom")
    listed = ["", *changes] if changes else []
    return "\n".join([said, *listed, "", f"Scheme {scheme}: {_deformations(config.pretext)}."])


def _differences(values: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys([*values, *base]):
        value, other = values.get(key), base.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found += _differences(value, other, f"{prefix}{key}.")
        elif value != other:
            found.append(f"{prefix}{key} {text(value)} instead of {text(other)}")
    return found


def _deformations(pretext: PretextConfig) -> str:
    used = {
        "non-linear intensity": pretext.intensity_probability,
        "local shuffling": pretext.shuffle_probability,
        "out-painting": pretext.painting_probability * (1 - pretext.inpainting_share),
        "in-painting": pretext.painting_probability * pretext.inpainting_share,
    }
    return ", ".join(name for name, share in used.items() if share) or "only flips, an autoencoder: the control"


def limits(config: BundleConfig) -> str:
    """Return what the record itself says about the limits, as a list."""
    data, contract = config.provenance.data, config.input
    if not data:
        return "The record says nothing about limits; see the end of this card."
    spacing = "at the scans' own voxel sizes" if contract.spacing is None else f"at {text(contract.spacing)} mm"
    found = [f"Trained on {contract.modality.upper()} alone, {contract.dims}D, {spacing}; nothing else was tried."]
    what = next((what for what in ("patient", "scan") if data.get(f"validation_{what}s")), "")
    count = data.get(f"validation_{what}s")
    if data.get("held_out") is False:
        found.append("Nobody was held out: validated on other patches of the training scans, which is optimistic.")
    elif what:
        who = f"{text(count)} {what}{'' if count == 1 else 's'}"
        found.append(f"Validated on {who} from the same source; other scanners and hospitals were not tried.")
    if config.task == "restoration":
        found.append("A low restoration loss does not prove use: compare with training from scratch on your task.")
    return "\n".join(f"- {line}" for line in found)


# --- results ------------------------------------------------------------------------------------------------


def measures(results: Mapping[str, Any]) -> list[Measure]:
    """Find the numbers in a free mapping of results.

    A mapping with `mean` or `value` is one measure and its other keys the details; any other is a group,
    whose counts belong to each of its measures.

    Example:
        >>> measures({"dice": {"mean": 0.85, "n": 20}})
        [Measure(name='dice', value=0.85, details={'n': 20})]
        >>> [m.name for m in measures({"dice": {"Anterior": 0.86, "Posterior": 0.84}})]
        ['dice Anterior', 'dice Posterior']
    """
    return _group("", results, {})


def _group(prefix: str, results: Mapping[str, Any], inherited: Mapping[str, Any]) -> list[Measure]:
    counts = {**inherited, **{key: results[key] for key in _COUNTS if key in results}}
    baselines = {name: results[name] for name in _BASELINES if name in results} if "restoration_loss" in results else {}
    found: list[Measure] = []
    for key, value in results.items():
        if key not in baselines and key not in _COUNTS and key not in _STEPS:
            beside = baselines if key == "restoration_loss" else {}
            found += _measures(f"{prefix} {key}".strip(), value, {**beside, **counts})
    return found


def _measures(name: str, value: Any, details: dict[str, Any]) -> list[Measure]:
    if _is_number(value):
        return [Measure(name, value, details)]
    if not isinstance(value, Mapping):
        return []
    for main in ("mean", "value"):
        if _is_number(value.get(main)):
            rest = {key: item for key, item in value.items() if key != main}
            return [Measure(name, value[main], {**details, **rest})]
    return _group(name, value, {key: item for key, item in details.items() if key in _COUNTS})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _results(results: Mapping[str, Any], found: list[Measure]) -> str:
    if not results:
        return "No result was recorded."
    lines = [f"| {text(m.name)} | {text(m.value)} | {text(m.details)} |" for m in found]
    lines += [f"| {text(key)} | {text(value)} | |" for key, value in results.items() if isinstance(value, str)]
    said = meaning(results)
    head = [said, ""] if said else []
    return "\n".join([*head, "| Measure | Value | n, seeds, interval, baselines |", "|---|---|---|", *lines])


def meaning(results: Mapping[str, Any]) -> str:
    """Return what the restoration loss says beside its baselines; "" without one."""
    loss = results.get("restoration_loss")
    pairs = [(results[key], what) for key, what in _BASELINES.items() if _is_number(results.get(key)) and results[key]]
    shares = [f"{loss / base:.2f} times that of {what}" for base, what in pairs] if _is_number(loss) else []
    said = f"On the validation patches the loss is {' and '.join(shares)}." if shares else ""
    if results.get("collapsed"):
        said += " **This network has collapsed: its output hardly depends on its input.**"
    return said.strip()


def model_index(config: BundleConfig, name: str, found: list[Measure]) -> list[dict[str, Any]]:
    """Return the Hub's `model-index`: every finite measure, with its details as `args`; empty without any."""
    metrics = [
        {
            "type": _identifier(measure.name, "_") or "measure",
            "name": measure.name,
            "value": measure.value,
            **({"args": plain(measure.details)} if measure.details else {}),
        }
        for measure in found
        if math.isfinite(measure.value)
    ]
    data = config.provenance.data.get("name")
    data = data if isinstance(data, str) and data else f"{config.input.modality} scans of the publisher"
    result = {
        "task": {"type": PIPELINE_TAGS[config.task], "name": config.task},
        "dataset": {"type": _identifier(data, "-") or "private", "name": data},
        "metrics": metrics,
    }
    return [{"name": name, "results": [result]}] if metrics else []


def _identifier(name: str, joint: str) -> str:
    return re.sub(r"[^a-z0-9]+", joint, name.lower()).strip(joint)


# --- Markdown -----------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """Return a value as one line of Markdown that no cell, heading or marker can break out of.

    Example:
        >>> text({"n": 20, "interval": [0.831, 0.872]})
        'n 20; interval 0.831, 0.872'
    """
    if value is None:
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


def _hours(key: str, value: Any) -> Any:
    if key not in _HOURS or not _is_number(value):
        return value
    return f"{value:.1f} hours" if value >= 1 else f"{60 * value:.1f} minutes"


def _table(values: Mapping[str, Any]) -> str:
    """Return a mapping as a table of two columns; nested mappings become dotted names."""
    return f"| | |\n|---|---|\n{_rows(values)}" if values else ""


def _rows(values: Mapping[str, Any]) -> str:
    found: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found.append(_rows({f"{key}.{inner}": item for inner, item in value.items()}))
        else:
            found.append(f"| {text(key)} | {text(value)} |")
    return "\n".join(found)
