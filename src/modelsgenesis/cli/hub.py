"""`list`, `info`, `card`, `download`, `verify`, `cache` and `push`."""

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from modelsgenesis.cli.console import make_reporter, note, print_json, print_plan, print_result, print_table
from modelsgenesis.cli.options import DryRun, HubModelId, Json, Model, Quiet, Revision, Token, model_names
from modelsgenesis.configs.bundle import Modality

if TYPE_CHECKING:
    from modelsgenesis.hub import ModelCard

_LICENCE = 13  # letters of a licence with which a line of `list` fits 80 columns


def list_models(
    pattern: Annotated[str, Argument(help="Only models whose name matches, such as 'genesis-*'.")] = "*",
    modality: Annotated[Modality | None, Option(metavar="KIND", help="Only those for ct, mri …; default: any.")] = None,
    dims: Annotated[int | None, Option(min=2, max=3, help="Only 2D or 3D models; default: both.")] = None,
    json_output: Json = False,
) -> None:
    """List the models of the registry."""
    from modelsgenesis.hub import list_cards

    models = [_describe(card) for card in list_cards(pattern, modality=modality, dims=dims)]
    rows = []
    for one in models:
        size = (f"{len(one['patch_size'])}D", f"{one['parameters'] / 1e6:.1f} M")
        licence = one["license"] or "—"
        shown = licence if len(licence) <= _LICENCE else f"{licence[: _LICENCE - 1]}…"  # info tells all of it
        rows.append((one["name"], one["input"]["modality"], *size, one["weights"], shown))
    if json_output:
        print_json(models)
    elif not rows:
        note(f"no such model ({pattern}); modelsgenesis list shows all")
    else:
        print_table(("name", "modality", "dims", "size", "where", "licence"), rows)


def _describe(card: "ModelCard") -> dict[str, Any]:
    weights = "here" if card.source.repository is None else "Hub"
    return {**card.source.to_dict(), "license": card.license, "weights": weights, "card": str(card.path)}


def info(name: Model, json_output: Json = False) -> None:
    """Show what a model is, what input it expects and where its weights are."""
    import yaml

    from modelsgenesis.hub import find_card

    if "/" in name or Path(name).is_dir():
        from modelsgenesis.checkpoints import read_config
        from modelsgenesis.hub.download import find_cached

        folder, _ = find_cached(name)
        values: dict[str, Any] = {"folder": str(folder), **read_config(folder).to_dict()}
    else:
        values = _describe(find_card(name))
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
    print_result(values, text.splitlines(), as_json=json_output)


def card(
    name: Annotated[
        str, Argument(help="A name in the registry, a run, or the file of a card.", autocompletion=model_names)
    ],
    json_output: Json = False,
) -> None:
    """Show the card of a model."""
    from modelsgenesis.errors import ConfigurationError, printable
    from modelsgenesis.files import read_text, split_front_matter
    from modelsgenesis.hub import find_card

    path = Path(name) / "README.md" if Path(name).is_dir() else Path(name)
    text = read_text(path, ConfigurationError) if path.is_file() or path.name == "README.md" else find_card(name).text
    if json_output:
        print_json({"card": text})
        return
    from rich.console import Console
    from rich.markdown import Markdown

    _, body = split_front_matter(text, name, ConfigurationError)
    shown = "\n".join(printable(line) for line in body.splitlines() if not line.startswith("<!--"))
    Console().print(Markdown(shown, hyperlinks=False))  # a link shows where it leads


def download(
    name: Model,
    revision: Revision = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="Copy the bundle to this new folder; default: keep it in your cache."),
    ] = None,
    token: Token = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Download a model, verify it, convert it if necessary, and print the folder of its bundle."""
    from modelsgenesis.hub import download as bundles

    if dry_run:
        bundles.resolve(name, revision)  # a name that leads nowhere is told now
        read, write = f"{name} on the Hub, unless it is here", output or bundles.cache_folder("bundles")
        print_plan([read], [write], as_json=json_output)
        return
    reporter = make_reporter(quiet=quiet)
    with warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught:
        folder = bundles.fetch_bundle(name, revision=revision, token=token, progress=reporter.download, refresh=True)
    reporter.end()
    for warning in caught:
        note(f"warning: {warning.message}")
    folder = bundles.copy_bundle(folder, output) if output else folder
    value = {"folder": str(folder), "sha256": bundles.verify(folder)} if json_output else None
    print_result(value, [folder], as_json=json_output)


def verify(name: Model, revision: Revision = None, json_output: Json = False) -> None:
    """Verify a model on this machine, offline: digests as in its card or as downloaded, and a strict load."""
    from modelsgenesis.hub.download import verify as verify_bundle

    digests = verify_bundle(name, revision=revision)
    lines = [f"{digest}  {file}" for file, digest in digests.items()]
    print_result(digests, [*lines, f"{name}: every file is as recorded, and the network loads"], as_json=json_output)


def cache(
    prune: Annotated[bool, Option("--prune", help="Remove converted bundles that are no longer in use.")] = False,
    everything: Annotated[bool, Option("--all", help="With --prune: also those in use.")] = False,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """List the converted bundles on this machine with their sizes, or remove them."""
    from modelsgenesis.hub import download as kept

    if everything and not prune:
        raise BadParameter("removes something only together with --prune", param_hint="--all")
    bundles = kept.prune(everything=everything) if prune and not dry_run else kept.cached_bundles()
    if prune and dry_run:
        bundles = [one for one in bundles if everything or not one.used]
    pruned = "would be removed" if dry_run else "removed"
    rows = [(pruned if prune else "in use" if one.used else "unused", one.size, one.folder.name) for one in bundles]
    rows.append(("in all", sum(one.size for one in bundles), str(kept.cache_folder("bundles"))))
    lines = [f"{size / 1e6:>6.1f} MB  {state:<7}  {name}" for state, size, name in rows]
    described = [{**asdict(one), "name": one.folder.name, "folder": str(one.folder)} for one in bundles]
    print_result(described, lines, as_json=json_output)


def push(
    run: Annotated[Path, Argument(help="A run, or any folder that holds a bundle.")],
    hub_model_id: HubModelId = None,
    public: Annotated[bool, Option("--public", help="Publish to the world; else a new repository is private.")] = False,
    include_figures: Annotated[bool, Option("--include-figures", help="Upload pictures of patients, too.")] = False,
    revision: Annotated[str | None, Option(help="Branch, created if missing; default: main.")] = None,
    create_pr: Annotated[bool, Option("--create-pr", help="Open a pull request instead.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="List what would be sent, and send nothing.")] = False,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Publish a run on the Hub: check its bundle, then upload it in one commit."""
    from modelsgenesis.hub.push import push_to_hub

    options: dict[str, Any] = {"private": not public, "revision": revision, "create_pr": create_pr, "token": token}
    options |= {"include_figures": include_figures, "dry_run": dry_run}
    made = push_to_hub(run, hub_model_id, **options, progress=None if quiet else note)
    for text in () if json_output else made.notes:
        note(f"note: {text}")
    if dry_run and not json_output:
        print_table(("file", "kB", "shows"), [(one.path, f"{one.size / 1e3:.1f}", one.shows) for one in made.files])
        place = made.repository if "/" in made.repository else f"{made.repository} of your account"
        note(f"nothing was sent; it would go to {place}, {'public' if public else 'private if it is new'}")
        return
    print_result(asdict(made), [made.pull_request or made.url], as_json=json_output)
