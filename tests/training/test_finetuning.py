import csv
import json
import shutil
from dataclasses import replace

import pytest

from labelled_cases import CLASSIFY, CONTRACT, SEGMENT, data_of, masked, prepared, split_of
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import ClassifierConfig, GenesisUNetConfig, SegmentationConfig
from modelsgenesis.errors import ConfigurationError, DataError, ResumeError, TrainingError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.networks import build_network
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.finetuning import finetune_network
from modelsgenesis.training.folds import pool_folds
from modelsgenesis.training.parts import choose_patch_size, pick_parts, settle_patch_size
from modelsgenesis.training.supervised import read_rows, write_rows
from modelsgenesis.training.task_networks import InitialModel, seeded
from recorded_notes import Notes

PARTS = {
    "training": [prepared(index, (index % 2,)) for index in range(8)],
    "validation": [prepared(index, (index % 2,)) for index in range(8, 12)],
    "test": [prepared(index, (index % 2,), f"person_{index // 2}") for index in range(12, 20)],
}
DATA = data_of([case for cases in PARTS.values() for case in cases], ("none", "square"))


def classifier(config=CLASSIFY, classes=2):
    shape = ClassifierConfig(encoder=config.network, num_classes=classes, hidden=config.hidden, levels=config.levels)
    return seeded(config.seed, lambda: build_network(shape))


def train(folder, config=CLASSIFY, *, network=None, parts=PARTS, data=DATA, init=None, **options):
    begun = InitialModel(network or classifier(config), CONTRACT, init)
    asked = {"hardware": choose_hardware("cpu", "float32"), "reporter": Reporter(), "parts": parts, **options}
    return finetune_network(begun, config, data, split_of(**parts), folder, **asked)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, train(folder)


def test_learns_to_tell_squares_from_noise(trained):
    assert trained[1]["auc"] == 1
    assert set(trained[1]) == {"auc", "average_precision", "sensitivity", "accuracy"}


def test_the_results_say_what_they_rest_on(trained):
    results = json.loads((trained[0] / "results.json").read_text())
    assert (results["task"], results["patients"], results["cases"]) == ("classification", 4, 8)
    assert results["test"]["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert results["split"]["training"] == {"patients": 8, "cases": 8, "classes": {"none": 4, "square": 4}}
    assert results["specificity"] == 0.9
    with (trained[0] / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert rows[0]["class"] == "none"
    assert float(rows[0]["probability none"]) + float(rows[0]["probability square"]) == pytest.approx(1)
    assert json.loads((trained[0] / "split.json").read_text())["test"] == [case.name for case in PARTS["test"]]


def test_the_bundle_is_a_classifier_with_its_results_on_the_card(trained):
    bundle = load_bundle(trained[0])
    assert bundle.config.task == "classification"
    assert bundle.config.labels == ("none", "square")
    assert bundle.config.network.levels == (0, 1)
    measured = bundle.config.provenance.results["test"]
    assert measured["auc"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert (measured["patients"], measured["cases"], measured["seed"]) == (4, 8, 0)
    assert "image_" not in bundle.card
    assert "test auc" in bundle.card


def test_a_short_run_draws_nothing(tmp_path):
    train(tmp_path / "run", CLASSIFY.override(steps=2), draw=False)
    assert not (tmp_path / "run" / "figures").exists()
    assert load_bundle(tmp_path / "run").card == ""


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_run_that_is_gone_on_with_measures_the_same(tmp_path, task):
    if task == "classification":
        options = {"config": CLASSIFY.override(steps=6, validate_every=3)}
    else:
        parts = {"training": [masked(0), masked(1)], "validation": [masked(2)], "test": [masked(3)]}
        data = data_of([case for cases in parts.values() for case in cases], ("b", "square", "stripe"), "segmentation")
        shape = SEGMENT.network.override(out_channels=3, output="linear")
        options = {"config": SEGMENT.override(steps=6, validate_every=3), "parts": parts, "data": data}
        options |= {"network": seeded(0, lambda: build_network(shape))}
    whole = train(tmp_path / "whole", **options)
    if task == "segmentation":
        options |= {"network": seeded(0, lambda: build_network(shape))}
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    checkpoints = tmp_path / "part" / "checkpoints"
    (checkpoints / "before.pt").replace(checkpoints / "last.pt")  # as after step 3
    (tmp_path / "part" / "results.json").unlink()
    assert train(tmp_path / "part", **options, resume=True) == whole
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "part")]
    assert [line.split(",")[2] for line in logs[0]] == [line.split(",")[2] for line in logs[1]]


def test_a_finished_run_is_left_as_it_is(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    notes = Notes()
    written = (tmp_path / "run" / "README.md").stat().st_mtime_ns
    assert train(tmp_path / "run", resume=True, reporter=notes) == trained[1]
    assert "the run is finished, there is nothing left to resume" in notes.notes[-1]
    assert (tmp_path / "run" / "README.md").stat().st_mtime_ns == written


def test_a_frozen_encoder_with_random_weights_is_said(tmp_path):
    notes = Notes()
    network = classifier()
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    config = CLASSIFY.override(steps=2, freeze_encoder=True)
    train(tmp_path / "run", config, network=network, reporter=notes)
    assert "the frozen encoder has random weights: only what is after it learns" in notes.notes
    assert all((before[name] == value).all() for name, value in network.encoder.state_dict().items())


def test_refuses_to_go_on_with_what_was_started_otherwise(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    with pytest.raises(ResumeError, match="init was None, now genesis"):
        train(tmp_path / "run", init="genesis", resume=True)
    fewer = {**PARTS, "test": PARTS["test"][:2]}
    with pytest.raises(ResumeError, match="with other scans or another split"):
        train(tmp_path / "run", parts=fewer, resume=True)
    with pytest.raises(ResumeError, match=r"another configuration: learning_rate was 0.01, now 0.02"):
        train(tmp_path / "run", CLASSIFY.override(learning_rate=0.02), resume=True)


def test_without_validation_the_last_network_is_kept(tmp_path):
    train(tmp_path / "run", CLASSIFY.override(steps=5, validate_every=2), parts={**PARTS, "validation": []})
    assert json.loads((tmp_path / "run" / "results.json").read_text())["step"] == 5


def test_without_test_patients_nothing_is_measured(tmp_path):
    assert train(tmp_path / "run", CLASSIFY.override(steps=1), parts={**PARTS, "test": []}) == {}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["test"], results["patients"]) == ({}, 0)


def test_a_test_set_of_one_class_is_said(tmp_path):
    notes = Notes()
    parts = {**PARTS, "test": [case for case in PARTS["test"] if case.classes == (1,)]}
    measured = train(tmp_path / "run", CLASSIFY.override(steps=1), parts=parts, reporter=notes)
    assert list(measured) == ["accuracy"]
    assert "auc is undefined: all 4 cases are of one class" in notes.notes
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test"]["auc"]["value"] is None


def test_refuses_what_does_not_fit_together(tmp_path):
    with pytest.raises(ConfigurationError, match="received a SegmentationConfig, expected a ClassificationConfig"):
        train(tmp_path / "run", SEGMENT, network=classifier())
    unet = build_network(CLASSIFY.network)
    with pytest.raises(ConfigurationError, match=r"the network is a genesis_unet, but .* are for classification"):
        train(tmp_path / "run", network=unet)
    with pytest.raises(ConfigurationError, match="maps 1 channels to 3 classes, but squares has 1 and 2: adapt it"):
        train(tmp_path / "run", network=classifier(classes=3))
    with pytest.raises(ConfigurationError, match=r"patch_size: received \(16, 16, 16\), expected 2 sides"):
        train(tmp_path / "run", CLASSIFY.override(patch_size=(16, 16, 16)))
    with pytest.raises(ConfigurationError, match=r"sides that divide by \(2, 2\), such as \(16, 18\)"):
        train(tmp_path / "run", CLASSIFY.override(patch_size=(16, 17)))
    with pytest.raises(DataError, match="no training example of 'square'"):
        train(tmp_path / "run", parts={**PARTS, "training": [prepared(0, (0,))]})
    assert not (tmp_path / "run").exists()


def test_the_patch_is_the_median_image_in_steps_that_the_network_can_take():
    assert choose_patch_size([(35, 50, 36), (33, 49, 40), (36, 52, 31)]) == (40, 56, 40)
    assert choose_patch_size([(100, 90, 40)], divisor=(32, 32, 16)) == (32, 64, 48)
    assert choose_patch_size([(5, 5, 5)], divisor=(64, 64, 64)) == (64, 64, 64)
    network = build_network(GenesisUNetConfig(dims=2, widths=(4, 8, 16, 32, 64)))
    notes = Notes()
    settled = settle_patch_size(SegmentationConfig(), network, [masked(0)], notes)
    assert settled.patch_size == (16, 16)
    assert notes.notes == ["patch of 16 × 16 pixels, by the median image"]


def test_a_part_whose_cases_were_all_refused_is_an_error():
    split = split_of(**PARTS)
    known = {case.name: case for case in [*PARTS["training"], *PARTS["test"]]}
    assert len(pick_parts(split_of(**{**PARTS, "validation": []}), known)["training"]) == 8
    with pytest.raises(DataError, match="none of the 4 validation cases is usable, such as image_8"):
        pick_parts(split, known)


def test_rows_survive_a_file_with_what_is_undefined(tmp_path):
    rows = [
        {"case": "a, b", "patient": "7", "dice x": 0.1 + 0.2},
        {"case": "=cmd|c", "patient": "8", "dice x": float("nan")},
    ]
    write_rows(tmp_path / "test.csv", rows)
    assert (tmp_path / "test.csv").read_text().splitlines()[2] == "'=cmd|c,8,"  # text, not a formula
    found = read_rows(tmp_path / "test.csv")
    assert found[0] == rows[0]
    assert found[1]["case"] == "=cmd|c"
    assert found[1]["dice x"] != found[1]["dice x"]
    for content in (b"case,dice x\na,many\n", b"case,dice x\na\n", b"case,dice x\na,1,2\n", b"\xff"):
        (tmp_path / "test.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"test\.csv: cannot be read"):
            read_rows(tmp_path / "test.csv")


def test_folds_are_put_together_and_a_finished_one_must_be_what_is_asked_for(tmp_path):
    config = CLASSIFY.override(folds=2, steps=2, patch_size=None)
    for fold in range(2):
        parts = {**PARTS, "test": PARTS["test"][4 * fold : 4 * fold + 4]}
        train(tmp_path / f"fold{fold}", config.override(fold=fold), parts=parts)
    with pytest.raises(ResumeError, match=r"fold1: .* another configuration: steps was 2, now 3"):
        train(tmp_path / "fold1", config.override(fold=1, steps=3), parts=parts, resume=True)
    measured = pool_folds(tmp_path, DATA, config, Reporter())
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["test"]["auc"]["value"] == measured["auc"]
    assert len(results["test"]["auc"]["folds"]) == 2
    assert (results["cases"], results["folds"], results["fold"]) == (8, 2, None)
    assert len(read_rows(tmp_path / "test.csv")) == 8
    rows = tmp_path / "fold1" / "test.csv"
    rows.write_text(rows.read_text().replace("0.", "1.", 1))
    with pytest.raises(DataError, match=r"fold1/test\.csv: is not what results\.json was made of"):
        pool_folds(tmp_path, DATA, config, Reporter())
    for content in ("", "[]", '{"test": []}', '{"test": {"auc": 1}}', "[" * 100_000):
        (tmp_path / "fold1" / "results.json").write_text(content)
        with pytest.raises(DataError, match=r"results\.json: "):
            pool_folds(tmp_path, DATA, config, Reporter())


def test_labelled_cases_that_changed_since_the_run_began_are_refused(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    other = replace(PARTS["test"][0], digest="other voxels, or another label")
    with pytest.raises(ResumeError, match=f"1 scans or their labels have changed .* such as {other.name}"):
        train(tmp_path / "run", parts={**PARTS, "test": [other, *PARTS["test"][1:]]}, resume=True)


def test_a_bundle_that_is_not_the_best_of_the_run_is_not_measured(trained, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    (folder / "results.json").unlink()
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(TrainingError, match=r"model\.safetensors: is not the network that was kept"):
        train(folder, resume=True)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"---\n[1, 2]\n---\n", b"---\n- &a [*a, *b]\n---\n"])
def test_a_damaged_card_is_put_aside_and_the_training_goes_on(tmp_path, content):
    class Damage(Notes):
        def validation(self, step, metrics, is_best):
            (tmp_path / "run" / "README.md").write_bytes(content)

    notes = Damage()
    train(tmp_path / "run", CLASSIFY.override(steps=4, validate_every=2), reporter=notes)
    assert "test auc" in load_bundle(tmp_path / "run").card
    assert any("the card written anew" in note for note in notes.notes) is bool(content)
