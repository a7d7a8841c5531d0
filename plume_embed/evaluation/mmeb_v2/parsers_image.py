"""The five image parsers: rows of MMEB_Test_Instruct to queries and candidates.

Instruction strings are columns of the data. Line ends and blanks follow the first version of the benchmark to the
letter, because embeddings do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from plume_embed.evaluation.mmeb_v2.items import IMAGE, Candidate, Item, Query
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant

_MARK = "<|image_1|>"


def parse_image_to_text(task: Task, variant: Variant, rows: Rows, media: Media) -> tuple[Iterator[Query], list]:
    """image_cls, image_i2t and image_qa: a picture with a text; the candidates are texts, the first is correct.

    image_qa strips the instruction and puts a line end before it.
    """

    def queries() -> Iterator[Query]:
        strip = task.parser == "image_qa"
        for number, row in enumerate(rows.table()):
            texts = _candidates_of(number, row["tgt_text"])
            yield Query(
                _image_query(row, media, strip), tuple(Candidate(text, Item(text)) for text in texts), (texts[0],)
            )

    return queries(), []


def parse_text_to_image(task: Task, variant: Variant, rows: Rows, media: Media) -> tuple[Iterator[Query], list]:
    """image_t2i: a text without a picture; the candidates are pictures, known by their path."""

    def queries() -> Iterator[Query]:
        end = "\n\n" if task.name == "VisDial" else "\n"
        for number, row in enumerate(rows.table()):
            paths = _candidates_of(number, row["tgt_img_path"])
            texts = _target_texts(number, row, end_without_caption="\n")
            query = Item(f"{row['qry_inst']} {row['qry_text']}{end}")
            candidates = zip(paths, texts, strict=True)
            yield Query(query, tuple(Candidate(p, _picture(p, text, media)) for p, text in candidates), (paths[0],))

    return queries(), []


def parse_image_to_image(task: Task, variant: Variant, rows: Rows, media: Media) -> tuple[Iterator[Query], list]:
    """image_i2i_vg: a picture with a text; the candidates are pictures with or without a caption.

    Several objects of one picture can be candidates, hence the key: path, colon, caption without quotes.
    """

    def queries() -> Iterator[Query]:
        for number, row in enumerate(rows.table()):
            paths = _candidates_of(number, row["tgt_img_path"])
            texts = _target_texts(number, row, end_without_caption="")
            keys = [f"{path}:{caption.strip(chr(34))}" for path, caption in zip(paths, row["tgt_text"], strict=True)]
            parts = zip(keys, paths, texts, strict=True)
            candidates = tuple(Candidate(key, _picture(path, text, media)) for key, path, text in parts)
            yield Query(_image_query(row, media, strip=True), candidates, (keys[0],))

    return queries(), []


def _image_query(row: dict, media: Media, strip: bool) -> Item:
    instruction = row["qry_inst"].replace(_MARK, "")
    instruction = f"\n{instruction.strip()}" if strip else instruction
    text = f"{IMAGE} {instruction}{_after(row['qry_text'])}"
    return Item(f"{text.replace(' ' + chr(10), chr(10))}\n", media.image(row["qry_img_path"]), "image")


def _target_texts(number: int, row: dict, end_without_caption: str) -> list[str]:
    captions = list(row["tgt_text"])
    if len(captions) != len(row["tgt_img_path"]):
        raise ValueError(f"row {number}: {len(captions)} target texts for {len(row['tgt_img_path'])} target pictures")
    head = f"{IMAGE} {row['tgt_inst'].replace(_MARK, '')}"
    # The first caption decides for the whole row.
    has_captions = bool(captions and captions[0].strip())
    texts = [f"{head} {caption}" if has_captions else head for caption in captions]
    return [text.replace(" \n", "\n") + ("\n" if has_captions else end_without_caption) for text in texts]


def _picture(path: str, text: str, media: Media) -> Item:
    return Item(text, media.image(path), "image")


def _candidates_of(number: int, column: Iterable[str] | None) -> list[str]:
    candidates = list(column or ())
    if not candidates:
        raise ValueError(f"row {number} has no candidates")
    return candidates


def _after(text: str) -> str:
    return f" {text}" if text else ""
