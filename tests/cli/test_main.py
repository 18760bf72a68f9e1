import json

import modelsgenesis


def test_version_and_help(command):
    assert command("--version").out == f"modelsgenesis {modelsgenesis.__version__}\n"
    for flag in ("-h", "--help"):
        shown = command(flag)
        assert shown.status == 0
        for verb in ("pretrain", "finetune", "predict", "push", "list", "info", "preview", "demo"):
            assert verb in shown.out


def test_every_command_has_help(command):
    for verb in ("pretrain", "finetune", "predict", "push", "list", "info", "preview", "demo"):
        assert command(verb, "-h").status == 0


def test_importing_and_helping_load_nothing_heavy(process):
    code = (
        "import sys, modelsgenesis, json; sys.argv = ['modelsgenesis', '--help']\n"
        "from modelsgenesis.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'huggingface_hub', 'monai', 'matplotlib', 'SimpleITK', 'nibabel'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    shown = process("-c", code, python=True)
    assert json.loads(shown.stdout.splitlines()[-1]) == []


def test_importing_the_package_loads_neither_torch_nor_the_hub(process):
    shown = process(
        "-c", "import sys, modelsgenesis; print('torch' in sys.modules, 'huggingface_hub' in sys.modules)", python=True
    )
    assert shown.stdout == "False False\n"
