"""What holds for every page: of a report and of the viewer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_GRAVE = ("serious", "critical")
_FACTS = """() => {
    const SILENT = 'img:not([alt]), svg:not([role=img], [role=img] svg, [aria-hidden=true])';
    const all = selector => [...document.querySelectorAll(selector)];
    const ids = all('[id]').map(one => one.id);
    return {
        lang: document.documentElement.lang,
        title: document.title.trim(),
        headings: all('h1').length,
        main: all('main').length,
        twice: ids.filter((one, index) => ids.indexOf(one) !== index),
        broken: all('img').filter(one => one.complete && !one.naturalWidth).map(one => one.alt),
        silent: all(SILENT).map(one => one.outerHTML.slice(0, 200)),
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        hacked: String(window.hacked),
    };
}"""
_NAMED = ("lang", "title")
_FINE = {"headings": 1, "main": 1, "twice": [], "broken": [], "silent": [], "overflow": 0, "hacked": "undefined"}


def assert_sound(page: "Page") -> None:
    """One heading, one main part, a language and a title, whole pictures with a text, nothing beside the window."""
    facts: dict[str, Any] = page.evaluate(_FACTS)
    wrong = {name: value for name, value in facts.items() if (not value if name in _NAMED else value != _FINE[name])}
    assert not wrong, wrong


def assert_accessible(page: "Page") -> None:
    """No fault that axe-core calls serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = [one for one in Axe().run(page).response["violations"] if one["impact"] in _GRAVE]
    told = [f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]
    assert not found, "\n".join(told)


def colours(page: "Page") -> tuple[str, str]:
    """Return the colours of the ground and of the text."""
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return ground, page.evaluate("getComputedStyle(document.querySelector('h1')).color")


def brightness(colour: str) -> float:
    """Return the mean of `rgb(…)`, 0 to 255."""
    parts: Sequence[str] = colour.partition("(")[2].rstrip(")").split(",")[:3]
    return sum(map(float, parts)) / 3


def sliders(page: "Page") -> "list[Locator]":
    """Return the sliders with more than one position."""
    found = page.locator("input[type=range]").all()
    return [one for one in found if one.get_attribute("min") != one.get_attribute("max")]


def shown_by(slider: "Locator") -> list[str]:
    """Return the addresses of what a slider moves: the visible pictures of its figure, each decoded.

    Not their pixels: where a picture lies between two pixels, or is still being decoded, those differ between two
    screenshots of the same picture.
    """
    pictures = slider.locator("xpath=ancestor::*[.//img][1]").locator("img:visible")
    return [picture.evaluate("one => one.decode().then(() => one.currentSrc)") for picture in pictures.all()]


def assert_moves(slider: "Locator") -> None:
    """The arrow keys move the slider, and the pictures with it, there and back."""
    slider.focus()
    at_end = slider.input_value() == slider.get_attribute("max")
    there, back = ("ArrowLeft", "ArrowRight") if at_end else ("ArrowRight", "ArrowLeft")
    seen = [shown_by(slider)]
    for key in (there, back):
        slider.press(key)
        seen.append(shown_by(slider))
    assert seen[0], "no picture is shown"
    assert seen[0] != seen[1], "the picture does not change"
    assert seen[0] == seen[2], "the picture does not come back"
