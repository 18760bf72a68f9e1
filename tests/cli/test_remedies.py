"""A remedy that a message names works: its commands, options and settings exist, and it is run where that is quick."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import modelsgenesis
from modelsgenesis.cli import app
from modelsgenesis.cli.settings import KINDS
from modelsgenesis.configs.base import setting_names

SOURCE = Path(modelsgenesis.__file__).parent
COMMANDS = get_command(app).commands
OPTIONS = {name: {word for one in command.params for word in one.opts} for name, command in COMMANDS.items()}
TRAIN = ("pretrain", "finetune")
# The commands that may print a message of a module: what it names has to be an option of each.
SPEAKERS = {
    "checkpoints/export.py": ("export",),
    "comparison.py": ("compare",),
    "data/cases.py": ("finetune", "compare"),
    "data/finding.py": ("scan", *TRAIN, "compare"),
    "data/reading.py": ("scan", "preview", *TRAIN, "compare"),
    "demo.py": ("demo",),
    "finetuning.py": ("finetune",),
    "hardware.py": (*TRAIN, "predict", "evaluate", "compare", "demo"),
    "pretraining.py": ("pretrain",),
    "training/planning.py": ("pretrain",),
    "training/run.py": TRAIN,
    "training/splits.py": ("finetune", "compare"),
    "training/supervised.py": ("finetune", "compare"),
    "training/trainer.py": TRAIN,
    "training/trials.py": ("compare",),
}


def messages():
    """Yield module and text of every string of the source but docstrings; a blank stands for what is filled in."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                passed |= {id(part) for part in node.values}
                parts = [part.value if isinstance(part, ast.Constant) else " X " for part in node.values]
                yield path.relative_to(SOURCE).as_posix(), "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
                yield path.relative_to(SOURCE).as_posix(), node.value


def test_options_settings_and_commands_of_messages_exist():
    wrong, seen = [], 0
    for module, text in messages():
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) - {"--help", "--version", "--debug"}
        speakers = SPEAKERS.get(module, ())
        known = [OPTIONS[name] for name in speakers] or [set().union(*OPTIONS.values())]
        wrong += [(module, option, text) for option in options for of_one in known if option not in of_one]
        for key in re.findall(r"--set ([a-z_.]+)=", text):
            places = [setting_names(kind).values() for name in speakers or KINDS for kind in KINDS[name]]
            wrong += [] if any(key in names for names in places) else [(module, key, text)]
        commands = re.findall(r"modelsgenesis ([a-z]+)", text)
        wrong += [(module, name, text) for name in commands if name not in COMMANDS]
        seen += len(options) + len(commands)
    assert wrong == []
    assert seen > 60


def test_the_messages_of_the_troubleshooting_page_are_messages():
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
    said = [" ".join(text.split()) for _, text in messages()]
    quoted = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(quoted) > 40
    for message in quoted:
        parts = [part.strip(" ,;") for part in message.split("…")]
        pattern = re.compile(".*".join(map(re.escape, parts)))
        assert max(map(len, parts)) > 9, message
        assert any(pattern.search(text) for text in said), message


# A command that fails, what its message says, and the command that follows it: {0} is what the pattern found.
RUN = [
    ("pretrain {ct} --window -5,5", r"--set (data\.window)=VALUE", "pretrain {ct} --set {0}=-5,5 --dry-run"),
    ("finetune {seg} --set lr=1 --dry-run", r"did you mean (\w+)\?", "finetune {seg} --set {0}=1 --dry-run"),
    ("pretrain {ct} --set window=0,1 --dry-run", r"mean (data\.\w+)\?", "pretrain {ct} --set {0}=0,1 --dry-run"),
    ("pretrain {ct} --recipe smal --dry-run", r"did you mean (\w+)\?", "pretrain {ct} --recipe {0} --dry-run"),
    ("pretrain {ct} --modality CT --dry-run", r"is not one of .*'(ct)',", "pretrain {ct} --modality {0} --dry-run"),
    ("info genesis-hipocampus-mri-3d", r"did you mean (genesis-hippo\S+)", "info {0}"),
    ("pretrain {ct} -o full --dry-run", r"choose a new (folder)", "pretrain {ct} -o new{0} --dry-run"),
    ("pretrain --resume -o nothing --dry-run", r"without (--resume)", "pretrain {ct} -o nothing --dry-run"),
    ("finetune {seg} --device cuda -o x", r"use (--device cpu)", "finetune {seg} {0} --dry-run"),
    ("finetune {seg} --set hub_model_id=a/b", r"add (--push-to-hub)", "finetune {seg} {0} --dry-run"),
    ("cache --all", r"together with (--prune)", "cache --all {0} --dry-run"),
    ("compare {seg} --init {model} --init {model}", r"write (--init)", "compare {seg} {0} a={model} --dry-run"),
    ("scan {ct} --patient nobody", r"(--patient)", "scan {ct} {0} '(patient.)'"),
    ("export {model} --to nnunet", r"its (model.safetensors) is a plain", "convert {model}/{0} out --dry-run"),
    ("list zebra", r"(modelsgenesis list) shows all", "list"),
]


@pytest.mark.parametrize(("wrong", "said", "right"), RUN, ids=[line for line, *_ in RUN])
def test_the_remedy_of_a_message_works(
    command, ct_folder, decathlon, genesis_run, tmp_path, monkeypatch, wrong, said, right
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()

    def typed(line, found=""):
        for name, place in {"ct": ct_folder, "seg": decathlon, "model": genesis_run, "0": found}.items():
            line = line.replace(f"{{{name}}}", str(place))
        return command(*shlex.split(line))

    failed = typed(wrong)
    found = re.search(said, failed.err)
    assert found, failed.err
    followed = typed(right, found[1])
    assert followed.status == 0, followed.err
