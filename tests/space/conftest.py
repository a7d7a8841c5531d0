"""The Space with its real model and collection, and a browser; both are made once for all tests of a worker."""

import os
import re
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="plume-space-test-")  # before Gradio's components are made


CHROMIUM = shutil.which("chromium")
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
SECONDS = 30_000  # of patience, in ms: the machine may be busy


@pytest.fixture(scope="session")
def encoder():
    from plume_embed.encode.encoder import DRAWINGS_MODEL, Encoder

    return Encoder(DRAWINGS_MODEL, device="cpu")


@pytest.fixture(scope="session")
def upload_folder() -> Path:
    return Path(os.environ["GRADIO_TEMP_DIR"]).resolve()


@pytest.fixture(scope="session")
def spec():
    """The collection of drawings, which the tests know, with the model that they know."""
    from space.content.corpora import read_specs

    spec = next(spec for spec in read_specs() if spec.id == "drawings")
    return replace(spec, model="checkpoints/plume-tiny", knows="plume-tiny knows drawings and their names in English.")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory):
    from space.settings import Settings

    return Settings(data=tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="session")
def corpus(encoder, spec, settings):
    from space.content.corpora import Corpus

    corpus = Corpus(spec, encoder, settings.data)
    corpus.collection.build()
    return corpus


@pytest.fixture(scope="session")
def service(corpus, settings, upload_folder):
    from space.service import Service

    return Service(settings, [corpus], upload_folder)


@pytest.fixture(scope="session")
def address(service):
    """Where the Space is served."""
    from space import app

    page, address = app.launch(service, prevent_thread_lock=True, quiet=True)
    yield address.rstrip("/")
    page.close(verbose=False)


@pytest.fixture(scope="module")  # playwright's event loop would be in the way of other modules' own
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page in a context of its own; afterwards no request of any context may have gone elsewhere."""
    requests, errors, contexts = [], [], []

    def open_page(width=1200, height=900, at=address, query="", ready="#results li", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(SECONDS)
        context.on("request", lambda request: requests.append(request.url))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{at}/{query}")
        page.locator(ready).first.wait_for()
        if ready == "#results li":
            page.wait_for_function("window.plume.ended > 0")  # the first query is over, not only shown
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert requests
    outside = [url for url in requests if not re.match(r"(http://127\.0\.0\.1:\d+/|data:|blob:)", url)]
    assert outside == []
    assert errors == []


@pytest.fixture
def held(monkeypatch):
    """Every part of a query waits until it is let go; gives the parts that have begun, and the switch."""
    from space import trace

    begun, go = [], threading.Event()
    original = trace._timed

    def waiting(encoder, compute):
        begun.append(compute)
        go.wait(20)
        return original(encoder, compute)

    monkeypatch.setattr(trace, "_timed", waiting)
    yield begun, go
    go.set()
