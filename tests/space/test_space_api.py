"""The endpoint for programs: by the Python client, by curl, and by the code and the files that the page gives."""

import base64
import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from space import app
from space.content import holders
from space.content.items import Hit, Item
from space.content.sessions import Session
from space.content.uploads import Upload
from space.page.page import make_page
from space.page.snippets import code_for, rows, takeaway
from space.service import Query, Service
from space.trace import finish

ROOT = Path(__file__).parent.parent.parent
PICTURE = ROOT / "space" / "queries" / "fox.png"
FILM = ROOT / "space" / "queries" / "frog.mp4"


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def expected(service, text="", image=None, video=None, steps=8):
    uploads = [path and Upload(path, path.name) for path in (image, video)]
    query = Query(service.corpora[0], text, *uploads, steps)
    return finish(service.query(Session(), query))


def named_for_this_test(path, folder):
    """A copy that no visitor of another test, who may be served by the same Space, can have uploaded as well."""
    return Path(shutil.copyfile(path, folder / f"{folder.name}-{path.name}"))


def left_of(service, *files):
    """What the Space still has of files that were uploaded to it."""
    return [path for file in files for path in service.sessions.upload_folder.rglob(file.name)]


@pytest.mark.parametrize(
    ("text", "image", "video"),
    [("banana", None, None), ("", PICTURE, None), ("", None, FILM), ("frog", PICTURE, FILM)],
    ids=["text", "picture", "film", "combination"],
)
def test_the_client_gets_what_the_page_finds(client, service, tmp_path, text, image, video):
    given = {"image": image, "video": video}
    own = {key: named_for_this_test(path, tmp_path) for key, path in given.items() if path}
    files = {key: handle_file(str(path)) for key, path in own.items()}
    found = client.predict(text=text, **files, api_name="/search")
    wanted = rows(expected(service, text, **given).hits)
    assert [row["name"] for row in found] == [row["name"] for row in wanted]
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in wanted], atol=1e-5)
    assert not left_of(service, *own.values())


def test_programs_that_search_with_the_same_file_at_once_all_get_an_answer(address, service, tmp_path):
    own = named_for_this_test(PICTURE, tmp_path)

    def ask(number: int) -> list[dict]:
        client = Client(address, verbose=False)
        return client.predict(text="", image=handle_file(str(own)), num_latent_steps=0, api_name="/search")

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    assert len({found[0]["name"] for found in answers}) == 1
    assert not left_of(service, own)


def test_a_served_space_deletes_the_upload_that_nothing_asks_for_and_not_the_one_of_a_live_session(
    service, tmp_path, monkeypatch
):
    monkeypatch.setattr(app, "TIDY_SECONDS", 0.05)
    own = Service(service.settings, service.corpora, service.sessions.upload_folder)
    page, address = app.launch(own, prevent_thread_lock=True, quiet=True)
    try:
        assert page.delete_cache is None, "Gradio deletes by age alone, also what a visitor still needs"
        files = [named_for_this_test(path, tmp_path) for path in (PICTURE, FILM)]
        held, left = (
            Path(httpx.post(f"{address}gradio_api/upload", files={"files": (file.name, file.read_bytes())}).json()[0])
            for file in files
        )
        own.sessions.hold(own.sessions.of("one"), held)
        monkeypatch.setattr(holders, "UNUSED_SECONDS", 0)
        end = time.monotonic() + 30
        while left.is_file():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert held.is_file()
        own.sessions.end("one")
        assert not held.exists()
    finally:
        page.close(verbose=False)


def test_k_is_chosen_by_the_call_and_refusals_arrive_as_sentences(client, service):
    found = client.predict(text="banana", num_latent_steps=0, api_name="/search")
    assert found[0]["score"] == pytest.approx(expected(service, "banana", steps=0).hits[0].score, abs=1e-5)
    for arguments, sentence in (
        ({"text": ""}, "The query is empty"),
        ({"text": "x", "num_latent_steps": 99}, "Latent steps go from 0 to 8, got 99"),
        ({"text": "x", "num_latent_steps": 2.7}, "num_latent_steps is a whole number, got 2.7"),
        ({"text": "x", "num_latent_steps": "many"}, "num_latent_steps is a whole number, got 'many'"),
        ({"text": 5}, "text and collection are strings"),
        ({"text": "x", "collection": "paintings"}, "There is no collection “paintings”; there are: drawings"),
    ):
        with pytest.raises(AppError, match=sentence):
            client.predict(**arguments, api_name="/search")


def test_only_the_search_is_public(client, address):
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert list(endpoints["named_endpoints"]) == ["/search"] and endpoints["unnamed_endpoints"] == {}
    info = endpoints["named_endpoints"]["/search"]
    names = [parameter["parameter_name"] for parameter in info["parameters"]]
    assert names == ["text", "image", "video", "num_latent_steps", "collection"]
    config = httpx.get(f"{address}/config").json()
    public = [one["api_name"] for one in config["dependencies"] if one["api_visibility"] == "public"]
    assert public == ["search"]
    assert config["footer_links"] == ["api"]


def test_films_are_transcoded_a_few_at_a_time(service):
    (event,) = [event for event in make_page(service).fns.values() if event.api_name == "playable"]
    assert event.queue and event.concurrency_limit == service.settings.at_a_time


def test_no_event_changes_what_holds_other_components(address):
    """Gradio loses values, now and then, that arrive together with a column's "visible": a chart stayed empty."""
    config = httpx.get(f"{address}/config").json()
    types = {component["id"]: component["type"] for component in config["components"]}
    holders, waiting = set(), [config["layout"]]
    while waiting:
        node = waiting.pop()
        waiting += node.get("children") or ()
        holders |= {node["id"]} if node.get("children") else set()
    assert {"column", "row", "accordion", "tabitem"} <= {types.get(holder) for holder in holders}
    outputs = [output for event in config["dependencies"] for output in event["outputs"]]
    assert len(outputs) > 50 and not holders & set(outputs)


@pytest.mark.parametrize(("text", "image", "video"), [('a "$HOME" `id` \\ it\'s', None, None), ("frog", PICTURE, FILM)])
def test_the_code_on_the_page_runs_and_finds_the_same(service, address, tmp_path, text, image, video):
    result = expected(service, text, image, video)
    wanted = [row["name"] for row in rows(result.hits)]
    for path, name in ((PICTURE, "picture.png"), (FILM, "film.mp4")):
        shutil.copyfile(path, tmp_path / name)
    code = dict(code_for(result, address))
    done = subprocess.run(
        [sys.executable, "-c", code["Python"]], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert [line.split(" ", 2)[2] for line in done.stdout.splitlines() if line[:1].isdigit()] == wanted
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    done = subprocess.run(
        ["bash", "-c", code["curl"]], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    data = next(line.removeprefix("data: ") for line in done.stdout.splitlines() if line.startswith("data: ["))
    assert [row["name"] for row in json.loads(data)[0]] == wanted


@pytest.mark.parametrize(
    ("model", "option"),
    [
        (str(ROOT / "checkpoints" / "plume-small"), []),
        (str(ROOT / "checkpoints" / "plume-tiny-anytime"), ["--model", "checkpoints/plume-tiny-anytime"]),
        ("someone/plume", ["--model", "someone/plume"]),
    ],
)
def test_the_command_for_a_folder_names_the_model_and_takes_a_text_that_begins_with_a_dash(service, model, option):
    result = replace(expected(service, "-dog in the snow"), model=model)
    command = dict(code_for(result, "http://x"))["Your own folder"]
    begin = ["plume-embed", "search", "your-folder", "--latent-steps", "8"]
    assert shlex.split(command) == [*begin, *option, "--", "-dog in the snow"]


def test_a_table_of_results_has_an_empty_text_for_a_picture_and_no_cell_that_a_spreadsheet_runs(service):
    names = ["fox.png", "=1+1.png", "+1.png", "-1.png", "@a.png", "a=b.png"]
    hits = [Hit(Item(name, "image", np.zeros(2), lambda: "data:,"), 0.5) for name in names]
    page = takeaway(replace(expected(service, "banana"), hits=hits), "http://x")
    content = re.search(r"data:text/csv;base64,([^\"]+)", page)[1]
    table = list(csv.DictReader(base64.b64decode(content).decode().splitlines()))
    assert [row["name"] for row in table] == ["fox.png", "'=1+1.png", "'+1.png", "'-1.png", "'@a.png", "a=b.png"]
    assert {row["text"] for row in table} == {""}


def test_the_api_page_opens_from_the_footer(visit):
    page = visit()
    page.get_by_role("button", name="Use via API").click()
    page.get_by_text("API documentation").first.wait_for()
    endpoint = page.get_by_text(re.compile(r"^\s*/search\s*$")).first
    endpoint.wait_for()
    assert endpoint.is_visible()
