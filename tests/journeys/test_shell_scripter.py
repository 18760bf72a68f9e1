"""Somebody whose shell script has to know how each command ended, and reads JSON, never prose."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

SMALL = "--set network.widths=4,8 --set patch_size=16,16 --set workers=0 --set hidden=0 --set batch_size=4 --device cpu"


@pytest.fixture(scope="module")
def images(user):
    generator = np.random.default_rng(0)
    for kind, level in (("ill", 160), ("healthy", 60)):
        folder = user.home / "images" / kind
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = generator.normal(level, 20, (24, 24)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"p{kind[0]}{number}.png")
    return user.home / "images"


def test_a_dry_run_is_a_configuration_that_is_edited_and_run(user, images):
    planned = user.types(f"modelsgenesis finetune images --modality xray --steps 4 {SMALL} --dry-run > config.json")
    assert "would read: 20 labelled cases" in planned.stderr
    assert "would write: runs/finetune/" in planned.stderr
    assert sorted(path.name for path in user.home.iterdir()) == ["config.json", "images"]
    lines = """
python - <<'PYTHON'
import json, pathlib
path = pathlib.Path("config.json")
path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 7}))
PYTHON
modelsgenesis finetune --config config.json -o run --device cpu --json --quiet > result.json
"""
    assert user.types(lines).stderr == ""
    told = json.loads((user.home / "result.json").read_text())
    assert told["run"] == "run"
    assert json.loads((user.home / "run/run.json").read_text())["config"]["seed"] == 7


def test_commands_end_with_the_status_that_a_script_asks_for(user, images):
    script = """
modelsgenesis verify run > digests.txt
modelsgenesis predict run images/ill -o predicted.csv --json --quiet > told.json
modelsgenesis evaluate run images --json --quiet -o evaluation > evaluation.json
if modelsgenesis info nowhere/to-be-found 2> reason.txt; then exit 9; else test $? = 1; fi
if modelsgenesis predict run 2> usage.txt; then exit 9; else test $? = 2; fi
modelsgenesis list --json | python -c 'import json, sys; print(len(json.load(sys.stdin)))'
modelsgenesis list | head -1 > first.txt
modelsgenesis -V
"""
    count, version = user.types(script).stdout.splitlines()
    assert int(count) > 5
    assert version.startswith("modelsgenesis ")
    with (user.home / "predicted.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["predicted"] for row in rows} <= {"ill", "healthy"}
    assert len(rows) == len(json.loads((user.home / "told.json").read_text())["predictions"]) == 10
    assert set(json.loads((user.home / "evaluation.json").read_text())["metrics"]) >= {"auc", "accuracy"}
    for name in ("reason.txt", "usage.txt"):
        assert (user.home / name).read_text().startswith("error: ")
        assert (user.home / name).read_text().count("\n") == 1
