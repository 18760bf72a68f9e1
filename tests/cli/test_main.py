import pytest

import modelsgenesis

COMMANDS = (
    *("pretrain", "finetune", "predict", "evaluate", "compare", "scan", "preview", "demo", "list", "info", "card"),
    *("download", "verify", "cache", "push", "convert", "export"),
)


def test_help_names_every_command(command):
    for shown in (command("-h"), command()):
        assert all(f" {name} " in shown.out for name in COMMANDS)
    assert [command(name, "--help").status for name in COMMANDS] == [0] * len(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretend"], "No such command 'pretend'. Did you mean 'pretrain'?; see modelsgenesis --help"),
        (["scan"], "Missing argument 'data'; see modelsgenesis scan --help"),
        (["list", "--dim", "3"], "No such option: --dim (Possible options: --dims); see modelsgenesis list --help"),
        (["--x\x1b[2J"], r"No such option: --x\x1b[2J"),
    ],
)
def test_a_wrong_command_line_is_one_line(command, arguments, message):
    ended = command(*arguments)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"error: {message}")


def test_importing_and_helping_load_nothing_heavy(process):
    code = (
        "import sys, modelsgenesis\nfrom modelsgenesis.cli import main\n"
        "for word in '--help', '-V':\n"
        "    sys.argv = ['modelsgenesis', word]\n    try: main()\n    except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'huggingface_hub', 'monai', 'matplotlib', 'SimpleITK', 'nibabel'}\n"
        "print(heavy & set(sys.modules))"
    )
    shown = process("-c", code, python=True).stdout.splitlines()
    assert shown[-2:] == [f"modelsgenesis {modelsgenesis.__version__}", "set()"]
