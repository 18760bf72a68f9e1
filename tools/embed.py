r"""Put a finished pretraining run into the package as an embedded Genesis.

    python tools/embed.py RUN NAME [--data FOLDER_NAME] [--options "--patient '^(\d+)_'"]

`cards/NAME/` becomes a bundle: `config.json` and `model.safetensors` of the run, kernels in half precision, and
`README.md`, its card. The card's prose is that of the card before, or at first that of `tools/drafts/NAME.md`; its
header, its generated section and the command under `<!-- command: pretrain -->` are renewed. No figure is taken
along: a restoration shows a patient's scan.
"""

import argparse
import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from modelsgenesis.checkpoints import Bundle, load_bundle  # noqa: E402
from modelsgenesis.checkpoints.bundle import CONFIG_NAME, WEIGHTS_NAME  # noqa: E402
from modelsgenesis.checkpoints.card import PLACEHOLDER, CardParts, render_card, split_card  # noqa: E402
from modelsgenesis.configs import BundleConfig, PretrainingConfig, pretraining_recipe  # noqa: E402
from modelsgenesis.errors import CheckpointError, ConfigurationError, GenesisError  # noqa: E402
from modelsgenesis.files import write_atomically  # noqa: E402
from modelsgenesis.hub.push import check_run  # noqa: E402
from modelsgenesis.hub.registry import FOLDER_CARD, ModelSource, read_card  # noqa: E402

LIMIT = 4_000_000  # bytes: every user downloads them with the package
RECIPE = "small"
COMMAND = re.compile(r"(<!-- command: pretrain -->\s*```[a-z]*\n).*?(\n```)", re.DOTALL)


def embed(run: Path, name: str, *, cards: Path, drafts: Path, data: str = "DATA", options: str = "") -> list[str]:
    """Write `cards/NAME/` from a run and return the lines of its card that are still to be filled in.

    Args:
        run: A finished pretraining run.
        name: What users will call the model.
        cards: The folder of cards.
        drafts: The folder of the prose of cards that are not there yet.
        data: What the command in the card calls the data.
        options: More of that command, which the bundle does not record, such as the pattern of a patient's name.

    Raises:
        GenesisError: The run is no sound pretraining, is too large, or holds what is private.
    """
    config = check_run(run).bundle.config
    if config.provenance.origin != "pretrained" or config.task != "restoration":
        raise CheckpointError(f"{run}: its origin is {config.provenance.origin!r}, expected a pretraining run")
    weights = safetensors.torch.save(halved(safetensors.torch.load_file(run / WEIGHTS_NAME)), {"format": "pt"})
    if len(weights) > LIMIT:
        told = f"has {len(weights):,} bytes in half precision, expected at most {LIMIT:,}; train it smaller"
        raise CheckpointError(f"{run / WEIGHTS_NAME}: {told}")
    folder = cards / name
    prose = _prose(folder, drafts / f"{name}.md")
    digest = hashlib.sha256(weights).hexdigest()
    card = _card(prose, digest, load_bundle(run), name, _command(config, data, options))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS_NAME, weights)
    shutil.copyfile(run / CONFIG_NAME, folder / CONFIG_NAME)
    write_atomically(folder / FOLDER_CARD, card.encode())
    read_card(folder / FOLDER_CARD)
    return [line.strip(" -*\t") for line in card.splitlines() if PLACEHOLDER in line]


def halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return kernels in float16, which a bundle may hold, and all else as it is.

    Scales, biases and running averages are few, and may be larger or smaller than float16 can say.
    """
    return {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in weights.items()}


def _prose(folder: Path, draft: Path) -> str:
    for path in (folder / FOLDER_CARD, draft):
        if path.is_file():
            return path.read_text("utf-8")
    raise ConfigurationError(f"{draft}: no such draft, and no card in {folder}; write the prose of the card first")


def _card(prose: str, digest: str, bundle: Bundle, name: str, command: str) -> str:
    """Return the card: the prose with the command, our generated section, our header."""
    config = bundle.config
    if not COMMAND.search(prose):
        raise ConfigurationError(f"{name}: its prose has no block under <!-- command: pretrain -->; add one")
    prose = COMMAND.sub(lambda found: f"{found[1]}{command}{found[2]}", prose)
    parts = split_card(prose)
    source = ModelSource(
        name=name,
        repository=None,
        file=WEIGHTS_NAME,
        format="bundle",
        sha256=digest,
        parameters=sum(parameter.numel() for parameter in bundle.network.parameters()),
        task=config.task,
        network=config.network,
        input=config.input,
        patch_size=config.patch_size,
    )
    front = {**parts.front, "modelsgenesis": source.to_dict()}
    return render_card(config, name=name, existing=CardParts(front, parts.before, parts.generated, parts.after))


def _command(config: BundleConfig, data: str, options: str) -> str:
    """Return the command that asks for this recipe, in lines of the card's width."""
    contract = config.input
    words = ["modelsgenesis", "pretrain", data, "--output", "runs/genesis", "--recipe", RECIPE]
    words += ["--modality", contract.modality]
    words += ["--set", "data.spacing=" + ",".join(map(str, contract.spacing))] if contract.spacing else []
    words += ["--set", "data.window=" + ",".join(map(str, contract.window))] if contract.window else []
    words += shlex.split(options)
    recipe = PretrainingConfig.from_dict(config.provenance.recipe)
    lines = [shlex.join(words)]
    lines += [f"    --set {shlex.quote(setting)}" for setting in settings(recipe)]
    return " \\\n".join(lines)


def settings(recipe: PretrainingConfig) -> list[str]:
    """Return the `--set` that make a recipe from the one it is based on.

    Raises:
        ConfigurationError: No settings do.
    """
    made = list(_differences(recipe.to_dict(), pretraining_recipe(RECIPE).to_dict()))
    if pretraining_recipe(RECIPE, settings=made) != recipe:
        raise ConfigurationError(f"recipe: no --set makes it from {RECIPE!r}; pretrain it by the command line")
    return made


def _differences(values: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            yield from _differences(value, base[key], f"{prefix}{key}.")
        elif value != base.get(key):
            yield f"{prefix}{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    flat = isinstance(value, list) and len(value) > 1 and not any(isinstance(item, list) for item in value)
    return ",".join(map(str, value)) if flat else json.dumps(value)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished pretraining run")
    parser.add_argument("name", help="what users will call the model")
    parser.add_argument("--data", default="DATA", help="what the command in the card calls the data")
    parser.add_argument("--options", default="", help="more of that command, such as --patient PATTERN")
    parser.add_argument("--cards", type=Path, default=ROOT / "cards", help="folder of the cards")
    asked = parser.parse_args()
    try:
        left = embed(
            asked.run,
            asked.name,
            cards=asked.cards,
            drafts=ROOT / "tools" / "drafts",
            data=asked.data,
            options=asked.options,
        )
    except GenesisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(asked.cards / asked.name)
    for line in left:
        print(f"still to do: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
