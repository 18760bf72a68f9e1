"""What is printed: any name on any stdout, no markup, no control characters, a quiet end where nobody reads."""

import json
import os
import subprocess
import sys

import pytest

from modelsgenesis.cli import console


def test_a_table_shows_names_as_they_are_and_steers_no_terminal(capsys):
    console.print_table(("name", "a"), [("left [bold]lung [/]", "[link=x]y[/link]"), ("\x1b[2J\n", 3), ("x" * 300, "")])
    shown = [" ".join(row.split()) for row in capsys.readouterr().out.splitlines()]
    assert shown == ["name a", "left [bold]lung [/] [link=x]y[/link]", r"\x1b[2J\n 3", "x" * 300]
    console.print_table(("", ""), [("labels", "a, b")])  # without titles no header
    assert capsys.readouterr().out == "labels  a, b\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_name_that_the_encoding_lacks_is_printed_as_escapes(process, encoding):
    code = (
        "import os\nfrom modelsgenesis.cli import console\nconsole.accept_any_name()\n"
        "name = os.fsdecode(b'M\\xfcller') + ' 2\\u00d72 \\u6f22'\n"
        "console.print_line(name)\nconsole.print_table(('scan',), [(name,)])\n"
        "console.note(name)\nconsole.print_json(name)\n"
    )
    ended = process("-c", code, python=True, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr.count("\n")) == (0, 1)
    line, _, row, document = ended.stdout.splitlines()
    assert line.startswith(r"M\udcfcller 2")
    assert row == line
    assert json.loads(document).startswith("M\udcfcller 2×2 漢")


@pytest.mark.parametrize("arguments", [["compare", "--help"], ["list", "--json"], ["pretrain", "--dry-run"]])
def test_a_reader_that_is_gone_ends_the_command_quietly(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-m", "modelsgenesis", *arguments], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_under_the_result_is_one_line_and_under_a_note_nothing():
    start = [sys.executable, "-m", "modelsgenesis"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        ended = subprocess.run([*start, "list"], stdout=full, stderr=subprocess.PIPE)
        assert subprocess.run([*start, "pretend"], stderr=full).returncode == 2
    line = b"error: stdout: cannot be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, line)
