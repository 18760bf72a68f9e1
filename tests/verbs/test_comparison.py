import csv
import json
import signal
import sys

import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from modelsgenesis.comparison import session
from modelsgenesis.comparison.trials import run_trial
from modelsgenesis.configs import ClassificationConfig, GenesisUNetConfig, PretrainingConfig, SegmentationConfig
from modelsgenesis.data import PreparedCases, read_labelled
from modelsgenesis.errors import (
    ConfigurationError,
    DataError,
    Interrupted,
    MissingExtraError,
    ResumeError,
    TrainingError,
)
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import Split
from modelsgenesis.verbs import compare, describe_comparison

NETWORK = GenesisUNetConfig(widths=(4, 8), norm="instance")
TINY = SegmentationConfig(
    network=NETWORK,
    patch_size=(16, 16, 12),
    steps=2,
    batch_size=1,
    learning_rate=1e-3,
    warmup_steps=0,
    validate_every=2,
    samples_per_scan=1,
    augment=False,
    overlap=0.0,
    workers=0,
    precision="float32",
)
PRETRAINING = PretrainingConfig(
    network=NETWORK,
    patch_size=(16, 16, 12),
    steps=1,
    batch_size=1,
    samples_per_scan=1,
    validation_samples=2,
    workers=0,
)
SPLIT = Split(training=("ball_000", "ball_001", "ball_002", "ball_003"), validation=("ball_004",), test=("ball_005",))


class Counts(Reporter):
    """Counts the trainings that begin in vain or not."""

    def __init__(self):
        self.begun = []
        self.notes = []

    def begin(self, title, total, start=0):
        self.begun.append((title, total, start))

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def genesis(ct_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("genesis") / "ours"
    return modelsgenesis.pretrain(ct_folder, folder, config=PRETRAINING, modality="ct", device="cpu")


def run(decathlon, folder, inits, config=TINY, reporter=None, **options):
    arm_settings, dims = options.pop("arm_settings", ()), options.pop("dims", ())
    keys = ("split", "pretraining", "jobs", "keep_models", "settings")
    others = {key: options.pop(key) for key in keys if key in options}
    comparison = describe_comparison(
        inits, arm_settings=arm_settings, dims=dims, **{"labels": ["2"], "runs": 1, **options}
    )
    return compare(
        decathlon,
        folder,
        comparison=comparison,
        config=config,
        device="cpu",
        reporter=reporter,
        **{"split": SPLIT, **others},
    )


@pytest.fixture(scope="module")
def compared(decathlon, genesis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "run"
    return run(decathlon, folder, ["scratch", f"genesis={genesis}"], labels=["2", "all"], runs=3)


def test_every_arm_is_run_with_every_label_count_and_seed(compared):
    with (compared.folder / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], row["labels"], row["seed"]) for row in rows} == {
        (arm, labels, seed) for arm in ("scratch", "genesis") for labels in "24" for seed in "012"
    }
    assert len(rows) == 12
    assert {path.name for path in compared.folder.glob("*.*")} >= {"table.md", "results.json", "bars.png"}
    assert (compared.folder / "label_efficiency.png").exists()
    assert not list(compared.folder.glob(".work-*"))


def test_both_arms_learn_from_the_same_patients_and_the_fewer_are_among_the_more(compared):
    def cases(arm, labels, seed):
        path = compared.folder / "runs" / arm / f"labels-{labels}" / f"seed-{seed}.json"
        return json.loads(path.read_text())["training"]

    assert cases("scratch", 2, 0) == cases("genesis", 2, 0) == cases("genesis", 2, 2)
    assert set(cases("scratch", 2, 0)) < set(cases("scratch", 4, 0)) == set(SPLIT.training)


def test_scratch_is_the_control_of_the_genesis(compared):
    arms = compared.results["arms"]
    assert arms["scratch"]["parameters"] == arms["genesis"]["parameters"]
    assert (arms["scratch"]["init"], arms["genesis"]["init"]) == (None, "ours")
    comparison = compared.results["labels"]["2"]["comparisons"]
    assert [(entry["arm"], entry["reference"], entry["pairs"]) for entry in comparison] == [("genesis", "scratch", 3)]


def test_the_same_command_repeats_nothing_and_more_may_be_asked(compared, decathlon, genesis):
    counts = Counts()
    before = (compared.folder / "runs.csv").read_text()
    inits = ["scratch", f"genesis={genesis}"]
    run(decathlon, compared.folder, inits, labels=["2", "all"], runs=3, reporter=counts)
    assert counts.begun == [("comparing", 12, 12)]
    assert (compared.folder / "runs.csv").read_text() == before
    run(decathlon, compared.folder, inits, labels=["2"], runs=4, reporter=counts)
    assert counts.begun[-1] == ("comparing", 8, 6)


def test_a_deleted_run_comes_back_the_same(compared, decathlon, genesis):
    path = compared.folder / "runs" / "genesis" / "labels-2" / "seed-1.json"
    before = json.loads(path.read_text())
    path.unlink()
    run(decathlon, compared.folder, ["scratch", f"genesis={genesis}"], labels=["2"], runs=3)
    after = json.loads(path.read_text())
    changing = {"seconds": 0, "sha256": ""}
    assert {**before, **changing} == {**after, **changing}


def test_another_training_in_the_same_folder_is_refused(compared, decathlon, genesis):
    with pytest.raises(ResumeError, match=r"training\.steps was 2, now 3"):
        run(decathlon, compared.folder, ["scratch", f"genesis={genesis}"], TINY.override(steps=3))
    with pytest.raises(ResumeError, match="scratch: shape"):
        run(
            decathlon,
            compared.folder,
            ["scratch"],
            TINY.override(network=NETWORK),
            arm_settings=["scratch:network.widths=8,16"],
        )


def test_settings_are_chosen_before_the_test_patients_are_read(decathlon, tmp_path, monkeypatch):
    told = []
    get = PreparedCases.get

    def spy(cases, names, *arguments):
        told.append(names)
        assert SPLIT.test[0] not in names or (tmp_path / "run" / "tuning.json").exists()
        return get(cases, names, *arguments)

    monkeypatch.setattr(PreparedCases, "get", spy)
    found = run(
        decathlon,
        tmp_path / "run",
        ["scratch"],
        tune=["learning_rate=1e-4,1e-2"],
        tuning_runs=1,
        resample_labels=True,
    )
    assert told[-1] == list(SPLIT.test)
    [choice] = found.results["tuning"]
    best = max(choice["candidates"], key=lambda candidate: candidate["mean"])
    assert choice["chosen"] == best["settings"]
    for path in (tmp_path / "run" / "tuning").rglob("*.json"):
        assert "test" not in json.loads(path.read_text())
    assert "drawn anew for each seed" in found.table


def test_a_setting_of_one_arm_alone(decathlon, tmp_path):
    arms = ["scratch", "wide=scratch"]
    found = run(decathlon, tmp_path / "run", arms, arm_settings=["wide:network.widths=8,16"], keep_models=True)
    sizes = [found.results["arms"][name]["parameters"] for name in ("scratch", "wide")]
    assert sizes[1] > 3 * sizes[0]
    pairs = [(entry["arm"], entry["reference"]) for entry in found.results["labels"]["2"]["comparisons"]]
    assert pairs == [("wide", "scratch")]
    assert (tmp_path / "run" / "models" / "wide" / "labels-2-seed-0.safetensors").exists()


def test_an_arm_that_trains_longer_is_noted_before_and_in_the_table(decathlon, tmp_path):
    counts = Counts()
    found = run(
        decathlon, tmp_path / "run", ["scratch", "long=scratch"], arm_settings=["long:steps=5"], reporter=counts
    )
    steps = f"steps is {TINY.steps} for scratch, 5 for long"
    assert f"the arms have unequal budgets: {steps}; a difference may come of that" in counts.notes
    assert "unequal budgets: scratch" in found.table


def test_slices_against_cubes(decathlon, tmp_path):
    found = run(decathlon, tmp_path / "run", ["scratch"], dims=[2, 3])
    assert {name: arm["dims"] for name, arm in found.results["arms"].items()} == {"scratch 2D": 2, "scratch 3D": 3}
    pairs = [(entry["arm"], entry["reference"]) for entry in found.results["labels"]["2"]["comparisons"]]
    assert pairs == [("scratch 3D", "scratch 2D")]
    assert all("dice bright" in arm for arm in found.results["labels"]["2"]["arms"].values())


def test_schemes_are_pretrained_without_the_test_patients_and_once(decathlon, tmp_path):
    counts = Counts()
    options = {"schemes": ["I", "V"], "pretraining": PRETRAINING}
    found = run(decathlon, tmp_path / "run", ["scratch"], reporter=counts, **options)
    assert list(found.results["arms"]) == ["scratch", "Genesis I", "Genesis V"]
    for name in ("I", "V"):
        split = json.loads((tmp_path / "run" / "schemes" / name / "run.json").read_text())["split"]
        told = " ".join(name for part in split.values() for name in part)
        assert "ball_000" in told
        assert "ball_005" not in told
    counts.notes.clear()
    run(decathlon, tmp_path / "run", ["scratch"], reporter=counts, **options)
    assert not [note for note in counts.notes if "pretraining" in note]
    with pytest.raises(ResumeError, match="another configuration: steps was 1, now 2"):
        run(decathlon, tmp_path / "run", ["scratch"], **{**options, "pretraining": PRETRAINING.override(steps=2)})


def test_a_split_may_come_from_a_file(decathlon, tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({key: list(getattr(SPLIT, key)) for key in ("training", "validation", "test")}))
    data = read_labelled(decathlon)
    found = run(data, tmp_path / "run", ["scratch"], split=file)
    assert found.results["data"]["patients"] == {"training": 4, "validation": 1, "test": 1}


def test_refuses_what_cannot_be_compared(decathlon, tmp_path):
    without_test = Split(training=("ball_000",), validation=(), test=())
    with pytest.raises(DataError, match="no test patients, so nothing could be compared"):
        run(decathlon, tmp_path / "a", ["scratch"], split=without_test)
    without_validation = Split(training=("ball_000",), validation=(), test=("ball_001",))
    with pytest.raises(DataError, match="no validation patients to choose settings on"):
        run(decathlon, tmp_path / "b", ["scratch"], split=without_validation, tune=["learning_rate=1e-3,1e-2"])
    with pytest.raises(ConfigurationError, match="labelled_patients: received '9', expected"):
        run(decathlon, tmp_path / "c", ["scratch"], labels=["9"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Eight patients of each of two classes, which their grey value gives away."""
    folder = tmp_path_factory.mktemp("classes")
    random = np.random.default_rng(0)
    for index in range(16):
        name = ("dark", "light")[index % 2]
        (folder / name).mkdir(exist_ok=True)
        grey = random.uniform(0, 120, (16, 16)) + (100 if index % 2 else 0)
        Image.fromarray(grey.astype(np.uint8)).save(folder / name / f"{index:03d}_0.png")
    return folder


def test_classification_is_compared_by_its_auc(folders, tmp_path):
    config = ClassificationConfig(
        network=NETWORK.with_dims(2),
        patch_size=(16, 16),
        steps=3,
        batch_size=4,
        validate_every=3,
        hidden=0,
        augment=False,
        workers=0,
        precision="float32",
        validation_fraction=0.4,
        test_fraction=0.4,
    )
    comparison = describe_comparison(
        ["scratch", "fast=scratch"],
        arm_settings=["fast:learning_rate=3e-2"],
        labels=["4"],
        runs=2,
        resample_labels=True,
        tune=["weight_decay=0,0.1"],
        tuning_runs=1,
    )
    found = compare(
        folders, tmp_path / "run", comparison=comparison, config=config, modality="xray", device="cpu", jobs=1
    )
    assert found.results["metric"] == "auc"
    with (found.folder / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"auc", "average_precision", "sensitivity", "accuracy", "validation auc"} <= set(rows[0])
    assert [row["learning_rate"] for row in rows] == ["0.001", "0.03"] * 2
    trained = [json.loads((found.folder / f"runs/scratch/labels-4/seed-{seed}.json").read_text()) for seed in range(2)]
    assert trained[0]["training"] != trained[1]["training"]  # drawn anew
    assert {row["class"] for row in trained[0]["cases"]} == {"dark", "light"}


def test_a_missing_extra_is_named_before_the_first_training(decathlon, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"modelsgenesis\[report\]"):
        run(decathlon, tmp_path / "run", ["scratch"])
    assert not (tmp_path / "run" / "runs").exists()


def test_a_configuration_of_the_other_task_is_refused(folders, tmp_path):
    with pytest.raises(ConfigurationError, match="received a SegmentationConfig, expected a Class"):
        run(folders, tmp_path / "run", ["scratch"], split=None)


def test_an_unknown_metric_is_answered_with_the_nearest(decathlon, tmp_path):
    with pytest.raises(ConfigurationError, match="metric: received 'dice brigth'; did you mean dice bright"):
        run(decathlon, tmp_path / "run", ["scratch"], metric="dice brigth")


def test_an_interruption_keeps_what_has_finished(decathlon, tmp_path, monkeypatch):
    def interrupted(trials, bench, jobs):
        yield trials[0], run_trial(trials[0], bench)
        raise Interrupted(signal.SIGTERM, "interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(session, "run_trials", interrupted)
        with pytest.raises(
            Interrupted, match=r"interrupted with 1 of 2 runs finished, .* the same command goes on"
        ) as stop:
            run(decathlon, tmp_path / "run", ["scratch"], runs=2)
    assert stop.value.signum == signal.SIGTERM
    counts = Counts()
    run(decathlon, tmp_path / "run", ["scratch"], runs=2, reporter=counts)
    assert counts.begun == [("comparing", 2, 1)]


def test_a_training_that_diverged_is_no_result(decathlon, tmp_path):
    config = TINY.override(learning_rate=1e30, steps=4, clip_norm=0.0)
    with pytest.raises(TrainingError, match=r"scratch, 2 labels, seed 0: the training diverged; .*--set-arm"):
        run(decathlon, tmp_path / "run", ["scratch"], config)
