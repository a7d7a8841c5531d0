"""A server in the place of a model: an index by it is the index of the model, and no torch is imported for it."""

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from model.families import make_tiny
from PIL import Image
from serve_thread import running
from small_files import write_long_video, write_pdf, write_picture, write_video

from benchmarks.start import measure_start
from plume_embed.cli.loading import choose_encoder
from plume_embed.encode.encoder import Encoder
from plume_embed.index.search import open_index
from plume_embed.index.update import UpdateOptions, UpdateReport, update_index
from plume_embed.serve.app import Service
from plume_embed.serve.client import RemoteEncoder
from plume_embed.serve.errors import RequestError
from plume_embed.serve.settings import MEGABYTE, Limits

pd = pytest.importorskip("pandas", reason="it comes with the extra train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    write_picture(folder / "a.png")
    write_picture(folder / "large.png", seed=1, size=(900, 700))
    write_video(folder / "clip.mp4")
    write_pdf(folder / "pages.pdf")
    (folder / "note.txt").write_text("a red bicycle\n\n" * 300)
    (folder / "other.md").write_text("наука " * 400)
    return folder


@pytest.fixture(scope="module")
def by_server(server, folder, tmp_path_factory) -> tuple[Path, UpdateReport]:
    """The folder's index by the server, and what was reported of it."""
    index = tmp_path_factory.mktemp("indexes") / "there"
    return index, update_index(folder, index, RemoteEncoder(server))


def test_an_index_by_a_server_holds_what_the_model_gives(by_server, encoder, folder, tmp_path):
    index, report = by_server
    assert update_index(folder, tmp_path / "here", encoder) == report and report.num_items >= 12
    here, there = (open_index(folder, one, encoder).rows() for one in (tmp_path / "here", index))
    for own, other in zip(here, there, strict=True):
        assert (own.path, own.locator, own.kind, own.snippet) == (other.path, other.locator, other.kind, other.snippet)
        assert np.abs(own.vector - other.vector).max() < 1e-5, own.path
    assert update_index(folder, index, encoder).embedded == 0


def test_films_keep_their_times_on_the_way_to_a_model_that_sees_them(tmp_path):
    made = make_tiny("qwen3_vl")
    for part in (made.model, made.processor):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "films").mkdir()
    film = write_long_video(tmp_path / "films" / "film.mp4", seconds=8, rate=4.0)
    local = Encoder(tmp_path / "model", device="cpu")
    expected = local.encode([{"video": film}])[0]
    with running(local) as address:
        update_index(film.parent, tmp_path / "there", RemoteEncoder(address))
    (row,) = open_index(film.parent, tmp_path / "there", local).rows()
    assert np.abs(row.vector - expected).max() < 1e-5


def test_what_the_server_cannot_embed_is_named_by_its_place(server, encoder):
    items = [{"text": "a"}, {"text": "word " * 20_000}, {"text": "b"}, {"video": Path(__file__)}]
    vectors, errors = RemoteEncoder(server).encode_readable(items, batch_size=3)
    assert set(errors) == {1, 3} and "max_length" in errors[1]
    assert errors[3].startswith(f"{__file__}: Cannot read ")
    assert np.abs(vectors[[0, 2]] - encoder.encode(["a", "b"])).max() < 1e-5
    assert np.isnan(vectors[[1, 3]]).all()


def test_a_pipe_is_refused_and_not_waited_for(server, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for kind in ("image", "video"):
        with pytest.raises(ValueError, match=f"pipe is no {kind} file but a folder, a pipe or a device"):
            RemoteEncoder(server).encode_readable([{kind: tmp_path / "pipe"}])


def test_a_picture_over_the_servers_limit_is_unreadable_and_the_rest_is_indexed(server, encoder, tmp_path):
    (tmp_path / "folder").mkdir()
    write_picture(tmp_path / "folder" / "small.png")
    noise = np.random.default_rng(0).integers(0, 255, (1100, 1100, 3), dtype=np.uint8)  # no PNG makes it smaller
    Image.fromarray(noise).save(tmp_path / "folder" / "large.png")
    places = (tmp_path / "folder", tmp_path / "index")
    with running(encoder, Limits(body_bytes=MEGABYTE)) as address:
        report = update_index(*places, RemoteEncoder(address))
    assert report.num_items == 1
    [(path, reason)] = report.unreadable
    assert path == "large.png" and f"takes {MEGABYTE}" in reason and "--max-body-mb" in reason
    again = update_index(*places, RemoteEncoder(server), options=UpdateOptions(verify=True))
    assert again.num_items == 2 and not again.unreadable


def test_texts_that_are_too_large_together_go_in_smaller_requests(encoder):
    items = [{"text": f"{number} " * 200} for number in range(8)] + [{"text": "word " * 1000}]
    with running(encoder, Limits(body_bytes=2000)) as address:
        vectors, errors = RemoteEncoder(address).encode_readable(items)
    assert set(errors) == {8} and "takes 2000" in errors[8]
    assert np.abs(vectors[:8] - encoder.encode(items[:8])).max() < 1e-5


def test_texts_that_take_the_server_too_long_go_in_smaller_requests_and_one_alone_is_sent_again(encoder, monkeypatch):
    asked, embed = [], Service.embed

    async def slow(self, body, request):
        asked.append(len(body.input))
        if len(body.input) > 1 or len(asked) < 4:
            raise RequestError(504, "It took too long.")
        return await embed(self, body, request)

    monkeypatch.setattr(Service, "embed", slow)
    monkeypatch.setattr("plume_embed.serve.client._WAIT_SECONDS", 0.01)
    with running(encoder) as address:
        remote = RemoteEncoder(address)
        vectors, errors = remote.encode_readable([{"text": "a"}, {"text": "b"}])
        assert errors == {} and np.abs(vectors - encoder.encode(["a", "b"])).max() < 1e-5
        assert asked == [2, 1, 1, 1, 1]
        asked.clear()
        monkeypatch.setattr("plume_embed.serve.client._BUSY_SECONDS", 0)
        with pytest.raises(ValueError, match="status 504: It took too long"):
            remote.encode_readable([{"text": "a"}])


@pytest.mark.parametrize("steps", ["4", 2.5, True, 33])
def test_a_number_of_steps_that_is_none_is_refused_before_a_request(server, steps):
    with pytest.raises(ValueError, match="num_latent_steps is a whole number, and this model takes 0 to 32"):
        RemoteEncoder(server).encode_readable([{"text": "a"}], num_latent_steps=steps)


@pytest.mark.parametrize("batch_size", ["8", 0, -1])
def test_a_batch_size_that_is_none_is_refused_before_a_request(server, batch_size):
    with pytest.raises(ValueError, match="batch_size must be a whole number above 0"):
        RemoteEncoder(server).encode_readable([{"text": "a"}], batch_size)


def test_a_column_of_a_table_has_its_vectors_in_its_own_order(server, encoder):
    items = pd.Series([{"text": "a red bicycle"}, {"text": "a cat"}, {"text": "b"}], index=[2, 0, 1])
    for some in (items, dict(enumerate(items)).values()):
        vectors, errors = RemoteEncoder(server).encode_readable(some, 2)
        assert errors == {} and np.abs(vectors - encoder.encode([*items])).max() < 1e-5


def test_texts_fit_there_as_they_fit_here(server, encoder):
    remote = RemoteEncoder(server)
    for text in ("a", "word " * 1200, "word " * 20_000, "наука " * 2000, "😀" * 6000, "<|im_end|>" * 1500):
        assert remote.fits(text) == encoder.fits(text)


def test_search_by_a_server_imports_nothing_heavy_and_gives_the_same_ranking(server, by_server, encoder, folder):
    index, _ = by_server
    start = measure_start(["search", str(folder), "a red bicycle", "--to", str(index), "--json", "--server", server])
    assert start.code == 0 and set(start.heavy) == {"numpy", "pyarrow", "PIL"}
    found = json.loads(start.out)["results"]
    by_model = open_index(folder, index, encoder).search(encoder.encode(["a red bicycle"])[0])
    assert [one["path"] for one in found] == [hit.path for hit in by_model] and len(found) == 5
    assert [one["score"] for one in found] == pytest.approx([hit.score for hit in by_model], abs=1e-5)


def test_an_index_of_another_model_or_k_is_refused_with_the_remedy(server, by_server, folder, released_model_dir):
    index, _ = by_server
    with running(Encoder(released_model_dir, dtype="bfloat16")) as address:
        for command in (update_index, open_index):
            with pytest.raises(ValueError, match=r"in float32, not bfloat16; pass --dtype float32 .*plume-embed serve"):
                command(folder, index, RemoteEncoder(address))
    with pytest.raises(ValueError, match="pass --latent-steps 8"):
        open_index(folder, index, RemoteEncoder(server), num_latent_steps=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("http://127.0.0.1:1", None, None, "auto"), "start it with `plume-embed serve`"),
        (("127.0.0.1:8000", None, None, "auto"), "http://127.0.0.1:8000"),
        (("http://127.0.0.1:1", None, None, "float32"), "leave out --model"),
        (("http://127.0.0.1:1", "model", None, "auto"), "leave out --model"),
    ],
)
def test_a_server_that_is_not_there_and_options_of_a_model_beside_it_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        choose_encoder(*options)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:abc", "takes an address such as"),
        ("http://127.0.0.1:99999", "takes an address such as"),
        ("http://a b", "takes an address such as"),
        ("http://", "takes an address such as"),
        ("http://[::1", "takes an address such as"),
        ("http://user:secret@127.0.0.1:1", "without user and password"),
    ],
)
def test_what_is_no_address_is_refused_and_a_password_is_not_shown(address, words):
    with pytest.raises(ValueError, match=words) as error:
        RemoteEncoder(address)
    assert "secret" not in str(error.value)


ABOUT = {
    "dimension": 2,
    "fingerprint": "f",
    "num_latent_steps": 1,
    "max_latent_steps": 1,
    "document_latent_steps": None,
    "items": 8,
    "body_bytes": 1000,
    "request_seconds": 60,
    "num_frames": 8,
    "fps": None,
    "max_image_pixels": 100,
    "page_words": 100,
    "sees_times": False,
}
CARD = {"id": "m", "max_model_len": 99, "plume": ABOUT}


@contextmanager
def answering(answers: dict[str, bytes]) -> Iterator[str]:
    """A server that sends these bytes for these paths, whatever was asked."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            path = self.rfile.readline().split()[1].decode()
            length = 0
            while (line := self.rfile.readline()).strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            self.wfile.write(answers[path])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _http(body: object, status: str = "200 OK", headers: str = "") -> bytes:
    data = json.dumps(body).encode()
    return f"HTTP/1.0 {status}\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data


@pytest.mark.parametrize(
    "answer",
    [
        *map(_http, ({}, [], None, {"data": None}, {"data": []}, {"data": [3]})),
        _http({"data": [{"id": "other", "max_model_len": 9}]}),
        *(_http({"data": [CARD | {"plume": {n: v for n, v in ABOUT.items() if n != name}}]}) for name in ABOUT),
        _http({"data": [CARD | {"plume": ABOUT | {"dimension": "2"}}]}),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        _http({"data": [CARD]})[:-3],
        b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.0 500 No\r\nContent-Length: 99\r\n\r\nshort",
    ],
    ids=lambda answer: answer.rpartition(b"\r\n")[2][:20].decode() or "banner",
)
def test_a_server_that_is_not_ours_is_refused_with_one_line(answer):
    with answering({"/v1/models": answer}) as address, pytest.raises(ValueError, match=r"plume-embed serve|status 500"):
        RemoteEncoder(address)


@pytest.mark.parametrize("rows", [None, [{"embedding": "AAAAAAAAAAA="}], [{"embedding": "AAAA"}] * 2])
def test_vectors_of_another_number_or_size_are_refused(rows):
    vectors = _http({"data": rows}, headers="Plume-Fingerprint: f\r\n")
    with answering({"/v1/models": _http({"data": [CARD]}), "/v1/embeddings": vectors}) as address:
        remote = RemoteEncoder(address)
        with pytest.raises(ValueError, match="answers as no `plume-embed serve` does"):
            remote.encode_readable([{"text": "a"}, {"text": "b"}])


@pytest.mark.parametrize(
    ("header", "words"), [("Plume-Fingerprint: other\r\n", "another model than it did at first"), ("", "as no `plume")]
)
def test_vectors_of_another_model_than_at_first_are_refused(header, words):
    vectors = _http({"data": [{"embedding": "AAAAAAAAAAA="}]}, headers=header)
    with answering({"/v1/models": _http({"data": [CARD]}), "/v1/embeddings": vectors}) as address:
        remote = RemoteEncoder(address)
        with pytest.raises(ValueError, match=words):
            remote.encode_readable([{"text": "a"}])


def test_a_busy_server_may_say_when_to_come_again_in_any_words(monkeypatch):
    waits: list[float] = []
    answers = {"/v1/models": _http({}, "429 Busy", "Retry-After: Fri, 31 Dec 2027 23:59:59 GMT\r\n")}

    def wait(seconds: float) -> None:
        waits.append(seconds)
        answers["/v1/models"] = _http({"data": [CARD]})

    monkeypatch.setattr("plume_embed.serve.client.time.sleep", wait)
    with answering(answers) as address:
        assert RemoteEncoder(address).dimension == 2
    assert waits == [1.0]


def test_the_client_sends_the_key_of_the_environment(encoder, monkeypatch):
    with running(encoder, key="secret") as address:
        with pytest.raises(ValueError, match="PLUME_API_KEY"):
            RemoteEncoder(address)
        monkeypatch.setenv("PLUME_API_KEY", "secret")
        assert RemoteEncoder(f"{address}/v1").encode_readable([{"text": "a"}])[1] == {}
