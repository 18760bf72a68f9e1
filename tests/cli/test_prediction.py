import nibabel as nib
import pytest


def test_predict_writes_beside_the_scan(command, decathlon, genesis_run, tmp_path, tiny):
    trained = command(
        "finetune", decathlon, "--init", genesis_run, "-o", tmp_path / "seg", "--steps", 2, *tiny, "--json"
    )
    assert trained.status == 0
    scan = next(iter(sorted((decathlon / "imagesTr").iterdir())))
    answer = tmp_path / "answer.nii.gz"
    predicted = command("predict", tmp_path / "seg", scan, "-o", answer, "--device", "cpu")
    assert predicted.status == 0
    assert predicted.out.splitlines()[0] == str(answer)
    assert nib.load(answer).shape == nib.load(scan).shape
    told = command("predict", tmp_path / "seg", scan, "-o", answer, "--device", "cpu", "--json").json()
    assert told["path"] == str(answer)
    assert set(told["voxels"]) == {"bright", "dark"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["predict", "{tmp}", "scan.nii.gz"], 1, "no config.json in it"),
        (["predict", "no-such-model", "scan.nii.gz"], 1, "no-such-model"),
    ],
)
def test_errors_are_one_line_with_a_status(refuses, arguments, status, message):
    refuses(arguments, status, message)
