"""Options that several commands share, and how they are read."""

from pathlib import Path
from typing import Annotated

import typer

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; must be new or empty.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any field of the recipe, such as learning_rate=1e-3."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad scan instead of leaving it out.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Modality = Annotated[str, typer.Option(help="ct, mri, xray, ultrasound, or auto.")]
PushToHub = Annotated[bool, typer.Option("--push-to-hub", help="Publish the bundle at the end.")]
HubModelId = Annotated[str | None, typer.Option(help="org/name on the Hub; default: your name / the run's name.")]
Private = Annotated[bool, typer.Option("--private", help="Publish privately.")]
Token = Annotated[str | None, typer.Option(help="Token of the Hub; default: HF_TOKEN or the stored one.")]


def numbers_of(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return the numbers of an option such as `1,1,2.5`."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"received {text!r}, expected numbers with commas between", param_hint=option
        ) from None


def publish(run: Path, repository: str | None, private: bool, token: str | None, *, to_stderr: bool) -> None:
    """Publish a finished run; a failure says that the run is intact and which command repeats the push."""
    from modelsgenesis import verbs

    typer.echo(verbs.push_to_hub(run, repository, private=private, token=token).url, err=to_stderr)
