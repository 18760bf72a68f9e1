"""Damaged files of runs, comparisons and caches: one error of this package, or what a whole file would have given."""

import json
import random

import pytest
import torch

from foreign_damage import altered, damage
from labelled_files import save, volume
from modelsgenesis.configs import CONTRACTS, PretrainingConfig
from modelsgenesis.data import VolumeCache, find_scans
from modelsgenesis.errors import DataError, GenesisError
from modelsgenesis.files import sha256_of, write_csv
from modelsgenesis.pretraining import PretrainingRun, read_run
from modelsgenesis.training.results import read_rows, read_test_results
from modelsgenesis.training.run import Run
from modelsgenesis.training.splits import Split, read_split, write_split
from modelsgenesis.training.trials import Records, Trial

ASKED = PretrainingRun(
    config=PretrainingConfig().with_data(source="/scans"),
    pretrained=("encoder.a",),
    input=CONTRACTS["ct"],
    split={"training": ("a", "b"), "validation": ("c",)},
    digests={"training": ("0a", "0b"), "validation": ("0c",)},
).to_dict()
STATE = {"network": {"w": torch.arange(40.0)}, "progress": {"step": 7}}
TRIAL = Trial(arm="a", labels=2, seed=0, split=Split(("x",), (), ("y",)))
DESCRIBED = {"asked": {"training": {"steps": 1}}, "arms": {"a": {"init": None}}, "files": {"x": "0a"}}
RECORD = {"training": ["x"], "settings": [], "test": {"dice": 0.5}}


class Kept:
    """A folder with one whole file of each kind, and what reading each gives."""

    def __init__(self, folder):
        self.folder = folder
        run = Run.open(folder / "run", ASKED)
        run.save_checkpoint(STATE)
        for step in range(1, 6):
            run.log_step({"step": step, "loss": 0.5})
            run.log_step({"step": step, "dice": 0.1}, "validation.csv")
        run.close()
        self.records = Records(folder / "compared")
        self.records.describe(DESCRIBED)
        self.records.write(TRIAL, RECORD)
        write_split(Split(("a",), ("b",), ("c",)), folder / "split.json")
        write_csv(folder / "test.csv", [{"case": "a", "patient": "p", "dice": 0.5}], DataError)
        (folder / "results.json").write_text('{"test": {"dice": {"value": 0.5, "low": null, "high": null}}}')
        save(folder / "a.nii", volume(0))
        self.recall()
        (seen,) = folder.glob("seen/*/*.json")
        self.readers = {
            "run/run.json": (self.resume, lambda: read_run(folder / "run")),
            "run/checkpoints/last.pt": (self.load,),
            "run/log.csv": (self.truncate,),
            "run/validation.csv": (self.truncate,),
            "compared/comparison.json": (lambda: self.records.describe(DESCRIBED),),
            str(self.records.path(TRIAL).relative_to(folder)): (self.read,),
            "split.json": (lambda: read_split(folder / "split.json"),),
            "test.csv": (lambda: read_rows(folder, {"rows_sha256": sha256_of(folder / "test.csv")}),),
            "results.json": (lambda: read_test_results(folder),),
            str(seen.relative_to(folder)): (self.recall,),
        }

    def resume(self):
        Run.open(self.folder / "run", ASKED, resume=True).close()

    def load(self):
        state, note = Run(self.folder / "run").load_checkpoint()
        assert note == ""
        assert torch.equal(state["network"]["w"], STATE["network"]["w"])

    def truncate(self):
        run = Run(self.folder / "run")
        run.truncate_logs(4)
        for name in ("log.csv", "validation.csv"):
            first, *lines = (run.folder / name).read_text().split("\n") if (run.folder / name).exists() else ["step"]
            assert first.startswith("step")
            assert all(float(line.split(",")[0]) <= 4 for line in lines if line)

    def read(self):
        assert self.records.read(TRIAL) == RECORD

    def recall(self):
        cache, skipped = VolumeCache.build(find_scans(self.folder / "a.nii")[0], CONTRACTS["mri"], self.folder)
        assert (len(cache), skipped) == (1, [])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    kept = Kept(tmp_path_factory.mktemp("kept"))
    yield kept
    kept.records.close()


@pytest.mark.parametrize("count", [40, pytest.param(2500, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_only_errors_of_this_package(kept, count):
    refused = 0
    for number, (name, readers) in enumerate(kept.readers.items()):
        path, chance = kept.folder / name, random.Random(number)
        whole = path.read_bytes()
        for reader in readers:
            reader()
        path.write_bytes(whole)
        for _ in range(count):
            as_json = path.suffix == ".json" and chance.random() < 0.6
            content = json.dumps(altered(json.loads(whole), chance)).encode() if as_json else damage(whole, chance)
            for reader in readers:
                path.write_bytes(content)
                try:
                    reader()
                except GenesisError:
                    refused += 1
        path.write_bytes(whole)
    assert refused > count
