"""What `predict` writes, where, and what it refuses."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import modelsgenesis
from dicom_files import write_series
from modelsgenesis.configs import CONTRACTS, PredictionConfig
from modelsgenesis.errors import CheckpointError, ConfigurationError, DataError, ScanError
from modelsgenesis.reporting import Reporter
from modelsgenesis.verbs import predict_all
from tiny_bundles import LABELS, write_bundle

CT, MRI, XRAY = CONTRACTS["ct"], CONTRACTS["mri"], CONTRACTS["xray"]
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.15, 0.1) @ np.diag([-2.0, -2.0, 2.5]), (11.3, -7.25, 4.125)
)


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("models") / "organs")


@pytest.fixture(scope="module")
def scans(decathlon):
    return sorted((decathlon / "imagesTr").iterdir())


def labels_of(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_answers_in_the_shape_and_affine_of_the_scan_bit_for_bit(model, scans, tmp_path):
    scan = nib.load(scans[0])
    oblique = nib.Nifti1Image(np.asanyarray(scan.dataobj), OBLIQUE)
    oblique.set_qform(OBLIQUE, code=2)
    nib.save(oblique, tmp_path / "oblique.nii.gz")
    oblique = nib.load(tmp_path / "oblique.nii.gz")
    prediction = modelsgenesis.predict(
        model, tmp_path / "oblique.nii.gz", output=tmp_path / "seg.nii.gz", probabilities=True, device="cpu"
    )
    answer, soft = nib.load(prediction.path), nib.load(prediction.probabilities)
    assert prediction.probabilities == tmp_path / "seg_probabilities.nii.gz"
    assert answer.shape == oblique.shape
    assert soft.shape == (*oblique.shape, 3)
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        assert answer.header[field].tobytes() == oblique.header[field].tobytes() == soft.header[field].tobytes()
    assert answer.affine.tobytes() == oblique.affine.tobytes()
    labels = labels_of(prediction.path)
    assert labels.dtype == np.uint8
    assert np.array_equal(np.asanyarray(soft.dataobj).argmax(-1), labels)
    np.testing.assert_allclose(np.asanyarray(soft.dataobj).sum(-1), 1, atol=1e-5)
    assert np.array_equal(prediction.labels, labels)
    assert prediction.voxels == {"bright": int((labels == 1).sum()), "dark": int((labels == 2).sum())}
    assert len(np.unique(labels)) > 1


def test_the_names_of_the_classes_lie_beside_and_nothing_of_the_patient(model, scans, tmp_path):
    folder = tmp_path / "Doe^John"
    folder.mkdir()
    (folder / "john.nii.gz").write_bytes(scans[0].read_bytes())
    modelsgenesis.predict(model, folder / "john.nii.gz", output=tmp_path / "answer.nii.gz", device="cpu")
    text = (tmp_path / "answer.json").read_text()
    assert json.loads(text) == {
        "labels": {"0": "background", "1": "bright", "2": "dark"},
        "model": "organs",
        "members": 1,
        "flips": [],
        "overlap": 0.5,
        "library_name": "modelsgenesis",
        "library_version": modelsgenesis.__version__,
    }
    assert not any(word in text.lower() for word in ("doe", "john", str(tmp_path)))


@pytest.mark.parametrize("codes", ["LPS", "SPR", "ARI"])
def test_another_orientation_of_the_same_scan_gives_the_same_answer(model, scans, tmp_path, codes):
    scan = nib.load(scans[0])
    change = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(codes))
    turned = scan.as_reoriented(change)
    nib.save(turned, tmp_path / "turned.nii.gz")
    straight = modelsgenesis.predict(model, scans[0], output=tmp_path / "a.nii.gz", device="cpu")
    modelsgenesis.predict(model, tmp_path / "turned.nii.gz", output=tmp_path / "b.nii.gz", device="cpu")
    answer = nib.load(tmp_path / "b.nii.gz")
    assert answer.shape == turned.shape
    np.testing.assert_allclose(answer.affine, turned.affine, atol=1e-4)
    back = nib.orientations.ornt_transform(nib.io_orientation(answer.affine), nib.io_orientation(scan.affine))
    assert np.array_equal(np.asanyarray(answer.as_reoriented(back).dataobj), straight.labels)


@pytest.mark.parametrize("spacing", [None, (4.0, 4.0, 2.5)])
def test_a_scan_smaller_than_the_patch(scans, tmp_path, spacing):
    model = write_bundle(tmp_path / "model", contract=CT.override(spacing=spacing))
    nib.save(nib.load(scans[0]).slicer[4:14, 5:20, 3:10], tmp_path / "small.nii.gz")
    found = modelsgenesis.predict(model, tmp_path / "small.nii.gz", output=tmp_path / "seg.nii.gz", device="cpu")
    assert found.labels.shape == (10, 15, 7)


def test_a_folder_gets_an_answer_a_scan_and_a_bad_one_costs_no_other(model, scans, tmp_path):
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    (folder / "a.nii.gz").write_bytes(scans[0].read_bytes())
    (folder / "more" / "b.nii.gz").write_bytes(scans[1].read_bytes())
    (folder / "broken.nii.gz").write_bytes(b"junk")
    empty = nib.load(scans[2])
    nib.save(nib.Nifti1Image(np.full(empty.shape, 7, np.int16), empty.affine), folder / "constant.nii.gz")
    notes = Notes()
    found = predict_all(model, folder, output=tmp_path / "out", device="cpu", reporter=notes)
    assert [answer.path for answer in found.answers] == [
        tmp_path / "out" / "a.nii.gz",
        tmp_path / "out" / "more" / "b.nii.gz",
    ]
    assert labels_of(tmp_path / "out" / "more" / "b.nii.gz").shape == nib.load(scans[1]).shape
    reasons = {refusal.source.rpartition("/")[2]: refusal.reason for refusal in found.failed}
    assert set(reasons) == {"broken.nii.gz", "constant.nii.gz"}
    assert "every voxel is 7" in reasons["constant.nii.gz"]
    with pytest.raises(ScanError, match=r"broken\.nii\.gz"):
        predict_all(model, folder, output=tmp_path / "strict", device="cpu", strict=True)
    again = predict_all(model, folder, output=tmp_path / "out", device="cpu", skip_existing=True)
    assert len(again.skipped) == 2
    assert not again.answers


def test_answers_inside_the_folder_are_not_predicted_again(model, scans, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(scans[0].read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(scans[1].read_bytes())
    first = predict_all(model, tmp_path, output=tmp_path / "out", device="cpu", probabilities=True)
    second = predict_all(model, tmp_path, output=tmp_path / "out", device="cpu")
    assert [one.path for one in first.answers] == [one.path for one in second.answers]
    assert not second.failed
    assert sum("earlier prediction" in refusal.reason for refusal in second.refused) == 4


@pytest.mark.parametrize(
    ("given", "output", "written"),
    [
        (1, None, ["s0_seg.nii.gz"]),
        (1, "x.nii.gz", ["x.nii.gz"]),
        (1, "x.nii", ["x.nii"]),
        (1, "new/deep", ["new/deep/s0.nii.gz"]),
        (2, None, ["predictions/s0.nii.gz", "predictions/s1.nii.gz"]),
        (2, "out.v2", ["out.v2/s0.nii.gz", "out.v2/s1.nii.gz"]),
    ],
)
def test_where_answers_go(model, scans, tmp_path, monkeypatch, given, output, written):
    monkeypatch.chdir(tmp_path)
    for index in range(given):
        (tmp_path / f"s{index}.nii.gz").write_bytes(scans[index].read_bytes())
    found = predict_all(model, [f"s{index}.nii.gz" for index in range(given)], output=output, device="cpu")
    assert [str(answer.path) for answer in found.answers] == written
    assert all((tmp_path / path).exists() for path in written)


def test_outputs_that_cannot_be(model, scans, tmp_path):
    scan = tmp_path / "s.nii.gz"
    scan.write_bytes(scans[0].read_bytes())
    options = {"device": "cpu"}
    with pytest.raises(ConfigurationError, match=r"x\.nii\.gz: one file for the answers to several scans; name a f"):
        predict_all(model, [scans[0], scans[1]], output=tmp_path / "x.nii.gz", **options)
    with pytest.raises(ConfigurationError, match=r"x\.png: label maps are written as NIfTI; name a file\.nii\.gz"):
        predict_all(model, scan, output=tmp_path / "x.png", **options)
    with pytest.raises(DataError, match=r"s\.nii\.gz: the answer would replace the scan itself"):
        predict_all(model, scan, output=tmp_path, **options)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file.*: cannot be written in .*file; choose another folder"):
        predict_all(model, scan, output=tmp_path / "file" / "sub", **options)
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(DataError, match=r"folder\.nii\.gz: is a folder; expected the name of a file"):
        predict_all(model, scan, output=tmp_path / "folder.nii.gz", **options)


def test_existing_answers_are_replaced(model, scans, tmp_path):
    (tmp_path / "x.nii.gz").write_bytes(b"old")
    modelsgenesis.predict(model, scans[0], output=tmp_path / "x.nii.gz", device="cpu")
    assert labels_of(tmp_path / "x.nii.gz").shape == nib.load(scans[0]).shape


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Two series of one patient in one folder, 8 slices of 20 × 24."""
    folder = tmp_path_factory.mktemp("dicom") / "patient7"
    for number in (1, 2):
        random = np.random.default_rng(number)
        body = (1024 + 60 + random.normal(0, 200, (8, 20, 24))).clip(0).astype(np.uint16)
        body[:, :3] = 24  # air
        write_series(folder, body, series=f"1.2.{number}", prefix=f"S{number}", orientation=(1, 0, 0, 0, 1, 0))
    return folder


def test_each_series_of_a_dicom_folder_is_predicted_in_its_own_frame(model, series, tmp_path):
    from modelsgenesis.data import find_scans

    found = predict_all(model, series, output=tmp_path, device="cpu")
    assert [answer.path.name for answer in found.answers] == ["patient7_1.nii.gz", "patient7_2.nii.gz"]
    for reference, answer in zip(find_scans(series)[0], found.answers, strict=True):
        volume, image = reference.read(), nib.load(answer.path)
        assert image.shape == volume.array.shape == (24, 20, 8)
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-6)


def test_one_series_is_one_answer(model, series, tmp_path, monkeypatch):
    one = tmp_path / "case"
    one.mkdir()
    for path in series.glob("S1*"):
        (one / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    found = modelsgenesis.predict(model, "case", device="cpu")
    assert str(found.path) == "case_seg.nii.gz"
    assert found.labels.shape == (24, 20, 8)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A model of two channels and three cases for it, by nnU-Net's names."""
    contract = MRI.override(channels=("t1", "flair"))
    folder = tmp_path_factory.mktemp("channels")
    for case in range(3):
        for channel in range(2):
            random = np.random.default_rng(10 * case + channel)
            array = random.uniform(1, 100 * (channel + 1), (16, 18, 14)).astype(np.float32)
            nib.save(nib.Nifti1Image(array, OBLIQUE), folder / f"brain_{case:03d}_{channel:04d}.nii.gz")
    return write_bundle(tmp_path_factory.mktemp("models") / "brain", contract=contract), folder


def test_channels_by_name_and_as_they_are_given_are_the_same_case(of_two, tmp_path):
    model, folder = of_two
    found = predict_all(model, folder, output=tmp_path / "all", device="cpu")
    assert [answer.path.name for answer in found.answers] == [f"brain_{case:03d}.nii.gz" for case in range(3)]
    files = [folder / f"brain_001_{channel:04d}.nii.gz" for channel in range(2)]
    alone = modelsgenesis.predict(model, files, output=tmp_path / "one.nii.gz", device="cpu")
    assert np.array_equal(alone.labels, found.answers[1].labels)
    turned = modelsgenesis.predict(model, files[::-1], output=tmp_path / "turned.nii.gz", device="cpu")
    assert turned.name == "brain_001"
    both = np.stack([np.asanyarray(nib.load(file).dataobj) for file in files], axis=-1)
    nib.save(nib.Nifti1Image(both, OBLIQUE), tmp_path / "four.nii.gz")
    four = modelsgenesis.predict(model, tmp_path / "four.nii.gz", output=tmp_path / "four_seg.nii.gz", device="cpu")
    assert np.array_equal(four.labels, alone.labels)


def test_channels_that_are_missing_or_do_not_fit(of_two, tmp_path):
    model, folder = of_two
    scans = tmp_path / "scans"
    scans.mkdir()
    first = nib.load(folder / "brain_000_0000.nii.gz")
    nib.save(first, scans / "a_0000.nii.gz")
    nib.save(first, scans / "alone.nii.gz")
    nib.save(first, scans / "b_0000.nii.gz")
    nib.save(first.slicer[:-1], scans / "b_0001.nii.gz")
    nib.save(first, scans / "c_0000.nii.gz")
    nib.save(nib.Nifti1Image(np.asanyarray(first.dataobj), OBLIQUE + np.eye(4, k=3)), scans / "c_0001.nii.gz")
    found = predict_all(model, scans, output=tmp_path / "out", device="cpu")
    assert not found.answers
    reasons = {refusal.source.rpartition("/")[2]: refusal.reason for refusal in found.failed}
    assert reasons["a_0000.nii.gz"] == "of its channels _0000 are there; expected _0000 to _0001"
    assert "is 1 file, the model takes 2: name them alone_0000 and so on" in reasons["alone.nii.gz"]
    assert "shape (15, 18, 14) is not the (16, 18, 14) of its image" in reasons["b_0000.nii.gz"]
    assert "its affine is up to 1 mm away" in reasons["c_0000.nii.gz"]


def test_several_files_for_one_channel_are_several_scans(model, scans, tmp_path):
    with pytest.raises(ConfigurationError, match="holds 2 scans, expected one; see predict_all for many"):
        modelsgenesis.predict(model, scans[:2], output=tmp_path / "x.nii.gz", device="cpu")


def test_a_4d_scan_is_refused_by_its_name(model, scans, tmp_path):
    scan = nib.load(scans[0])
    voxels = np.stack([np.asanyarray(scan.dataobj)] * 2, axis=-1)
    nib.save(nib.Nifti1Image(voxels, scan.affine), tmp_path / "two_times.nii.gz")
    with pytest.raises(ScanError, match=r"two_times\.nii\.gz.*2 volumes; expected 1"):
        modelsgenesis.predict(model, tmp_path / "two_times.nii.gz", output=tmp_path / "seg.nii.gz")


def test_the_wrong_model_and_a_missing_scan(model, scans, tmp_path):
    restores = write_bundle(tmp_path / "genesis", task="restoration")
    with pytest.raises(
        ConfigurationError, match=r"genesis: the model is for restoration: .*fine-tuned with --task seg"
    ):
        modelsgenesis.predict(restores, scans[0])
    with pytest.raises(DataError, match=r"nowhere\.nii\.gz: there is no such file"):
        modelsgenesis.predict(model, tmp_path / "nowhere.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="empty: no scan to predict in it"):
        modelsgenesis.predict(model, tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        modelsgenesis.predict(tmp_path / "empty", scans[0])
    with pytest.raises(ConfigurationError, match="received no model"):
        modelsgenesis.predict([], scans[0])


def test_an_ensemble_is_the_mean_of_its_probabilities(scans, tmp_path):
    for fold in range(2):
        write_bundle(tmp_path / "folds" / f"fold{fold}", seed=fold)
    (tmp_path / "folds" / "fold2").mkdir()  # not trained yet
    write_bundle(tmp_path / "other", contract=CT.override(spacing=(3.0, 3.0, 3.0)), seed=5)
    notes = Notes()

    def soft(model, name):
        path = tmp_path / f"{name}.nii.gz"
        found = modelsgenesis.predict(model, scans[0], output=path, probabilities=True, device="cpu", reporter=notes)
        return np.asanyarray(nib.load(found.probabilities).dataobj)

    folds = soft(tmp_path / "folds", "folds")
    each = [soft(tmp_path / "folds" / f"fold{fold}", f"fold{fold}") for fold in range(2)]
    np.testing.assert_allclose(folds, (each[0] + each[1]) / 2, atol=1e-5)
    assert notes.notes[0] == "the mean of 2 models: fold0, fold1"
    assert json.loads((tmp_path / "folds.json").read_text())["members"] == 2
    mixed = soft(
        [tmp_path / "folds", tmp_path / "other"], "mixed"
    )  # prepared in two ways, averaged in the scan's frame
    np.testing.assert_allclose(mixed, (2 * folds + soft(tmp_path / "other", "other")) / 3, atol=1e-5)
    assert np.array_equal(labels_of(tmp_path / "mixed.nii.gz"), mixed.argmax(-1))


def test_models_that_do_not_agree(model, scans, tmp_path):
    other = write_bundle(tmp_path / "other", labels=("background", "liver", "spleen"))
    with pytest.raises(
        ConfigurationError, match="other: its list of classes background, liver, spleen is not the background, b"
    ):
        modelsgenesis.predict([model, other], scans[0])
    channels = write_bundle(tmp_path / "two", contract=CT.override(channels=("a", "b")))
    with pytest.raises(ConfigurationError, match="two: its list of channels a, b is not the image of organs"):
        modelsgenesis.predict([model, channels], scans[0])
    classifier = write_bundle(tmp_path / "classes", task="classification")
    with pytest.raises(ConfigurationError, match="classes: its task classification is not the segmentation"):
        modelsgenesis.predict([model, classifier], scans[0])


def test_flips_go_through(model, scans, tmp_path):
    options = {"device": "cpu", "probabilities": True}
    turned = PredictionConfig(flips="all")
    plain = modelsgenesis.predict(model, scans[0], output=tmp_path / "a.nii.gz", **options)
    flipped = modelsgenesis.predict(model, scans[0], output=tmp_path / "b.nii.gz", config=turned, **options)
    assert json.loads((tmp_path / "b.json").read_text())["flips"] == "all"
    assert not np.array_equal(labels_of(plain.probabilities), labels_of(flipped.probabilities))


def test_a_model_of_ct_on_a_scan_of_mr_is_warned_with_the_reason(model, tmp_path):
    random = np.random.default_rng(0)
    brain = random.uniform(0, 20_000, (16, 16, 12)).astype(np.float32)
    nib.save(nib.Nifti1Image(brain, np.eye(4)), tmp_path / "brain.nii.gz")
    notes = Notes()
    modelsgenesis.predict(
        model, tmp_path / "brain.nii.gz", output=tmp_path / "seg.nii.gz", device="cpu", reporter=notes
    )
    assert len(notes.notes) == 1
    assert "brain.nii.gz: its values look like mri, the model was trained on ct" in notes.notes[0]
    assert "prepared by its own percentiles instead of Hounsfield units; expect a poor answer" in notes.notes[0]


def test_a_model_of_mr_on_a_ct_is_warned(scans, tmp_path):
    model, notes = write_bundle(tmp_path / "mr", contract=MRI), Notes()
    modelsgenesis.predict(model, scans[0], output=tmp_path / "seg.nii.gz", device="cpu", reporter=notes)
    assert "its values look like ct, the model was trained on mri; expect a poor answer" in notes.notes[0]


def test_planes_and_the_slices_of_volumes(scans, tmp_path):
    planar = write_bundle(tmp_path / "xray", contract=XRAY, patch_size=(16, 16))
    pixels = np.random.default_rng(0).integers(0, 255, (20, 31), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "chest.png")
    found = modelsgenesis.predict(planar, tmp_path / "chest.png", output=tmp_path / "seg.nii.gz", device="cpu")
    assert found.labels.shape == (20, 31)
    slices = write_bundle(tmp_path / "slices", contract=CT.override(dims=2), patch_size=(16, 16))
    found = modelsgenesis.predict(slices, scans[0], output=tmp_path / "volume.nii.gz", device="cpu")
    assert found.labels.shape == nib.load(scans[0]).shape
    model = write_bundle(tmp_path / "volumes", contract=CT)
    with pytest.raises(ScanError, match=r"chest\.png.*has 2 axes; expected 3"):
        modelsgenesis.predict(model, tmp_path / "chest.png", output=tmp_path / "x.nii.gz", device="cpu")


@pytest.fixture
def radiographs(tmp_path):
    folder = tmp_path / "xrays"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (30, 24), np.uint8)
        Image.fromarray(pixels).save(folder / f"x{index}.png")
    (folder / "broken.png").write_bytes(b"junk")
    return folder


@pytest.mark.parametrize("multilabel", [False, True])
def test_classes_become_a_table(radiographs, tmp_path, multilabel):
    model = write_bundle(
        tmp_path / "model",
        task="classification",
        contract=XRAY,
        patch_size=(16, 16),
        labels=("healthy", "ill"),
        multilabel=multilabel,
    )
    found = predict_all(model, radiographs, output=tmp_path / "out", device="cpu")
    assert [answer.name for answer in found.answers] == ["x0", "x1", "x2"]
    assert len(found.failed) == 1
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "predicted", "probability healthy", "probability ill"]
    for row, answer in zip(rows, found.answers, strict=True):
        scores = {name: float(row[f"probability {name}"]) for name in ("healthy", "ill")}
        assert scores == pytest.approx(answer.scores, rel=1e-4)
        if multilabel:
            assert answer.predicted == tuple(name for name, value in answer.scores.items() if value >= 0.5)
        else:
            assert sum(answer.scores.values()) == pytest.approx(1)
            assert row["predicted"] == max(scores, key=scores.get)


def test_classes_as_json_and_with_flips(radiographs, tmp_path):
    model = write_bundle(tmp_path / "m", task="classification", contract=XRAY, patch_size=(16, 16), labels=("a", "b"))
    options = {"device": "cpu", "config": PredictionConfig(flips=(0,))}
    found = predict_all(model, radiographs / "x0.png", output=tmp_path / "x.json", **options)
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["labels"] == ["a", "b"]
    assert content["cases"] == [
        {"case": "x0", "predicted": list(found.answers[0].predicted), "probabilities": found.answers[0].scores}
    ]
    mirrored = tmp_path / "mirrored.png"
    Image.fromarray(np.asarray(Image.open(radiographs / "x0.png"))[::-1]).save(mirrored)
    same = modelsgenesis.predict(model, mirrored, output=tmp_path / "y.csv", **options)
    assert same.scores == pytest.approx(found.answers[0].scores, abs=1e-6)
    with pytest.raises(ConfigurationError, match=r"x\.nii\.gz: classes are written as a table; name a file\.csv"):
        predict_all(model, radiographs, output=tmp_path / "x.nii.gz", **options)


def test_the_images_of_an_array(tmp_path):
    random = np.random.default_rng(0)
    grey, colour = random.integers(0, 255, (11, 18, 20), np.uint8), random.integers(0, 255, (2, 18, 20, 3), np.uint8)
    np.savez(tmp_path / "grey.npz", test_images=grey, test_labels=np.zeros((11, 1)), val_images=grey[:2])
    np.savez(tmp_path / "colour.npz", images=colour)
    options = {"task": "classification", "patch_size": (16, 16), "labels": ("a", "b")}
    model = write_bundle(tmp_path / "one", contract=XRAY, **options)
    found = predict_all(model, tmp_path / "grey.npz", output=tmp_path / "x.csv", device="cpu")
    names = [answer.name for answer in found.answers]
    assert names == [*(f"test_{index:02d}" for index in range(11)), "val_0", "val_1"]
    assert found.answers[0].scores == pytest.approx(found.answers[-2].scores)
    of_three = write_bundle(tmp_path / "three", contract=XRAY.override(channels=("red", "green", "blue")), **options)
    assert len(predict_all(of_three, tmp_path / "colour.npz", output=tmp_path / "y.csv", device="cpu").answers) == 2
    with pytest.raises(DataError, match=r"test_images is \(11, 18, 20\); the model takes 3 channels"):
        predict_all(of_three, tmp_path / "grey.npz", output=tmp_path / "y.csv", device="cpu")
    np.savez(tmp_path / "none.npz", other=grey)
    with pytest.raises(DataError, match=r"none\.npz: holds other; expected images, or test_images"):
        predict_all(model, tmp_path / "none.npz", output=tmp_path / "y.csv", device="cpu")


def test_a_trained_model_finds_what_it_learnt(finetuned, decathlon, tmp_path):
    path = sorted((decathlon / "imagesTr").iterdir())[0]
    labels = modelsgenesis.predict(finetuned[0], path, output=tmp_path / "seg.nii.gz", device="cpu").labels
    truth = labels_of(decathlon / "labelsTr" / path.name)
    assert 2 * ((labels == 1) & (truth == 1)).sum() / ((labels == 1).sum() + (truth == 1).sum()) > 0.6
    assert LABELS[1] == "bright"
