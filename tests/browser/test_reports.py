"""Every kind of report in a browser: it opens, keeps to itself, moves, and reads in light, dark, narrow, on paper."""

import re
from functools import cache

import pytest

from browser.checks import assert_accessible, assert_moves, assert_sound, brightness, colours, sliders
from browser.folders import KINDS, Sources

LIMIT = 5_000_000  # bytes


@pytest.fixture(scope="session")
def folder_of(ct_folder, decathlon, class_folders, genesis, finetuned, tmp_path_factory):
    """The folder of a kind, made once."""
    sources = Sources(ct_folder, decathlon, class_folders, genesis, finetuned[0])
    return cache(lambda kind: KINDS[kind](sources, tmp_path_factory.mktemp(kind.replace(" ", "-"))))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def report(folder_of, kind):
    """The report that a run left; of a run that was cut off and of a folder of runs it is asked for."""
    import modelsgenesis

    run = folder_of(kind)
    if kind in ("cut off", "runs"):
        return modelsgenesis.report(run)
    assert (run / "report.html").exists()
    return run / "report.html"


def test_opens_in_the_light(visit, report, kind, keep):
    assert report.stat().st_size < LIMIT
    with visit(report) as page:
        assert_sound(page)
        assert_accessible(page)
        ground, text = colours(page)
        assert brightness(ground) > 200 > 100 > brightness(text)
        keep(page, f"{kind} light")
        for slider in sliders(page):
            assert_moves(slider)
        page.get_by_role("button", name=re.compile("theme|dark|light", re.IGNORECASE)).first.click()
        assert brightness(colours(page)[0]) < 60
        page.emulate_media(media="print")
        assert brightness(colours(page)[0]) > 200  # paper is white, whatever the screen is
        assert len(page.pdf()) > 10_000


def test_opens_in_the_dark(visit, report, kind, keep):
    with visit(report, color_scheme="dark") as page:
        assert_sound(page)
        assert_accessible(page)
        ground, text = colours(page)
        assert brightness(ground) < 60 < 150 < brightness(text)
        keep(page, f"{kind} dark")


def test_opens_on_a_telephone_without_scripts(visit, report, kind, keep):
    with visit(report, viewport={"width": 390, "height": 844}, java_script_enabled=False) as page:
        assert_sound(page)
        first = page.locator("main").inner_text()
    with visit(report, viewport={"width": 390, "height": 844}) as page:
        assert_sound(page)
        keep(page, f"{kind} narrow")
        said = page.locator("main").inner_text()
        assert len(set(first.split()) & set(said.split())) > 0.9 * len(set(said.split()))


def test_the_keyboard_reaches_everything_and_shows_where_it_is(visit, folder_of, keep):
    with visit(folder_of("segmentation") / "report.html") as page:
        seen = set()
        for _ in range(12):
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            width = focused.evaluate("one => parseFloat(getComputedStyle(one).outlineWidth)")
            style = focused.evaluate("one => getComputedStyle(one).outlineStyle")
            assert width >= 1, focused.evaluate("one => one.outerHTML.slice(0, 200)")
            assert style != "none", focused.evaluate("one => one.outerHTML.slice(0, 200)")
            seen.add(focused.evaluate("one => one.tagName + (one.type || '')"))
        assert {"BUTTONbutton", "INPUTrange"} <= seen


@pytest.mark.parametrize("kind", ["three classes", "evaluation of label maps"])
def test_hostile_names_are_text(visit, report, kind):
    with visit(report) as page:
        said = page.locator("main").inner_text()
        assert "</script><script>window.hacked=1</script>" in said
        assert "<img src=x onerror=window.hacked=1>" in said
