"""From a scan, wherever it is, to what a model takes: in a call, and as a transform of MONAI's."""

import pickle

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset

import modelsgenesis
from modelsgenesis import GenesisModel, monai_transforms
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import prepare_label, read_volume
from modelsgenesis.errors import ConfigurationError, ScanError
from tiny_bundles import OBLIQUE, write_bundle

CT, XRAY = CONTRACTS["ct"], CONTRACTS["xray"]


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    """A model of 3 mm voxels."""
    folder = write_bundle(tmp_path_factory.mktemp("models") / "coarse", contract=CT.override(spacing=(3.0, 3.0, 3.0)))
    return GenesisModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def oblique(scans, tmp_path_factory):
    """A scan that lies oblique and whose sides do not divide."""
    path = tmp_path_factory.mktemp("scans") / "oblique.nii.gz"
    nib.save(nib.Nifti1Image(np.asanyarray(nib.load(scans[0]).dataobj)[:-1], OBLIQUE), path)
    return path


def test_a_model_takes_what_it_preprocesses_from_a_file_an_image_and_an_array(coarse, oblique):
    batch, image = coarse.preprocess(oblique), nib.load(oblique)
    assert (batch.dtype, batch.shape[:2]) == (torch.float32, (1, 1))
    assert (float(batch.min()), float(batch.max())) == (0, pytest.approx(1, abs=0.2))
    assert coarse(batch).shape == (1, 3, *batch.shape[2:])
    assert torch.equal(coarse.preprocess(image), batch)
    assert torch.equal(coarse.preprocess(np.asanyarray(image.dataobj), affine=image.affine), batch)
    half = GenesisModel(coarse.network, coarse.config).to(torch.bfloat16)
    assert half.preprocess(oblique).dtype == torch.bfloat16
    coarse.float()


def test_slices_of_a_volume_and_images_to_classify(tmp_path, oblique, scans):
    planar = write_bundle(tmp_path / "planar", contract=CT.override(dims=2), patch_size=(16, 16))
    planar = GenesisModel.from_pretrained(planar)
    slices = planar.preprocess(oblique)
    assert slices.shape == (20, 1, 28, 24)
    assert planar(slices).shape == (20, 3, 28, 24)
    kind = {"task": "classification", "patch_size": (16, 16), "labels": ("healthy", "ill")}
    classifier = GenesisModel.from_pretrained(write_bundle(tmp_path / "classes", contract=XRAY, **kind))
    picture = np.random.default_rng(0).integers(0, 255, (30, 41), np.uint8)
    logits = classifier(classifier.preprocess(picture))[0]
    scores = modelsgenesis.predict(classifier, picture, device="cpu").scores
    assert logits.softmax(0).tolist() == pytest.approx(list(scores.values()), abs=1e-5)
    sample = monai_transforms(classifier)({"image": picture, "label": 1})
    assert (sample["image"].shape, sample["label"]) == ((1, 16, 16), 1)
    with pytest.raises(ScanError, match="has 3 axes; in MONAI a model of 2 takes its slices"):
        monai_transforms(planar).transforms[0]({"image": oblique})
    for given, error, word in ((scans[:2], ConfigurationError, "holds 2 scans"), (None, ScanError, "expected a path")):
        with pytest.raises(error, match=word):
            planar.preprocess(given)


def test_a_model_in_memory_predicts_as_its_folder_does_and_stays_as_it_is(coarse, oblique, tmp_path):
    expected = modelsgenesis.predict(coarse.save_pretrained(tmp_path / "model"), oblique, device="cpu")
    coarse.train()
    found = modelsgenesis.predict(coarse, oblique, device="cpu")
    assert np.array_equal(found.labels, expected.labels)
    assert coarse.training
    assert repr(found).startswith("Prediction(oblique; bright: ")
    assert "mL" in repr(found)
    assert found._repr_html_().startswith("<b>oblique</b><br>bright: ")
    coarse.eval()


def test_monai_gets_the_values_of_preprocess_and_the_label_on_the_same_grid(coarse, oblique, tmp_path):
    label = np.random.default_rng(0).integers(0, 3, nib.load(oblique).shape, np.uint8)
    nib.save(nib.Nifti1Image(label, OBLIQUE), tmp_path / "label.nii.gz")
    transforms = pickle.loads(pickle.dumps(monai_transforms(coarse)))  # as the processes of a loader get them
    batch = coarse.preprocess(oblique)
    expected = torch.from_numpy(prepare_label(read_volume(tmp_path / "label.nii.gz"), coarse.config.input).array)
    inside = tuple(slice(side) for side in expected.shape)
    array = np.asanyarray(nib.load(oblique).dataobj)
    for sample in (
        {"image": str(oblique), "label": tmp_path / "label.nii.gz"},
        {"image": nib.load(oblique), "label": nib.load(tmp_path / "label.nii.gz")},
        {"image": array, "affine": nib.load(oblique).affine, "label": label},
    ):
        [loaded] = DataLoader(Dataset([sample], transforms), batch_size=1)
        assert torch.equal(loaded["image"].as_tensor(), batch)
        assert loaded["label"].shape == loaded["image"].shape
        assert torch.equal(loaded["label"][0, 0].as_tensor()[inside], expected.int())
        assert loaded["label"].sum() == expected.sum()
        sizes = nib.affines.voxel_sizes(loaded["image"].affine[0].numpy())
        np.testing.assert_allclose(sizes, 3, atol=1e-5)
    assert set(transforms({"image": str(oblique)})) == {"image"}


@pytest.mark.parametrize(
    ("sample", "word"),
    [
        ({"picture": 1}, "has no 'image'; it has picture"),
        ({"label": np.zeros((3, 3, 3), np.uint8)}, r"shape \(3, 3, 3\) is not the \(27, 24, 20\)"),
        ({"label": np.full((27, 24, 20), 0.5)}, "array: 12960 voxels are not labels, such as 0.5"),
        ({"label": nib.Nifti1Image(np.zeros((27, 24, 20), np.uint8), np.eye(4))}, "align both"),
    ],
)
def test_dictionaries_that_do_not_fit(coarse, oblique, sample, word):
    sample = sample if "picture" in sample else {"image": oblique, **sample}
    with pytest.raises(ScanError, match=word):
        monai_transforms(coarse).transforms[0](sample)
