"""The model card of a bundle: a generated section, renewed by every push, inside prose that a person owns.

A card is YAML front matter, then Markdown. The lines between the two markers are rendered from `config.json`
with `card_template.md`; everything outside of them is kept word for word.
"""

from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from modelsgenesis.checkpoints.card_results import PIPELINE_TAGS, Measure, measures, model_index, text
from modelsgenesis.checkpoints.card_training import (
    data_section,
    environment_section,
    limits,
    meaning,
    recipe_section,
    rows,
)
from modelsgenesis.configs import BundleConfig, InputContract
from modelsgenesis.configs.front_matter import CardParts, split_card


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
        ConfigurationError: The existing card's front matter is no YAML mapping.

    Example:
        card = render_card(bundle.config, name="clinic/genesis-ct", figures={"Restorations": "figures/r.png"})
    """
    old = split_card(existing)
    template = split_card(resources.files("modelsgenesis.checkpoints").joinpath("card_template.md").read_text("utf-8"))
    found = measures(config.provenance.results)
    generated = Template(template.generated).substitute(_fields(config, name, found, figures or {}))
    ours = _front(config, name, found)
    ours["tags"] = list(dict.fromkeys([*_listed(old.front.get("tags")), *_tags(config)]))
    kept = {key: value for key, value in old.front.items() if key not in ours and key != "model-index"}
    front = {**kept, **ours}
    untouched = not (old.before + old.after).strip()
    after = template.after if untouched else old.after
    separator = "" if old.generated or after.startswith("\n") else "\n"
    return CardParts(front, old.before, generated, separator + after).join()


def _front(config: BundleConfig, name: str, found: list[Measure]) -> dict[str, Any]:
    """Return the keys of the header that are ours."""
    front: dict[str, Any] = {"library_name": config.library_name, "pipeline_tag": PIPELINE_TAGS[config.task]}
    repository = config.provenance.source.get("repository")
    if isinstance(repository, str) and repository:
        front["base_model"] = repository
    index = model_index(config, name, found)
    return {**front, "model-index": index} if index else front


def _tags(config: BundleConfig) -> list[str]:
    return [
        "medical-imaging",
        "models-genesis",
        "self-supervised-learning",
        config.input.modality,
        f"{config.input.dims}d",
        config.task,
    ]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _fields(config: BundleConfig, name: str, found: list[Measure], figures: Mapping[str, str]) -> dict[str, str]:
    origin = config.provenance
    axes = ("x", "y", "z")[: config.input.dims]
    return {
        "name": text(name),
        "summary": _summary(config),
        "overview": rows(_overview(config)),
        "load": f'network = modelsgenesis.from_pretrained("{name}")',
        "use": _use(config, name),
        "shape": ", ".join(str(size) for size in (1, len(config.input.channels), *config.patch_size)),
        "axes": ", ".join(axes),
        "input": rows(_input(config.input, config.patch_size)),
        "recipe": recipe_section(origin.recipe, origin.results),
        "data": data_section(origin.data),
        "limits": limits(config),
        "results": _results(origin.results, found),
        "figures": "\n\n".join(f"![{text(title)}]({path})" for title, path in figures.items()),
        "environment": environment_section({"modelsgenesis": origin.library_version, **origin.environment}),
    }


def _summary(config: BundleConfig) -> str:
    kind = f"{config.input.dims}D {config.input.modality.upper()}"
    origin = config.provenance.origin
    if config.task == "restoration":
        learnt = (
            f"A network for {kind} that restores deformed sub-volumes (Models Genesis): no label was used. "
            "Its encoder starts classification models, its encoder-decoder segmentation models."
        )
    else:
        classes = f" of {', '.join(text(label) for label in config.labels)}" if config.labels else ""
        learnt = f"A network for {config.task}{classes} in {kind}, built on Models Genesis."
    return (
        learnt
        + {
            "pretrained": " Pretrained with this package"
            + (f", going on from {text(config.provenance.init)}." if config.provenance.init else "."),
            "finetuned": f" Fine-tuned from {text(config.provenance.init or 'random weights')}.",
            "converted": " Converted from the published weights named below; the values are unchanged.",
            "untrained": " **Its weights are random: it was not trained.**",
        }[origin]
    )


def _use(config: BundleConfig, name: str) -> str:
    """Return the commands that go on from this model."""
    commands = {
        "restoration": (
            f"modelsgenesis finetune DATA --task seg --init {name}  # or cls; a few labels of your own",
            f"modelsgenesis pretrain SCANS --init {name}  # go on without labels: its restoring head is in it",
        ),
        "segmentation": (f"modelsgenesis predict {name} scan.nii.gz",),
        "classification": (f"modelsgenesis predict {name} scan.nii.gz",),
    }[config.task]
    return "\n".join(("```bash", *commands, "```"))


def _overview(config: BundleConfig) -> dict[str, Any]:
    import torch

    from modelsgenesis.networks import build_network

    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build_network(config.network).parameters())
    rows = {"Task": config.task, "Network": config.network.kind, "Parameters": f"{parameters:,}"}
    if config.labels:
        rows["Classes"] = ", ".join(config.labels)
    if config.provenance.init:
        rows["Started from"] = config.provenance.init
    return {**rows, **{f"Source: {key}": value for key, value in config.provenance.source.items()}}


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
        "Sub-volume in training": " × ".join(str(size) for size in patch_size),
    }


def _results(results: Mapping[str, Any], found: list[Measure]) -> str:
    if not results:
        return "No result was recorded."
    lines = [f"| {text(m.name)} | {text(m.value)} | {text(m.details)} |" for m in found]
    lines += [f"| {text(key)} | {text(value)} | |" for key, value in results.items() if isinstance(value, str)]
    said = meaning(results)
    head = [said, ""] if said else []
    return "\n".join([*head, "| Measure | Value | n, seeds, interval, baselines |", "|---|---|---|", *lines])
