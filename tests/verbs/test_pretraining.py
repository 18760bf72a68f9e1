import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import modelsgenesis
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, TrainingError
from modelsgenesis.reporting import Reporter

TINY = PretrainingConfig(
    network=GenesisUNetConfig(widths=(4, 8), norm="instance"),
    patch_size=(16, 16, 12),
    steps=4,
    batch_size=2,
    samples_per_scan=3,
    validate_every=2,
    validation_samples=3,
    warmup_steps=1,
    workers=0,
)


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_folder_of_scans_becomes_a_bundle_that_loads(ct_folder, tmp_path):
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cpu")
    network = modelsgenesis.from_pretrained(run)
    assert network(torch.rand(1, 1, 16, 16, 12)).shape == (1, 1, 16, 16, 12)
    config = network.bundle
    assert (config.task, config.input.modality, config.patch_size) == ("restoration", "ct", (16, 16, 12))
    assert config.provenance.data["training_scans"] == 3
    assert config.provenance.data["validation_scans"] == 1
    results = config.provenance.results
    losses = {"restoration_loss", "identity_loss", "mean_image_loss"}
    assert set(results) == {*losses, "step", "samples", "seed", "collapsed"}
    assert (run / "figures" / "restorations.png").stat().st_size > 10_000
    assert (run / "figures" / "curve.png").exists()
    assert "figures/restorations.png" in (run / "README.md").read_text()


def test_validates_on_the_scans_that_are_named_and_trains_on_the_others(ct_folder, tmp_path):
    named = ct_folder / "patient2.nii.gz"
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, validation_source=named, device="cpu")
    split = json.loads((run / "run.json").read_text())["split"]
    assert [name.endswith("patient2.nii.gz") for name in split["validation"]] == [True]
    assert len(split["training"]) == 3
    assert not any(name.endswith("patient2.nii.gz") for name in split["training"])


def test_no_name_of_a_scan_leaves_the_run(ct_folder, tmp_path):
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cpu")
    for name in ("config.json", "README.md"):
        text = (run / name).read_text()
        assert not re.search(r"patient\d", text)
        assert str(ct_folder) not in text
    split = json.loads((run / "run.json").read_text())["split"]
    assert len(split["training"]) == 3
    assert not set(split["training"]) & set(split["validation"])


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(ct_folder, tmp_path):
    config = TINY.override(precision="float32")
    first = modelsgenesis.pretrain(ct_folder, tmp_path / "first", config=config, device="cpu")
    second = modelsgenesis.pretrain(ct_folder, tmp_path / "second", config=config.override(workers=2), device="cpu")
    other = modelsgenesis.pretrain(ct_folder, tmp_path / "other", config=config.override(seed=1), device="cpu")
    weights = [load_bundle(run).network.state_dict() for run in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_goes_on_from_a_run_with_its_shape_and_contract(ct_folder, tmp_path):
    first = modelsgenesis.pretrain(ct_folder, tmp_path / "first", config=TINY, window=(-500, 500), device="cpu")
    config = TINY.override(network=GenesisUNetConfig(widths=(8, 16)))
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "second", config=config, init=first, device="cpu")
    bundle = load_bundle(run).config
    assert bundle.network.widths == (4, 8)
    assert bundle.input.window == (-500, 500)
    assert bundle.provenance.init == "first"


def test_pretrains_on_images_in_two_dimensions(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "xrays").mkdir()
    for index in range(3):
        smooth = np.kron(random.integers(20, 250, (8, 8)), np.ones((8, 8)))
        Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "xrays" / f"x{index}.png")
    config = TINY.override(network=GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance"), patch_size=(32, 32))
    run = modelsgenesis.pretrain(tmp_path / "xrays", tmp_path / "run", config=config, modality="xray", device="cpu")
    assert modelsgenesis.from_pretrained(run)(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)


def test_one_bad_scan_among_many_is_left_out_and_said(ct_folder, tmp_path):
    folder = tmp_path / "scans"
    shutil.copytree(ct_folder, folder)
    whole = (folder / "patient0.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "junk.nii.gz").write_bytes(b"no image at all")
    affine = np.eye(4)
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), -1000, np.int16), affine), folder / "constant.nii.gz")
    nan = np.random.default_rng(0).normal(0, 500, (20, 20, 20)).astype(np.float32)
    nan[3] = np.nan
    nib.save(nib.Nifti1Image(nan, affine), folder / "nan.nii.gz")
    small = nib.load(ct_folder / "patient1.nii.gz").slicer[4:12]
    nib.save(small, folder / "small.nii.gz")
    notes = Notes()
    asked = {"config": TINY, "device": "cpu"}
    run = modelsgenesis.pretrain(folder, tmp_path / "run", **asked, reporter=notes)
    said = "\n".join(note for note in notes.notes if note.startswith("left out"))
    for name in ("truncated", "junk", "constant", "nan", "small"):
        assert said.count(f"{name}.nii.gz") == 1, said
    assert "8×24×20 voxels do not hold a patch of 16×16×12" in said
    assert load_bundle(run).config.provenance.data["training_scans"] == 3
    with pytest.raises(ScanError, match=r"\.nii\.gz"):
        modelsgenesis.pretrain(folder, tmp_path / "strict", **asked, strict=True)


def test_refuses_a_full_output_before_any_work(ct_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty; choose a new folder"):
        modelsgenesis.pretrain(ct_folder, tmp_path, config=TINY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_refuses_folders_without_scans(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        modelsgenesis.pretrain(tmp_path / "nowhere", tmp_path / "run", config=TINY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no usable scan"):
        modelsgenesis.pretrain(tmp_path / "empty", tmp_path / "run", config=TINY)
    assert not (tmp_path / "run").exists()


def test_refuses_a_patch_larger_than_every_scan(ct_folder, tmp_path):
    with pytest.raises(DataError, match=r"no scan holds a sub-volume of \(64, 64, 64\)"):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY.override(patch_size=(64, 64, 64)))


def test_one_patient_is_validated_on_other_sub_volumes_and_that_is_said(ct_folder, tmp_path):
    notes = Notes()
    modelsgenesis.pretrain(ct_folder / "patient0.nii.gz", tmp_path / "run", config=TINY, device="cpu", reporter=notes)
    assert any("nobody is held out" in note for note in notes.notes)


def test_refuses_a_device_that_is_not_there(ct_folder, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigurationError, match="there is no CUDA device; use --device cpu"):
        modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=TINY, device="cuda")
