"""Reports and the viewer as a browser shows them; every test of this folder carries the marker `browser`.

    pytest -m browser tests/browser

`with visit(report, color_scheme="dark") as page:` opens a page; a message in its console, an error of a script, a
dialogue, or a request that leaves the page's own file or server fails the test. Screenshots stay in
`build/screenshots`.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL 2 without a graphics card
_NAMES = ("chromium", "chromium-browser", "google-chrome")

Visit = Callable[..., "AbstractContextManager[Page]"]


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("browser")


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs modelsgenesis[browser]")
    pytest.importorskip("axe_playwright_python", reason="needs modelsgenesis[browser]")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(_NAMES)}; apt install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: "Browser") -> Visit:
    """Open a file or an address, 1280 pixels wide; keywords are those of a context of playwright."""

    @contextmanager
    def visit(place: Path | str, **how: Any) -> "Iterator[Page]":
        address, problems = place.resolve().as_uri() if isinstance(place, Path) else place, list[str]()

        def see(url: str) -> None:
            apart = (urlsplit(url)._replace(fragment=""), urlsplit(address)._replace(fragment=""))
            own = apart[0] == apart[1] if isinstance(place, Path) else apart[0][:2] == apart[1][:2]
            if not own and not url.startswith(("data:", "blob:")):
                problems.append(f"request to {url[:200]}")

        def hear(said: "ConsoleMessage") -> None:
            if said.type in ("error", "warning"):
                problems.append(f"console: {said.text}")

        def refuse(dialogue: "Dialog") -> None:
            problems.append(f"dialogue: {dialogue.message}")
            dialogue.dismiss()

        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
        try:
            page = context.new_page()
            page.on(
                "console", lambda said: said.type in ("error", "warning") and problems.append(f"console: {said.text}")
            )
            page.on("pageerror", lambda error: problems.append(f"script: {error.message}"))
            page.on("request", lambda request: see(request.url))
            page.on("websocket", lambda socket: see(socket.url.replace("ws", "http", 1)))
            page.on("dialog", refuse)
            page.goto(address, wait_until="load")
            yield page
            page.wait_for_timeout(50)  # what the last action set off
            assert not problems, problems
        finally:
            context.close()

    return visit


@pytest.fixture
def keep() -> "Callable[[Page, str], None]":
    """Keep a screenshot of a whole page under a name."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def keep(page: "Page", name: str) -> None:
        page.screenshot(path=SCREENSHOTS / f"{name.replace(' ', '-')}.png", full_page=True)

    return keep
