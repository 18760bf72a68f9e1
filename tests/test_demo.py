import json
import signal

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from modelsgenesis import demo
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.data.cases import sample_data
from modelsgenesis.errors import Interrupted, TrainingError
from modelsgenesis.hub import list_cards
from modelsgenesis.reporting import Reporter


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PRETRAINING", demo.PRETRAINING.override(steps=2, validate_every=2))
        patch.setattr(demo, "FINETUNING", demo.FINETUNING.override(steps=2, validate_every=2, overlap=0.0))
        return demo.demonstrate(tmp_path_factory.mktemp("demo") / "demo", device="cpu")


def test_writes_what_it_names_and_ends_with_a_picture(shown):
    assert all(path.exists() for path in shown.files.values())
    assert set(shown.dice) == {"dice", *(f"dice {n}" for n in sample_data().labels[1:])}
    held_out = nib.load(sample_data().cases[1].images[0].path)
    assert nib.load(shown.files["prediction"]).shape == held_out.shape
    assert np.asarray(Image.open(shown.files["its picture"])).std() > 10


def test_starts_from_what_it_pretrained_and_the_held_out_patient_is_in_no_training(shown):
    folder, held_out = shown.files["pretrained network"].parent, sample_data().cases[1].name
    assert load_bundle(folder / "finetuned").config.provenance.init == "pretrained"
    splits = [json.loads((folder / run / "run.json").read_text())["split"] for run in ("pretrained", "finetuned")]
    assert not any(held_out in name for split in splits for name in split["training"])
    assert splits[1]["test"] == [held_out]


def test_shows_what_was_measured_of_every_genesis_in_the_package(shown):
    assert set(shown.measured) == {card.name for card in list_cards() if card.source.repository is None}
    for table in shown.measured.values():
        header, _, *rows = table.splitlines()
        assert "scratch" in header
        assert all(row.count("|") == header.count("|") and "±" in row for row in rows)
        assert rows


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
