"""Options and arguments that several commands share, each described once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from typer import Argument, BadParameter, Option

from modelsgenesis.cli.console import note, print_line
from modelsgenesis.cli.settings import complete_setting
from modelsgenesis.configs.bundle import Modality as ImageModality
from modelsgenesis.errors import ConfigurationError, require


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of an option such as `1,1,2.5`."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadParameter(f"received {text!r}, expected numbers separated by commas") from None


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Return what completes a word to one of some names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def model_names(incomplete: str) -> list[str]:
    """Complete a word to the models of the registry."""
    from modelsgenesis.hub import list_cards  # the cards, which the other words do without

    return [card.name for card in list_cards(f"{incomplete}*")]


LABELLED = (
    "Labelled images: folders images and labels, one folder per class, a CSV, a Decathlon or nnU-Net dataset.json"
)

Model = Annotated[
    str, Argument(help="A name in the registry, org/name on the Hub, or a folder.", autocompletion=model_names)
]
Scans = Annotated[str, Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.")]

Task = Annotated[Literal["seg", "cls"] | None, Option(help="Segmentation or classification; default: from the labels.")]
Modality = Annotated[
    Literal["auto", ImageModality],
    Option(metavar="KIND", help=f"{', '.join(get_args(ImageModality))}; auto: from the data."),
]
Patient = Annotated[
    str | None,
    Option(metavar="REGEX", help="Its first group is the patient in a file's name; default: by headers and names."),
]
Split = Annotated[
    Path | None, Option(help="split.json of another run: its training, validation, test cases; default: a new split.")
]
# Any: of a plain tuple[...] Typer makes an option that takes several words.
Spacing = Annotated[Any, Option(parser=numbers, metavar="X,Y,Z", help="Voxel size in mm; default: each scan's own.")]
Window = Annotated[
    Any,
    Option(
        parser=numbers,
        metavar="LOW,HIGH",
        help="Intensities (CT: HU) that become 0 and 1; default: those of the modality.",
    ),
]
Init = Annotated[
    str | None,
    Option(help="Initial weights: a name, org/repo, a run, or scratch; default: random.", autocompletion=model_names),
]
Plans = Annotated[str | None, Option(metavar="FILE", help="nnUNetPlans.json to fit, or FILE@2d; default: no plans.")]
Steps = Annotated[int | None, Option(min=1, help="Optimiser steps; default: those of the recipe.")]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other setting, such as learning_rate=1e-3; repeatable.",
        autocompletion=complete_setting,
    ),
]
ConfigFile = Annotated[
    Path | None,
    Option("--config", metavar="FILE", help="What --dry-run prints, or a run; default: none. --set on top."),
]

Device = Annotated[
    str, Option(help="auto, cpu, mps, cuda or cuda:N.", autocompletion=one_of("auto", "cpu", "mps", "cuda"))
]
Resume = Annotated[bool, Option("--resume", help="Resume the run in the output folder, or the latest one.")]
Strict = Annotated[bool, Option("--strict", help="Stop at the first unusable scan instead of skipping it.")]
DryRun = Annotated[bool, Option("--dry-run", help="Say what would be read, written and sent, and stop.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, Option("--json", help="Print the result as JSON.")]

Revision = Annotated[str | None, Option(help="Branch, tag or commit on the Hub; default: main.")]
Token = Annotated[str | None, Option(help="Hub token; default: HF_TOKEN or the stored one.", show_default=False)]
HubModelId = Annotated[str | None, Option(help="org/name on the Hub; default: your name and the run's.")]
PushToHub = Annotated[
    bool, Option("--push-to-hub", help="Publish the model at the end, privately; --set hub_model_id=ORG/NAME names it.")
]


def run_folder(output: Path | None, default: str, *, resume: bool = False, finished: str = "") -> Path:
    """Return the folder of a run: as asked, else `default`, or `default-2` … after those that are there.

    Of a resume it is the last that is there, and so it is while that lacks the file `finished`. Processes of `torchrun`
    must agree on it, and so take `default`.
    """
    first = Path(default)
    if output is not None or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return output or first
    ends = (path.name.removeprefix(f"{first.name}-") for path in first.parent.glob(f"{first.name}-*"))
    last = max([1, *(int(end) for end in ends if end.isdecimal())])
    newest = first if last == 1 else first.with_name(f"{first.name}-{last}")
    return newest if resume or not (newest / finished).exists() else first.with_name(f"{first.name}-{last + 1}")


def choose_repository(wanted: bool, name: str | None, output: Path, *, dry_run: bool) -> str | None:
    """Return where a run's model goes in the end, if anywhere; unless it is a dry run, check that it can."""
    if not wanted:
        require(name is None, ConfigurationError, f"hub_model_id: received {name}; add --push-to-hub to publish there")
        return None
    from modelsgenesis.hub.push import check_destination, default_name

    name = name or default_name(output)
    if dry_run:
        return name
    note(f"checking that {name} can be written")
    return check_destination(name)


def publish(run: Path, repository: str, *, to_stderr: bool) -> None:
    """Publish a finished run privately; a failure says that it is intact and which command repeats the push."""
    from modelsgenesis.hub.push import push_to_hub

    url = push_to_hub(run, repository).url
    (note if to_stderr else print_line)(url)
