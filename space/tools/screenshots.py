"""Pictures of the page: `python -m space.tools.screenshots [FOLDER]`, with Chromium and playwright installed.

Renews `space/screenshot.png` (README, docs) and `space/preview.webp` (what other sites show). With a folder, it also
writes every tab there, in light and dark, at 1280 and 390 pixels, to be looked at.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from space import app
from space.settings import Settings

SPACE = Path(__file__).parent.parent
PREVIEW_SIZE = (1200, 630)
SECONDS = 120_000  # in ms
TABS = ("Search", "Diagnostics", "Compare", "About")


def open_page(browser: Any, address: str, width: int, theme: str, query: str = "") -> Any:
    """The page in a context of its own, its first query answered."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    context.set_default_timeout(SECONDS)
    page = context.new_page()
    page.goto(f"{address}/?__theme={theme}{query}")
    page.locator("#results li").first.wait_for()
    page.locator("body:not([data-searching])").wait_for()
    return page


def picture_of_the_search(browser: Any, address: str) -> None:
    """The README's picture and the preview image."""
    page = open_page(browser, address, 1280, "light")
    page.wait_for_function("[...document.querySelectorAll('#results img')].every(image => image.complete)")
    page.screenshot(path=SPACE / "screenshot.png")
    with Image.open(SPACE / "screenshot.png") as picture:
        small = picture.convert("RGB").resize((PREVIEW_SIZE[0], PREVIEW_SIZE[0] * picture.height // picture.width))
        small.crop((0, 0, *PREVIEW_SIZE)).save(SPACE / "preview.webp", quality=85)
    page.context.close()


def pictures_of_tabs(browser: Any, address: str, folder: Path, width: int, theme: str) -> None:
    """Every tab, whole."""
    page = open_page(browser, address, width, theme)
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        if tab == "Diagnostics":
            page.locator("#timing", has_text="median of").wait_for()
            page.locator("#tamper").click()
            page.locator("#tampered section").nth(2).wait_for()
        elif tab == "Compare":
            page.locator("#compare").click()
            page.locator("#compared-state", has_text="Done.").wait_for()
        page.screenshot(path=folder / f"{tab.lower()}-{width}-{theme}.png", full_page=True)
    page.context.close()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where every tab goes")
    folder = parser.parse_args().folder
    uploads = app.prepare_environment()
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        service = app.make_service(uploads, Settings(data=Path(data)))
        service.corpora[0].collection.wait(600)
        blocks, address = app.launch(service, prevent_thread_lock=True, quiet=True)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        picture_of_the_search(browser, address.rstrip("/"))
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            for width in (1280, 390):
                for theme in ("light", "dark"):
                    pictures_of_tabs(browser, address.rstrip("/"), folder, width, theme)
        browser.close()
        blocks.close(verbose=False)


if __name__ == "__main__":
    main()
