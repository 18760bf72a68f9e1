"""One folder of each kind that has a report, made by the package from small files, and the odd ones among them."""

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from labelled_files import save, write_json
from modelsgenesis import demo
from modelsgenesis.comparison import describe_comparison
from modelsgenesis.configs import ClassificationConfig, GenesisUNetConfig, PretrainingConfig
from modelsgenesis.evaluation import RESULTS_NAME
from modelsgenesis.reports.page import Chart, Link, Missing, Page, Section, Slide, Slides, Table, write_page
from trained_models import NETWORK, TINY

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "\"'><img src=x onerror=window.hacked=1>",
    "כבד ושמאל",
    "a structure with a very long name " * 8,
)
_FLAT = GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance")
_CLASSIFY = ClassificationConfig(
    network=_FLAT, steps=8, batch_size=8, validate_every=4, warmup_steps=2, hidden=0, levels=(0, 1), workers=0
)
_PRETRAIN = PretrainingConfig(
    network=NETWORK, patch_size=(16, 16, 12), steps=20, batch_size=4, validate_every=5, workers=0, warmup_steps=2
)
_SHORT = TINY.override(network=GenesisUNetConfig(widths=(4, 8), norm="instance"), steps=4, validate_every=2)


@dataclass(frozen=True)
class Sources:
    """What the folders are made from: small scans, labelled ones, pictures in two classes, and trained models."""

    scans: Path
    labelled: Path
    pictures: Path
    genesis: Path
    finetuned: Path


def pretraining(sources: Sources, folder: Path) -> Path:
    """Of volumes, one of which cannot be read."""
    scans = shutil.copytree(sources.scans, folder / "scans")
    (scans / "broken.nii.gz").write_bytes(b"no scan")
    return modelsgenesis.pretrain(scans, folder / "run", config=_PRETRAIN, modality="ct", device="cpu")


def pretraining_2d(sources: Sources, folder: Path) -> Path:
    """Of pictures."""
    config = _PRETRAIN.override(network=_FLAT, patch_size=(16, 16))
    return modelsgenesis.pretrain(sources.pictures, folder / "run", config=config, modality="xray", device="cpu")


def cut_off(sources: Sources, folder: Path) -> Path:
    """A pretraining that was killed: no weights, half a line in its log, no pictures."""
    run = shutil.copytree(sources.genesis, folder / "run")
    for name in ("config.json", "model.safetensors", "README.md", "report.html", "report.npz"):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / "figures", ignore_errors=True)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished": true', '"finished": false'))
    log = (run / "log.csv").read_bytes()
    (run / "log.csv").write_bytes(log[: len(log) - 9])
    return run


def segmentation(sources: Sources, folder: Path) -> Path:
    """Of volumes, half of the patients held out."""
    config = TINY.override(test_fraction=0.5, steps=30, validate_every=10)
    return modelsgenesis.finetune(sources.labelled, folder / "run", init=sources.genesis, config=config, device="cpu")[
        0
    ]


def segmentation_2d(sources: Sources, folder: Path) -> Path:
    """Of pictures whose masks lie in a second folder."""
    for index, path in enumerate(sorted(sources.pictures.rglob("*.png"))[::4]):
        for part, name in (("images", f"p{index}.png"), ("masks", f"p{index}_mask.png")):
            (folder / "data" / part).mkdir(parents=True, exist_ok=True)
            pixels = np.asarray(Image.open(path))
            mask = (np.add(*np.indices(pixels.shape)) // 9 % 2).astype(np.uint8)
            Image.fromarray(pixels if part == "images" else mask).save(folder / "data" / part / name)
    config = _SHORT.override(network=_FLAT, patch_size=(16, 16), dims=2, test_fraction=0.5)
    return modelsgenesis.finetune(
        folder / "data", folder / "run", init="scratch", config=config, modality="xray", device="cpu"
    )[0]


def classification(sources: Sources, folder: Path) -> Path:
    """Two classes."""
    return modelsgenesis.finetune(
        sources.pictures, folder / "run", init="scratch", config=_CLASSIFY, modality="xray", device="cpu"
    )[0]


def folds(sources: Sources, folder: Path) -> Path:
    """Two folds of a segmentation."""
    config = TINY.override(folds=2, steps=10, validate_every=10)
    return modelsgenesis.finetune(sources.labelled, folder / "run", init=sources.genesis, config=config, device="cpu")[
        0
    ]


def evaluation(sources: Sources, folder: Path) -> Path:
    """Of a model."""
    return modelsgenesis.evaluate(
        sources.finetuned, sources.labelled, output=folder / "run", bootstrap=50, device="cpu"
    ).folder


def comparison(sources: Sources, folder: Path) -> Path:
    """Two initialisations by two label counts, three runs each."""
    asked = describe_comparison(["scratch", f"genesis={sources.genesis}"], labels=["1", "all"], runs=3)
    config = _SHORT.override(network=NETWORK, steps=6, test_fraction=0.3)
    return modelsgenesis.compare(sources.labelled, folder / "run", comparison=asked, config=config, device="cpu").folder


def demonstration(sources: Sources, folder: Path) -> Path:
    """The demo with two steps for each training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PRETRAINING", demo.PRETRAINING.override(steps=2, validate_every=2))
        patch.setattr(demo, "FINETUNING", demo.FINETUNING.override(steps=2, validate_every=2, overlap=0.0))
        demo.demonstrate(folder / "run", device="cpu")
    return folder / "run"


def runs(sources: Sources, folder: Path) -> Path:
    """A folder of two runs of different kinds."""
    shutil.copytree(sources.genesis, folder / "runs" / "pretrained")
    shutil.copytree(sources.finetuned, folder / "runs" / "finetuned")
    return folder / "runs"


def three_classes(sources: Sources, folder: Path) -> Path:
    """Three classes with hostile names, and 500 pictures to test on."""
    random = np.random.default_rng(0)
    rows: list[Sequence[object]] = [("image", "label", "patient")]
    (folder / "data").mkdir(parents=True)
    for index in range(620):
        kind = index % 3
        pixels = random.integers(0, 60, (16, 16)).astype(np.uint8) + np.uint8(60 * kind)
        Image.fromarray(pixels).save(folder / "data" / f"p{index:03d}.png")
        rows.append((f"p{index:03d}.png", HOSTILE[kind], f"{HOSTILE[1]} {index}"))
    with (folder / "data" / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    config = _CLASSIFY.override(steps=4, test_fraction=0.8, bootstrap=20)
    return modelsgenesis.finetune(
        folder / "data" / "table.csv", folder / "run", init="scratch", config=config, modality="xray", device="cpu"
    )[0]


def saved(
    sources: Sources, folder: Path, *, cases: int, labels: Sequence[str], shape: tuple[int, ...], name: str = "case {}"
) -> Path:
    """An evaluation of label maps that are there already, without scans; the first case has no foreground."""
    random = np.random.default_rng(0)
    for index in range(cases):
        truth = random.integers(0, len(labels) + 1, (2, 2, 2)).repeat(shape[0] // 2, 0)
        truth = truth.repeat(shape[1] // 2, 1).repeat(shape[2] // 2, 2).astype(np.uint8) * bool(index)
        guess = np.where(random.random(shape) < 0.1 + 0.5 * index / cases, 0, truth).astype(np.uint8)
        for part, values in (("truth", truth), ("predicted", guess)):
            path = save(folder / part / f"{name.format(index)}.nii.gz", values)
            names = {"0": "background", **{str(value + 1): label for value, label in enumerate(labels)}}
            write_json(path.with_name(path.name.replace(".nii.gz", ".json")), {"labels": names})
    found = modelsgenesis.evaluate(folder / "predicted", folder / "truth", output=folder / "run", bootstrap=20)
    assert (found.folder / RESULTS_NAME).exists()
    return found.folder


def every_block(sources: Sources, folder: Path) -> Path:
    """A page of every block with hostile names, 500 rows, and more pictures than it may hold."""
    noise = np.random.default_rng(0).integers(0, 255, (3, 512, 512), dtype=np.uint8)
    for pixels, written in zip(noise, pictures := [io.BytesIO() for _ in noise], strict=True):
        Image.fromarray(pixels).save(written, "PNG")
    slides = [Slide(pictures[n % 3].getvalue(), f"{HOSTILE[0]} {n}", HOSTILE[1]) for n in range(60)]
    path = '<path d="M0 0L40 20" stroke="currentColor"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20">{path}</svg>'
    rows = [[Link(f"{name} {number}", f"a/{number}?x=#y"), "0.5", "−1"] for number, name in enumerate(HOSTILE * 125)]
    blocks = [
        *(Chart(svg, name, name) for name in HOSTILE),
        Table(("case", *HOSTILE), rows, HOSTILE[1]),
        *(Slides(name, dict.fromkeys(("axial", "coronal", "sagittal"), slides)) for name in HOSTILE),
        Missing(HOSTILE[0]),
        Table(("file",), [[Link(HOSTILE[1], "javascript:window.hacked=1")]], HOSTILE[0]),
    ]
    sections = tuple(Section(name, tuple(blocks[start::4]), name) for start, name in enumerate(HOSTILE))
    page = Page(HOSTILE[0], HOSTILE[1], HOSTILE[2], dict(zip(HOSTILE, HOSTILE, strict=True)), sections, HOSTILE)
    return write_page(page, folder / "report.html").parent


KINDS: dict[str, Callable[[Sources, Path], Path]] = {
    "every block": every_block,
    "pretraining": pretraining,
    "pretraining 2D": pretraining_2d,
    "cut off": cut_off,
    "segmentation": segmentation,
    "segmentation 2D": segmentation_2d,
    "classification": classification,
    "three classes": three_classes,
    "folds": folds,
    "evaluation": evaluation,
    "evaluation of label maps": partial(saved, cases=4, labels=HOSTILE, shape=(20, 20, 12), name=HOSTILE[1] + " {}"),
    "500 cases": partial(saved, cases=500, labels=["left", "right"], shape=(8, 8, 8)),
    "200 structures": partial(saved, cases=4, labels=[f"structure {n}" for n in range(200)], shape=(24, 24, 24)),
    "comparison": comparison,
    "demo": demonstration,
    "runs": runs,
}
