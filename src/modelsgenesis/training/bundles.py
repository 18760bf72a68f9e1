"""The bundle of a run and the pictures on its card."""

import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.checkpoints.bundle import CARD_NAME, WEIGHTS_NAME
from modelsgenesis.checkpoints.card import render_card, split_card
from modelsgenesis.configs import BundleConfig, NetworkConfig, TrainingConfig
from modelsgenesis.errors import ConfigurationError, MissingExtraError, TrainingError
from modelsgenesis.figures import draw_curve, draw_restorations
from modelsgenesis.files import read_text, sha256_of
from modelsgenesis.hardware import Hardware
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.distributed import world_size
from modelsgenesis.training.run import LOG_NAME, VALIDATION_NAME, Progress, Run

if TYPE_CHECKING:
    from modelsgenesis.training.restoration import Restoration

Made = TypeVar("Made")

BEST, CURVE = "figures/restorations.png", "figures/curve.png"
_TITLES = {
    BEST: "Original, deformed and restored validation patches",
    CURVE: "Loss in training and validation, beside the trivial baselines",
}


def network_config(network: nn.Module) -> NetworkConfig:
    """Return the shape of a network of this package."""
    return cast("NetworkConfig", network.config)


def seeded(seed: int, make: Callable[[], Made]) -> Made:
    """Return what `make` makes with a global generator of this seed, which initialisation draws from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def save_run_bundle(
    run: Run, network: nn.Module, config: BundleConfig, figures: Mapping[str, str] | None, reporter: Reporter
) -> str:
    """Write the bundle of a run and return the SHA-256 of its weights; a card that a person edited keeps their prose.

    Args:
        run: Gets the bundle.
        network: The best so far.
        config: Content of `config.json`.
        figures: Path of each picture on the card by its title; None writes no card.
        reporter: Receives a note of a card that is damaged.
    """
    text, path = "", run.folder / CARD_NAME
    if figures is not None:  # the many short runs of a comparison write no card
        existing = ""
        try:
            if path.is_file():
                existing = read_text(path, ConfigurationError)
                split_card(existing, str(path))
        except ConfigurationError as error:  # no reason to end a training
            aside, existing = path.replace(path.with_name(f"damaged-{path.name}")), ""
            reporter.note(f"{error}: kept as {aside.name}, and the card written anew")
        text = render_card(config, name=run.folder.resolve().name, existing=existing, figures=figures)
    return sha256_of(save_bundle(run.folder, Bundle(network, config, text)) / WEIGHTS_NAME)


def load_kept(run: Run, progress: Progress) -> Bundle:
    """Return the bundle of the best validation.

    Raises:
        TrainingError: There is none, or its weights are not those that were kept.
    """
    path = run.folder / WEIGHTS_NAME
    if not progress.kept or not path.is_file():
        raise TrainingError(f"{run.folder}: no validation ended, so there is no bundle; train for more steps")
    if sha256_of(path) != progress.kept:  # a file that is copied over the run's would be measured as if it were trained
        raise TrainingError(
            f"{path}: is not the network that was kept at step {progress.best_step}: damaged or replaced; start again "
            "in another folder"
        )
    return load_bundle(run.folder)


def describe_environment(hardware: Hardware, config: TrainingConfig) -> dict[str, str]:
    """Return versions, hardware and how it is used; nothing that names a person, a host or a path.

    Example:
        >>> from modelsgenesis.hardware import choose_hardware
        >>> told = describe_environment(choose_hardware("cpu", "float32"), TrainingConfig(compile=True))
        >>> told["hardware"].partition("threads, ")[2]
        'float32, channels last, fused adamw, compiled'
    """
    is_cuda = hardware.device.type == "cuda"
    name = torch.cuda.get_device_name(hardware.device) if is_cuda else f"CPU, {torch.get_num_threads()} threads"
    used = [name, hardware.precision, "channels last", f"fused {config.optimizer}"]
    used += ["compiled"] * config.compile + ["activations recomputed"] * config.checkpoint_activations
    if world_size() > 1:
        used.append(f"{world_size()} processes over {'nccl' if is_cuda else 'gloo'}")
    libraries = {name: version(name) for name in ("torch", "numpy", "monai")}
    return {"python": platform.python_version(), **libraries, "hardware": ", ".join(used)}


class Visuals:
    """Draws into `figures/` of a run, and writes events into `tensorboard/` where these are asked for.

    `figures/restorations/step_000200.png` shows validation at that step, `figures/restorations.png` the best so far.
    What cannot be drawn or written is said once, and never ends a run.

    Args:
        folder: Folder of the run.
        reporter: Receives a note of what is missing.
        tensorboard: Write scalars and pictures for `tensorboard --logdir`, too.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, reporter: Reporter, *, tensorboard: bool = False) -> None:
        self.folder, self.reporter = folder, reporter
        self._is_noted = False
        self._writer: Any = None  # opened by the first scalars, which tell from which step on
        self._open = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError("writing for TensorBoard", "report") from error
            self._open = SummaryWriter

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write numbers by their names for TensorBoard."""
        if self._open is None:
            return
        with self._trying():
            # Events of a killed run may be ahead of its last checkpoint: a resumed run hides those that it repeats.
            self._writer = self._writer or self._open(str(self.folder / "tensorboard"), purge_step=step)
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def draw_validation(self, objective: "Restoration", step: int, metrics: Mapping[str, float], is_best: bool) -> None:
        """Draw the restorations of the newest validation; those of the best are also on the card."""
        loss, baseline = metrics["restoration_loss"], metrics["mean_image_loss"]
        title = f"step {step}: loss {loss:.4g} = {loss / max(baseline, 1e-12):.2f}× the mean-image baseline"
        path = self.folder / "figures" / "restorations" / f"step_{step:06d}.png"
        original, deformed, restored = objective.original, objective.deformed, objective.restored
        with self._trying("restorations", path, step):
            draw_restorations(original.numpy(), deformed.numpy(), restored.numpy(), path, title=title)
            if is_best:
                shutil.copyfile(path, self.folder / BEST)

    def draw_curve(self, step: int) -> None:
        """Draw the losses of the whole run."""
        with self._trying("curve", path := self.folder / CURVE, step):
            draw_curve(self.folder / LOG_NAME, self.folder / VALIDATION_NAME, path)

    def on_card(self) -> dict[str, str]:
        """Return the path of each picture that there is by its title."""
        return {title: path for path, title in _TITLES.items() if (self.folder / path).is_file()}

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            with self._trying():
                self._writer.close()

    @contextmanager
    def _trying(self, name: str = "", picture: Path = Path(), step: int = 0) -> Iterator[None]:
        """Show the picture that the block draws in TensorBoard too; say once that something cannot be drawn."""
        try:
            yield
            if name and self._writer is not None:
                self._writer.add_image(name, np.asarray(Image.open(picture).convert("RGB")), step, dataformats="HWC")
        except (MissingExtraError, OSError) as error:
            if not self._is_noted:
                self.reporter.note(f"a figure is missing: {error}")
            self._is_noted = True
