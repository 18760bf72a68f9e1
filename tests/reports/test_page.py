import io
import re

import numpy as np
import pytest
from PIL import Image

from modelsgenesis.metrics.tables import ResultsTable
from modelsgenesis.reports.page import (
    Chart,
    Link,
    Missing,
    Page,
    Section,
    Slide,
    Slides,
    Table,
    render,
    try_section,
    write_page,
)

HOSTILE = "<script>alert('x')</script>\" \u202e<b>"


def picture(side=64, seed=0):
    written = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(noise).save(written, "PNG")
    return written.getvalue()


def page_of(*blocks, **changes):
    given = {"title": "run", "kind": "pretraining", "verdict": "It works.", "facts": {}} | changes
    return Page(**given, sections=(Section("Part", blocks),))


def test_every_text_is_escaped_and_only_our_own_script_may_run():
    slides = Slides(HOSTILE, {HOSTILE: [Slide(picture(), HOSTILE, HOSTILE)]}, HOSTILE)
    table = Table((HOSTILE, "b"), [(HOSTILE, Link(HOSTILE, f"javascript:{HOSTILE}"))], HOSTILE)
    blocks = (
        Missing(HOSTILE),
        table,
        slides,
        Chart("<svg/>", HOSTILE, HOSTILE),
    )
    facts = {HOSTILE: HOSTILE}
    text = render(page_of(*blocks, title=HOSTILE, kind=HOSTILE, verdict=HOSTILE, facts=facts, remarks=(HOSTILE,)))
    assert text.count("<script>") == 1
    assert not re.search(r"<b>|javascript:|\u202e", text)
    assert "script-src &#39;sha256-" in text
    assert not re.search(r"(?:src|href)=\"(?:https?:|//)", text)


def test_a_page_has_one_heading_a_language_and_landmarks():
    text = render(page_of(Missing("nothing")))
    assert text.count("<h1>") == 1
    assert all(part in text for part in ('<html lang="en">', "<main", "<header>", "<footer>"))
    assert "<nav" not in text  # of one section
    assert "<nav" in render(Page("t", "k", "v", {}, tuple(Section(one, (Missing("x"),)) for one in "abc")))


def test_slides_become_fewer_until_the_page_fits():
    many = Slides("case", {"axial": [Slide(picture(seed=one), str(one), "a slice") for one in range(40)]}, start=31)
    text = render(page_of(many), limit=120_000)
    names = [int(one) for one in re.findall(r'data-name="(\d+)"', text)]
    assert len(text) <= 120_000
    assert 5 <= len(names) < 40
    place = int(re.search(r'value="(\d+)" autocomplete', text)[1])
    assert abs(names[place] - 31) <= 4
    few = Slides("patch", {"axial": [Slide(picture(seed=one), str(one), "a patch") for one in range(4)]})
    assert render(page_of(few, many), limit=120_000).count('alt="a patch"') == 4
    large = Slides("patch", {"axial": [Slide(picture(512), "restored", "a patch")]})
    assert "patch: too large for a page" in render(page_of(large), limit=120_000)


def test_what_fails_in_a_section_is_a_line_in_it():
    def build():
        yield Missing("drawn before")
        raise RuntimeError("no font\nfound")

    section = try_section("Curve", build)
    assert [block.text for block in section.blocks] == ["drawn before", "Curve: could not be drawn: found"]


@pytest.mark.parametrize(("start", "place"), [(None, 1), (0, 0), (9, 2)])
def test_a_slider_starts_within_its_slides(start, place):
    assert Slides("patch", {"axial": [Slide(b"", "", "")] * 3, "coronal": []}, start=start).place == place


def test_a_table_of_results_keeps_its_notes():
    table = Table.of(ResultsTable(("structure", "Dice"), (("liver", "0.900"),), notes=("1 patient", "no interval")))
    text = render(page_of(table))
    assert "1 patient. no interval" in text
    assert "<td class=number>0.900</td>" in text


def test_names_that_no_encoding_holds_are_written(tmp_path):
    path = write_page(page_of(Table(("file",), [(Link("scan\udcff", "scan\udcff.html"),)])), tmp_path / "report.html")
    assert "scan%FF.html" in path.read_text()
