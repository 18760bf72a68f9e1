"""`report`: what a run came to, as a page that one opens."""

import webbrowser
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from modelsgenesis.cli import options
from modelsgenesis.cli.console import note, print_result


def report(
    run: Annotated[Path, Argument(help="A run, its folds, an evaluation, a comparison, or a folder of them.")],
    output: Annotated[
        Path | None, Option("--output", "-o", help="HTML file to write; default: report.html in the folder.")
    ] = None,
    open_page: Annotated[bool, Option("--open", help="Open the page in the browser.")] = False,
    json_output: options.Json = False,
) -> None:
    """Write the report of a run as one HTML page: curves, pictures, results, cost."""
    from modelsgenesis import reports

    path = reports.report(run, output)
    print_result({"report": str(path)}, [path], as_json=json_output)
    if open_page and not webbrowser.open(path.resolve().as_uri()):
        note(f"no browser could be opened: open {path} yourself")
