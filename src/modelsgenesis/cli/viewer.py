"""`view`: a run or a scan in the browser."""

from typing import Annotated

from typer import Argument, Option

from modelsgenesis.cli.console import make_reporter, note, print_line
from modelsgenesis.errors import Interrupted


def view(
    source: Annotated[
        str, Argument(metavar="RUN_OR_SCAN", help="A run; or a scan, a DICOM series, a folder of scans.")
    ],
    labels: Annotated[
        list[str] | None, Argument(metavar="[LABELS]...", help="Label maps of the scan, or folders of them.")
    ] = None,
    port: Annotated[int, Option(min=0, max=65535, help="Port to serve on; 0: any that is free.")] = 0,
    no_open: Annotated[bool, Option("--no-open", help="Print the address, and open no browser.")] = False,
) -> None:
    """Show a run, or a scan with label maps, in the browser: linked planes, served to this machine alone."""
    from modelsgenesis import viewer

    shown = viewer.view(source, labels or (), port=port, open_browser=not no_open, reporter=make_reporter(quiet=True))
    print_line(shown.url)
    note("only this machine can open this address; Ctrl-C closes the viewer")
    try:
        shown.wait()
    except Interrupted:
        note("closed")
    finally:
        shown.close()
