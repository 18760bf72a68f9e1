"""How a card tells a training: the recipe in words, what the losses mean, the data, the limits, the cost."""

from collections.abc import Mapping
from typing import Any

from modelsgenesis.checkpoints.card_recipe import describe_recipe
from modelsgenesis.checkpoints.card_results import text
from modelsgenesis.configs import BundleConfig

_HOURS = {"wall_hours": "time", "cpu_hours": "CPU time, all cores", "gpu_hours": "GPU time, all devices"}


_BASELINES = {
    "mean_image_loss": "always answering the mean image",
    "identity_loss": "returning the input as it is",
}


def recipe_section(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the training in words and a short table, then every setting, folded away.

    Args:
        recipe: The configuration's fields.
        results: Have the step of the network that was kept.
    """
    if not recipe:
        return "No recipe was recorded."
    short = _short(recipe, results)
    blocks = [describe_recipe(recipe), table(short) if short else ""]
    blocks.append(f"<details><summary>Every setting</summary>\n\n{table(recipe)}\n\n</details>")
    return "\n\n".join(block for block in blocks if block)


def _short(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a reader looks for first."""
    budget = [f"{config[key]:,} {key}" for key in ("steps", "epochs") if config.get(key)]
    rows: dict[str, Any] = {}
    if budget:
        kept = f", the network of step {results['step']:,} was kept" if isinstance(results.get("step"), int) else ""
        rows["Budget"] = f"at most {' or '.join(budget)}{kept}"
    if "batch_size" in config and config.get("patch_size"):
        patch = "×".join(map(str, config["patch_size"]))
        rows["Batch"] = f"{config['batch_size']} sub-volumes of {patch} voxels"
    if "optimizer" in config:
        warm = f", {config['warmup_steps']} steps of warm-up" if config.get("warmup_steps") else ""
        rows["Optimiser"] = f"{config['optimizer']}, learning rate {config.get('learning_rate')}{warm}, then " + str(
            config.get("schedule")
        )
    if "seed" in config:
        rows["Seed"] = config["seed"]
    return rows


def meaning(results: Mapping[str, Any]) -> str:
    """Return what the restoration loss says beside those of maps that learn nothing; "" without one."""
    loss = results.get("restoration_loss")
    lines: list[str] = []
    if isinstance(loss, (int, float)):
        lines += [
            f"{loss / results[key]:.2f} of what {what} costs" for key, what in _BASELINES.items() if results.get(key)
        ]
    said = f"Restoring fixed sub-volumes of validation costs {' and '.join(lines)}." if lines else ""
    if results.get("collapsed"):
        said += " **This network has collapsed: what it answers hardly depends on what it sees.**"
    return said.strip()


def limits(config: BundleConfig) -> str:
    """Return what the record itself says about the limits, as a list."""
    data, contract = config.provenance.data, config.input
    if not data:
        return "The record says nothing about limits; see the end of this card."
    spacing = "at the scans' own voxel sizes" if contract.spacing is None else f"at {text(contract.spacing)} mm"
    found = [f"Trained on {contract.modality.upper()} alone, {contract.dims}D, {spacing}; nothing else was tried."]
    scans, patients = data.get("validation_scans"), data.get("validation_patients")
    if data.get("held_out") is False:
        found.append("Nobody was held out: validated on other sub-volumes of the training scans, which flatters.")
    elif scans or patients:
        count, what = (patients, "patient") if patients else (scans, "scan")
        who = f"{count} {what}" + ("" if count == 1 else "s")
        found.append(f"Validated on {who} from the same source; other scanners and hospitals were not looked at.")
    if config.task == "restoration":
        found.append("A low restoration loss is no proof of use: compare with training from scratch on your task.")
    return "\n".join(f"- {line}" for line in found)


def data_section(data: Mapping[str, Any]) -> str:
    """Return the counts of the training data; names of files are never among them."""
    absent = "Nothing was recorded about the training data; see the end of this card."
    return table({key.replace("_", " "): value for key, value in data.items()}) if data else absent


def environment_section(environment: Mapping[str, Any]) -> str:
    """Return versions, hardware, and what the training cost."""
    told = {key: _hours(value) if key in _HOURS else value for key, value in environment.items()}
    return table({_HOURS.get(key, key.replace("_", " ")): value for key, value in told.items()})


def _hours(value: Any) -> Any:
    """Return hours in the unit that suits them.

    Example:
        >>> _hours(0.0308), _hours(31.25)
        ('1.8 minutes', '31.2 hours')
    """
    if not isinstance(value, (int, float)):
        return value
    return f"{value:.1f} hours" if value >= 1 else f"{60 * value:.1f} minutes"


def table(values: Mapping[str, Any]) -> str:
    """Return a mapping as a table of two columns; nested mappings become dotted names."""
    return f"| | |\n|---|---|\n{rows(values)}"


def rows(values: Mapping[str, Any]) -> str:
    """Return the rows of such a table."""
    found: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found.append(rows({f"{key}.{inner}": item for inner, item in value.items()}))
        else:
            found.append(f"| {text(key)} | {text(value)} |")
    return "\n".join(found)
