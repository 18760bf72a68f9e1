"""What every command offers: few options, each with its default, examples, completion, a dry run, numbered folders."""

import json
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from modelsgenesis.cli import EXAMPLES, app
from modelsgenesis.cli.options import run_folder

COMMANDS = get_command(app).commands


def options_of(name):
    return [one for one in COMMANDS[name].params if one.param_type_name == "option" and "--set" not in one.opts]


def complete(process, line):
    words = ["modelsgenesis", *line.split(" ")]
    place = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = (
        "import sys\nfrom modelsgenesis.cli import app\ntry: app(prog_name='modelsgenesis')\n"
        "finally: print({'torch', 'numpy', 'huggingface_hub'} & set(sys.modules), file=sys.stderr)"
    )
    done = process("-c", code, python=True, _MODELSGENESIS_COMPLETE="complete_bash", **place)
    assert done.stderr.strip() == "set()"
    return done.stdout.split()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_at_most_15_options_before_set_and_each_has_a_default(name):
    found = options_of(name)
    assert len(found) <= 15
    untold = [
        one.opts[0]
        for one in found
        if not (one.is_flag or one.required or one.multiple or one.default is not None or "default" in one.help)
    ]
    assert untold == []


@pytest.mark.parametrize("lines", EXAMPLES.values(), ids=[function.__name__ for function in EXAMPLES])
def test_a_help_ends_with_examples_of_the_command(command, lines):
    name = shlex.split(lines[0])[0]
    shown = command(name, "--help").out
    for line in lines:  # test_commands.py parses them
        assert shlex.split(line)[0] == name
        assert f"modelsgenesis {line}" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("predi", {"predict"}),
        ("pretrain --recipe ", {"small", "default", "2019"}),
        ("info genesis-hipp", {"genesis-hippocampus-mri-3d-small"}),
        ("finetune x --init genesis-hipp", {"genesis-hippocampus-mri-3d-small"}),
        ("pretrain x --set scheme=III", {"scheme=III", "scheme=III+IV"}),
        ("finetune x --set optimizer", {"optimizer=sgd", "optimizer=adam", "optimizer=adamw", "optimizer=muon"}),
        ("compare x --set keep", {"keep_models="}),
        ("scan x --modality u", {"ultrasound"}),
    ],
)
def test_words_are_completed_without_anything_heavy(process, line, expected):
    assert set(complete(process, line)) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pretrain x --window 1,2", "it is a setting: --set data.window=VALUE"),
        ("pretrain x --lr 1", "it is a setting: --set learning_rate=VALUE"),
        ("pretrain x --leave-out s.json", "--set data.exclude_test_cases=VALUE"),
        ("finetune x --fold 1", "it is a setting: --set fold=VALUE"),
        ("predict m x --stitch cpu", "it is a setting: --set stitch=VALUE"),
        ("pretrain x --inti y", "(Possible options: --init"),
        ("scan x --lr 1", "No such option: --lr"),
        ("pretrain x --show-config", "No such option: --show-config; --dry-run prints the configuration"),
        ("finetune x --token hf_x", "No such option: --token; set HF_TOKEN, or run hf auth login"),
        ("push x --private", "No such option: --private; a new repository is private"),
        ("compare x --set-arm a:b=1", "No such option: --set-arm; compare takes --set NAME:KEY=VALUE"),
        ("finetune x --hub-model-id a/b", "it is a setting: --set hub_model_id=VALUE"),
    ],
)
def test_an_option_that_is_a_setting_is_told_so(command, line, words):
    ended = command(*line.split())
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert words in ended.err


def test_a_run_without_a_folder_gets_the_next_number_and_a_resume_the_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder(None, "runs/finetune") == run_folder(None, "runs/finetune", resume=True) == Path("runs/finetune")
    for folder in ("runs/finetune", "runs/finetune-9", "runs/finetune-10", "runs/finetune-old"):
        Path(folder).mkdir(parents=True)
    assert run_folder(None, "runs/finetune", resume=True) == Path("runs/finetune-10")
    assert run_folder(None, "runs/finetune") == Path("runs/finetune-11")
    assert run_folder(None, "runs/finetune", finished="results.json") == Path("runs/finetune-10")
    Path("runs/finetune-10/results.json").touch()
    assert run_folder(None, "runs/finetune", finished="results.json") == Path("runs/finetune-11")
    assert run_folder(Path("x"), "runs/finetune") == Path("x")
    monkeypatch.setenv("WORLD_SIZE", "2")  # processes that start at other times must agree
    assert run_folder(None, "runs/finetune") == Path("runs/finetune")


DRY = {
    "pretrain {ct} --push-to-hub -o new": ("scans in {ct}", "new/", "to new on the Hub, private"),
    "finetune {seg} --init genesis-chest-ct-3d -o new": (
        "6 labelled cases of Balls, weights of genesis-chest-ct-3d",
        "new/",
        "nothing",
    ),
    "compare {seg} --init scratch --runs 2 --labels 1,2": ("6 labelled cases of Balls", "by 4 trainings", "nothing"),
    "evaluate model {seg}": ("model, 6 labelled cases in {seg}", "evaluation/results.json", "nothing"),
    "export genesis-hippocampus-mri-3d-small --to nnunet": ("weights of genesis-hipp", "-small.pth", "nothing"),
    "convert weights.pt out": ("weights.pt", "out/", "nothing"),
    "download genesis-chest-ct-3d -o chest": ("genesis-chest-ct-3d on the Hub", "chest", "nothing"),
}


@pytest.mark.parametrize(("line", "plan"), DRY.items(), ids=[line.split()[0] for line in DRY])
def test_a_dry_run_says_what_would_be_done(command, ct_folder, decathlon, tmp_path, monkeypatch, line, plan):
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(b"")
    places = {"{ct}": str(ct_folder), "{seg}": str(decathlon)}
    ended = command(*(places.get(word, word) for word in line.split()), "--dry-run")
    assert ended.status == 0, ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]
    if line.split()[0] in ("pretrain", "finetune", "compare"):  # the configuration is the result
        assert isinstance(json.loads(ended.out), dict)
    said = dict(one.split(": ", 1) for one in (ended.out + ended.err).splitlines() if one.startswith("would "))
    assert list(said) == ["would read", "would write", "would send"]
    for words, told in zip(plan, said.values(), strict=True):
        assert words.format(ct=ct_folder, seg=decathlon) in told


def test_a_dry_run_or_an_error_names_the_next_folder_only_in_the_plan(command, ct_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/pretrain").mkdir(parents=True)
    planned = command("pretrain", ct_folder, "--set", "batch_size=auto", "--dry-run")
    assert "would write: runs/pretrain-2/\n" in planned.err
    assert "give --set batch_size=auto again" in planned.err  # which the configuration cannot hold
    for said in (planned.err, command("pretrain", "nowhere").err):
        assert "writing to" not in said


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("pretrain nowhere", 1, "nowhere: "),
        ("finetune {seg} -o full", 1, "full: is not empty"),
        ("convert nowhere.pt out", 1, "nowhere.pt: there is no such file"),
        ("finetune {seg} --init nonsense", 1, "nonsense: no model of this name"),
        ("compare {seg} --init scratch --init nonsense", 1, "nonsense: no model of this name"),
        ("download nonsense", 1, "nonsense: no model of this name"),
        ("export nonsense --to nnunet", 1, "nonsense: no model of this name"),
        ("convert full/x full", 1, "full: exists already; choose a new name"),
        ("export genesis-hippocampus-mri-3d-small --to nnunet -o full/x", 1, "full/x: exists already"),
        ("compare {seg} --init scratch --set metric=dise", 1, "metric: received 'dise'; did you mean dice"),
        ("finetune {seg} --set hub_model_id=a/b", 1, "hub_model_id: received a/b; add --push-to-hub"),
    ],
)
def test_a_dry_run_refuses_what_the_command_would(command, decathlon, tmp_path, monkeypatch, line, status, words):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/x").touch()
    ended = command(*(str(decathlon) if word == "{seg}" else word for word in line.split()), "--dry-run")
    assert ended.status == status
    assert words in ended.err
