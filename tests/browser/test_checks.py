"""The checks of this folder see what they are for."""

import pytest

from browser.checks import assert_accessible, assert_moves, assert_sound, sliders

PICTURE = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' id='0'/>"
PAGE = """<!doctype html><html lang=en><title>A page</title><main><h1>A page</h1><figure>
<img alt="a square" width=20 height=20 src="{picture}">
<label>slice <input type=range min=0 max=3 value=0></label></figure>{more}</main>"""
MOVES = """<script>document.querySelector('input').oninput = event => {
const picture = document.querySelector('img');
picture.src = picture.src.replace(/id='.'/, `id='${event.target.value}'`);
}</script>"""


@pytest.fixture
def page_of(tmp_path):
    def page_of(more):
        (tmp_path / "page.html").write_text(PAGE.format(more=more, picture=PICTURE))
        return tmp_path / "page.html"

    return page_of


def test_a_good_page(visit, page_of):
    with visit(page_of(MOVES)) as page:
        assert_sound(page)
        assert_accessible(page)
        (slider,) = sliders(page)
        assert_moves(slider)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("<script>console.error('lost')</script>", "console: lost"),
        ("<script>missing()</script>", "script: missing is not defined"),
        ("<script>alert(1)</script>", "dialogue: 1"),
        ("<img alt='' src='http://127.0.0.1:9/a.png'>", "request to http://127"),
        ("<link rel=stylesheet href='style.css'>", "request to file:///.*style.css"),
        ("<script>new WebSocket('ws://127.0.0.1:8')</script>", "request to http://127"),
    ],
)
def test_what_a_page_must_not_do(visit, page_of, more, expected):
    with pytest.raises(AssertionError, match=expected), visit(page_of(more)) as page:
        page.wait_for_timeout(50)


@pytest.mark.parametrize(
    ("more", "check", "expected"),
    [
        ("<h1>Another</h1>", assert_sound, "headings"),
        ("<p id=a></p><p id=a></p>", assert_sound, "twice"),
        ("<svg></svg>", assert_sound, "silent"),
        ("<img alt=gone src='data:image/png;base64,AAAA'>", assert_sound, "broken"),
        ("<p style='width: 2000px'>wide</p>", assert_sound, "overflow"),
        ("<p style='color: #bbb'>pale</p>", assert_accessible, "color-contrast"),
        ("<button></button>", assert_accessible, "button-name"),
        ("", lambda page: assert_moves(*sliders(page)), "does not change"),
    ],
)
def test_what_a_page_must_not_be(visit, page_of, more, check, expected):
    with visit(page_of(more)) as page, pytest.raises(AssertionError, match=expected):
        check(page)
