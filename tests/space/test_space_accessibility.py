"""WCAG 2.2 AA by axe-core: no violation on any tab, in both themes, at both widths; keys and focus.

axe-core (MPL-2.0) is fetched by npm when the tests run; it is not part of the repository.
"""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from pages import TEXT, add_files, found_by, open_tab, search, wait_for_charts
from small_files import write_picture

AXE = "axe-core@4.10.3"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of axe-core."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm here to fetch axe-core with")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extract("package/axe.min.js", folder, filter="data")
    return folder / "package" / "axe.min.js"


def violations(page, axe: Path) -> list[str]:
    """What axe-core finds on the page once no search runs and nothing fades: Gradio dims results that are due anew."""
    page.wait_for_function(
        "() => !document.body.hasAttribute('data-searching') && !document.querySelector('#results .pending')"
        " && !document.getAnimations().some(one => one instanceof CSSTransition && one.playState === 'running')"
    )
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=axe)
    found = page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})"
        ".then(result => result.violations.flatMap(one => one.nodes.map("
        "node => `${one.id} ${node.target.join()} ${node.html.slice(0, 160)} ${node.failureSummary.slice(0, 300)}`)))",
        TAGS,
    )
    return found


# Each theme and each width once; the other two with -m slow.
@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_no_tab_violates_wcag_22_aa(visit, axe, tmp_path, theme, width):
    page = visit(width=width, query=f"?__theme={theme}&q=cactus", color_scheme=theme)
    add_files(page, write_picture(tmp_path / "mine.png"), items=1)
    page.get_by_text("Code for this query").click()
    found = {"search": violations(page, axe)}
    page.locator("#results button").first.click()
    page.locator("#detail dialog[open]").wait_for()
    found["enlarged"] = violations(page, axe)
    page.keyboard.press("Escape")
    open_tab(page, "Diagnostics")
    page.locator("#timing", has_text="median of").wait_for()
    wait_for_charts(page)
    page.locator("#tamper").click()
    page.locator("#tampered section").nth(2).wait_for()
    found["diagnostics"] = violations(page, axe)
    open_tab(page, "Compare")
    page.locator("#compare").click()
    page.locator("#compared-state", has_text="Done.").wait_for()
    found["compare"] = violations(page, axe)
    open_tab(page, "About")
    page.get_by_text("Measured results").wait_for()
    found["about"] = violations(page, axe)
    assert {tab: what for tab, what in found.items() if what} == {}


def test_arrow_keys_move_between_tabs_and_focus_stays_after_a_search(visit):
    page = visit()
    page.get_by_role("tab", name="Search").focus()
    keys = [("ArrowRight", "Diagnostics"), ("End", "About"), ("ArrowRight", "Search"), ("ArrowLeft", "About")]
    for key, name in [*keys, ("Home", "Search")]:
        page.keyboard.press(key)
        tab = page.get_by_role("tab", name=name)
        assert tab.get_attribute("aria-selected") == "true" and tab.evaluate("tab => tab === document.activeElement")
    page.locator("#search").focus()
    found_by(page, lambda: page.keyboard.press("Enter"))
    assert page.evaluate("document.activeElement.id") == "search"
    page.locator(TEXT).fill("fox")
    assert "fox" in found_by(page, lambda: page.keyboard.press("Enter"))
    assert page.locator(TEXT).evaluate("field => field === document.activeElement")
    example = page.locator("#examples button").first
    example.focus()
    found_by(page, lambda: page.keyboard.press("Enter"))
    assert example.evaluate("button => button === document.activeElement")


def test_everything_has_a_name_and_results_are_announced(visit):
    page = visit()
    page.get_by_role("button", name="Your own files").click()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, [role=tab], select, textarea')]"
        ".filter(e => e.checkVisibility({visibilityProperty: true, contentVisibilityAuto: true}))"
        ".filter(e => !(e.getAttribute('aria-label') || e.innerText.trim() || e.title"
        " || (e.labels && e.labels.length))).map(e => e.outerHTML.slice(0, 200))"
    )
    assert unnamed == []
    assert page.locator("#status [role=status]").count() == 1
    for name in ("Query picture", "Query film", "Add your own files"):
        assert page.get_by_label(name, exact=True).count() == 1
    search(page, "banana")
    assert page.locator("#status [role=status]").inner_text().startswith("The best 12 of 178 items for “banana”")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_are_readable_in_light_and_dark_mode(visit, theme):
    page = visit(query=f"?__theme={theme}", color_scheme=theme, width=390)
    open_tab(page, "Diagnostics")
    wait_for_charts(page)
    for chart in ("trajectories", "routing", "timing"):
        assert page.evaluate(CONTRAST, f"#{chart}") >= 4.5, chart
    ratios = page.evaluate(CELLS)
    assert len(ratios) == 16 and min(ratios) >= 4.5, ratios
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_works_at_320_pixels(visit):
    page = visit(width=320, height=640)
    for tab in ("Diagnostics", "Compare", "About", "Search"):
        open_tab(page, tab)
        page.wait_for_function(
            "() => [...document.querySelectorAll('[role=tabpanel]')]"
            ".some(panel => panel.checkVisibility() && panel.innerText.length > 100)"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, tab
    button = page.locator("#search").bounding_box()
    assert button["x"] >= 0 and button["x"] + button["width"] <= 320


LIGHT = """const light = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);"""
# WCAG's contrast between the axis labels of a chart and the first ground behind them that is no longer transparent.
CONTRAST = (
    "selector => {"
    + LIGHT
    + """
  const label = document.querySelector(selector + ' .xtick text');
  let ground = label.closest('.js-plotly-plot');
  while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  return contrast(light(getComputedStyle(label).fill), light(getComputedStyle(ground).backgroundColor));
}"""
)
# The same between each number of the heat map and its cell, whose colour is read from the picture that Plotly draws.
CELLS = (
    "async () => {"
    + LIGHT
    + """
  const image = document.querySelector('#routing .hm image'), drawn = new Image();
  drawn.src = image.href.baseVal; await drawn.decode();
  const canvas = document.createElement('canvas'); canvas.width = drawn.width; canvas.height = drawn.height;
  const context = canvas.getContext('2d'); context.drawImage(drawn, 0, 0);
  const frame = image.getBoundingClientRect();
  return [...document.querySelectorAll('#routing .heatmap-label')].filter(label => label.textContent).map(label => {
    const box = label.getBoundingClientRect();
    const x = (box.left + box.width / 2 - frame.left) / frame.width * canvas.width;
    const y = (box.top - 3 - frame.top) / frame.height * canvas.height;
    const [r, g, b] = context.getImageData(x, y, 1, 1).data;
    return contrast(light(getComputedStyle(label).fill), light(`rgb(${r}, ${g}, ${b})`));
  });
}"""
)
