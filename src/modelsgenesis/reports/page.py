"""A page of a report: its parts, and how they become one HTML file that opens anywhere, without a network."""

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from modelsgenesis._version import __version__
from modelsgenesis.errors import DataError, printable
from modelsgenesis.files import reason_of, write_atomically
from modelsgenesis.metrics.tables import ResultsTable

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

LIMIT = 5_000_000
"""Bytes that a page has at most; where there are many slides every second one goes until it fits."""

_FEW = 4  # slides of a plane that are not thinned out, such as the original and what became of it
_QUALITY = 85  # of WebP, in which lines of two pixels keep their colours
_NUMBER = re.compile(r"[−+-]?[\d.,]+( [(±].*)?$|[—−]?$")
_FORMATS = {b"\x89PNG": "png", b"\xff\xd8\xff\xe0": "jpeg", b"\xff\xd8\xff\xe1": "jpeg", b"RIFF": "webp"}


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, or a cell of a table that is one.

    Attributes:
        text: What it is called.
        path: Relative to the folder of the page, as it is spelt on disk.
    """

    text: str
    path: str

    @property
    def href(self) -> str:
        """The path as an address; what would make it anything but a file beside the page is quoted."""
        return quote(self.path.encode(errors="surrogateescape"))


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        svg: As `figures.charts.svg_of` returns it; the only part of a page that is not escaped.
        caption: What is drawn, in words.
        alt: What it shows, for those who do not see it.
    """

    svg: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """A table; it scrolls where it is wider or longer than the page."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    caption: str = ""

    @classmethod
    def of(cls, table: ResultsTable) -> Self:
        """Return a table of results; its notes become the caption."""
        return cls(table.header, table.rows, ". ".join(table.notes))

    @property
    def numeric(self) -> set[int]:
        """The columns of nothing but numbers, which stand on the right."""
        columns = enumerate(zip(*self.rows, strict=False))
        return {place for place, cells in columns if all(isinstance(one, str) and _NUMBER.match(one) for one in cells)}


@dataclass(frozen=True)
class Slide:
    """A picture.

    Attributes:
        image: PNG, JPEG or WebP.
        label: Such as `restored`, or `slice 20 of 57`.
        alt: What it shows, for those who do not see it.
    """

    image: bytes
    label: str
    alt: str

    @property
    def address(self) -> str:
        """The picture as a `data:` address."""
        kind = _FORMATS.get(self.image[:4], "png")
        return f"data:image/{kind};base64,{base64.b64encode(self.image).decode()}"


@dataclass(frozen=True)
class Slides:
    """Pictures by plane; one slider moves all planes together. Where each plane has one picture there is no slider.

    Attributes:
        name: Of the case or patch; the slider's name.
        planes: Pictures of each plane, in the same number; of a shorter plane the last one stays.
        caption: What is shown.
        start: Place of the slider when the page opens; None for the middle.
        legend: Colours by what they stand for, as `#rrggbb`.
    """

    name: str
    planes: Mapping[str, Sequence[Slide]]
    caption: str = ""
    start: int | None = None
    legend: Mapping[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The places of the slider."""
        return max(map(len, self.planes.values()), default=0)

    @property
    def layout(self) -> str:
        """How planes are laid out; `page.css` has the rows."""
        return "by4" if len(self.planes) == 4 else "many" if len(self.planes) > 6 else ""

    @property
    def place(self) -> int:
        """Where the slider starts."""
        return self.count // 2 if self.start is None else min(max(self.start, 0), self.count - 1)

    def lighter(self) -> Self:
        """Return half of the slides, or all where they are few."""
        if self.count <= _FEW:
            return self
        kept = slice(self.place % 2, None, 2)  # with the one that is shown first
        planes = {name: tuple(slides)[kept] for name, slides in self.planes.items()}
        return replace(self, planes=planes, start=self.place // 2)


@dataclass(frozen=True)
class Missing:
    """A line in the place of what could not be drawn, or is not there."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command, to be copied."""

    text: str
    caption: str = ""


Block = Chart | Table | Slides | Missing | Code


@dataclass(frozen=True)
class Section:
    """A part of a page under a title of its own; one without blocks and intro is left out."""

    title: str
    blocks: tuple[Block, ...]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: Name of the run.
        kind: What it is a report of, such as `pretraining`.
        verdict: What came out, in a sentence.
        facts: Short facts, by what they are; empty ones are left out.
        sections: What follows.
        remarks: What has to be known beside the results; at the top.
        base: Before the address of each link: where the folder of the run is, seen from the page.
    """

    title: str
    kind: str
    verdict: str
    facts: Mapping[str, str]
    sections: tuple[Section, ...]
    remarks: tuple[str, ...] = ()
    base: str = ""


def try_section(title: str, build: Callable[[], Iterable[Block]]) -> Section:
    """Return a section of what `build` yields; whatever fails in it becomes one line, and never ends a run.

    Example:
        >>> try_section("Cost", lambda: [Missing(str(1 / 0))]).blocks
        (Missing(text='Cost: could not be drawn: division by zero'),)
    """
    blocks: list[Block] = []
    try:
        blocks.extend(build())
    except Exception as problem:  # any at all: files of a run may be cut off anywhere, and hold anything
        blocks.append(Missing(f"{title}: could not be drawn: {reason_of(problem)}"))
    return Section(title, tuple(blocks))


def files_section(folder: Path, names: Iterable[str]) -> Section:
    """Return links to those of the named files that are in the folder of a page."""
    links = [(Link(name, name),) for name in names if (folder / name).exists()]
    return Section("Files", (Table(("file",), links),) if links else ())


def render(page: Page, limit: int = LIMIT) -> str:
    """Return a page as HTML of at most `limit` bytes; nothing in it but charts is taken for markup."""
    while len((text := _html(page)).encode(errors="replace")) > limit:
        if (lighter := _each_slides(page, Slides.lighter)) == page:
            return _html(_each_slides(page, lambda slides: Missing(f"{slides.name}: too large for a page")))
        page = lighter
    return text


def write_page(page: Page, path: Path) -> Path:
    """Write a page atomically.

    Raises:
        DataError: The file cannot be written.
    """
    return write_atomically(path, render(page).encode(errors="replace"), DataError)


def _each_slides(page: Page, change: Callable[[Slides], Block]) -> Page:
    def changed(section: Section) -> Section:
        blocks = tuple(change(one) if isinstance(one, Slides) else one for one in section.blocks)
        return replace(section, blocks=blocks)

    return replace(page, sections=tuple(map(changed, page.sections)))


def encoded(picture: "Image") -> bytes:
    """Return a picture as WebP."""
    written = io.BytesIO()
    picture.save(written, "WebP", quality=_QUALITY, method=1)
    return written.getvalue()


def _html(page: Page) -> str:
    environment, parts = _environment()
    return environment.get_template("page.html.j2").render(page=page, version=__version__, **parts)


@cache
def _environment() -> tuple["Environment", dict[str, Any]]:
    """Return the templates, and what is the same on every page: style, script, and the policy that allows only it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("modelsgenesis.reports")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Names come from elsewhere: what could hide in a line, or turn it round, is shown as an escape.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["kind_of"] = lambda block: type(block).__name__.lower()
    style, script = (loader.get_source(environment, name)[0] for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = {"default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'"}
    allowed |= {"script-src": f"'sha256-{digest}'", "base-uri": "'none'", "form-action": "'none'"}
    policy = "; ".join(f"{name} {value}" for name, value in allowed.items())
    return environment, {"style": Markup(style), "script": Markup(script), "policy": policy}  # noqa: S704 - files of ours
