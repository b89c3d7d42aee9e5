"""Pages as a browser shows them: what can be clicked, dragged, pinched and typed, in any size and in both colours."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.pages.conftest import HOSTILE, pixels, whole_page

from srquant.pages.contents import Page
from srquant.pages.rendering import write_page

SIZES = [(1600, 1000), (360, 740)]
CANVAS = """number => (number === null ? document.getElementById('stage-picture')
  : document.querySelectorAll('.cell canvas')[number]).toDataURL()"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(whole_page(), tmp_path_factory.mktemp("page") / "page.html")


def drawn(page: Any, number: int | None = None) -> Any:
    """Pixels of the stage, or of a cell: ``h w 3``."""
    settled(page)
    file = base64.b64decode(page.evaluate(CANVAS, number).partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGBA"))[..., :3]


def settled(page: Any) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def waited(page: Any, condition: str) -> None:
    """Until something holds, or the test fails."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(condition)


def view(page: Any) -> dict[str, float]:
    settled(page)
    return page.evaluate("({x: comparer.view.x, y: comparer.view.y, zoom: comparer.view.zoom})")


def expected(picture: Any, seen: dict[str, float], height: int, width: int) -> Any:
    """What a canvas shows of a picture at a whole zoom, by nearest neighbours."""
    zoom = int(seen["zoom"])
    left, top = round(width / 2 - seen["x"] * zoom), round(height / 2 - seen["y"] * zoom)
    rows, columns = ((np.arange(length) - start) // zoom for length, start in ((height, top), (width, left)))
    inside = (rows >= 0) & (rows < picture.shape[0]), (columns >= 0) & (columns < picture.shape[1])
    shown = np.zeros((height, width, 3), np.uint8)
    shown[np.ix_(*inside)] = picture[rows[inside[0]]][:, columns[inside[1]]]
    return shown


@pytest.mark.parametrize("size", SIZES, ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_fits_and_is_accessible(open_page, path: Path, size: tuple[int, int], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is absent").Axe()
    page = open_page(path, *size, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    light = sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) > 384
    assert light == (scheme == "light")
    for details in page.query_selector_all("details"):
        details.evaluate("element => { element.open = true; }")
    for mode in ("slider", "all", "difference"):
        page.check(f"input[value={mode}]")
        settled(page)
        found = axe.run(page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_slider_shows_one_picture_on_each_side(open_page, path: Path) -> None:
    page = open_page(path)
    page.click("#zoom-fit")
    seen, shown = view(page), drawn(page)
    assert seen["zoom"] == int(seen["zoom"]) > 1
    left, right = (expected(pixels(number), seen, *shown.shape[:2]) for number in (2, 3))
    middle = round(shown.shape[1] / 2)
    assert np.array_equal(shown[:, :middle], left[:, :middle])
    assert np.array_equal(shown[:, middle:], right[:, middle:])

    box = page.locator("#divider").bounding_box()
    stage = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.8 * stage["width"], box["y"] + 100)
    page.mouse.up()
    shown = drawn(page)
    assert np.array_equal(shown[:, : middle + 20], left[:, : middle + 20])
    assert page.get_attribute("#divider", "aria-valuenow") == "80"
    assert view(page) == seen

    page.focus("#divider")
    page.keyboard.press("ArrowLeft")
    settled(page)
    assert page.get_attribute("#divider", "aria-valuetext") == "78 % float, 22 % plain"
    page.keyboard.press("End")
    assert np.array_equal(drawn(page), left)
    page.keyboard.press("Home")
    assert np.array_equal(drawn(page), right)


@pytest.mark.parametrize("ratio", [1, 3])
def test_at_one_to_one_pixels_are_those_of_the_file(open_page, path: Path, ratio: int) -> None:
    page = open_page(path, 600, 700, device_scale_factor=ratio)
    page.focus("#stage")
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    seen, shown = view(page), drawn(page)
    assert seen["zoom"] == 1
    assert shown.shape[1] == round(ratio * page.evaluate("document.getElementById('stage').clientWidth"))
    left, right = (expected(pixels(number), seen, *shown.shape[:2]) for number in (2, 3))
    middle = round(shown.shape[1] / 2)
    assert np.array_equal(shown, np.concatenate((left[:, :middle], right[:, middle:]), 1))


def test_zooming_keeps_the_place_and_stays_in_the_picture(open_page, path: Path) -> None:
    page = open_page(path)
    stage = page.locator("#stage").bounding_box()
    page.click("#zoom-fit")
    whole = view(page)
    place = [stage["x"] + 0.25 * stage["width"], stage["y"] + 0.4 * stage["height"]]
    at = "([x, y]) => comparer.view.at(x, y, comparer.mainCanvas)"
    inside = [0.25 * stage["width"], 0.4 * stage["height"]]
    before = page.evaluate(at, inside)
    page.mouse.move(*place)
    page.mouse.wheel(0, -200)
    settled(page)
    assert view(page) == whole, "the page scrolls until the picture is used"
    page.locator("#stage").scroll_into_view_if_needed()
    stage = page.locator("#stage").bounding_box()
    place = [stage["x"] + 0.25 * stage["width"], stage["y"] + 0.4 * stage["height"]]
    page.focus("#stage")
    page.mouse.move(*place)
    page.mouse.wheel(0, -700)
    waited(page, f"comparer.view.zoom > {1.5 * whole['zoom']}")
    assert page.evaluate(at, inside) == pytest.approx(before, abs=0.5)
    for _ in range(9):
        page.keyboard.press("-")
    assert view(page)["zoom"] == 1
    for _ in range(9):
        page.keyboard.press("+")
    assert view(page)["zoom"] == 32
    for _ in range(60):
        page.keyboard.press("Shift+ArrowLeft")
    seen = view(page)
    assert 0 <= seen["x"] <= stage["width"] / 32
    page.keyboard.press("r")
    assert 0 < view(page)["zoom"] <= 4
    page.keyboard.press("0")
    assert view(page) == whole


def test_dragging_moves_all_pictures_alike(open_page, path: Path) -> None:
    page = open_page(path, 1000, 900)
    page.focus("#stage")
    page.keyboard.press("a")
    page.keyboard.press("+")
    page.keyboard.press("+")
    before = view(page)
    box = page.locator(".cell").nth(1).bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 100, steps=3)
    page.mouse.up()
    seen = view(page)
    assert (seen["x"], seen["y"]) == pytest.approx(
        (before["x"] - 40 / seen["zoom"], before["y"] - 20 / seen["zoom"]), abs=0.02
    )
    assert seen["zoom"] == int(seen["zoom"])
    for number in range(5):
        shown = drawn(page, number)
        assert np.array_equal(shown, expected(pixels(number), seen, *shown.shape[:2]))


def test_two_fingers_zoom_on_a_phone(open_page, path: Path) -> None:
    page = open_page(path, 360, 740, has_touch=True, is_mobile=True)
    page.locator("#stage").scroll_into_view_if_needed()
    before = view(page)
    box = page.locator("#stage").bounding_box()
    touch = page.context.new_cdp_session(page)
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 4]

    def fingers(kind: str, apart: float) -> None:
        points = [{"x": middle[0] + sign * apart, "y": middle[1]} for sign in (-1, 1)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if kind == "touchEnd" else points})

    fingers("touchStart", 30)
    for apart in (40, 60, 90):
        fingers("touchMove", apart)
    fingers("touchEnd", 0)
    assert view(page)["zoom"] == pytest.approx(3 * before["zoom"], rel=0.15)


def test_the_difference_of_two_pictures(open_page, path: Path) -> None:
    page = open_page(path)
    page.click("#zoom-fit")
    page.check("input[value=difference]")
    page.select_option("#gain", "1")
    seen, shown = view(page), drawn(page)
    heat = page.evaluate("[...HEAT]")
    colour = heat[3 * round(40 / 3) : 3 * round(40 / 3) + 3]  # one channel of three differs by 40
    inside = expected(pixels(1), seen, *shown.shape[:2]).any(-1)
    assert (shown[inside] == colour).all()
    assert page.locator("#difference-most").inner_text() == "255 of 255 and more"
    page.select_option("#right-picture", "2")
    assert not drawn(page).any()


def test_pictures_are_chosen_by_menu_and_by_key(open_page, path: Path) -> None:
    page = open_page(path)

    def labels() -> tuple[str, str]:
        settled(page)
        return page.locator("#label-left").inner_text(), page.locator("#label-right").inner_text()

    assert labels() == ("float · 28.70 dB", "plain · 28.70 dB")
    page.select_option("#left-picture", "0")
    assert labels() == ("HR · 28.70 dB", "plain · 28.70 dB")
    page.click("#swap")
    assert labels() == ("plain · 28.70 dB", "HR · 28.70 dB")
    page.focus("#stage")
    for key in (".", ".", "x", "<"):
        page.keyboard.press(key)
    assert labels() == ("bicubic · 28.70 dB", "plain · 28.70 dB")
    page.focus("input[name=scene]:checked")
    page.keyboard.press("ArrowRight")
    waited(page, "comparer.scene.name.startsWith('second')")
    assert labels() == ("bicubic · 28.70 dB", "plain · 28.70 dB"), "what was chosen stays chosen"
    page.focus("#stage")
    page.keyboard.press("0")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    shown = drawn(page)
    assert np.array_equal(shown, expected(pixels(2), view(page), *shown.shape[:2]))


def test_the_mouse_reads_colours(open_page, path: Path) -> None:
    page = open_page(path)
    page.click("#zoom-fit")
    seen = view(page)
    stage = page.locator("#stage").bounding_box()
    page.mouse.move(stage["x"] + stage["width"] / 2 + 50, stage["y"] + stage["height"] / 2 + 10)
    x, y = int(seen["x"] + 50 / seen["zoom"]), int(seen["y"] + 10 / seen["zoom"])
    text = page.locator("#pixel-facts").inner_text()
    assert text == f"x {x}, y {y} ·  float {x} {y} 80 ·  plain {x} {y} 120"


def test_tables_sort_by_any_column(open_page, path: Path) -> None:
    page = open_page(path)
    table = page.locator("#scores table").first

    def names() -> list[str]:
        return table.locator("tbody th span").all_inner_texts()

    heading = table.get_by_role("button", name="PSNR (dB)")
    heading.click()
    assert names() == ["edsr ×4 better", "float edsr ×4", "edsr ×4"]
    heading.focus()
    page.keyboard.press("Enter")
    assert names() == ["edsr ×4", "float edsr ×4", "edsr ×4 better"]
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    table.get_by_role("button", name="file").click()
    assert names() == ["edsr ×4 better", "float edsr ×4", "edsr ×4"], "smallest first, what has none last"


def test_charts_follow_their_menus_and_the_colours(open_page, path: Path) -> None:
    page = open_page(path, color_scheme="light")
    shown = (
        "Chart.getChart('trade-off-chart').data.datasets.map(each => [each.label, each.data.length, each.borderColor])"
    )
    before = page.evaluate(shown)
    assert [row[:2] for row in before] == [["edsr ×4", 1], ["edsr ×4 better", 2], ["float", 2]]
    options = page.locator("#trade-off-cost option").all_inner_texts()
    assert options == ["size (kB)"], "no point has a time"
    page.select_option("#trade-off-network", "1")
    assert [row[0] for row in page.evaluate(shown)] == ["edsr ×4", "edsr ×4 better"]
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(shown)[0][2] != before[0][2]
    page.emulate_media(color_scheme="dark")
    assert page.locator("#theme").inner_text() == "Light"
    bars = "Chart.getChart(document.querySelector('#layers-losses canvas')).data.datasets[0].data"
    assert page.evaluate(bars) == [0.02, None]
    assert page.locator("#layers-note").inner_text() == "worst: edsr ×4"
    page.select_option("#layers-model", "1")
    assert page.locator("#layers-note").inner_text() == "nothing measured"
    assert not page.locator("#layers-losses").is_visible()
    assert page.locator("#curves h3").all_inner_texts() == ["feature", "loss edsr ×4"]


def test_names_cannot_run(open_page, tmp_path: Path) -> None:
    page = open_page(write_page(whole_page(HOSTILE), tmp_path / "page.html"), 360, 740)
    page.check("input[value=all]")
    page.click("#provenance summary")
    settled(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator("h1").inner_text().replace("\n", " ") == f"{HOSTILE} loses 0.08 dB."
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_moves_for_those_who_asked_for_that(open_page, path: Path) -> None:
    moving = open_page(path, reduced_motion="no-preference")
    assert moving.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "smooth"
    page = open_page(path, reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.evaluate("document.getAnimations().length") == 0
    assert page.evaluate("Object.values(Chart.instances).every(each => each.options.animation === false)")


def test_a_page_with_nothing_to_show_opens(open_page, tmp_path: Path) -> None:
    page = open_page(write_page(Page("nothing", "Nothing was measured."), tmp_path / "page.html"))
    assert page.locator("h1").inner_text() == "Nothing was measured."
