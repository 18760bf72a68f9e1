"""`torch.compile` in the loop; it takes a C++ compiler and about a minute."""

import csv
import shutil

import pytest

import process_scenarios as scenarios

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("default"),  # the compiler warns of its own deprecations
]


def losses(run):
    with (run / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("norm", ["instance", "running"])
def test_a_compiled_network_learns_the_same_under_the_same_names(tmp_path, norm):
    options = {"norm": norm, "steps": 6, "validate_every": 3}
    plain = scenarios.train(tmp_path / "plain", **options)
    compiled = scenarios.train(tmp_path / "compiled", **options, compile=True)
    assert list(compiled.network.state_dict()) == list(plain.network.state_dict())
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=1e-4)
