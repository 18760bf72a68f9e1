"""Every published model by its name, from a Hub that serves files as they are published: cold, then warm."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import reference_files
from loopback_hub import LoopbackHub
from modelsgenesis.hub import find_card

WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "genesis-chest-ct-3d": reference_files.write_genesis_pt,
    "genesis-chest-ct-3d-keras": reference_files.write_keras_h5,
    "genesis-chest-ct-nnunet": reference_files.write_nnunet_model,
    "genesis-abdomen-ct-3d": lambda path, shared: reference_files.write_genesis_pt(path, shared, key="net"),
    "genesis-brain-mri-resenc": lambda path, _: reference_files.write_openmind_pth(path, "full"),
}
QUICK = "genesis-chest-ct-3d"  # the others take as long as their sizes
LOAD = """
import sys, modelsgenesis
network = modelsgenesis.from_pretrained(sys.argv[1])
weights = list(network.parameters())
print(sum(w.numel() for w in weights), sum(w.double().sum().item() for w in weights))
source = modelsgenesis.load(sys.argv[1]).config.provenance.source
print(source["repository"], source["file"], source["revision"], source["sha256"])
"""
GUARD = "import sys; sys.addaudithook(lambda e, _: e == 'socket.connect' and sys.exit('connected'))\n"


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WRITERS]
)
def test_a_published_model_loads_by_its_name(
    name: str, hub: LoopbackHub, shared: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    source = find_card(name).source
    assert source.repository is not None
    path = tmp_path / "files" / source.file
    WRITERS[name](path, shared)
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    repository = hub.add(source.repository, {**files, "README.md": b"# Theirs\n", "config.json": b"{}\n"})

    def python(code: str) -> str:
        ended = subprocess.run([sys.executable, "-c", code, name], env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    cold = python(LOAD)
    assert cold.splitlines()[0].split()[0] == str(source.parameters)
    sha256 = repository.files[source.file].sha256
    assert cold.splitlines()[1] == f"{source.repository} {source.file} {repository.heads['main']} {sha256}"
    assert hub.count("GET /large/") == 1
    assert python(GUARD + LOAD) == cold
