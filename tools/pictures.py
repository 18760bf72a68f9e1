"""Make the pictures of README and documentation: `docs/pictures/*.png`, each of less than 300 kB.

    python tools/pictures.py [NAME …]

Without names all of them, in some minutes on two cores. Scans are those of the embedded sample; what was measured comes
from `benchmarks/results/`. `report` and `viewer` are screenshots: they need the extras `browser` and `viewer`, and
`chromium` on the path.
"""

import csv
import functools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import modelsgenesis  # noqa: E402
from modelsgenesis.configs import SegmentationConfig, pretraining_recipe  # noqa: E402
from modelsgenesis.configs.training import SCHEMES  # noqa: E402
from modelsgenesis.data.cases import sample_data, sample_folder  # noqa: E402
from modelsgenesis.figures import draw_pictures  # noqa: E402
from modelsgenesis.figures.charts import PAGE, blank, style  # noqa: E402
from modelsgenesis.figures.colours import colours, hex_of  # noqa: E402
from modelsgenesis.pretext import Deformation  # noqa: E402
from modelsgenesis.training.splits import Split  # noqa: E402
from modelsgenesis.viewer import LabelFile, ShownCase, Viewer  # noqa: E402

LIMIT = 300_000  # bytes
FOLDER = ROOT / "docs" / "pictures"
TRAINING, TEST = (case.name for case in sample_data().cases)
SIDE = 80  # pixels of a patch, of 3 mm: the smallest scan is 84 wide
SEED = 3  # of the deformations: their intensity map turns dark into bright


@functools.cache
def work() -> Path:
    """The folder of what is trained for the pictures; it stays, to look into."""
    return Path(tempfile.mkdtemp(prefix="pictures-"))


@functools.cache
def pretrained() -> Path:
    """A small Genesis of two dimensions, of the unlabelled scans of all but the test patient."""
    scans = sorted((sample_folder() / "images").iterdir())
    network = ["network.dims=2", "network.widths=12,24,48,96", "network.norm=batch", f"patch_size={SIDE},{SIDE}"]
    training = ["batch_size=8", "learning_rate=3e-3", "workers=0", "validation_samples=32", "validate_every=200"]
    # Every second sample keeps its intensities, so that few minutes are enough to learn details, too.
    pretext = ["pretext.intensity_probability=0.5"]
    config = pretraining_recipe("small", steps=1000, settings=[*network, *training, *pretext])
    test = next(scan for scan in scans if scan.name.startswith(TEST))
    others = [scan for scan in scans if scan != test]
    how: dict[str, Any] = {"modality": "ct", "window": (-160.0, 240.0), "validation_source": test}  # of soft tissue
    return modelsgenesis.pretrain(others, work() / "genesis", config=config, **how)


@functools.cache
def segmented() -> Path:
    """A segmentation model, from that Genesis and the labels of one patient, measured on another."""
    config = SegmentationConfig(
        dims=2,
        patch_size=(SIDE, SIDE),
        steps=300,
        batch_size=8,
        learning_rate=3e-3,
        foreground_share=0.75,
        overlap=0.25,
        workers=0,
    )
    split = Split(training=(TRAINING,), validation=(), test=(TEST,))
    return modelsgenesis.finetune(sample_data(), work() / "organs", init=pretrained(), config=config, split=split)[0]


def draw_restored(path: Path) -> None:
    """A slice of the test patient, each deformation of it, and what the Genesis makes of them."""
    model = modelsgenesis.from_pretrained(pretrained())
    slices = model.preprocess(sample_folder() / "images" / f"{TEST}.nii.gz")  # [slice, 1, x, y]
    x, y = ((side - SIDE) // 2 for side in slices.shape[2:])
    original = slices[[len(slices) // 2], :, x : x + SIDE, y : y + SIDE]
    schemes = {
        "non-linear intensity": SCHEMES["I"].override(intensity_probability=1.0),
        "local shuffling": SCHEMES["II"].override(shuffle_probability=1.0),
        "in-painting": SCHEMES["IV"].override(painting_probability=1.0),
        "out-painting": SCHEMES["III"].override(painting_probability=1.0),
    }
    rows: list[list[np.ndarray]] = [[], [], []]
    for scheme in schemes.values():
        deformed, _ = Deformation(scheme.override(flip_probability=0.0))(original, torch.tensor([SEED]))
        with torch.inference_mode():
            restored = model(deformed)
        for row, picture in zip(rows, (original, deformed, restored), strict=True):
            row.append(picture[0, 0].numpy().T[::-1, ::-1])
    draw_pictures(rows, tuple(schemes), path, labels=("original", "deformed", "restored"))


@style()
def difference_chart(rows: list[dict[str, str]]) -> Any:
    """Draw the difference of each comparison of `few_labels.csv` with its interval."""
    blue, _, _, red = map(hex_of, colours(4))
    figure = blank(PAGE, 0.7 + 0.26 * len(rows))
    axis = figure.subplots()
    for place, row in enumerate(rows):
        difference, low, high = (float(row[name]) for name in ("difference", "low", "high"))
        colour, marker = (blue, "o") if low > 0 else (red, "s") if high < 0 else ("0.45", "D")
        errors = [[difference - low], [high - difference]]
        axis.errorbar(difference, place, xerr=errors, fmt=marker, color=colour, capsize=3)
        said = f"{row['scratch']} → {row['genesis']} {row['metric']}"
        axis.text(1.02, place, said, transform=axis.get_yaxis_transform(), va="center", fontsize=7)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [f"{row['data']}, {row['labelled']} labelled" for row in rows])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("← scratch better     difference (95% interval over the runs)     Genesis better →")
    axis.text(1.02, -0.75, "scratch → Genesis", transform=axis.get_yaxis_transform(), va="center", fontsize=7)
    return figure


def draw_few_labels(path: Path) -> None:
    """What a Genesis adds to few labels, in every comparison that was measured."""
    with (ROOT / "benchmarks" / "results" / "few_labels.csv").open(newline="") as file:
        difference_chart(list(csv.DictReader(file))).savefig(path, dpi=200)


def draw_prediction(path: Path) -> None:
    """What the segmentation model finds in a patient that it has not seen, outlined."""
    scan = sample_folder() / "images" / f"{TEST}.nii.gz"
    modelsgenesis.predict_all(segmented(), scan, output=work() / "predicted", preview=True)
    shutil.copyfile(work() / "predicted" / f"{TEST}_preview.png", path)


def draw_report(path: Path) -> None:
    """The first screen of the pretraining's report."""
    with browser_page() as page:
        page.goto((pretrained() / "report.html").as_uri())
        page.screenshot(path=path)


def draw_viewer(path: Path) -> None:
    """A scan of the sample with its organs in the viewer, by their names."""
    data, case = sample_data(), sample_data().cases[0]
    mask = sample_folder() / "labels" / f"{case.name}.nii.gz"
    organs = zip(["", *data.labels[1:]], data.values, strict=True)  # no name: the background
    names = {value: organ for organ, values in organs for value in values}
    shown = ShownCase(name=case.name, images=case.images, maps=[LabelFile(name="organs", path=mask, names=names)])
    with closing(Viewer(case.name, [shown], {}, 0)) as viewer, browser_page() as page:
        page.goto(viewer.url)
        page.wait_for_selector("body[data-drawn]")
        page.wait_for_timeout(500)
        page.screenshot(path=path)


@contextmanager
def browser_page() -> Iterator[Any]:
    """A page in a headless Chromium that draws WebGL without a graphics card."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield chromium.new_page(viewport={"width": 1200, "height": 800})
        chromium.close()


PICTURES: dict[str, Callable[[Path], None]] = {
    "restorations": draw_restored,
    "few_labels": draw_few_labels,
    "prediction": draw_prediction,
    "report": draw_report,
    "viewer": draw_viewer,
}


def shrink(path: Path) -> None:
    """Bring a picture below the limit, by fewer colours and then by fewer pixels."""
    picture = Image.open(path).convert("RGB")
    picture.save(path, optimize=True)
    while path.stat().st_size > LIMIT:
        picture.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)  # keeps distinct colours so
        picture = picture.resize((picture.width * 9 // 10, picture.height * 9 // 10), Image.Resampling.LANCZOS)


def main(names: list[str]) -> int:
    """Make the pictures of these names, or all."""
    if unknown := set(names) - set(PICTURES):
        print(f"no such picture: {', '.join(sorted(unknown))}; expected some of {', '.join(PICTURES)}", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    for name in names or PICTURES:
        path = FOLDER / f"{name}.png"
        PICTURES[name](path)
        shrink(path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
