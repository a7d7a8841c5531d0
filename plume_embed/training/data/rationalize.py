"""Rationales for pairs of one's own, written by a vision-language model, so that the whole curriculum runs on them.

Each distinct side is sent once to a server with OpenAI's chat interface. What comes back is checked by the rules of the
training corpus; finished sides go to a journal beside the output, so that a killed run goes on where it was, and a
finished one is not paid for again.
"""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from plume_embed.addresses import check_address
from plume_embed.atomic import replacing, write_bytes
from plume_embed.model.media_plume import load_image
from plume_embed.model.videos_plume import sample_frames
from plume_embed.outputs import check_output
from plume_embed.training.curriculum import parse_assistant_turn, split_sentences
from plume_embed.training.data.keys import item_key
from plume_embed.training.data.pair_rows import PAGES_AS_PICTURES, PairRow, open_pages
from plume_embed.training.data.rationale_journal import Journal

INSTRUCTION = (
    "You are given one input of a search engine: a text, pictures, frames of a film, or several of these. In four to "
    "eight short sentences say what it is, what matters in it, and what a matching result would show. Then give a "
    "summary of at most twenty words. Answer in exactly this form:\n"
    "<think>your sentences</think><answer>your summary</answer>"
)
NUM_FRAMES = 8
_PLACEHOLDER = re.compile("<(image|video)>")
_LEAST_SENTENCES, _MOST_CHARACTERS = 2, 6000


class Writer(Protocol):
    """What writes a rationale: a server, or a model in this process."""

    @property
    def about(self) -> dict[str, str | int]:
        """What decides the text, by name: the model, where it runs, and its limits."""
        ...

    def write(self, text: str, pictures: Sequence[Image.Image]) -> tuple[str, int]:
        """The assistant's turn for one input, and the tokens it cost.

        Raises:
            WriterError: this input got no answer; another one may.
            ValueError: no input can get one, such as a wrong key or address.
        """
        ...


class WriterError(Exception):
    """One input got no answer; the message says why."""


@dataclass(frozen=True)
class RationalizeOptions:
    """How much is asked for, and when to stop.

    Args:
        jobs (`int`): Requests at once.
        tries (`int`): Answers asked for one side before it is given up.
        max_tokens (`int`, *optional*): Tokens of all requests together, those of earlier runs for this corpus too,
            after which nothing more is asked.
        max_failures (`int`): Sides given up in a row that end the run: the server is of no use.
    """

    jobs: int = 4
    tries: int = 3
    max_tokens: int | None = None
    max_failures: int = 20


@dataclass
class RationalizeReport:
    """Rows written; sides written just now and found in the journal; tokens of all runs; sides given up, by reason."""

    rows: int = 0
    written: int = 0
    resumed: int = 0
    tokens: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    is_out_of_budget: bool = False


def rationalize(
    rows: Sequence[PairRow],
    writer: Writer,
    out: Path,
    options: RationalizeOptions = RationalizeOptions(),
    dataset_name: str = "pairs",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RationalizeReport:
    """Writes the pairs in the format of the training corpus (docs/training.md), rows without both rationales left out.

    Args:
        rows (`Sequence[PairRow]`): From `read_pairs`. Given negatives have no place in the corpus and are dropped.
        writer ([`Writer`]): Who writes.
        out (`Path`): A JSONL file, whose folder is made; pictures of pages and frames of films go to the folder
            `OUT.media` beside it. The journal `.OUT.journal` stays there too.
        options ([`RationalizeOptions`]): Limits.
        dataset_name (`str`): Of the sub-dataset, from which a batch is drawn.
        on_progress: Called with sides done and sides in all.

    Raises:
        ValueError: a medium that cannot be read, the server refuses everything, too many failures in a row, an output
            that is no JSONL file, or one that another writer has begun.
    """
    check_output(out, "out", suffix=".jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    sides: dict[int, tuple[dict[str, Any], str]] = {}
    for row in rows:
        for name, item in (("query", row.question), ("positive", row.positive)):
            sides.setdefault(item_key(item), (item, f"{row.where}: {name}"))
    about = {**writer.about, "instruction": _short_hash(INSTRUCTION.encode()), "frames of a film": NUM_FRAMES}
    journal = Journal(out.with_name(f".{out.name}.journal"), about)
    turns = journal.turns
    todo = {key: side for key, side in sides.items() if key not in turns}
    report = RationalizeReport(resumed=len(sides) - len(todo))
    _write(todo, writer, options, report, journal, on_progress, len(sides))
    report.tokens = journal.tokens
    with replacing(out) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            keys = item_key(row.question), item_key(row.positive)
            if not all(key in turns for key in keys):
                continue
            try:
                query, positive = (
                    _corpus_side(item, turns[key], out)
                    for item, key in zip((row.question, row.positive), keys, strict=True)
                )
            except ValueError as error:
                report.failed[f"the corpus cannot hold it: {error}"] += 1
                continue
            line = {"qry": query, "pos": positive, "dataset_name": dataset_name}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            report.rows += 1
    return report


def check_turn(turn: str) -> str:
    """An assistant's turn that can be trained on, tidied.

    Raises:
        ValueError: another form, control tokens, no answer, fewer than two sentences, or too long.
    """
    rationale, answer = parse_assistant_turn(turn.strip())
    if answer is None:
        raise ValueError("there is no answer")
    if len(split_sentences(rationale)) < _LEAST_SENTENCES:
        raise ValueError(f"the rationale has fewer than {_LEAST_SENTENCES} sentences")
    if len(rationale) + len(answer) > _MOST_CHARACTERS:
        raise ValueError(f"the rationale has more than {_MOST_CHARACTERS} characters")
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def _write(
    todo: dict[int, tuple[dict[str, Any], str]],
    writer: Writer,
    options: RationalizeOptions,
    report: RationalizeReport,
    journal: Journal,
    on_progress: Callable[[int, int], None],
    total: int,
) -> None:
    """Fills the journal as turns come; `jobs` requests run at once, and no more than that wait."""
    waiting, running, in_a_row = iter(todo.items()), dict[Future, int](), 0
    on_progress(report.resumed, total)
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            while True:
                spent = options.max_tokens is not None and journal.tokens >= options.max_tokens
                while not spent and len(running) < options.jobs and (job := next(waiting, None)) is not None:
                    key, (item, name) = job
                    running[pool.submit(_turn, item, name, writer, options.tries)] = key
                if not running:
                    report.is_out_of_budget = spent and next(waiting, None) is not None
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    turn, tokens, reason = future.result()
                    journal.add(key, turn, tokens)
                    if turn is None:
                        report.failed[reason] += 1
                        in_a_row += 1
                        if in_a_row >= options.max_failures:
                            raise ValueError(f"{in_a_row} inputs in a row got no rationale; the last one: {reason}.")
                    else:
                        in_a_row = 0
                        report.written += 1
                    on_progress(report.resumed + report.written + report.failed.total(), total)
        finally:  # whatever has ended the run, the answers under way are paid for
            for future, key in running.items():
                if future.exception() is None:
                    turn, tokens, _ = future.result()
                    journal.add(key, turn, tokens)


def _turn(item: dict[str, Any], name: str, writer: Writer, tries: int) -> tuple[str | None, int, str]:
    """A turn that holds, the tokens it took, and why there is none."""
    try:
        pictures = _pictures(item)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    tokens, reason = 0, ""
    for _ in range(tries):
        try:
            turn, cost = writer.write(item.get("text", ""), pictures)
        except WriterError as error:
            return None, tokens, str(error)
        tokens += cost
        try:
            return check_turn(turn), tokens, ""
        except ValueError as error:
            reason = f"no usable rationale: {str(error).partition(', got')[0]}"
    return None, tokens, reason


def _pictures(item: dict[str, Any]) -> list[Image.Image]:
    opened = open_pages(item, PAGES_AS_PICTURES)
    pictures = [load_image(picture) for picture in opened.get("image", [])]
    return pictures + [frame for film in opened.get("video", []) for frame in sample_frames(film, NUM_FRAMES)[0]]


def _corpus_side(item: dict[str, Any], turn: str, out: Path) -> dict[str, Any]:
    """A side of the corpus; media that are no picture files are written as such."""
    opened = open_pages(item, PAGES_AS_PICTURES)
    images = [
        str(picture.resolve()) if isinstance(picture, Path) else _saved(load_image(picture), out)
        for picture in opened.get("image", [])
    ]
    films = opened.get("video", [])
    if len(films) > 1:
        raise ValueError("several videos on one side")
    if _PLACEHOLDER.search(item.get("text", "")):
        raise ValueError("a text with <image> or <video> in it")
    frames = [_saved(frame, out) for film in films for frame in sample_frames(film, NUM_FRAMES)[0]]
    text = "<image>\n" * len(images) + "<video>\n" * bool(frames) + item.get("text", "")
    side: dict[str, Any] = {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": turn}]}
    return side | ({"image": images} if images else {}) | ({"video": frames} if frames else {})


def _saved(picture: Image.Image, out: Path) -> str:
    content = _png(picture)
    path = out.with_name(f"{out.name}.media") / f"{_short_hash(content)}.png"
    if not path.is_file():
        write_bytes(path, content)
    return str(path.resolve())


def _short_hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


class EndpointWriter:
    """A server with OpenAI's chat interface.

    Args:
        endpoint (`str`): Its address up to `/v1`.
        model (`str`): The model's name there.
        api_key (`str`): "none" where it asks for none.
        seconds (`float`): How long one answer may take.
        max_answer_tokens (`int`): Of one answer.
        retries (`int`): How often a busy, failing or slow server is asked again for one answer.

    Raises:
        ValueError: the endpoint is no address.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        api_key: str,
        seconds: float = 120,
        max_answer_tokens: int = 700,
        retries: int = 4,
    ):
        from openai import OpenAI

        check_address(endpoint, "--endpoint", "http://127.0.0.1:8000/v1")
        self._client = OpenAI(base_url=endpoint, api_key=api_key, timeout=seconds, max_retries=retries)
        self._model, self._max_answer_tokens = model, max_answer_tokens
        self.about: dict[str, str | int] = {
            "model": model,
            "endpoint": endpoint.rstrip("/"),
            "max_answer_tokens": max_answer_tokens,
        }

    def write(self, text: str, pictures: Sequence[Image.Image]) -> tuple[str, int]:
        """See [`Writer`]. The client waits and asks again by itself where the server is busy or fails."""
        import openai
        from openai.types.chat import ChatCompletion

        shown = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(_png(p)).decode()}"}}
            for p in pictures
        ]
        content = [*shown, {"type": "text", "text": f"{INSTRUCTION}\n\nThe input:\n{text}" if text else INSTRUCTION}]
        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": content}],
                max_tokens=self._max_answer_tokens,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ValueError(f"The server refuses: {error.message}") from error
        except (openai.OpenAIError, ValueError) as error:  # ValueError: what it answers is not JSON
            raise WriterError(f"{type(error).__name__}: {error}"[:200]) from error
        if not isinstance(answer, ChatCompletion):
            raise WriterError("the server answers as no OpenAI chat API does")
        return _first_turn(answer.to_dict(warnings=False))


def _first_turn(answer: dict[str, Any]) -> tuple[str, int]:
    """What the assistant says, and the tokens of the request. (`openai` checks no field of what a server sends.)"""
    match answer:
        case {"choices": [{"message": {"content": str(turn)}}, *_]}:
            pass
        case _:
            turn = ""
    match answer:
        case {"usage": {"total_tokens": int(tokens)}}:
            return turn, tokens
    return turn, 0


class LocalWriter:
    """A vision-language model of transformers in this process, one input at a time.

    Args:
        model (`str`): Folder or Hub id.
        device (`str`): Where it runs.
        max_answer_tokens (`int`): Of one answer.
    """

    def __init__(self, model: str, device: str = "cpu", max_answer_tokens: int = 700):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._processor = AutoProcessor.from_pretrained(model)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(model)  # of a class that is known when it runs
        self._model = loaded.to(device).eval()
        self._max_answer_tokens = max_answer_tokens
        self.about: dict[str, str | int] = {"model": model, "max_answer_tokens": max_answer_tokens}

    def write(self, text: str, pictures: Sequence[Image.Image]) -> tuple[str, int]:
        """See [`Writer`]; greedy."""
        import torch

        content = [{"type": "image", "image": picture} for picture in pictures]
        content.append({"type": "text", "text": f"{INSTRUCTION}\n\nThe input:\n{text}" if text else INSTRUCTION})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=self._max_answer_tokens, do_sample=False)
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return self._processor.decode(answer, skip_special_tokens=True), tokens.shape[1]
