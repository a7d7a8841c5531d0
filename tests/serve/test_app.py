"""What a server answers: both forms of a request, its options, and every refusal in OpenAI's form."""

import base64
import gzip
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from serve_thread import running

from plume_embed.encode.encoder import Encoder
from plume_embed.serve.client import RemoteEncoder
from plume_embed.serve.settings import Limits

QUERIES = Path(__file__).parent.parent.parent / "examples" / "queries"
CACTUS = QUERIES / "cactus.png"
TOLERANCE = 1e-5
CACTUS_DATA = base64.b64encode(CACTUS.read_bytes()).decode()
PNG = "data:image/png;base64"
PICTURE, FILM = (f"messages[0].content[0].{kind}" for kind in ("image_url", "video_url"))


def post(address: str, **body) -> httpx.Response:
    return httpx.post(f"{address}/v1/embeddings", json=body, timeout=60)


def send(address: str, body: dict) -> httpx.Response:
    """As a client does that escapes what is no ASCII, half surrogate pairs too."""
    headers = {"Content-Type": "application/json"}
    return httpx.post(address, content=json.dumps(body).encode(), headers=headers, timeout=60)


def vectors(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    rows = [one["embedding"] for one in response.json()["data"]]
    return np.array([np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else row for row in rows])


def data_url(path: Path, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode()}"


def user(*parts: tuple[str, str]) -> list[dict]:
    shown = {"text": lambda value: value, "image_url": lambda value: {"url": value}}
    shown["video_url"] = shown["image_url"]
    return [{"role": "user", "content": [{"type": kind, kind: shown[kind](value)} for kind, value in parts]}]


def refusal(response: httpx.Response, status: int) -> dict:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_a_text_and_a_list_of_texts_are_embedded_as_encode_does(server, encoder):
    texts = ["a red bicycle", "", "two words\nand a line"]
    assert np.abs(vectors(post(server, input=texts, model="plume")) - encoder.encode(texts)).max() < TOLERANCE
    assert np.abs(vectors(post(server, input=texts[0])) - encoder.encode(texts[:1])).max() < TOLERANCE


def test_base64_holds_the_same_float32_values(server):
    plain, packed = (vectors(post(server, input="a", encoding_format=form)) for form in ("float", "base64"))
    assert np.array_equal(np.float32(plain), packed)


def test_messages_hold_texts_pictures_films_and_frames(server, encoder, small_film):
    picture, frames = CACTUS.read_bytes(), [QUERIES / name for name in ("cactus.png", "airplane.png")]
    joined = ",".join(base64.b64encode(frame.read_bytes()).decode() for frame in frames)
    cases = [
        (user(("text", "a"), ("image_url", data_url(CACTUS))), {"image": picture, "text": "a"}),
        (user(("video_url", data_url(small_film, "video/mp4"))), {"video": small_film}),
        (user(("video_url", f"data:video/png;base64,{joined}")), {"video": [frames]}),
        ([{"role": "user", "content": "a"}], {"text": "a"}),
        ([{"role": "system", "content": "b: "}, {"role": "user", "content": "a"}], {"text": "b: a"}),
        ([*user(("text", "a")), {"role": "assistant", "content": [{"type": "text", "text": ""}]}], {"text": "a"}),
    ]
    for messages, item in cases:
        found = vectors(post(server, messages=messages))
        assert np.abs(found - encoder.encode([item])).max() < TOLERANCE, item


def test_latent_steps_are_those_of_the_request(server, encoder):
    for steps in (0, 3):
        expected = encoder.encode(["a"], num_latent_steps=steps)
        assert np.abs(vectors(post(server, input="a", latent_steps=steps)) - expected).max() < TOLERANCE


def test_dimensions_are_the_first_ones_normalised_again(server, encoder):
    short = encoder.encode(["a"])[:, :16]
    expected = short / np.linalg.norm(short)
    assert np.abs(vectors(post(server, input="a", dimensions=16)) - expected).max() < TOLERANCE


def test_usage_counts_the_tokens_of_the_rows_without_padding(server, encoder):
    texts = ["a", "a much longer text than the other one"]
    expected = sum(encoder.process([text])["input_ids"].shape[1] for text in texts)
    usage = post(server, input=texts).json()["usage"]
    assert usage == {"prompt_tokens": expected, "total_tokens": expected}


@pytest.mark.parametrize("of_documents", ["document", "passage"])  # a saved "passage" is not what the library takes
def test_an_input_type_puts_the_models_prompt_in_front_as_sentence_transformers_does(
    released_model_dir, tmp_path, of_documents
):
    model = SentenceTransformer(str(released_model_dir), trust_remote_code=True)
    model.prompts = {"query": "find: ", of_documents: "text: "}
    model.save(str(tmp_path / "model"))
    model = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True)
    with running(Encoder(tmp_path / "model")) as address:
        for kind, encode in (("query", model.encode_query), ("document", model.encode_document)):
            assert np.abs(vectors(post(address, input="a", input_type=kind)) - encode(["a"])).max() < TOLERANCE
        plain = vectors(post(address, input="a"))
        assert np.abs(plain - model.encode(["a"], prompt="")).max() < TOLERANCE
        assert np.abs(plain - vectors(post(address, input="a", input_type="query"))).max() > 1e-3


def test_documents_have_their_own_number_of_steps_here_and_for_a_client(encoder, released_model_dir, tmp_path):
    shutil.copytree(released_model_dir, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text()) | {"document_latent_steps": 0}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with running(Encoder(tmp_path / "model")) as address:
        document = {"input_type": "document"}
        for options, steps in (({}, 8), (document, 0), ({**document, "latent_steps": 2}, 2)):
            found = vectors(post(address, input="a", **options))
            assert np.abs(found - encoder.encode(["a"], num_latent_steps=steps)).max() < TOLERANCE
        remote = RemoteEncoder(address)
        assert remote.document_latent_steps(4) == 0 and remote.latent_steps(4) == 4


def test_the_model_says_what_it_is_and_how_long_a_text_is(server, encoder):
    (card,) = httpx.get(f"{server}/v1/models").json()["data"]
    assert (card["id"], card["object"], card["max_model_len"]) == ("plume", "model", encoder.processor.max_length)
    assert card["plume"]["fingerprint"] == encoder.fingerprint
    assert card["plume"]["fingerprints"] == encoder.fingerprints
    counted = httpx.post(f"{server}/tokenize", json={"prompt": "a red bicycle"}).json()
    assert counted == {"count": encoder.row_tokens("a red bicycle"), "max_model_len": encoder.processor.max_length}
    assert httpx.get(f"{server}/health").json() == {"status": "ok"}


def test_metrics_count_requests_items_and_tokens(encoder):
    with running(encoder) as address:
        used = post(address, input=["a", "b c"]).json()["usage"]["total_tokens"]
        post(address, input=[1])
        httpx.get(f"{address}/a/path/of/the/callers")
        shown = httpx.get(f"{address}/metrics").text
    for line in (
        'plume_requests_total{path="/v1/embeddings",status="200"} 1.0',
        'plume_requests_total{path="/v1/embeddings",status="400"} 1.0',
        'plume_requests_total{path="other",status="404"} 1.0',
        "plume_items_total 2.0",
        f"plume_tokens_total {float(used)}",
        "plume_waiting_items 0.0",
    ):
        assert line in shown.splitlines(), line


def test_a_text_is_counted_over_the_limit_and_refused_far_beyond_it_before_it_is_tokenised(
    server, encoder, monkeypatch
):
    over, far = "word " * 20_000, "word " * 200_000
    counted = httpx.post(f"{server}/tokenize", json={"prompt": over}).json()["count"]
    assert counted == encoder.row_tokens(over) > encoder.processor.max_length
    monkeypatch.setattr(encoder, "row_tokens", lambda text: pytest.fail("it is tokenised to its end"))
    error = refusal(httpx.post(f"{server}/tokenize", json={"prompt": far}), 400)
    assert error["param"] == "prompt" and f"over the {encoder.processor.max_length} of a row" in error["message"]
    assert not encoder.fits(far)


def test_counting_has_the_time_of_a_request(encoder, monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr(encoder, "row_tokens", lambda text: let_go.wait(20) and 1)
    with running(encoder, Limits(request_seconds=0.2)) as address:
        assert "0.2 seconds" in refusal(httpx.post(f"{address}/tokenize", json={"prompt": "a"}), 504)["message"]
        let_go.set()


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": [[1, 2], [3]]}, None, "check_embedding_ctx_length=False"),
        ({"input": [1, 2]}, None, "token ids"),
        ({}, None, "either input"),
        ({"input": []}, None, "empty"),
        ({"input": "a", "messages": user(("text", "a"))}, None, "not both"),
        ({"input": {"a": 1}}, "input", "string"),
        ({"input": "a", "dimensions": 65}, "dimensions", "64 dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater"),
        ({"input": "a", "latent_steps": 99}, "latent_steps", "latent steps"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float"),
        ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "None"),
        ({"input": "a", "normalize": False}, "normalize", "True"),
        ({"input": "a", "colour": 1}, "colour", "leave it out"),
        ({"input": ["a", "word " * 20_000]}, "input[1]", "max_length"),
        ({"input": ["a", None]}, "input[1]", "string"),
        ({"messages": user(("text", 1))}, "messages[0].content[0].text", "string"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0].name", "leave it out"),
        ({"messages": user(("image_url", None))}, "messages[0].content[0].image_url.url", "string"),
        ({"messages": [{"role": "assistant", "content": "yes"}]}, "messages[0]", "must be empty"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages", "one user message"),
        ({"messages": [{"role": "user", "content": [{"type": "audio_url"}]}]}, "messages[0].content[0]", "image_url"),
        ({"messages": user(("image_url", "http://example.org/a.png"))}, PICTURE, "--allow-host example.org"),
        ({"messages": user(("image_url", "/etc/passwd"))}, PICTURE, "data URL"),
        ({"messages": user(("image_url", "file:///etc/passwd"))}, PICTURE, "data URL"),
        ({"messages": user(("image_url", "data:image/png,AAAA"))}, PICTURE, "base64"),
        ({"messages": user(("image_url", "data:image/png;base64,A*"))}, PICTURE, "base64"),
        ({"messages": user(("image_url", "data:image/png;base64,ä"))}, PICTURE, "no valid base64"),
        ({"messages": user(("video_url", "data:video/png;times=0+1;base64,AAAA"))}, FILM, "got 2 times"),
        ({"messages": user(("video_url", "data:video/png;times=a;base64,AAAA"))}, FILM, "seconds with +"),
        ({"messages": user(("video_url", "data:video/png;times=nan;base64,AAAA"))}, FILM, "lie in 0..1000000"),
        ({"messages": user(("image_url", "data:image/png;base64,AAAA"))}, PICTURE, "identify"),
        ({"messages": user(("video_url", "data:video/mp4;base64,AAAA"))}, FILM, "Cannot read"),
        ({"messages": user(("video_url", f"data:video/png;base64,{CACTUS_DATA},AAAA"))}, FILM, "identify"),
        (
            {"messages": user(("text", "a"), *(("image_url", f"{PNG},{data}") for data in (CACTUS_DATA, "AAAA")))},
            "messages[0].content[2].image_url",
            "identify",
        ),
        (
            {"messages": [{"role": "system", "content": "a"}, *user(("image_url", f"{PNG},{CACTUS_DATA[:400]}"))]},
            "messages[1].content[0].image_url",
            "Cannot read",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_what_cannot_be_embedded_is_refused_with_the_remedy(server, body, param, words):
    error = refusal(post(server, **body), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


NUMBERS = ("dimensions", "latent_steps", "priority")
FLAGS = ("add_special_tokens", "add_generation_prompt", "continue_final_message", "normalize", "use_activation")


@pytest.mark.parametrize(
    ("name", "value"), [*product(NUMBERS, (True, False, "8", "")), *product(FLAGS, (1, 1.0, 0, "yes", "true"))]
)
def test_what_python_takes_for_a_number_or_a_boolean_is_none(server, name, value):
    error = refusal(post(server, input="a", **{name: value}), 400)
    kind = "a whole number" if name in NUMBERS else "true or false"
    assert error["param"] == name and error["message"] == f"{name}: must be {kind}, got {json.dumps(value)}."


def test_a_whole_number_may_be_written_with_a_point(server, encoder):
    found = vectors(post(server, input="a", latent_steps=2.0, dimensions=8.0))
    short = encoder.encode(["a"], num_latent_steps=2)[:, :8]
    assert np.abs(found - short / np.linalg.norm(short)).max() < TOLERANCE
    assert "fractional" in refusal(post(server, input="a", latent_steps=2.5), 400)["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"prompt": "\ud800"}, "prompt"),
        ("/v1/embeddings", {"input": ["a", "\ud800"]}, "input[1]"),
        ("/v1/embeddings", {"messages": user(("text", "\ud800"))}, "messages"),
        *(
            ("/v1/embeddings", {"messages": user((kind, url))}, f"messages[0].content[0].{kind}.url")
            for kind in ("image_url", "video_url")
            for url in ("http://\ud800/", "data:image/png;base64,\ud800", "\ud800")
        ),
    ],
)
def test_half_a_surrogate_pair_is_refused_by_every_route(server, path, body, param):
    error = refusal(send(f"{server}{path}", body), 400)
    assert error["param"] == param and "lone surrogates" in error["message"]


def test_of_several_items_at_fault_place_and_message_are_those_of_one(server):
    counts = (20_000, 21_000, 22_000)
    alone = {refusal(post(server, input="word " * count), 400)["message"]: count for count in counts}
    assert len(alone) == 3
    for _ in range(10):
        error = refusal(post(server, input=["a", *("word " * count for count in counts)]), 400)
        assert error["param"] == f"input[{1 + counts.index(alone[error['message']])}]"


def test_another_models_name_a_wrong_path_and_no_json_are_refused(server):
    assert refusal(post(server, input="a", model="gpt"), 404)["code"] == "model_not_found"
    refusal(httpx.get(f"{server}/v1/nothing"), 404)
    refusal(httpx.get(f"{server}/v1/embeddings"), 405)
    headers = {"Content-Type": "application/json"}
    assert "JSON" in refusal(httpx.post(f"{server}/v1/embeddings", content=b"{", headers=headers), 400)["message"]
    assert "Content-Type" in refusal(httpx.post(f"{server}/v1/embeddings", content=b'{"input": "a"}'), 400)["message"]


def test_a_key_is_asked_for_everywhere_but_at_health_and_metrics(encoder):
    with running(encoder, key="secret") as address:
        assert refusal(post(address, input="a"), 401)["code"] == "invalid_api_key"
        refusal(httpx.get(f"{address}/v1/models", headers={"Authorization": "Bearer sécret".encode()}), 401)
        assert httpx.get(f"{address}/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert httpx.get(f"{address}/health").status_code == httpx.get(f"{address}/metrics").status_code == 200


def test_limits_on_body_items_pixels_and_films(released_model_dir, small_film):
    limits, encoder = (
        Limits(body_bytes=200_000, items=3, film_seconds=0.1),
        Encoder(released_model_dir, max_image_pixels=1000),
    )
    with running(encoder, limits) as address:
        assert "200000 bytes" in refusal(post(address, input="a" * 300_000), 413)["message"]
        pieces = (b'{"input": "' + b"a" * 300_000 for _ in range(2))  # without a declared length
        headers = {"Content-Type": "application/json"}
        refusal(httpx.post(f"{address}/v1/embeddings", content=pieces, headers=headers), 413)
        assert "limit of 3" in refusal(post(address, input=["a"] * 4), 400)["message"]
        assert "megapixels" in refusal(post(address, messages=user(("image_url", data_url(CACTUS)))), 400)["message"]
        film = user(("video_url", data_url(small_film, "video/mp4")))
        assert "seconds" in refusal(post(address, messages=film), 400)["message"]
        assert vectors(post(address, input=["a"] * 3)).shape == (3, 64)


def test_a_client_that_sends_its_whole_body_first_reads_why_it_is_refused(encoder):
    with running(encoder, Limits(body_bytes=1000), key="secret") as address:
        for path, key, status in (("embeddings", "secret", 413), ("embeddings", "other", 401), ("none", "secret", 413)):
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
            with pytest.raises(HTTPError) as error:
                urlopen(Request(f"{address}/v1/{path}", b" " * 2**24, headers), timeout=60)
            assert error.value.code == status
    with running(encoder) as address, pytest.raises(HTTPError) as error:
        urlopen(f"{address}/v1/none", b" " * 2**24, timeout=60)
    assert error.value.code == 404


def test_a_client_that_asks_before_it_sends_a_large_body_is_answered_without_it(encoder):
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n"
    with (
        running(encoder, Limits(body_bytes=1000)) as address,
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5) as client,
    ):
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


class Held:
    """Holds the model until it is let go, so that a queue can be looked at."""

    def __init__(self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
        self.reached, self.let_go, embed = threading.Event(), threading.Event(), encoder.embed

        def held(*args):
            self.reached.set()
            assert self.let_go.wait(60)
            return embed(*args)

        monkeypatch.setattr(encoder, "embed", held)


def test_a_full_queue_says_when_to_come_again_and_loses_nothing(encoder, monkeypatch):
    held = Held(encoder, monkeypatch)
    with running(encoder, Limits(queue_items=2)) as address, ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, address, input=["a", "b"])
        assert held.reached.wait(60)
        busy = post(address, input="c")
        assert refusal(busy, 429)["type"] == "rate_limit_error" and int(busy.headers["Retry-After"]) >= 1
        assert httpx.get(f"{address}/health").status_code == 200
        held.let_go.set()
        assert vectors(first.result()).shape == (2, 64)
        assert vectors(post(address, input="c")).shape == (1, 64)


def test_a_request_that_no_queue_holds_is_refused_and_our_client_sends_smaller_ones(encoder):
    with running(encoder, Limits(queue_items=2)) as address:
        assert "--max-queue" in refusal(post(address, input=["a", "b", "c"]), 400)["message"]
        found, errors = RemoteEncoder(address).encode_readable([{"text": "a"}, {"text": "b"}, {"text": "c"}])
        assert not errors and np.abs(found - encoder.encode(["a", "b", "c"])).max() < TOLERANCE


def test_a_request_beyond_its_time_and_one_whose_client_has_gone_leave_the_queue(encoder, monkeypatch):
    held = Held(encoder, monkeypatch)
    with running(encoder, Limits(request_seconds=2.5)) as address, ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, address, input="a")
        assert held.reached.wait(60)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/embeddings", json={"input": ["b", "c"]}, timeout=0.3)
        ends = time.monotonic() + 10
        while "plume_waiting_items 1.0" not in httpx.get(f"{address}/metrics").text:
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert "2.5 seconds" in refusal(first.result(), 504)["message"]
        held.let_go.set()
        assert vectors(post(address, input="d")).shape == (1, 64)


def test_a_client_that_closes_its_socket_is_counted_as_gone_and_no_error_of_the_server(encoder, monkeypatch, caplog):
    held, body = Held(encoder, monkeypatch), b'{"input": "a"}'
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
    with running(encoder) as address:
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            client.sendall(head + body)
            assert held.reached.wait(60)
        ends = time.monotonic() + 10
        while '{path="/v1/embeddings",status="' not in (shown := httpx.get(f"{address}/metrics").text):
            assert time.monotonic() < ends
            time.sleep(0.05)
        held.let_go.set()
    assert 'plume_requests_total{path="/v1/embeddings",status="499"} 1.0' in shown.splitlines()
    assert 'status="500"' not in shown and "Traceback" not in caplog.text


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The host of a web server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *args):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        web.server_close()


@pytest.mark.parametrize(
    ("start", "limits"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Limits(fetch_seconds=0.5)),
        (b"HTTP/1.1 200 OK\r\nServer: ", Limits(fetch_seconds=0.5)),
        (b"HTTP/1.1 200 OK\r\n\r\n", Limits(request_seconds=0.5)),
    ],
    ids=["body", "header", "request"],
)
def test_a_host_that_sends_a_byte_at_a_time_holds_no_thread_longer_than_a_fetch_may_take(encoder, start, limits):
    is_left = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(start)
            for _ in range(100):
                request.wfile.write(b"a")
                time.sleep(0.1)
        except OSError:
            is_left.set()

    with serving(drip) as host, running(encoder, limits, hosts=frozenset({host})) as address:
        answer = post(address, messages=user(("image_url", f"http://{host}/a.png")))
        if limits.request_seconds > 1 or answer.status_code != 504:  # of the request's end either side may tell first
            error = refusal(answer, 400)
            assert error["param"] == PICTURE and "cannot be fetched in time" in error["message"]
        assert is_left.wait(3)


def test_the_files_that_are_fetched_for_a_request_have_one_limit_of_bytes_together(encoder):
    picture = CACTUS.read_bytes()

    def send_picture(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(picture)

    limits = Limits(body_bytes=2 * len(picture) + 1)
    with serving(send_picture) as host, running(encoder, limits, hosts=frozenset({host})) as address:
        part = ("image_url", f"http://{host}/cactus.png")
        for _ in range(2):  # the next request has its own
            assert vectors(post(address, messages=user(part, part))).shape == (1, 64)
        error = refusal(post(address, messages=user(part, part, part)), 400)
    assert error["param"] == "messages[0].content[2].image_url" and "--max-body-mb" in error["message"]


def test_a_file_that_comes_packed_is_fetched_where_a_piece_of_it_cannot_grow_beyond_all_bounds(encoder):
    asked = []

    def send_packed(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers["Accept-Encoding"])
        packing = request.path.removeprefix("/")
        request.send_response(200)
        request.send_header("Content-Encoding", packing)
        request.end_headers()
        request.wfile.write(gzip.compress(CACTUS.read_bytes()) if packing == "gzip" else b"")

    with serving(send_packed) as host, running(encoder, hosts=frozenset({host})) as address:
        found = vectors(post(address, messages=user(("image_url", f"http://{host}/gzip"))))
        assert np.abs(found - encoder.encode([{"image": CACTUS}])).max() < TOLERANCE
        error = refusal(post(address, messages=user(("image_url", f"http://{host}/br"))), 400)
    assert error["param"] == PICTURE and "packed as br" in error["message"]
    assert set(asked) == {"identity"}


def test_addresses_are_fetched_from_allowed_hosts_alone_without_redirects(encoder):
    def send_or_move(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302 if request.path == "/moved" else 200)
        request.send_header("Location", "/cactus.png")
        request.end_headers()
        request.wfile.write(b"" if request.path == "/moved" else CACTUS.read_bytes())

    with serving(send_or_move) as host, running(encoder, hosts=frozenset({host})) as address:
        found = vectors(post(address, messages=user(("image_url", f"http://{host}/cactus.png"))))
        assert np.abs(found - encoder.encode([{"image": CACTUS}])).max() < TOLERANCE
        refused = post(address, messages=user(("image_url", f"http://{host}/moved")))
        assert "redirects" in refusal(refused, 400)["message"]
        for wrong in (f"http://{host}/\0", f"http://{host}/{'a' * 70_000}"):
            refused = post(address, messages=user(("image_url", wrong)))
            assert "cannot be fetched" in refusal(refused, 400)["message"]
        for other in ("http://127.0.0.1:1/a.png", f"http://{host}@example.org/a.png"):
            assert "--allow-host" in refusal(post(address, messages=user(("image_url", other))), 400)["message"]
