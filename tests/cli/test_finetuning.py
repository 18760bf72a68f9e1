import pytest


def test_finetune_measures_on_test_patients(command, decathlon, genesis_run, tmp_path, tiny):
    trained = command(
        "finetune", decathlon, "--init", genesis_run, "-o", tmp_path / "seg", "--steps", 2, *tiny, "--json"
    )
    assert trained.status == 0
    assert "dice bright" in trained.json()["results"]["test"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["finetune", "{tmp}"], 1, "no dataset.json"),
        (["finetune", "{tmp}", "--task", "det"], 1, "task: received 'det'"),
    ],
)
def test_errors_are_one_line_with_a_status(refuses, arguments, status, message):
    refuses(arguments, status, message)
