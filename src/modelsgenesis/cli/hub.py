"""`list`, `info`, `card`, `download`, `verify`, `cache` and `push`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelsgenesis.cli.console import note, print_json, print_line, print_result, print_table
from modelsgenesis.cli.options import HubModelId, Json, Model, Private, Quiet, Revision, Token
from modelsgenesis.errors import printable

if TYPE_CHECKING:
    from modelsgenesis.hub import CachedBundle, ModelCard
    from modelsgenesis.hub.client import Progress


def list_models(
    modality: Annotated[str | None, typer.Option(help="Only models for ct, mri, xray or ultrasound.")] = None,
    dims: Annotated[int | None, typer.Option(min=2, max=3, help="Only 2D or 3D models.")] = None,
    json_output: Json = False,
) -> None:
    """List the models of the registry."""
    from modelsgenesis.hub import list_cards

    cards = list_cards(modality=modality, dims=dims)
    if json_output:
        print_json([_describe(card) for card in cards])
    elif cards:
        print_table(("name", "modality", "dims", "parameters", "task", "weights", "licence"), list(map(_row, cards)))
    else:
        print_line("no model of this kind; modelsgenesis list shows all")


def _row(card: "ModelCard") -> tuple[str, ...]:
    source = card.source
    cells = (source.input.modality, f"{source.input.dims}D", f"{source.parameters:,}", source.task, _where(card))
    return (card.name, *cells, card.license or "—")


def _describe(card: "ModelCard") -> dict[str, Any]:
    return {**card.source.to_dict(), "license": card.license, "weights": _where(card), "card": str(card.path)}


def _where(card: "ModelCard") -> str:
    """Return where the weights are: beside the card on this machine, or on the Hub."""
    return "here" if card.is_local else "Hub"


def info(name: Model, json_output: Json = False) -> None:
    """Show what a model is, what input it expects and where its weights are."""
    from modelsgenesis.hub import find_card

    if "/" in name or Path(name).is_dir():
        from modelsgenesis.checkpoints import read_config
        from modelsgenesis.hub import cached_folder

        folder = cached_folder(name)
        values: dict[str, Any] = {"folder": str(folder), **read_config(folder).to_dict()}
    else:
        values = _describe(find_card(name))
    if json_output:
        print_json(values)
    else:
        print_table(("", ""), list(_flat(values)), first="dim")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values; what is not set is left out."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            shown = ", ".join(str(item) for item in value) if isinstance(value, list) else value
            yield f"{prefix}{key}", shown


def card(
    name: Annotated[str, typer.Argument(help="A name in the registry, a run, or a card's file.")],
    check: Annotated[bool, typer.Option("--check", help="List what is missing; status 1 if anything.")] = False,
    json_output: Json = False,
) -> None:
    """Show the card of a model, or check it."""
    from modelsgenesis.errors import ConfigurationError
    from modelsgenesis.files import read_text
    from modelsgenesis.hub import find_card, review_card

    path = Path(name)
    path = path / "README.md" if path.is_dir() else path
    text = read_text(path, ConfigurationError) if path.is_file() or path.name == "README.md" else find_card(name).text
    if check:
        problems = review_card(text)
        print_result(problems, problems or [f"{name}: nothing is missing"], as_json=json_output)
        raise typer.Exit(1 if problems else 0)
    if json_output:
        print_json({"card": text})
        return
    from rich.console import Console
    from rich.markdown import Markdown

    from modelsgenesis.configs.front_matter import split_card

    parts = split_card(text, name)
    shown = "\n".join((parts.before, _without_comments(parts.generated), parts.after))
    shown = "\n".join(printable(line) for line in shown.splitlines())
    Console().print(Markdown(shown, hyperlinks=False))  # a link shows where it leads


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("<!--"))


def download(
    name: Model,
    revision: Revision = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Copy the bundle to this new folder.")] = None,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Download a model, verify it, convert it if necessary, and print the bundle's folder."""
    import warnings

    from modelsgenesis.hub import copy_bundle, fetch_bundle, verify

    with download_progress(quiet=quiet) as progress, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        folder = fetch_bundle(name, revision=revision, token=token, progress=progress, refresh=True)
    for warning in caught:
        note(f"warning: {warning.message}")
    folder = copy_bundle(folder, output) if output else folder
    value = {"folder": str(folder), "sha256": verify(folder)} if json_output else None
    print_result(value, [folder], as_json=json_output)


@contextmanager
def download_progress(*, quiet: bool) -> "Iterator[Progress | None]":
    """Show a bar for each file on a terminal, else a line when a file is complete."""
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        yield _plain_line
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        tasks: dict[str, Any] = {}
        with Progress(*columns, console=Console(stderr=True)) as bars:

            def show(file: str, done: int, total: int | None) -> None:
                if file not in tasks:
                    tasks[file] = bars.add_task(printable(file), total=total)
                bars.update(tasks[file], completed=done, total=total)

            yield show


def _plain_line(file: str, done: int, total: int | None) -> None:
    if total is not None and done >= total:
        note(f"{file}: {total:,} bytes")


def verify(name: Model, revision: Revision = None, json_output: Json = False) -> None:
    """Verify a model on this machine, offline: digests as in its card or as downloaded, and a strict load."""
    from modelsgenesis.hub import verify as verify_bundle

    digests = verify_bundle(name, revision=revision)
    lines = [f"{digest}  {file}" for file, digest in digests.items()]
    print_result(digests, [*lines, f"{name}: every file is as recorded, and the network loads"], as_json=json_output)


def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Remove converted bundles that are no longer in use.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --prune: also those in use.")] = False,
    json_output: Json = False,
) -> None:
    """List the converted bundles on this machine with their sizes, or remove them."""
    from modelsgenesis import hub
    from modelsgenesis.hub.cache import open_cache

    if everything and not prune:
        raise typer.BadParameter("removes something only together with --prune", param_hint="--all")
    bundles = hub.prune(everything=everything) if prune else hub.cached_bundles()
    lines = [f"{_size(one.size)}  {_state(one, removed=prune):<7}  {one.name}" for one in bundles]
    lines.append(f"{_size(sum(one.size for one in bundles))}  in {open_cache().bundles}")
    value = [{"name": one.name, "folder": str(one.folder), "size": one.size, "used": one.used} for one in bundles]
    print_result(value, lines, as_json=json_output)


def _state(bundle: "CachedBundle", *, removed: bool) -> str:
    return "removed" if removed else "in use" if bundle.used else "unused"


def _size(count: int) -> str:
    return f"{count / 1e6:>6.1f} MB"


def push(
    run: Annotated[Path, typer.Argument(help="A run, or any folder that holds a bundle.")],
    hub_model_id: HubModelId = None,
    private: Private = False,
    revision: Annotated[str | None, typer.Option(help="Branch, created if missing.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    token: Token = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Publish a run on the Hub: check its bundle, then upload it in one commit."""
    from dataclasses import asdict

    from modelsgenesis.hub import publish

    made = publish(
        run,
        hub_model_id,
        private=private,
        revision=revision,
        create_pr=create_pr,
        token=token,
        progress=(lambda _: None) if quiet else note,
    )
    for text in () if json_output else made.notes:
        note(f"note: {text}")
    print_result(asdict(made), [made.pull_request or made.url], as_json=json_output)
