import json
import re
import runpy
import signal
from pathlib import Path

import numpy as np
import pytest

import modelsgenesis
import trained_models
from modelsgenesis import comparison
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.comparison import ArmConfig, ComparisonConfig, compare, describe_comparison
from modelsgenesis.configs import ClassificationConfig, GenesisUNetConfig
from modelsgenesis.data.cases import PreparedCases
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import ConfigurationError, DataError, Interrupted, TrainingError
from modelsgenesis.files import read_csv
from modelsgenesis.finetuning import Finetuning
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.splits import Split, write_split
from modelsgenesis.training.trials import Trial

ROOT = Path(__file__).parents[1]
NETWORK = GenesisUNetConfig(widths=(4, 8), norm="instance")
SMALL = {"steps": 2, "batch_size": 1, "warmup_steps": 0, "validate_every": 2, "samples_per_scan": 1, "overlap": 0.0}
TINY = trained_models.TINY.override(network=NETWORK, **SMALL)
SPLIT = Split(training=("ball_000", "ball_001", "ball_002", "ball_003"), validation=("ball_004",), test=("ball_005",))


class Counts(Reporter):
    """Counts the trainings that were there at the beginning."""

    def __init__(self):
        self.begun = []
        self.begin = lambda *told: self.begun.append(told)


def run(decathlon, folder, inits, config=TINY, reporter=None, **options):
    others = {key: options.pop(key) for key in ("split", "jobs", "keep_models", "settings") if key in options}
    asked = describe_comparison(inits, **{"labels": ["2"], "runs": 1, **options})
    others = {"split": SPLIT, "config": config, "device": "cpu", "reporter": reporter, **others}
    return compare(decathlon, folder, comparison=asked, **others)


@pytest.fixture(scope="module")
def compared(decathlon, genesis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "run"
    return run(decathlon, folder, ["scratch", f"genesis={genesis}"], labels=["2", "all"], runs=3)


def record(compared, arm, labels, seed):
    return json.loads((compared.folder / "runs" / arm / f"labels-{labels}" / f"seed-{seed}.json").read_text())


def test_every_arm_is_run_with_every_label_count_and_seed_and_scratch_is_the_control(compared):
    rows = read_csv(compared.folder / "runs.csv", DataError)
    assert sorted((row["arm"], row["labels"], row["seed"]) for row in rows) == sorted(
        (arm, labels, seed) for arm in ("scratch", "genesis") for labels in "24" for seed in "012"
    )
    assert {"dice", "dice bright", "hausdorff95", "validation dice", "validation loss"} <= set(rows[0])
    assert {path.name for path in compared.folder.glob("*.*")} >= {
        *("report.html", "table.md", "results.json", "comparison.png", "comparison.svg")
    }
    assert not list(compared.folder.glob(".work-*"))
    assert not list(compared.folder.rglob("*.safetensors"))
    arms = compared.results["arms"]
    assert arms["scratch"]["parameters"] == arms["genesis"]["parameters"]
    assert (arms["scratch"]["init"], arms["genesis"]["init"]) == (None, "run")
    found = compared.results["labels"]["2"]["comparisons"]
    assert [(entry["arm"], entry["reference"], entry["pairs"]) for entry in found] == [("genesis", "scratch", 3)]
    remark = "scratch, 2 labels: only 1 test patient: the figures say little about others (3 of 3 runs)"
    assert remark in compared.results["remarks"]
    assert f"- {remark}" in compared.table
    few = record(compared, "scratch", 2, 0)["training"]  # by both arms and all seeds, and among the more
    assert few == record(compared, "genesis", 2, 2)["training"]
    assert set(few) < set(record(compared, "scratch", 4, 0)["training"]) == set(SPLIT.training)


def test_a_run_is_that_of_finetune(compared, decathlon, genesis, tmp_path):
    found = record(compared, "genesis", 2, 1)
    split = Split(tuple(found["training"]), SPLIT.validation, SPLIT.test)
    config = TINY.override(seed=1)
    options = {"init": genesis, "config": config, "split": split, "device": "cpu", "draw": False}
    _, measured = modelsgenesis.finetune(decathlon, tmp_path / "run", **options)
    assert found["test"] == pytest.approx(measured)


def test_the_same_command_repeats_nothing_and_more_may_be_asked(compared, decathlon, genesis):
    counts = Counts()
    inits = ["scratch", f"genesis={genesis}"]
    run(decathlon, compared.folder, inits, labels=["2", "all"], runs=3, reporter=counts)
    assert counts.begun == [("comparing", 12, 12)]
    run(decathlon, compared.folder, inits, labels=["2"], runs=4, reporter=counts)
    assert counts.begun[-1] == ("comparing", 8, 6)


def test_a_deleted_run_comes_back_the_same_and_one_of_changed_scans_is_refused(compared, decathlon, genesis):
    path = compared.folder / "runs" / "genesis" / "labels-2" / "seed-1.json"
    before = json.loads(path.read_text())
    path.unlink()
    inits = ["scratch", f"genesis={genesis}"]
    run(decathlon, compared.folder, inits, runs=3)
    changing = {"seconds": 0, "sha256": ""}
    assert {**before, **changing} == {**json.loads(path.read_text()), **changing}
    volume = decathlon / "imagesTr" / f"{SPLIT.test[0]}.nii.gz"
    scan = volume.read_bytes()
    try:
        volume.write_bytes((volume.parent / f"{SPLIT.training[0]}.nii.gz").read_bytes())
        with pytest.raises(TrainingError, match=f"another configuration: {SPLIT.test[0]} was"):
            run(decathlon, compared.folder, inits, runs=3)
    finally:
        volume.write_bytes(scan)


def test_the_table_says_what_is_known_of_the_scans_that_weights_have_seen(compared):
    assert ", its run lists no file of a test case\n" in compared.table


def test_a_model_that_was_fine_tuned_on_test_patients_is_refused(decathlon, finetuned, tmp_path):
    learnt = json.loads((finetuned[0] / "split.json").read_text())["training"]
    split = Split((SPLIT.training[0],), (), (learnt[-1],))
    with pytest.raises(DataError, match=f"has seen 1 of .* such as '{learnt[-1]}': .*; fine-tune it and compare with"):
        run(decathlon, tmp_path / "run", [str(finetuned[0])], split=split, labels=["1"])


def test_the_memory_of_a_training_is_that_of_its_largest_candidate():
    def memory(*tune):
        asked = describe_comparison(["scratch"], tune=tune)
        return comparison._Job(asked, TINY, None, SPLIT, {"scratch": TINY}, Path(), None, "cpu", strict=False).memory()

    assert memory("batch_size=1,4") == memory("batch_size=4,1") == memory("batch_size=4") > memory()


def test_another_training_in_the_same_folder_is_refused(compared, decathlon, genesis):
    with pytest.raises(TrainingError, match=r"training\.steps was 2, now 3"):
        run(decathlon, compared.folder, ["scratch", f"genesis={genesis}"], TINY.override(steps=3))
    settings = ["scratch:network.widths=8,16"]
    with pytest.raises(TrainingError, match=r"scratch\.training\.network"):
        run(decathlon, compared.folder, ["scratch", f"genesis={genesis}"], arm_settings=settings)


def test_settings_are_chosen_before_the_test_patients_are_read(decathlon, tmp_path, monkeypatch):
    read, prepared, train, prepare = [], [], Finetuning.train, PreparedCases._prepare

    def spy(job, split, **options):
        read.append(split.test)
        assert not split.test or (tmp_path / "run" / "tuning.json").exists()
        measured = train(job, split, **options)
        assert (job.output / "model.safetensors").exists()
        assert not list(job.output.rglob("*.pt"))  # nobody could resume it
        return measured

    def prepare_once(known, case, contract):
        prepared.append(case.name)
        return prepare(known, case, contract)

    monkeypatch.setattr(Finetuning, "train", spy)
    monkeypatch.setattr(PreparedCases, "_prepare", prepare_once)
    write_split(SPLIT, tmp_path / "split.json")
    options = {"tune": ["learning_rate=1e-4,1e-2"], "tuning_runs": 1, "resample_labels": True}
    options["split"] = tmp_path / "split.json"
    found = run(decathlon, tmp_path / "run", ["scratch"], **options)
    assert read == [(), (), SPLIT.test]
    assert len(set(prepared)) == len(prepared) >= 3
    [choice] = found.results["tuning"]
    best = max(choice["candidates"], key=lambda candidate: candidate["mean"])
    assert choice["chosen"] == best["settings"]
    for path in (tmp_path / "run" / "tuning").rglob("*.json"):
        assert "test" not in json.loads(path.read_text())
    assert "drawn anew for each seed" in found.table


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({"1e-3": [0.5, 0.7], "3e-3": [0.8, 0.6]}, "3e-3"),  # by the mean
        ({"1e-3": [0.1, 0.1], "3e-3": [0.9, None]}, "1e-3"),  # what diverged once is last
        ({"1e-3": [0.5], "3e-3": [0.5]}, "1e-3"),  # on ties, the first
    ],
)
def test_the_best_candidate_is_chosen(scores, chosen):
    split, trials, records = Split((), (), ()), [], []
    for rate, values in scores.items():
        trials += [Trial(arm="a", labels=5, seed=seed, split=split, settings=(rate,)) for seed in range(len(values))]
        records += [{"diverged": True} if one is None else {"validation": {"dice": one}} for one in values]
    choice = comparison._choose_settings(trials, records, "dice")["a", 5]
    assert choice["chosen"] == (chosen,)
    assert [one["mean"] for one in choice["candidates"]] == [None if None in v else np.mean(v) for v in scores.values()]
    with pytest.raises(DataError, match="validation patients give no auc"):
        comparison._choose_settings(trials, records, "auc")


def test_a_setting_of_one_arm_alone_and_its_model_kept(decathlon, tmp_path):
    settings = ["wide:network.widths=8,16", "wide:steps=3"]
    found = run(decathlon, tmp_path / "run", ["scratch", "wide=scratch"], arm_settings=settings, keep_models=True)
    sizes = [found.results["arms"][name]["parameters"] for name in ("scratch", "wide")]
    assert sizes[1] > 3 * sizes[0]
    pairs = [(entry["arm"], entry["reference"]) for entry in found.results["labels"]["2"]["comparisons"]]
    assert pairs == [("wide", "scratch")]
    assert "network.widths=8,16, steps=3, 3D" in found.table
    kept = load_bundle(tmp_path / "run" / "models" / "runs" / "wide" / "labels-2" / "seed-0")
    assert kept.config.network.widths == (8, 16)


def test_slices_against_volumes(decathlon, genesis, tmp_path):
    found = run(decathlon, tmp_path / "run", ["scratch", f"genesis={genesis}"], dims=[2, 3], jobs=2)
    dims = {name: arm["dims"] for name, arm in found.results["arms"].items()}
    assert dims == {"scratch 2D": 2, "scratch 3D": 3, "genesis": 3}
    pairs = [(entry["arm"], entry["reference"]) for entry in found.results["labels"]["2"]["comparisons"]]
    assert pairs == [("genesis", "scratch 3D"), ("scratch 3D", "scratch 2D")]
    assert all("dice bright" in arm for arm in found.results["labels"]["2"]["arms"].values())


def test_an_example_compares_schemes_without_the_test_patients(decathlon, tmp_path):
    compare_schemes = runpy.run_path(str(ROOT / "docs" / "recipes" / "compare_schemes.py"))["compare_schemes"]
    small = {"network.widths": "4,8", "patch_size": "16,16,12", "steps": 1, "batch_size": 1, "samples_per_scan": 1}
    pretraining = [f"{key}={value}" for key, value in {**small, "validation_samples": 2, "workers": 0}.items()]
    options = {"runs": 1, "config": TINY, "device": "cpu"}
    table = compare_schemes(read_labelled(decathlon), tmp_path, ["V"], pretraining, **options)
    assert "| labels | scratch | V |" in re.sub(" +", " ", table)  # aligned
    described = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    seen = json.dumps(json.loads((tmp_path / "pretrained" / "V" / "run.json").read_text())["split"])
    assert [name for name in described["files"] if name not in seen] == described["asked"]["split"]["test"]


SCRATCH = ArmConfig(name="scratch", init="scratch")


def test_candidates_are_every_combination():
    config = ComparisonConfig(arms=(SCRATCH,), tune=("learning_rate=1e-3, 3e-3", "freeze_encoder=true,false"))
    assert len(config.candidates()) == 4
    assert config.candidates()[0] == ("learning_rate=1e-3", "freeze_encoder=true")
    assert ComparisonConfig(arms=(SCRATCH,)).candidates() == ((),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": ()}, "received an empty"),
        ({"arms": (ArmConfig(name=" ", init="scratch"),)}, "received an empty"),
        ({"arms": (ArmConfig(name="a b", init="scratch"), ArmConfig(name="a/b", init="x"))}, "called .*a-b"),
        ({"runs": 0}, "runs: received 0, expected 1 to"),
        ({"tune": ("learning_rate",)}, "expected key=value,value"),
        ({"tune": ("network.widths=8,16",)}, "must be the same for all trainings"),
    ],
)
def test_says_what_cannot_be(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        ComparisonConfig(**{"arms": (SCRATCH,), **fields})


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (DataError, "no test patients", {"split": Split(("ball_000",), (), ())}),
        (DataError, "no validation patients", {"split": Split(("ball_000",), (), ("ball_001",)), "tune": ["a=1,2"]}),
        (DataError, r"fold\.json", {"config": TINY.override(data={"split": "fold.json"}), "split": None}),
        (DataError, "no patient is left", {"split": None, "settings": ["test_fraction=1"]}),
        (ConfigurationError, "at most the 4", {"labels": ["9"]}),
        (ConfigurationError, "'dice brigth'; did you mean dice bright", {"metric": "dice brigth"}),
        (
            ConfigurationError,
            "there is no initialisation 'scrach'; did you mean scratch",
            {"arm_settings": ["scrach:steps=1"]},
        ),
        (ConfigurationError, "expected NAME:key=value", {"arm_settings": ["steps=1"]}),
        (ConfigurationError, "dims: received 4", {"dims": [4]}),
    ],
)
def test_refuses_what_cannot_be_compared(decathlon, tmp_path, error, message, options):
    with pytest.raises(error, match=message):
        run(decathlon, tmp_path / "run", ["scratch"], **options)


def test_classification_is_compared_by_its_auc(class_folders, tmp_path):
    shape = {"network": NETWORK.with_dims(2), "hidden": 0, "augment": False, "workers": 0, "precision": "float32"}
    parts = {"validation_fraction": 0.4, "test_fraction": 0.4}
    config = ClassificationConfig(**shape, **parts, steps=3, batch_size=4, validate_every=3)
    options = {"labels": ["4"], "runs": 2, "resample_labels": True, "tune": ["weight_decay=0,0.1"], "tuning_runs": 1}
    arms = ["scratch", "fast=scratch"]
    asked = describe_comparison(arms, arm_settings=["fast:learning_rate=3e-2"], **options)
    found = compare(class_folders, tmp_path / "run", comparison=asked, config=config, modality="xray", device="cpu")
    assert found.results["metric"] == "auc"
    rows = read_csv(found.folder / "runs.csv", DataError)
    assert {"auc", "accuracy", "validation auc"} <= set(rows[0])
    assert [row["learning_rate"] for row in rows] == ["0.001", "0.03"] * 2
    trained = [record(found, "scratch", 4, seed) for seed in range(2)]
    assert trained[0]["training"] != trained[1]["training"]  # drawn anew
    assert {row["class"] for row in trained[0]["cases"]} == {"dark", "pale"}


def test_an_interruption_keeps_what_has_finished(decathlon, tmp_path, monkeypatch):
    def interrupted(trials, train, jobs):
        yield trials[0], comparison.plain(train(trials[0]))
        raise Interrupted(signal.SIGTERM, "interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "run_trials", interrupted)
        with pytest.raises(Interrupted, match=r"1 of 2 runs finished, .* the same command resumes") as stop:
            run(decathlon, tmp_path / "run", ["scratch"], runs=2)
    assert stop.value.signum == signal.SIGTERM
    counts = Counts()
    run(decathlon, tmp_path / "run", ["scratch"], runs=2, reporter=counts)
    assert counts.begun == [("comparing", 2, 1)]


def test_a_training_that_diverged_is_no_result(decathlon, tmp_path):
    config = TINY.override(learning_rate=1e30, steps=4, clip_norm=0.0)
    with pytest.raises(TrainingError, match=r"scratch, 2 labels, seed 0: the training diverged; .*--set"):
        run(decathlon, tmp_path / "run", ["scratch"], config)
