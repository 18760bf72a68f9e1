import json
import signal

import nibabel as nib
import pytest

from modelsgenesis import demo
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.data.cases import sample_data
from modelsgenesis.errors import Interrupted, TrainingError
from modelsgenesis.reporting import Reporter


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PRETRAINING", demo.PRETRAINING.override(steps=2, validate_every=2))
        patch.setattr(demo, "FINETUNING", demo.FINETUNING.override(steps=2, validate_every=2, overlap=0.0))
        return demo.demonstrate(tmp_path_factory.mktemp("demo") / "demo", device="cpu")


def test_writes_what_it_names(shown):
    assert all(path.exists() for path in shown.files.values())
    assert set(shown.genesis) == set(shown.scratch) == {"dice", *(f"dice {n}" for n in sample_data().labels[1:])}
    held_out = nib.load(sample_data().cases[1].images[0].path)
    for name in ("prediction, genesis", "prediction, scratch"):
        assert nib.load(shown.files[name]).shape == held_out.shape


def test_both_arms_have_the_same_budget_and_the_held_out_patient_is_in_no_training(shown):
    folder, held_out = shown.files["bundle"].parent, sample_data().cases[1].name
    genesis, scratch = (load_bundle(folder / name).config for name in ("genesis", "scratch"))
    assert genesis.network == scratch.network
    assert {**genesis.provenance.recipe, "from_scratch": True} == scratch.provenance.recipe
    assert (genesis.provenance.init, scratch.provenance.init) == ("pretrained", None)
    splits = [json.loads((folder / run / "run.json").read_text())["split"] for run in ("pretrained", "genesis")]
    assert not any(held_out in name for split in splits for name in split["training"])
    assert splits[1]["test"] == [held_out]


def test_an_interruption_says_how_to_go_on(tmp_path):
    class Stops(Reporter):
        def step(self, step, *_):
            if step == 1:  # a second signal would end the process at once
                signal.raise_signal(signal.SIGTERM)

    expected = r"^interrupted; .* from the beginning: delete .*demo or choose another --output$"
    with pytest.raises(Interrupted, match=expected):
        demo.demonstrate(tmp_path / "demo", device="cpu", reporter=Stops())
    with pytest.raises(TrainingError, match="is not empty"):
        demo.demonstrate(tmp_path)
