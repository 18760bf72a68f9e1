"""The protocol of the evidence: its splits, its rule for a budget that is long enough, and its table."""

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modelsgenesis.configs import ClassificationConfig, pretraining_recipe
from modelsgenesis.data.cases import PreparedCases
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import DataError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.training.splits import read_split, split_cases
from simulated_comparison import draw_records, results_of

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHARED_SCRIPTS = ("protocol", "imagenet")
SCRIPTS = sorted(path.stem for path in (BENCHMARKS / "evidence").glob("*.py") if path.stem not in SHARED_SCRIPTS)


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found  # of a dataclass
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def protocol(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS / "evidence")
    return module(BENCHMARKS / "evidence" / "protocol.py")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_target_names_recorded_splits_of_whole_patients_and_fits_them(protocol, name):
    target = module(BENCHMARKS / "evidence" / f"{name}.py").TARGET
    split = read_split(target.splits[0])
    parts = [set(split.training), set(split.validation), set(split.test)]
    assert all(parts)
    assert not any(one & other for one, other in zip(parts, [*parts[1:], parts[0]], strict=True))
    pattern = re.compile(target.reading.get("patient_pattern", "(.+)"))  # without one each case is a patient
    patients = {pattern.search(case)[1] for case in split.training}
    assert int(target.labels[-1]) <= len(patients)
    assert patients.isdisjoint(pattern.search(case)[1] for case in (*split.validation, *split.test))
    full, small, quick = (protocol.plan_of(target, scale) for scale in ("full", "small", "quick"))
    assert (full.runs, len(full.budgets)) == (10, 3)
    assert (small.runs, quick.runs) == (10, 3)
    for plan in (full, small, quick):
        config = pretraining_recipe("small", settings=plan.pretraining)
        assert config.network.dims == len(config.patch_size) == target.dims


def tuned(results, mean):
    """Results whose scratch reached a mean on the validation patients, with every number of labels."""
    counts = map(int, results["labels"])
    candidates = [{"settings": ["learning_rate=1e-3"], "mean": mean}, {"settings": ["learning_rate=1"], "mean": None}]
    choice = {"chosen": ["learning_rate=1e-3"], "candidates": candidates}
    return results | {"tuning": [{"arm": arm, "labels": n, **choice} for n in counts for arm in ("scratch", "genesis")]}


@pytest.fixture
def asked(protocol, monkeypatch):
    """What was trained: budget, labels and runs of each comparison; scratch gains until it has 100 steps."""
    trained = []

    def compare(data, folder, *, comparison, settings, **options):
        steps = int(folder.name.removeprefix("steps-"))
        trained.append((steps, comparison.labels, comparison.runs))
        records = draw_records({"scratch": 0.0, "genesis": 0.3}, [*map(int, comparison.labels)], comparison.runs)
        assert comparison.resample_labels
        return type("Compared", (), {"results": tuned(results_of(records), 0.5 + min(steps, 100) / 1000)})

    for name, found in {
        "compare": compare,
        "pretrain": lambda *_, **__: None,
        "read_labelled": lambda *_, **__: None,
    }.items():
        monkeypatch.setattr(protocol, name, found)
    return trained


def test_a_budget_counts_where_twice_the_steps_do_not_better_scratch(protocol, asked, tmp_path):
    plan = protocol.Plan(pretraining=(), labels=("5", "10"), budgets=(30, 100, 300), runs=4)
    target = module(BENCHMARKS / "evidence" / "hippocampus.py").TARGET
    rows = protocol.measure(target, plan, tmp_path, tmp_path / "run", device="cpu")
    counts = ("5", "10")
    assert asked == [(30, counts, 4), (60, counts, 1), (100, counts, 4), (200, counts, 1), (300, counts, 4)]
    assert {labels: row["steps"] for labels, row in protocol.converged(rows).items()} == {5: 100, 10: 100}
    assert [row["gain_of_twice_the_steps"] for row in rows] == pytest.approx(
        [0.03, 0.03, 0, 0, None, None], nan_ok=True
    )
    assert json.loads(json.dumps(rows)) == rows
    table = str(protocol.table_of(rows))
    lines = [line.split("|") for line in table.splitlines() if line.startswith("| 5 ")]
    assert [line[-2].strip() for line in lines] == ["", "converged", ""]
    assert "of 4" in lines[0][7]


def test_no_claim_where_scratch_still_gains(protocol, asked, tmp_path):
    plan = protocol.Plan(pretraining=(), labels=("5",), budgets=(10, 30), runs=3)
    target = module(BENCHMARKS / "evidence" / "hippocampus.py").TARGET
    rows = protocol.measure(target, plan, tmp_path, tmp_path / "run", device="cpu")
    assert protocol.converged(rows) == {}
    assert "| converged |" not in str(protocol.table_of(rows))


@pytest.fixture
def imagenet():
    return module(BENCHMARKS / "evidence" / "imagenet.py")


@pytest.fixture
def finished(tmp_path):
    """A folder with the records of four draws of two arms, and a job that trains nothing, with what it was asked."""
    asked = []

    def record_of(arm, seed, value):
        test = {"auc": value + seed**2 / 100}
        return {"arm": arm, "labels": 100, "seed": seed, "training": [f"case {seed}"], "test": test, "cases": []}

    for arm, seed in itertools.product(("scratch", "genesis"), range(4)):
        place = tmp_path / "runs" / arm / "labels-100"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"seed-{seed}.json").write_text(json.dumps(record_of(arm, seed, 0.5)))

    def train(labels, seed, rate, *, measured):
        asked.append((labels, seed, rate, measured))
        return record_of("imagenet", seed, 0.7) | {"validation": {"auc": 0.7 + rate}}

    data = SimpleNamespace(labels=("benign", "malignant"), task="classification", multilabel=False)
    return SimpleNamespace(
        folder=tmp_path, asked=asked, job=SimpleNamespace(data=data, config=None, enlarge=2, train=train)
    )


def test_imagenet_is_trained_on_the_draws_of_a_comparison_at_the_rate_that_it_chose(imagenet, finished):
    found = imagenet.measure(finished.job, finished.folder, tuning_runs=2)
    tuned = [("100", 1_000_000 + draw, rate, False) for rate in imagenet.RATES for draw in range(2)]
    assert finished.asked == [*tuned, *(("100", seed, max(imagenet.RATES), True) for seed in range(4))]
    entry = found["labels"]["100"]
    by_pair = {(one["arm"], one["reference"]): one for one in entry["comparisons"]}
    assert by_pair["imagenet", "scratch"]["difference"] == pytest.approx(0.2)
    assert (by_pair["imagenet", "scratch"]["pairs"], len(by_pair)) == (4, 3)
    finished.asked.clear()  # what has finished is not repeated
    assert imagenet.measure(finished.job, finished.folder, tuning_runs=2) == found
    assert finished.asked == []


class Pooled(torch.nn.Module):
    """In place of the downloaded network: the mean and the spread of an image, and a layer to learn."""

    def __init__(self, classes, enlarge):
        super().__init__()
        self.head = torch.nn.Linear(2, classes)

    def forward(self, x):
        return self.head(torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1))


def test_a_training_of_imagenet_learns_real_images_and_measures_the_test_patients_alone(
    imagenet, monkeypatch, class_folders
):
    monkeypatch.setattr(imagenet, "ImageNet", Pooled)
    data = read_labelled(class_folders, modality="xray")
    config = ClassificationConfig(
        patch_size=(24, 24), steps=60, warmup_steps=0, validate_every=30, workers=0, validation_fraction=0.2
    )
    split, hardware = split_cases(data, config), choose_hardware("cpu", "float32")
    job = imagenet.Job(data, split, config, PreparedCases(data, size=(24, 24)), hardware)
    record = job.train("6", 0, 0.1, measured=True)
    assert record["test"]["auc"] == 1
    assert sorted(row["case"] for row in record["cases"]) == sorted(split.test)
    assert set(record["training"]) < set(split.training)
    tuning = job.train("6", 1, 0.1, measured=False)
    assert "test" not in tuning
    assert tuning["validation"]["auc"] == 1


def test_the_effective_rank_counts_directions():
    ranks = module(BENCHMARKS / "ranks.py")
    random = torch.Generator().manual_seed(0)
    samples = torch.randn(4000, 6, generator=random)
    assert ranks.effective_rank(samples) == pytest.approx(6, abs=0.05)
    assert ranks.effective_rank(samples[:, :1] @ torch.randn(1, 6, generator=random)) == pytest.approx(1, abs=0.01)


def test_imagenet_with_other_patients_is_refused(imagenet, finished):
    train = finished.job.train
    finished.job.train = lambda *of, **how: train(*of, **how) | {"training": ["another"]}
    with pytest.raises(DataError, match="other patients"):
        imagenet.measure(finished.job, finished.folder, tuning_runs=1)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["lung_nodules", "lung_malignancy", "cardiac"])
def test_the_recorded_splits_are_drawn_again(name, shared_data):
    draw = module(BENCHMARKS / "splits" / "draw.py")
    assert draw.draw(shared_data, name)[1] == read_split(BENCHMARKS / "splits" / f"{name}.json")
