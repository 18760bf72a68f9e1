import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelsgenesis.errors import DataError
from modelsgenesis.files import read_csv, write_csv

ROUGH = ["=cmd|'x'!A0", "@SUM(1+1)", "+1", "-1", "\t=1", "'=1", "＝1", "a\nb", "a\rb", "x\u2028y\x85", '"a", b', "'a"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.csv"


def test_a_table_comes_back_to_the_letter_and_runs_in_no_spreadsheet(table):
    write_csv(table, [{"case": name, "value": -0.5} for name in ROUGH], DataError)
    assert not {line.lstrip('"')[0] for line in table.read_text().split("\n")[1:] if line} & set("=+-@\t")
    assert read_csv(table, DataError) == [{"case": name, "value": "-0.5"} for name in ROUGH]


@given(some.lists(some.tuples(some.text(), some.text()), min_size=1))
def test_any_text_comes_back(table, rows):
    rows = [{"a": one.replace("\0", ""), "=b": two.replace("\0", "")} for one, two in rows]
    write_csv(table, rows, DataError)
    assert read_csv(table, DataError) == rows


def test_cells_without_a_value_are_empty_and_ragged_tables_are_refused(table):
    write_csv(table, [{"a": math.nan, "b": None}, {"c": 0}], DataError, columns=("c",))
    assert read_csv(table, DataError) == [{"c": "", "a": "", "b": ""}, {"c": "0", "a": "", "b": ""}]
    for damaged in (b"", b"a,b\n1\n", b"a\n1,2\n", b'a\n"1', b"\xff\xfe\x00"):
        table.write_bytes(damaged)
        with pytest.raises(DataError, match=r"table\.csv"):
            read_csv(table, DataError)
