import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
STUB = """#!/bin/sh
case "$*" in
  *pretext.py*) echo "deforming: 3 ms | 5%" ;;
  *training.py*) echo "  half of it  " && echo "RuntimeError: the card is gone" >&2 && exit 3 ;;
  "- "*) echo "one card; versions" ;;
esac
"""


def run(folder, *options, stub=STUB):
    for name, text in {"python": stub, "timeout": '#!/bin/sh\nshift; exec /usr/bin/timeout 2 "$@"'}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHON": str(folder / "python")}
    return subprocess.run(["bash", SCRIPT, *options], env=environment, capture_output=True, text=True, check=False)


def test_a_part_of_the_benchmark_that_fails_is_a_row_and_not_the_end(tmp_path):
    done = run(tmp_path, "--device", "cpu", "--quick", "--output", str(tmp_path / "table.md"))
    assert done.returncode == 0
    text = (tmp_path / "table.md").read_text()
    assert done.stdout == text
    assert text.startswith("# `benchmarks/gpu.sh --device cpu --quick`")
    assert "one card; versions" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| pretext | deforming: 3 ms \\| 5% |",
        "| training | half of it |",
        "| training | **failed**, status 3: RuntimeError: the card is gone |",
    ]
    assert [line.split(":")[0] for line in done.stderr.splitlines()][:4] == [
        "pretext",
        "training",
        "finetuning",
        "inference",
    ]


def test_what_a_part_printed_before_its_time_was_over_is_kept(tmp_path):
    slow = f"exec {sys.executable} -c \"import time; print('deforming: 3 ms'); time.sleep(60)\""
    stub = f'#!/bin/sh\ncase "$*" in\n*pretext.py*) {slow} ;;\nesac\n'
    run(tmp_path, "--device", "cpu", "--output", str(tmp_path / "table.md"), stub=stub)
    rows = (tmp_path / "table.md").read_text().splitlines()[-2:]
    assert rows == ["| pretext | deforming: 3 ms |", "| pretext | **not finished** within 115 s |"]


def test_an_unknown_option_is_told(tmp_path):
    done = run(tmp_path, "--card", "0")
    assert done.returncode == 2
    assert "--card: unknown; expected --device cuda|cpu" in done.stderr
