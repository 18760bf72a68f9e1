"""Names to the members of an ensemble; most have one."""

from collections.abc import Sequence
from pathlib import Path

from modelsgenesis.checkpoints.bundle import CONFIG_NAME
from modelsgenesis.evaluation.ensembles import Member, check_members
from modelsgenesis.hardware import Hardware
from modelsgenesis.models import announce, load, public_name
from modelsgenesis.reporting import Reporter

Models = str | Path | Sequence[str | Path]


def load_members(model: Models, hardware: Hardware, *, token: str | None, reporter: Reporter) -> list[Member]:
    """Load one model or several, a folder of folds being as many as it holds.

    Raises:
        ConfigurationError: They do not predict, or not the same.
        CheckpointError: One is no sound model.
        HubError: The Hub or a download failed.
    """
    members = []
    for name in model_folders(model):
        bundle = load(name, token=token, progress=announce(reporter))
        network = hardware.place_network(bundle.network).eval()
        members.append(Member(name=public_name(name), network=network, config=bundle.config))
    check_members(members)
    if len(members) > 1:
        reporter.note(f"the mean of {len(members)} models: {', '.join(member.name for member in members)}")
    return members


def model_folders(model: Models) -> list[str | Path]:
    """Return one model or several as a list, in which the folds of a folder take its place."""
    return [fold for one in _listed(model) for fold in expand_folds(one)]


def expand_folds(model: str | Path) -> list[str | Path]:
    """Return the folds of a folder that holds `fold0`, `fold1` … and is no model itself; else the model alone."""
    folder = Path(model)
    if not folder.is_dir() or (folder / CONFIG_NAME).exists():
        return [model]
    folds = {int(path.name[4:]): path for path in folder.glob("fold*") if path.name[4:].isdigit()}
    return [folds[fold] for fold in sorted(folds) if (folds[fold] / CONFIG_NAME).exists()] or [model]


def model_names(model: Models) -> list[str]:
    """Return what answers may call models: no path."""
    return [public_name(one) for one in _listed(model)]


def _listed(model: Models) -> Sequence[str | Path]:
    return [model] if isinstance(model, (str, Path)) else model
