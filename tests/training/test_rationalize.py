"""Rationales by a server: one that answers, stalls, fails and lies; kills, budgets, and the corpus that comes out."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_files import write_pdf, write_video
from transformers import Qwen2VLProcessor

from plume_embed.bench.cot import language_model
from plume_embed.cli.main import main
from plume_embed.training.data.corpus import Corpus
from plume_embed.training.data.pair_rows import read_pairs
from plume_embed.training.data.rationalize import (
    INSTRUCTION,
    EndpointWriter,
    LocalWriter,
    RationalizeOptions,
    WriterError,
    check_turn,
    rationalize,
)
from plume_embed.training.small_model import make_model, make_processor

GOOD = "<think>It is an animal. It lives in the sea.</think><answer>a whale</answer>"


class Server(ThreadingHTTPServer):
    """Answers by what the input's text asks for; counts requests and the most that ran at once."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.pictures, self.now, self.most = 0, 0, 0, 0
        self.failed: set[str] = set()
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        text = content[-1]["text"].partition("The input:\n")[2]
        with self.server.lock:
            self.server.requests += 1
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
            self.server.pictures += sum(part["type"] == "image_url" for part in content)
        time.sleep(0.02)
        try:
            self._answer(text)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def _answer(self, text: str) -> None:
        if self.headers["Authorization"] == "Bearer wrong":
            self._send(401, {"error": {"message": "no such key"}})
            return
        if "stalls" in text:
            time.sleep(3)
        if "fails once" in text and text not in self.server.failed:
            self.server.failed.add(text)
            self._send(503, {"error": {"message": "busy"}})
            return
        if "always fails" in text:
            self._send(500, {"error": {"message": "broken"}})
            return
        if "strange " in text:
            self._send(200, json.loads(text.removeprefix("strange ").removesuffix(" found")))
            return
        turn = "I will not." if "lies" in text else GOOD
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": turn}}
        usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        self._send(200, {**about, "choices": [choice], "usage": usage})

    def _send(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Retry-After-Ms", "10")
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the client has given up

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def pairs(folder: Path, *texts: str) -> list:
    lines = [json.dumps({"query": text, "positive": f"{text} found"}) for text in texts]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return read_pairs([folder / "pairs.jsonl"])


def writer(server: Server, **settings) -> EndpointWriter:
    return EndpointWriter(server.address, "m", "none", **settings)


def test_all_kinds_of_sides_come_out_as_a_corpus_that_training_reads(server, tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    write_video(tmp_path / "clip.mp4")
    write_pdf(tmp_path / "report.pdf", num_pages=1)
    rows = [
        {"query": "a red square", "positive": {"image": "a.png", "text": "red"}},
        {"query": {"video": "clip.mp4"}, "positive": {"page": "report.pdf#page=1"}},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = rationalize(read_pairs([tmp_path / "p.jsonl"]), writer(server), tmp_path / "corpus.jsonl")
    assert (report.rows, report.written, report.tokens) == (2, 4, 400)
    corpus = Corpus.from_jsonl([tmp_path / "corpus.jsonl"], Path())
    assert corpus[0].target.item == {"text": "red", "image": [tmp_path / "a.png"]}
    assert corpus[0].query.rationale == "It is an animal. It lives in the sea." and corpus[0].query.answer == "a whale"
    frames = corpus[1].query.item["video"][0]
    assert len(frames) > 1 and all(frame.is_file() for frame in frames)
    assert len(corpus[1].target.item["image"]) == 1
    assert server.pictures == 1 + len(frames) + 1


def test_a_busy_server_is_asked_again_and_stalls_failures_and_lies_are_given_up_by_reason(server, tmp_path):
    rows = pairs(tmp_path, "fails once", "always fails", "lies", "fine")
    asking = writer(server, seconds=5, retries=1)
    report = rationalize(rows, asking, tmp_path / "corpus.jsonl", RationalizeOptions(jobs=2, tries=2))
    assert report.rows == 2 and report.written == 4
    reasons = " / ".join(report.failed)
    assert "InternalServerError" in reasons and "no usable rationale: The assistant turn must read" in reasons
    with pytest.raises(WriterError, match="APITimeoutError"):
        writer(server, seconds=0.2, retries=0).write("it stalls", [])


def test_a_killed_run_goes_on_and_asks_for_nothing_twice(server, tmp_path):
    rows = pairs(tmp_path, *map(str, range(10)))

    def kill(done: int, total: int) -> None:
        if done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rationalize(rows, writer(server), tmp_path / "c.jsonl", RationalizeOptions(jobs=1), on_progress=kill)
    assert not (tmp_path / "c.jsonl").exists()
    with (tmp_path / ".c.jsonl.journal").open("a") as file:
        file.write('{"key": 12')  # as a kill in the middle of a line leaves it
    before = server.requests
    report = rationalize(rows, writer(server), tmp_path / "c.jsonl", RationalizeOptions(jobs=1))
    assert report.rows == 10 and report.resumed >= 6 and report.resumed + report.written == 20
    assert server.requests - before == report.written


def test_answers_under_way_are_kept_when_a_file_or_a_failure_ends_the_run(server, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    row = json.dumps({"query": {"image": "damaged.png"}, "positive": "0 found"})
    (tmp_path / "p.jsonl").write_text("\n".join([json.dumps({"query": "0", "positive": "1"}), row]))
    options = RationalizeOptions(jobs=4, tries=1, max_failures=1)
    for name, rows, message in (
        ("file", read_pairs([tmp_path / "p.jsonl"]), r"damaged\.png"),
        ("failure", pairs(tmp_path, "lies", "2"), "1 inputs in a row got no rationale"),
    ):
        before = server.requests
        with pytest.raises(ValueError, match=message):
            rationalize(rows, writer(server), tmp_path / f"{name}.jsonl", options)
        _, *kept = (tmp_path / f".{name}.jsonl.journal").read_text().splitlines()
        assert len(kept) == server.requests - before > 2


def test_requests_at_once_and_tokens_are_bounded(server, tmp_path):
    rows = pairs(tmp_path, *map(str, range(12)))
    report = rationalize(rows, writer(server), tmp_path / "c.jsonl", RationalizeOptions(jobs=3, max_tokens=1000))
    assert server.most <= 3 and report.is_out_of_budget
    assert 1000 <= report.tokens <= 1000 + 2 * 100
    again = rationalize(rows, writer(server), tmp_path / "c.jsonl", RationalizeOptions(jobs=3))
    assert again.rows == 12 and again.resumed == report.written


def test_tokens_count_over_runs_those_of_unusable_answers_too(server, tmp_path):
    rows, options = pairs(tmp_path, "lies", "a whale", "a fox"), RationalizeOptions(jobs=1, tries=2, max_tokens=600)
    first = rationalize(rows, writer(server), tmp_path / "c.jsonl", options)
    assert (first.written, first.tokens, server.requests, first.is_out_of_budget) == (2, 600, 6, True)
    again = rationalize(rows, writer(server), tmp_path / "c.jsonl", options)
    assert (again.written, again.tokens, server.requests, again.is_out_of_budget) == (0, 600, 6, True)
    more = rationalize(rows, writer(server), tmp_path / "c.jsonl", RationalizeOptions(jobs=1, tries=1, max_tokens=900))
    assert more.tokens == 900 and server.requests == 9


def test_a_finished_corpus_is_not_paid_for_again_and_only_new_rows_are_asked_for(server, tmp_path):
    out = tmp_path / "c.jsonl"
    assert rationalize(pairs(tmp_path, "a whale", "a fox"), writer(server), out).rows == 2
    before = out.read_bytes()
    again = rationalize(pairs(tmp_path, "a whale", "a fox"), writer(server), out)
    assert (again.rows, again.written, again.resumed, again.tokens, server.requests) == (2, 0, 4, 400, 4)
    assert out.read_bytes() == before
    assert rationalize(pairs(tmp_path, "a whale", "a fox", "a hen"), writer(server), out).written == 2


def test_rationales_of_two_writers_are_not_mixed(server, tmp_path):
    rows, out, options = (
        pairs(tmp_path, "a whale", "a fox"),
        tmp_path / "c.jsonl",
        RationalizeOptions(1, max_tokens=200),
    )
    with pytest.raises(ValueError, match="The server refuses"):  # a corpus with nothing in it takes another writer
        rationalize(rows, EndpointWriter(server.address, "first", "wrong"), out)
    rationalize(rows, writer(server), out, options)
    before = server.requests
    for other, words in (
        (
            EndpointWriter(server.address, "other", "none"),
            "model m, not model other.* another --out, or delete .*journal",
        ),
        (EndpointWriter("http://127.0.0.1:1/v1", "m", "none"), "not endpoint http://127.0.0.1:1/v1.* the same model"),
        (EndpointWriter(server.address, "m", "none", max_answer_tokens=9), "max_answer_tokens 700, not .* 9"),
    ):
        with pytest.raises(ValueError, match=words):
            rationalize(rows, other, out)
    assert server.requests == before
    journal = tmp_path / ".c.jsonl.journal"
    journal.write_text(journal.read_text().partition("\n")[2])  # as an earlier version wrote it
    with pytest.raises(ValueError, match=r"does not say who wrote .* put this line first: \{"):
        rationalize(rows, writer(server), out)


@pytest.mark.parametrize(
    "answer",
    ["null", "[]", '"no"', "{}", '{"choices": 3}', '{"choices": [{}]}', '{"choices": [{"message": {"content": 3}}]}'],
)
def test_an_answer_of_another_kind_is_an_input_without_rationale(server, tmp_path, answer):
    rows = pairs(tmp_path, f"strange {answer}", "a whale")
    report = rationalize(rows, writer(server), tmp_path / "c.jsonl", RationalizeOptions(jobs=1, tries=1))
    assert report.rows == 1 and sum(report.failed.values()) == 2


@pytest.mark.parametrize("address", ["http://127.0.0.1:abc/v1", "127.0.0.1:8000", "", "http://a b"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match=r"--endpoint takes an address such as http://127\.0\.0\.1:8000/v1"):
        EndpointWriter(address, "m", "none")


def test_a_wrong_key_and_a_server_of_no_use_end_the_run(server, tmp_path):
    rows = pairs(tmp_path, *(f"lies {n}" for n in range(9)))
    with pytest.raises(ValueError, match="The server refuses: .*no such key"):
        rationalize(rows, EndpointWriter(server.address, "m", "wrong"), tmp_path / "c.jsonl")
    with pytest.raises(ValueError, match="5 inputs in a row got no rationale"):
        rationalize(rows, writer(server), tmp_path / "c.jsonl", RationalizeOptions(jobs=1, tries=1, max_failures=5))


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("It is a whale.", "must read"),
        ("<think>One. Two.</think>", "there is no answer"),
        ("<think>One.</think><answer>x</answer>", "fewer than 2 sentences"),
        ("<think>One. Two <bot>.</think><answer>x</answer>", "control token"),
        (f"<think>{'Long. ' * 2000}</think><answer>x</answer>", "more than 6000 characters"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(turn, message):
    with pytest.raises(ValueError, match=message):
        check_turn(turn)


def test_a_side_that_the_corpus_cannot_hold_is_left_out_and_counted(server, tmp_path):
    report = rationalize(pairs(tmp_path, "an <image> tag", "fine"), writer(server), tmp_path / "c.jsonl")
    assert report.rows == 1 and "a text with <image>" in next(iter(report.failed))


def test_the_command_writes_the_corpus_and_reports(server, tmp_path, capsys):
    pairs(tmp_path, "fine", "lies")
    arguments = ["rationalize", str(tmp_path / "pairs.jsonl"), "--model", "m", "--endpoint", server.address]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "c.jsonl")])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "1 of 2 rows in" in out and "given up: 2 inputs: no usable rationale" in out


TEMPLATE = """{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}\
<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}<think>"""


def test_a_local_model_writes_greedily_about_text_and_pictures(tmp_path):
    processor = make_processor(["a red fox near the lake"] * 5, 400, side=56)
    model = make_model(processor, 64, 2, 96, 32, 1, 0.2, seed=0)
    language_model(model).save_pretrained(tmp_path)
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    Qwen2VLProcessor(*parts, chat_template=TEMPLATE).save_pretrained(tmp_path)
    writer, picture = LocalWriter(str(tmp_path), max_answer_tokens=6), Image.new("RGB", (56, 56), "red")
    text, num_tokens = writer.write("a red fox", [])
    assert (text, num_tokens) == writer.write("a red fox", []) and text
    _, with_picture = writer.write("a red fox", [picture])
    assert with_picture == num_tokens + 4 + 2, "a picture of 56 x 56 pixels has four tokens between its two ends"
    batch = processor.tokenizer(f"{INSTRUCTION}\n\nThe input:\na red fox<think>", return_tensors="pt")
    with torch.inference_mode():
        logits = language_model(model)(**batch).logits[0, -1]
    assert text.startswith(processor.tokenizer.decode(logits.argmax()))
