"""The page in a real Chromium: what a visitor sees and can do, and what the server lets out."""

import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from small_files import write_pdf, write_picture, write_video

from space import app, trace
from space.service import Service
from space.tools import check_queries

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")

ROOT = Path(__file__).parent.parent.parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
SECONDS = 60_000  # of patience, in ms: the machine may be busy


@pytest.fixture(scope="module")
def address(service):
    page, address = app.launch(service, prevent_thread_lock=True, quiet=True)
    yield address.rstrip("/")
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page in a context of its own; afterwards no request of any context may have gone elsewhere."""
    requests, errors, contexts = [], [], []

    def open_page(width=1200, height=900, at=address, query="", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(SECONDS)
        context.on("request", lambda request: requests.append(request.url))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(at + query)
        page.get_by_label("Query text").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert requests
    outside = [url for url in requests if not re.match(r"(http://127\.0\.0\.1:\d+/|data:|blob:)", url)]
    assert outside == []
    assert errors == []


def search(page, text: str = "", image: Path | None = None, video: Path | None = None) -> str:
    """Fills the fields, searches, and gives the first caption."""
    page.get_by_label("Query text").fill(text)
    for label, file in (("Query image", image), ("Query video", video)):
        if file is not None:
            page.get_by_label(label).set_input_files(file)
            page.locator(f"#{label.lower().replace(' ', '-')} :is(img, video)").wait_for()
    return found_by(page, lambda: page.get_by_role("button", name="Search").click())


def found_by(page, action) -> str:
    """The first caption after an action that searches."""
    page.evaluate("document.querySelector('#status').dataset.seen = document.querySelector('#status').innerText")
    action()
    page.wait_for_function(
        "() => { const s = document.querySelector('#status');"
        " return s.innerText !== s.dataset.seen && /^The best/.test(s.innerText) }"
    )
    return page.locator("#results .caption-label").first.inner_text()


def refusal_of(page, action, where="#status") -> str:
    action()
    page.locator(f"{where} .refused").first.wait_for()
    return page.locator(f"{where} .refused").first.inner_text()


def add_files(page, *files: Path, items: int) -> None:
    if not page.get_by_label("Add your own files").count():
        page.get_by_role("button", name="Your own files").click()
    page.get_by_label("Add your own files").set_input_files(files)
    page.locator("#added", has_text=f"{items} item{'s' if items > 1 else ''} added.").wait_for()


def test_one_click_finds_the_right_item_first_for_at_least_eight_of_ten_prepared_queries(visit):
    page, right, kinds = visit(), [], set()
    for query in check_queries.prepared():
        if query.example:
            kinds.add(query.kind)
            button = page.locator("#examples").get_by_role("button", name=query.label, exact=True)
            caption = found_by(page, button.click)
            right.append(re.fullmatch(rf"1 · 0\.\d+ · {query.concept}(, page \d)? · \w+", caption) is not None)
    assert kinds == {"text", "image", "video", "combination"}
    assert len(right) == 10 and sum(right) >= 8


def test_each_kind_of_query_and_a_combination_find_the_right_item_by_hand(visit):
    queries = ROOT / "examples" / "queries"
    film = ROOT / "space" / "queries" / "frog.mp4"
    assert "banana" in search(visit(), "banana")
    assert "sunflower" in search(visit(), image=queries / "sunflower.png")
    assert "frog" in search(visit(), video=film)
    page = visit()
    assert "frog" in search(page, "frog", video=film)
    assert page.locator("#status").inner_text().startswith("The best 12 of 178 items for “frog” with the film frog.mp4")


def test_results_show_pictures_films_and_documents_with_rank_score_and_alternative_text(visit):
    page = visit()
    search(page, "hot pepper")
    captions = page.locator("#results .caption-label").all_inner_texts()
    assert len(captions) == 12
    assert [caption.split(" · ")[0] for caption in captions] == [str(rank) for rank in range(1, 13)]
    scores = [float(caption.split(" · ")[1]) for caption in captions]
    assert scores == sorted(scores, reverse=True)
    search(page, "banana")
    kinds = {c.split(" · ")[-1] for c in [*captions, *page.locator("#results .caption-label").all_inner_texts()]}
    assert kinds == {"picture", "film", "document"}
    for image in page.locator("#results img").all():
        assert image.get_attribute("src").startswith("data:image/webp;base64,")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 50
        assert image.get_attribute("alt")


def test_own_files_are_searched_named_as_text_and_removed(visit, tmp_path, service):
    page = visit()
    nasty = "<img src=x onerror=document.title='hacked'>.png"
    picture = write_picture(tmp_path / "own.png", seed=11)
    page.get_by_role("button", name="Your own files").click()
    page.get_by_label("Add your own files").set_input_files(
        [{"name": nasty, "mimeType": "image/png", "buffer": picture.read_bytes()}]
    )
    page.locator("#added", has_text="1 item added.").wait_for()
    add_files(page, write_pdf(tmp_path / "report.pdf", 2), write_video(tmp_path / "clip.mp4"), items=3)
    assert "Your collection: 4 items." in page.locator("#own").inner_text()
    caption = search(page, image=picture)
    assert caption.startswith("1 · 1.000 · ") and caption.endswith("· your picture") and "onerror" in caption
    assert page.title() != "hacked" and page.locator("#own img[src=x], #results img[src=x]").count() == 0
    assert not list(service.sessions.upload_folder.rglob("*.pdf"))
    page.get_by_role("button", name="Remove my files").click()
    page.locator("#added", has_text="Your files are removed.").wait_for()
    assert "your picture" not in found_by(page, lambda: page.get_by_role("button", name="Search").click())


def test_refusals_are_sentences_on_the_page(visit, tmp_path, service):
    page = visit()
    go = page.get_by_role("button", name="Search").click
    assert refusal_of(page, go) == "The query is empty: write a text, or add a picture or a film."
    page.get_by_role("button", name="Your own files").click()
    assert service.settings.limits.sentence() in page.locator(".prose", has_text="at most").last.inner_text()
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    (tmp_path / "page.png").write_text("<html><script>alert(1)</script></html>")
    (tmp_path / "cut.png").write_bytes(write_picture(tmp_path / "whole.png", size=(300, 300)).read_bytes()[:400])
    field = page.get_by_label("Add your own files")
    for name, reason in (
        ("drawing.svg", "vector drawings can hold programs and addresses and are not taken"),
        ("page.png", "it is named like a picture, but its content is something else"),
        ("cut.png", "was refused"),
    ):
        page.evaluate("document.querySelector('#added').querySelectorAll('.refused').forEach(e => e.remove())")
        sentence = refusal_of(page, lambda name=name: field.set_input_files(tmp_path / name), "#added")
        assert sentence.startswith(f"“{name}” was refused: ") and reason in sentence


def test_a_disguised_query_picture_is_refused(visit, tmp_path):
    page = visit()
    (tmp_path / "x.png").write_bytes(b"%PDF-1.4\n%%EOF")
    page.get_by_label("Query image").set_input_files(tmp_path / "x.png")
    page.locator("#query-image img").wait_for(state="attached")
    sentence = refusal_of(page, page.get_by_role("button", name="Search").click)
    assert sentence == "“x.png” was refused: it is named like a picture, but its content is a PDF."


@pytest.mark.parametrize("steps", [8, 3])
def test_the_rollout_tab_shows_a_point_for_every_latent_step(visit, steps):
    page = visit()
    page.get_by_label("number input for Latent steps").fill(str(steps))
    page.get_by_label("number input for Latent steps").press("Tab")
    search(page, "banana")
    page.get_by_role("tab", name="Diagnostics").click()
    page.locator("#timing .bars .point").nth(steps + 1).wait_for()
    lines = page.locator("#trajectories .scatterlayer .trace")
    assert lines.count() == 5
    assert [line.locator(".points path").count() for line in lines.all()] == [steps] * 5
    assert page.locator("#timing .bars .point").count() == steps + 2
    weights = [text for text in page.locator("#routing .heatmap-label").all_text_contents() if text]
    assert len(weights) == 2 * steps
    assert page.locator("#anchor-ranking tbody tr").count() >= 5
    assert f"K = {steps}" in page.locator("#diagnostics-query").inner_text()


def test_a_single_pass_has_no_rollout_to_show_and_says_so(visit):
    page = visit()
    page.get_by_role("tab", name="Diagnostics").click()
    page.get_by_text("There is no query yet").first.wait_for()
    page.get_by_role("tab", name="Search").click()
    page.get_by_label("number input for Latent steps").fill("0")
    page.get_by_label("number input for Latent steps").press("Tab")
    search(page, "banana")
    page.get_by_role("tab", name="Diagnostics").click()
    page.get_by_text("was a single pass: there were no latent steps").wait_for()
    assert page.locator("#trajectories").count() == 0 or not page.locator("#trajectories").is_visible()


def test_compare_shows_three_ways_side_by_side(visit):
    page = visit()
    search(page, "banana")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_text("The last query: “banana”.").wait_for()
    page.get_by_role("button", name="Compare").click()
    page.locator("#compared-state", has_text="Done.").wait_for()
    headings = page.locator("#variants h3").all_inner_texts()
    assert headings == ["Single pass", "Latent, K = 8", "Explicit rationale"]
    tops = {section.bounding_box()["y"] for section in page.locator("#variants section").all()}
    assert len(tops) == 1
    assert page.locator("#variants section").first.locator("li").count() == 5
    assert re.search(r"\d+\.\d ms", page.locator("#variants section").nth(1).inner_text())


def test_one_visitor_cannot_see_anothers_files_and_they_go_with_the_session(visit, tmp_path, service, address):
    picture = write_picture(tmp_path / "secret.png", seed=77)
    mine, other = visit(), visit()
    search(mine, image=picture)
    add_files(mine, picture, items=1)
    assert "secret.png · your picture" in found_by(mine, lambda: mine.get_by_role("button", name="Search").click())
    assert "secret" not in search(other, image=picture)
    assert "secret" not in other.locator("#results").inner_text()
    served = mine.locator("#query-image img").get_attribute("src")
    assert httpx.get(served).status_code == 200
    sessions = len(service.sessions)
    mine.context.close()
    for _ in range(100):
        if len(service.sessions) < sessions:
            break
        threading.Event().wait(0.1)
    assert len(service.sessions) == sessions - 1
    other.context.close()
    for _ in range(100):
        if not list(service.sessions.upload_folder.rglob("secret.png")):
            break
        threading.Event().wait(0.1)
    assert not list(service.sessions.upload_folder.rglob("secret.png"))
    assert httpx.get(served).status_code == 403


def test_no_path_of_the_server_is_readable_and_no_address_is_fetched(address, service):
    weights = ROOT / "checkpoints" / "plume-tiny" / "model.safetensors"
    for path in ("/etc/passwd", str(weights), str(service.settings.data), "pyproject.toml", "http://127.0.0.1:1/x"):
        for route in ("file=", "file/", "proxy="):
            answer = httpx.get(f"{address}/gradio_api/{route}{path}")
            assert answer.status_code in (403, 404), (route, path)
            assert b"root:" not in answer.content
    fetched = {"path": f"{address}/config", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [fetched, None, None, 8], "fn_index": 1, "session_hash": "abc"}
    answer = httpx.post(f"{address}/gradio_api/queue/join", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "Addresses are not fetched: download the file and upload it.",
    )


def test_an_upload_is_limited_in_size_and_never_lands_outside_its_folder(address, service, tmp_path):
    large = service.settings.limits.file_bytes + 1
    answer = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"x" * large)}, timeout=60)
    assert answer.status_code == 413
    answer = httpx.post(f"{address}/gradio_api/upload", files={"files": ("../../../tmp/evil.png", b"x")})
    (landed,) = answer.json()
    assert Path(landed).resolve().is_relative_to(service.sessions.upload_folder) and Path(landed).name == "evil.png"


def test_the_page_works_at_320_pixels(visit):
    page = visit(width=320, height=640)
    search(page, "banana")
    for tab in ("Diagnostics", "Compare", "About", "Search"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_function(
            "() => [...document.querySelectorAll('[role=tabpanel]')]"
            ".some(panel => panel.checkVisibility() && panel.innerText.length > 100)"
        )
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, tab
        text = page.get_by_role("tabpanel").locator("visible=true").first.inner_text()
        assert len(text) > 100, tab
    button = page.get_by_role("button", name="Search").bounding_box()
    assert button["x"] >= 0 and button["x"] + button["width"] <= 320


def test_the_page_works_by_keyboard_and_names_everything(visit):
    page = visit()
    page.get_by_label("Query text").focus()
    page.keyboard.type("banana")
    assert "banana" in found_by(page, lambda: page.keyboard.press("Enter"))
    focused = []
    page.get_by_label("Query text").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("e = document.activeElement, e.getAttribute('aria-label') || e.innerText"))
    wanted = [
        "Upload the query's picture",
        "Upload the query's film",
        "range slider for Latent steps",
        "Search",
        "Cancel",
    ]
    places = [focused.index(name) for name in wanted]
    assert places == sorted(places), focused
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, [role=tab], select, textarea')]"
        ".filter(e => e.offsetParent && !(e.getAttribute('aria-label') || e.innerText.trim() || e.title"
        " || (e.labels && e.labels.length))).map(e => e.outerHTML.slice(0, 200))"
    )
    assert unnamed == []
    assert page.locator("#results .gallery-item button").first.get_attribute("aria-label").startswith("1 · ")
    for label in ("Query text", "Query image", "Query video"):
        assert page.get_by_label(label).count() == 1
    assert page.locator("#status [role=status]").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_are_readable_in_light_and_dark_mode(visit, theme):
    page = visit(query=f"/?__theme={theme}", color_scheme=theme)
    search(page, "banana")
    page.get_by_role("tab", name="Diagnostics").click()
    page.locator("#timing .bars .point").first.wait_for()
    for chart in ("trajectories", "routing", "timing"):
        ratio = page.evaluate(CONTRAST, f"#{chart}")
        assert ratio >= 4.5, chart


# WCAG's contrast between the axis labels of a chart and the first ground behind them that is no longer transparent.
CONTRAST = """selector => {
  const light = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const label = document.querySelector(selector + ' .xtick text');
  let ground = label.closest('.js-plotly-plot');
  while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  const [a, b] = [light(getComputedStyle(label).fill), light(getComputedStyle(ground).backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


def test_about_tells_measured_figures(visit):
    page = visit()
    page.get_by_role("tab", name="About").click()
    page.get_by_text("Measured results").wait_for()
    assert re.search(r"\d+ % are found first by their name", page.locator("#about").inner_text())


@pytest.fixture
def held(monkeypatch):
    """Every part of a query waits until it is let go; gives the parts that have begun, and the switch."""
    begun, go = [], threading.Event()
    original = trace._timed

    def waiting(encoder, compute):
        begun.append(compute)
        go.wait(20)
        return original(encoder, compute)

    monkeypatch.setattr(trace, "_timed", waiting)
    yield begun, go
    go.set()


def test_a_query_in_flight_can_be_cancelled(visit, held, monkeypatch):
    begun, go = held
    page = visit()
    page.get_by_label("Query text").fill("banana")
    page.get_by_role("button", name="Search").click()
    for _ in range(200):
        if begun:
            break
        page.wait_for_timeout(50)
    page.get_by_role("button", name="Cancel").first.click()
    page.locator("#status", has_text="Cancelled.").wait_for()
    page.wait_for_timeout(400)  # a query is interrupted after a part, at most four times a second
    go.set()
    page.wait_for_timeout(1500)
    assert len(begun) == 1, "the query went on"
    assert page.locator("#status").inner_text() == "Cancelled."
    assert page.locator("#results img").count() == 0
    monkeypatch.undo()
    assert "banana" in search(page, "banana")


def test_a_full_queue_is_told_to_the_visitor(visit, held, service, encoder):
    _, go = held
    small = Service(replace(service.settings, queue=1, at_a_time=1), encoder, service.sessions.upload_folder)
    small.collection = service.collection
    blocks, address = app.launch(small, prevent_thread_lock=True, quiet=True)
    try:
        pages = [visit(at=address) for _ in range(3)]
        for page in pages:
            page.get_by_label("Query text").fill("banana")
            page.get_by_role("button", name="Search").click()
            page.wait_for_timeout(700)
        told = pages[2].get_by_text(re.compile("busy|queue is full", re.IGNORECASE)).first
        told.wait_for()
        assert told.is_visible() and pages[2].locator("#results img").count() == 0
        go.set()
        for page in pages[:2]:
            page.locator("#results img").first.wait_for()
            assert page.locator("#results img").count() > 0
    finally:
        go.set()
        blocks.close(verbose=False)


def test_the_collections_progress_is_shown_until_it_is_ready(visit, service, encoder, tmp_path):
    from space.content.collection import Collection

    starting = Service(service.settings, encoder, service.sessions.upload_folder)
    starting.collection = Collection(encoder, tmp_path)
    starting.collection.done, starting.collection.total = 57, 178
    blocks, address = app.launch(starting, prevent_thread_lock=True, quiet=True)
    try:
        page = visit(at=address)
        bar = page.get_by_role("progressbar")
        assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("57", "178")
        page.get_by_label("Query text").fill("banana")
        sentence = refusal_of(page, page.get_by_role("button", name="Search").click)
        assert "57 of 178 items" in sentence
        starting.collection = service.collection
        page.locator("#collection-state", has_text="holds 160 pictures").wait_for()
        assert "banana" in search(page, "banana")
    finally:
        blocks.close(verbose=False)


def test_a_second_session_starts_empty(visit):
    first = visit()
    search(first, "banana")
    second = visit()
    second.get_by_role("tab", name="Diagnostics").click()
    second.get_by_text("There is no query yet").first.wait_for()
    assert second.locator("#results img").count() == 0
