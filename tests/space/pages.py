"""What a person does on the page, for the browser tests."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TEXT = "#query-text textarea, #query-text input"


def search(page, text: str = "", image: Path | None = None, video: Path | None = None) -> str:
    """Fills the fields, searches, and gives the first caption."""
    clear(page)
    page.locator(TEXT).fill(text)
    for label, file in (("Query picture", image), ("Query film", video)):
        if file is not None:
            page.get_by_label(label, exact=True).set_input_files(file)
            name = "image" if label == "Query picture" else "video"
            page.locator(f"#query-{name} :is(img, video)").wait_for(state="attached")
    return found_by(page, page.locator("#search").click)


def clear(page) -> None:
    """Empties the fields and the results."""
    page.locator("#clear").click()
    page.locator("#status", has_text="Cleared.").wait_for()
    # The field is emptied on its own: what is written before that is lost.
    page.wait_for_function("selector => document.querySelector(selector).value === ''", arg=TEXT)
    page.locator("#query-image img, #query-video video").first.wait_for(state="detached")


def found_by(page, action) -> str:
    """The first caption after an action that searches."""
    ended = page.evaluate("window.plume.ended")
    action()
    page.wait_for_function(f"window.plume.ended > {ended} && !document.body.hasAttribute('data-searching')")
    page.locator("#results li").first.wait_for()
    return captions(page)[0]


def captions(page) -> list[str]:
    """Those of all results."""
    return page.locator("#results .caption").all_inner_texts()


def refusal_of(page, action, where="#status") -> str:
    """The first refusal after an action."""
    action()
    page.locator(f"{where} .refused").first.wait_for()
    return page.locator(f"{where} .refused").first.inner_text()


def add_files(page, *files: Path, items: int) -> None:
    """Adds files to the private collection, and waits for the search that follows where the fields hold a query."""
    if not page.get_by_label("Add your own files").count():
        page.get_by_role("button", name="Your own files").click()
    upload = page.get_by_label("Add your own files").set_input_files
    has_query = page.locator(TEXT).input_value() or page.locator("#query-image img, #query-video video").count()
    if has_query:
        found_by(page, lambda: upload(files))
    else:
        upload(files)
    page.locator("#added", has_text=f"{items} item{'s' if items > 1 else ''} added.").wait_for()


def set_steps(page, steps: int, where: str = "#steps") -> None:
    """Moves a slider by its number field."""
    page.locator(f"{where} input[type=number]").fill(str(steps))
    page.locator(f"{where} input[type=number]").press("Tab")


def open_tab(page, name: str) -> None:
    """Opens a tab."""
    page.get_by_role("tab", name=name).click()


def wait_for_charts(page) -> None:
    """Until all charts of the open tab "Diagnostics" are drawn: on busy cores one may come seconds after another."""
    for mark in ("#trajectories .scatterlayer .trace", "#routing .heatmap-label", "#timing .bars .point"):
        page.locator(mark).first.wait_for(state="attached")
