"""Options and arguments that several commands share, each described once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from typer import Argument, BadParameter, Option

from modelsgenesis.cli.console import note, print_line
from modelsgenesis.configs import apply_settings
from modelsgenesis.configs.base import Config


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of an option such as `1,1,2.5`."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadParameter(f"received {text!r}, expected numbers separated by commas") from None


LABELLED = "Labelled images: a folder or file in the layout of the Decathlon or nnU-Net, one folder per class, or a CSV"

Model = Annotated[str, Argument(help="A name in the registry, org/name on the Hub, or a folder.")]
Scans = Annotated[str, Argument(help="Scans: a folder, a file, a glob, a list file or a dataset.json.")]
Run = Annotated[Path, Option("--output", "-o", help="Folder of the run; must be new or empty.")]

Task = Annotated[str | None, Option(help="seg (segmentation) or cls (classification); default: from the labels.")]
Modality = Annotated[str, Option(help="ct, mri, xray, ultrasound, ct-8bit, photo, shape; auto: from the data.")]
Patient = Annotated[str | None, Option(metavar="REGEX", help="Its first group is the patient in a file's name.")]
Split = Annotated[Path | None, Option(help="split.json of another run: its training, validation, test cases.")]
# Any: of a plain tuple[...] Typer makes an option that takes several words.
Spacing = Annotated[Any, Option(parser=numbers, metavar="X,Y,Z", help="Voxel size in mm to resample to.")]
Window = Annotated[Any, Option(parser=numbers, metavar="LOW,HIGH", help="Intensities (CT: HU) that become 0 and 1.")]
Init = Annotated[str | None, Option(help="Initial weights: a name, org/repo, a run, or scratch.")]
Steps = Annotated[int | None, Option(min=1, help="Optimiser steps.")]
Settings = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="A field of the recipe; repeatable.")]
ConfigFile = Annotated[Path | None, Option("--config", metavar="FILE", help="What --dry-run prints; --set on top.")]

Device = Annotated[str, Option(help="auto, cpu, mps, cuda or cuda:N.")]
Resume = Annotated[bool, Option("--resume", help="Resume the run in the output folder.")]
Strict = Annotated[bool, Option("--strict", help="Stop at the first unusable scan instead of skipping it.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, Option("--json", help="Print the result as JSON.")]

DryRun = Annotated[bool, Option("--dry-run", help="Print the configuration and stop.")]

Revision = Annotated[str | None, Option(help="Branch, tag or commit on the Hub.")]
Token = Annotated[str | None, Option(help="Hub token; default: HF_TOKEN or the stored one.", show_default=False)]
HubModelId = Annotated[str | None, Option(help="org/name on the Hub; default: your name and the run's.")]
PushToHub = Annotated[str | None, Option(metavar="ORG/NAME", help="Publish the model there at the end, privately.")]

SwitchesType = TypeVar("SwitchesType", bound="Switches")


@dataclass(frozen=True, kw_only=True)
class Switches(Config):
    """What `--set` says beside the fields of a configuration: it changes a command, not what is learnt.

    Attributes:
        strict: Stop at the first unusable scan instead of skipping it.
    """

    strict: bool = False


def separate(settings: Sequence[str] | None, switches: SwitchesType) -> tuple[SwitchesType, list[str]]:
    """Return the switches as `--set` says them, and the settings that are left for the configuration."""
    names = vars(switches)
    own = [setting for setting in settings or () if setting.partition("=")[0].strip() in names]
    return apply_settings(switches, own), [setting for setting in settings or () if setting not in own]


def as_settings(fields: Mapping[str, object]) -> list[str]:
    """Return options as `--set` would say them; None was not given, and `steps` are all of the budget."""
    # The recipe's epochs would end the training before the steps that were asked for.
    given = [f"{name}={value}".lower() for name, value in fields.items() if value is not None]
    return [*given, "epochs=none"] if fields.get("steps") else given


def check_publishing(repository: str | None) -> str | None:
    """Check before a run that its model can be published there; nothing is made."""
    if repository is None:
        return None
    from modelsgenesis.hub.push import check_destination

    note(f"checking that {repository} can be written")
    return check_destination(repository)


def publish(run: Path, repository: str, *, to_stderr: bool) -> None:
    """Publish a finished run privately; a failure says that it is intact and which command repeats the push."""
    from modelsgenesis.hub.push import push_to_hub

    url = push_to_hub(run, repository).url
    (note if to_stderr else print_line)(url)
