"""The commands around the Hub, as a user types them."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loopback_hub import LoopbackHub, connected, environment_of, use_home
from modelsgenesis.checkpoints import Bundle, load_bundle, render_card, save_bundle
from modelsgenesis.cli import main, options
from modelsgenesis.cli.hub import download_progress
from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, Provenance
from modelsgenesis.errors import AccessError
from modelsgenesis.networks import build_network

CONFIG = BundleConfig(
    task="restoration",
    network=GenesisUNetConfig(widths=(4, 8), norm="instance"),
    input=CONTRACTS["ct"],
    patch_size=(16, 16, 8),
    provenance=Provenance(origin="untrained", library_version="0.1.0"),
)
CARD = """---
license: cc-by-4.0
modelsgenesis:
  name: tiny-ct
  repository: clinic/tiny
  file: model.safetensors
  format: bundle
  parameters: 3897
  task: restoration
  network: {kind: genesis_unet, widths: [4, 8], norm: instance}
  input: {modality: ct, intensity: window, window: [-1000, 1000]}
  patch_size: [16, 16, 8]
---
# A tiny model

Some *prose*.
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one card of its own."""
    folder = tmp_path / "home"
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "tiny-ct.md").write_text(CARD)
    use_home(monkeypatch, folder)
    monkeypatch.setenv("MODELSGENESIS_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub that the commands speak to."""
    with connected(monkeypatch) as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a bundle."""
    card = render_card(CONFIG, name="run")
    return save_bundle(tmp_path / "run", Bundle(build_network(CONFIG.network).eval(), CONFIG, card))


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command; return status, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modelsgenesis", *arguments])
        with pytest.raises(SystemExit) as ended:
            sys.exit(main())
        shown = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), shown.out, shown.err

    return call


def test_list_shows_the_registry(command: Command) -> None:
    status, out, _ = command("list", "--modality", "ct", "--dims", "3")
    assert status == 0
    assert out.splitlines()[0].split() == ["name", "modality", "dims", "parameters", "task", "weights", "licence"]
    row = next(line for line in out.splitlines() if line.startswith("tiny-ct"))
    assert row.split() == ["tiny-ct", "ct", "3D", "3,897", "restoration", "Hub", "cc-by-4.0"]
    assert "tiny-ct" not in command("list", "--modality", "mri")[1]
    models = json.loads(command("list", "--json")[1])
    assert {"name": "tiny-ct", "repository": "clinic/tiny", "license": "cc-by-4.0"}.items() <= next(
        model for model in models if model["name"] == "tiny-ct"
    ).items()


def test_info_describes_a_model_or_a_folder(command: Command, run: Path) -> None:
    status, out, _ = command("info", "tiny-ct")
    assert status == 0
    assert ["input.window", "-1000.0,", "1000.0"] in [line.split() for line in out.splitlines()]
    assert json.loads(command("info", "tiny-ct", "--json")[1])["patch_size"] == [16, 16, 8]
    assert json.loads(command("info", str(run), "--json")[1])["network"]["widths"] == [4, 8]


def test_an_unknown_name_is_one_line_with_the_nearest(command: Command) -> None:
    for name in ("info", "card", "download", "verify"):
        status, out, err = command(name, "tiny-cd")
        assert (status, out) == (1, "")
        assert err.startswith("error: tiny-cd: no model of this name in the registry; did you mean tiny-ct?")
        assert err.count("\n") == 1


def test_card_is_rendered_and_checked(command: Command, run: Path) -> None:
    status, out, _ = command("card", "tiny-ct")
    assert status == 0
    assert "Some prose." in out
    status, out, _ = command("card", str(run), "--check")
    assert status == 1
    assert "header: no license; choose an identifier of the Hub, or other with license_name" in out.splitlines()
    assert any(line.startswith("to fill in: ") for line in out.splitlines())
    assert json.loads(command("card", str(run), "--check", "--json")[1]) == out.splitlines()
    assert command("card", str(run / "README.md"))[0] == 0
    assert "config.json describes the network" in command("card", str(run))[1]


def test_push_download_verify_and_cache(command: Command, hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    status, out, err = command("push", str(run), "--hub-model-id", "clinic/tiny", "--token", "hf_alice")
    assert (status, out) == (0, f"{hub.url}/clinic/tiny\n")
    assert err.splitlines()[:2] == ["checking the bundle", "asking for clinic/tiny"]
    assert err.splitlines()[-1].startswith("note: the card has 8 lines to fill in; modelsgenesis card ")
    status, out, err = command("download", "tiny-ct", "--output", str(tmp_path / "here"))
    assert (status, out) == (0, f"{tmp_path / 'here'}\n")
    size = (run / "model.safetensors").stat().st_size
    assert f"model.safetensors: {size:,} bytes" in err.splitlines()
    assert len(list((tmp_path / "here").iterdir())) == 3
    status, out, _ = command("verify", "tiny-ct")
    assert status == 0
    assert out.endswith("tiny-ct: every file is as recorded, and the network loads\n")
    digests = json.loads(command("verify", "tiny-ct", "--json")[1])
    assert f"{digests['config.json']}  config.json" in out
    status, out, err = command("download", "clinic/tiny", "--quiet", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["sha256"] == digests
    assert command("info", "clinic/tiny")[0] == 0
    assert command("cache")[1].split()[:3] == ["0.0", "MB", "in"]
    assert command("cache", "--prune", "--json")[1] == "[]\n"
    assert command("cache", "--all")[0] == 2


def test_a_bar_for_each_file_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    with download_progress(quiet=False) as progress:
        assert progress is not None
        progress("config.json", 10, 10)
        progress("model.safetensors", 500_000, 1_000_000)
    shown = terminal.getvalue()
    assert "config.json" in shown
    assert "500.0/1000.0 kB" in shown.replace("0.5/1.0 MB", "500.0/1000.0 kB")
    with download_progress(quiet=True) as progress:
        assert progress is None


def test_push_as_json_with_options(command: Command, hub: LoopbackHub, run: Path) -> None:
    options = ("--hub-model-id", "clinic/tiny", "--private", "--revision", "v1", "--token", "hf_alice")
    status, out, err = command("push", str(run), *options, "--quiet", "--json")
    made = json.loads(out)
    assert (status, err) == (0, "")
    assert made["private"]
    assert hub.repositories["clinic/tiny"].heads["v1"] == made["commit"]
    status, out, _ = command("push", str(run), "--hub-model-id", "clinic/tiny", "--create-pr", "--token", "hf_bob")
    assert (status, out) == (0, f"{hub.url}/clinic/tiny/discussions/1\n")


def test_a_download_of_what_is_here_without_a_network_warns(
    command: Command, hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("push", str(run), "--hub-model-id", "clinic/tiny", "--token", "hf_alice")
    folder = command("download", "clinic/tiny")[1]
    hub.fault("GET /api/models/", status=503, times=9)
    status, out, err = command("download", "clinic/tiny")
    assert (status, out) == (0, folder)
    assert err.startswith(f"warning: clinic/tiny: {hub.url} is busy or down (503); try again later; using the copy")


def test_a_token_is_never_printed(command: Command, hub: LoopbackHub, run: Path) -> None:
    secret = "hf_" + "secret" * 5
    for arguments in (("push", str(run), "--hub-model-id", "clinic/tiny"), ("download", "clinic/tiny")):
        status, out, err = command(*arguments, "--token", secret)
        assert status == 1
        assert "error: clinic/tiny: " in err
        assert secret not in out + err


def test_a_push_after_training_that_fails_keeps_the_run_and_says_how_to_repeat(
    hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = f"modelsgenesis push {run} --hub-model-id clinic/tiny --private"
    with pytest.raises(AccessError, match=re.escape(f"{run} is intact; repeat with: {again}") + "$"):
        options.publish(run, "clinic/tiny", True, None, to_stderr=False)
    load_bundle(run)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    options.publish(run, "clinic/tiny", True, None, to_stderr=True)
    assert capsys.readouterr() == ("", f"{hub.url}/clinic/tiny\n")


def test_a_whole_life_in_processes_of_their_own(hub: LoopbackHub, run: Path, tmp_path: Path) -> None:
    """Push, then load by the public API with an empty cache; then again with connections forbidden."""
    environment = environment_of(hub, tmp_path / "home")

    def python(*arguments: str, **changes: str) -> str:
        ended = subprocess.run(
            [sys.executable, *arguments], env={**environment, **changes}, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    pushed = python("-m", "modelsgenesis", "push", str(run), "--hub-model-id", "clinic/tiny")
    assert pushed == f"{hub.url}/clinic/tiny\n"
    load = (
        "import modelsgenesis, sys; n = modelsgenesis.from_pretrained('clinic/tiny');"
        "print(sum(p.double().sum().item() for p in n.parameters()))"
    )
    guard = "import sys; sys.addaudithook(lambda e, _: e.startswith('socket.connect') and sys.exit('connected'));"
    elsewhere = {"HF_HOME": str(tmp_path / "elsewhere")}
    cold = python("-c", load, **elsewhere)
    assert python("-c", guard + load, **elsewhere) == cold
    here = sum(parameter.double().sum().item() for parameter in load_bundle(run).network.parameters())
    assert float(cold) == here
