"""Going on from weights: head, input, dimensions."""

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import modelsgenesis
from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.configs import (
    CONTRACTS,
    BundleConfig,
    ClassifierConfig,
    GenesisUNetConfig,
    PretrainingConfig,
    Provenance,
)
from modelsgenesis.data import find_scans
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.networks import build_network
from modelsgenesis.pretraining import Request, choose_input, start_pretraining
from recorded_notes import Notes

SHAPE = GenesisUNetConfig(widths=(4, 8), norm="instance")
TINY = PretrainingConfig(
    network=SHAPE,
    patch_size=(16, 16, 12),
    steps=2,
    batch_size=2,
    samples_per_scan=2,
    validate_every=2,
    validation_samples=2,
    warmup_steps=1,
    workers=0,
)


def weights(folder, network=SHAPE, contract=CONTRACTS["ct"], task="restoration", labels=()):
    unet = network.encoder if isinstance(network, ClassifierConfig) else network
    channels = contract.channels if unet.in_channels == 1 else ("t1", "t2")
    config = BundleConfig(
        task=task,
        network=network,
        input=contract.override(channels=channels),
        labels=labels,
        patch_size=(16, 16, 12)[: unet.dims],
        provenance=Provenance(origin="pretrained", library_version="0"),
    )
    return save_bundle(folder, Bundle(build_network(network).eval(), config))


@pytest.fixture
def mri_folder(tmp_path):
    folder = tmp_path / "mri"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(2):
        values = random.uniform(0, 9000, (24, 24, 16)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"m{index}.nii.gz")
    return folder


def test_the_head_stays_and_is_published_and_the_card_names_where_it_comes_from(ct_folder, tmp_path):
    init = weights(tmp_path / "first")
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, init=init, device="cpu")
    before, after = (load_bundle(folder).network.state_dict() for folder in (init, run))
    assert set(before) == set(after)
    assert any(name.startswith("head") for name in after)
    torch.testing.assert_close(before["head.weight"], after["head.weight"], atol=0.05, rtol=0)  # two steps away
    card = (run / "README.md").read_text()
    assert "Pretrained with this package, going on from first." in card
    assert "| Started from | first |" in card
    again = modelsgenesis.pretrain(ct_folder, tmp_path / "again", config=TINY, init=run, device="cpu")
    assert load_bundle(again).config.provenance.init == "run"


@pytest.mark.parametrize(
    ("network", "task", "labels"),
    [
        (SHAPE.override(out_channels=3, output="linear", in_channels=2), "segmentation", ("background", "a", "b")),
        (SHAPE.override(out_channels=1, output="linear"), "segmentation", ("a",)),
        (ClassifierConfig(encoder=SHAPE, num_classes=2, hidden=4), "classification", ("a", "b")),
    ],
)
def test_weights_of_another_task_get_a_new_head_and_that_is_said(tmp_path, network, task, labels):
    notes = Notes()
    init = weights(tmp_path / "tuned", network, task=task, labels=labels)
    start = start_pretraining(init, TINY, None, notes)
    assert start.network.config == SHAPE
    assert f"tuned was trained for {task}: the head that restores is new" in notes.text
    assert not any(name.startswith("head") for name in start.pretrained)
    assert any(name.startswith("encoder") for name in start.pretrained)
    assert start.network(torch.rand(1, 1, 16, 16, 12)).shape == (1, 1, 16, 16, 12)
    assert start.network(torch.rand(1, 1, 16, 16, 12)).max() <= 1


def chosen(folder, init, notes, **options):
    start = start_pretraining(init, TINY, None, notes)
    return choose_input(find_scans(folder)[0], start, Request(**options), notes)


def test_the_input_of_the_weights_is_kept_where_the_scans_are_alike(ct_folder, tmp_path):
    notes = Notes()
    contract = CONTRACTS["ct"].override(window=(-200.0, 300.0), spacing=(2.0, 2.0, 2.0))
    init = weights(tmp_path / "first", contract=contract)
    assert chosen(ct_folder, init, notes) == contract
    assert "ct: prepared as the scans that first saw" in notes.text
    changed = chosen(ct_folder, init, notes, spacing=(3.0, 3.0, 3.0))
    assert (changed.window, changed.spacing) == ((-200, 300), (3, 3, 3))
    assert notes.notes[-1].endswith("but for what was changed")
    assert chosen(ct_folder, init, notes, window=(-100.0, 100.0)).window == (-100, 100)


def test_weights_of_another_modality_are_warned_of(mri_folder, tmp_path):
    notes = Notes()
    assert chosen(mri_folder, weights(tmp_path / "first"), notes).modality == "mri"
    assert "warning: first was trained on ct, the scans are mri: preparing them as mri" in notes.text


def test_a_modality_that_cannot_be_told_is_that_of_the_weights(tmp_path):
    notes = Notes()
    folder = tmp_path / "scans"
    folder.mkdir()
    values = np.random.default_rng(0).uniform(0, 200, (24, 24, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), folder / "a.nii.gz")
    assert chosen(folder, weights(tmp_path / "first"), notes).modality == "ct"
    assert "cannot be told" in notes.text
    assert "taking ct, which first was trained on" in notes.text


def test_intensities_outside_of_the_unit_range_are_scaled_and_that_is_said(ct_folder, tmp_path):
    notes = Notes()
    contract = CONTRACTS["ct"].override(intensity="standardize", window=None, mean=-700.0, deviation=250.0)
    kept = chosen(ct_folder, weights(tmp_path / "first", contract=contract), notes)
    assert (kept.intensity, kept.window) == ("window", (-1000, 1000))
    assert "first saw intensities by standardize, the deformations need [0, 1]" in notes.text


def test_other_dimensions_are_refused(ct_folder, tmp_path):
    flat = weights(tmp_path / "flat", SHAPE.override(dims=2), CONTRACTS["xray"])
    message = r"flat is a network of 2 dimensions, patch_size \(16, 16, 12\) has 3 sides: set patch_size=16,16"
    with pytest.raises(ConfigurationError, match=message):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, init=flat)
    (tmp_path / "xrays").mkdir()
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 255, (64, 64)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "xrays" / f"{index}.png")
    options = {"config": TINY, "modality": "xray"}
    with pytest.raises(ConfigurationError, match=r"the network has 3 dimensions, the scans are planes of 2: set"):
        modelsgenesis.pretrain(tmp_path / "xrays", tmp_path / "run", **options)
    with pytest.raises(ConfigurationError, match=r"deep has 3 dimensions, the scans are planes of 2: choose weights"):
        modelsgenesis.pretrain(tmp_path / "xrays", tmp_path / "run", init=weights(tmp_path / "deep"), **options)


def test_a_patch_that_the_network_cannot_halve_is_refused_before_any_work(ct_folder, tmp_path):
    config = TINY.override(patch_size=(17, 16, 12))
    with pytest.raises(ConfigurationError, match=r"received \(17, 16, 12\), .* divide by \(2, 2, 2\).*=16,16,12"):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()
