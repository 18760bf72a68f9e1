"""NiiVue draws what the viewer serves."""

import io

import numpy as np
import pytest
from PIL import Image

from browser.checks import assert_accessible, assert_sound
from modelsgenesis.demo import sample_folder
from modelsgenesis.viewer import Viewer, view

pytest.importorskip("ipyniivue", reason="needs modelsgenesis[viewer]")


@pytest.fixture(scope="module")
def viewer():
    name = "c03_ts_thorax"
    images, labels = sample_folder() / "images", sample_folder() / "labels"
    server: Viewer = view(images / f"{name}.nii.gz", labels / f"{name}_heart.nii.gz", open_browser=False)
    yield server
    server.close()


def drawn(page):
    """Return the canvas as [height, width, 3], once it is still."""
    page.wait_for_selector("body[data-drawn]")
    page.wait_for_timeout(300)
    return np.asarray(Image.open(io.BytesIO(page.locator("#scan").screenshot())).convert("RGB")).astype(int)


def coloured(picture):
    """Return where a picture is not grey, but for the orange lines of the crosshair."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    return (abs(red - blue) > 25) & ~((red > 180) & (blue < 60)) & ~((red > green) & (green > blue))


def changed(one, other):
    """Return the share of pixels that differ in each third of the width: axial, coronal, sagittal."""
    differs = abs(one - other).max(axis=-1) > 20
    return [part.mean() for part in np.array_split(differs, 3, axis=1)]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_scan_and_label_map_are_drawn_in_linked_planes(visit, keep, viewer, theme):
    with visit(viewer.url, color_scheme=theme) as page:
        first = drawn(page)
        assert first.std() > 20, "the canvas is empty"
        assert coloured(first).sum() > 500, "the label map is not drawn"
        keep(page, f"viewer-{theme}")
        assert_sound(page)
        assert_accessible(page)
        box = page.locator("#scan canvas").bounding_box()
        page.mouse.click(box["x"] + 0.12 * box["width"], box["y"] + 0.5 * box["height"])
        assert min(changed(first, drawn(page))) > 0.002, "a click does not move all planes"
        slider = page.get_by_label("Bottom–top")
        before, value = drawn(page), slider.input_value()
        for _ in range(5):
            slider.press("ArrowLeft")
        assert int(slider.input_value()) == int(value) - 5
        assert changed(before, drawn(page))[0] > 0.01, "the arrow keys do not move the axial plane"
        page.get_by_role("checkbox").uncheck()
        assert coloured(drawn(page)).sum() < 50, "the label map is still there"


@pytest.fixture
def pictures(tmp_path):
    """Pictures with names that must be escaped, one of them without a label map."""
    for folder in ("scans", "maps"):
        (tmp_path / folder).mkdir()
    picture, labels = np.arange(6000, dtype=np.uint32).reshape(60, 100) // 24, np.zeros((60, 100), np.uint8)
    labels[10:40, 20:60] = 9
    for name in ("<script>window.hacked=1<|script>", "אבג", "plain"):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "scans" / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / "maps" / f"{name}.png")
    (tmp_path / "maps" / "plain.png").unlink()
    return tmp_path


def test_cases_with_any_name_are_listed_found_and_drawn(visit, keep, pictures):
    server = view(pictures / "scans", pictures / "maps", open_browser=False)
    try:
        with visit(server.url) as page:
            assert coloured(drawn(page)).sum() > 500
            assert_sound(page)
            assert_accessible(page)
            keep(page, "viewer-cases")
            page.get_by_label("Find a case").fill("PLAI")
            page.locator("#list a:visible").click()
            assert drawn(page).std() > 20
            assert page.locator("h2").text_content() == "plain"
            assert page.get_by_role("checkbox").count() == 0
    finally:
        server.close()


def test_the_viewer_on_a_telephone(visit, keep, viewer):
    with visit(viewer.url, viewport={"width": 390, "height": 800}) as page:
        assert drawn(page).std() > 10
        assert_sound(page)
        keep(page, "viewer-narrow")
