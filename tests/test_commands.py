"""Every command in the documents is one that the command line takes, with settings that exist.

Nothing is run: the application itself parses each command, and its `--set` are applied to their configuration.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import modelsgenesis
from modelsgenesis import hub
from modelsgenesis.cli import EXAMPLES, app
from modelsgenesis.cli.settings import PretrainingSwitches, TrainingSwitches, separate, separate_comparison
from modelsgenesis.configs import ClassificationConfig, SegmentationConfig, apply_settings, pretraining_recipe
from modelsgenesis.errors import GenesisError

ROOT = Path(__file__).parents[1]
GROUP: Any = get_command(app)  # of typer's own click
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "cards").rglob("*.md")])
COMPLETION = [param for param in GROUP.params if param.name in ("install_completion", "show_completion")]
for option in COMPLETION:  # which act as soon as they are parsed: they would write into the home folder
    option.callback = lambda context, _, value: context.exit() if value else None
TASKS = {"seg": SegmentationConfig, "cls": ClassificationConfig}

_START = re.compile(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:(?:torchrun|python3?) .*?-m |\S*/)?modelsgenesis(?= |$)")


def blocks(text):
    """Yield the lines of fenced and of indented code, joined where they end with a backslash."""
    fenced = False
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def commands_in(text):
    """Yield the arguments of each command, and whether it is whole: in running text only a part may be quoted."""
    for line in blocks(text):
        for part in line.split(" && "):
            if found := _START.match(part):
                words = shlex.split(part[found.end() :], comments=True)
                ends = [place for place, word in enumerate(words) if word in ("|", ">", ">>", "&", ";")]
                yield words[: min(ends, default=len(words))], True
    for quoted in re.findall(r"`modelsgenesis ([^`\n]+)`", text):
        yield shlex.split(quoted), False


def check(words, *, whole=True):
    """Parse a command as the application would, then what its options say.

    Raises:
        TyperException: There is no such command or option, a value has the wrong type, an argument is missing.
        GenesisError: A setting, an arm or a name does not exist.
    """
    words = [word for word in words if word not in ("…", "...")]
    try:
        context = GROUP.make_context("modelsgenesis", [*words])
        name, command, rest = GROUP.resolve_command(context, words)
        given = command.make_context(name, rest, parent=context).params
    except typer.Exit:  # of --help and --version
        return
    except Exception as error:
        if not whole and type(error).__name__ == "MissingParameter":
            return
        raise
    names = [given.get(key) for key in ("init", "name", "model")]
    if name == "pretrain":
        switches, settings = separate(given["settings"], PretrainingSwitches())
        recipe = given["recipe"] or "small"
        settings = [setting for setting in settings if setting != "batch_size=auto"]
        pretraining_recipe(recipe, scheme=switches.scheme, steps=given["steps"], settings=settings)
    if name == "finetune":
        _, settings = separate(given["settings"], TrainingSwitches())
        for config in [TASKS[given["task"]]] if given["task"] else TASKS.values():
            apply_settings(config(), settings)
    if name == "compare":
        names += check_comparison(given)
    for one in names:
        if (one or "").startswith("genesis-"):
            hub.find_card(one)


def check_comparison(given):
    """Check initialisations, label counts, settings and what is tuned; return the initial weights."""
    switches, settings, of_one = separate_comparison(given["settings"])
    assert any(takes(kind(), settings) for kind in TASKS.values()), settings
    asked = {key: switches[key] for key in ("dims", "metric", "resample_labels", "tuning_runs")}
    asked |= {"arm_settings": of_one, "tune": given["tune"] or [], "runs": given["runs"]}
    described = modelsgenesis.describe_comparison(given["inits"], labels=given["labels"].split(","), **asked)
    for labels in described.labels:
        SegmentationConfig(labelled_patients=None if labels == "all" else labels)
    return [arm.init for arm in described.arms]


def takes(config, settings):
    try:
        return bool(apply_settings(config, settings))
    except GenesisError:
        return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_document_are_taken(document):
    for words, whole in commands_in(document.read_text()):
        try:
            check(words, whole=whole)
        except Exception as error:
            raise AssertionError(f"{document.name}: modelsgenesis {shlex.join(words)}: {error!r}") from error


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_the_examples_of_the_help_are_taken(line):
    check(shlex.split(line))


def test_commands_are_found():
    text = """modelsgenesis is a name. `modelsgenesis verify NAME`
    X=1 modelsgenesis scan DIR  # what is there
    ls && .venv/bin/modelsgenesis demo | tail
    torchrun --nproc-per-node 2 -m modelsgenesis push RUN \\
        --public"""
    whole = [["scan", "DIR"], ["demo"], ["push", "RUN", "--public"]]
    assert list(commands_in(text)) == [*((words, True) for words in whole), (["verify", "NAME"], False)]
    assert len(list(commands_in((ROOT / "README.md").read_text()))) > 5


def test_nothing_is_installed_by_a_document_that_names_completion(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(COMPLETION) == 2
    for option in COMPLETION:
        check(option.opts)
    assert not [*tmp_path.iterdir()]


def test_a_wrong_command_is_refused():
    for line in """pretrian DIR
    push
    pretrain DIR --recipes small
    pretrain DIR --steps many
    pretrain DIR --set learning_rat=1e-3
    finetune DIR --task seg --set hidden=64
    compare DIR --init scratch --labels 0
    compare DIR --init scratch --init genesis-chest-ct-4d""".splitlines():
        with pytest.raises((GenesisError, typer.TyperException)):
            check(shlex.split(line))


def test_the_python_of_the_recipes_is_python():
    for path in (ROOT / "docs").rglob("*.md"):
        for indent, code in re.findall(r"^( *)```python\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE):
            compile(re.sub(rf"^{indent}", "", code, flags=re.MULTILINE), path.name, "exec")
