"""Draw what `plume-embed search` finds: `python -m examples.render_demo`.

    python -m examples.render_demo --folder examples/photographs --query "a cup of coffee" --query "my cat"
    python -m examples.render_demo --model DIR --folder ~/Pictures --query "a red bicycle" --to bicycle.png

One row a query: the query, then the best pictures with rank, score and file name. The same hits are written beside the
image as JSON, from which a test reads what the README shows.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageDraw, ImageFont, ImageOps

ROOT = Path(__file__).parent.parent
CELL, GAP, MARGIN, QUERY_WIDTH = 200, 16, 24, 230  # pixels
PICTURES = ROOT / "examples" / "photographs"
PICTURE_OF_THE_README = ROOT / "docs" / "pictures" / "demo.png"
LABEL_HEIGHT = 50
INK, GREY, LINE, GROUND = "#1b1f24", "#66707b", "#d5dae0", "#ffffff"


@dataclass(frozen=True)
class Query:
    """A text, or a picture."""

    text: str | None = None
    picture: Path | None = None

    @property
    def arguments(self) -> list[str]:
        """As `plume-embed search` takes it, behind its other arguments: a text may begin with a dash."""
        return ["--", self.text] if self.picture is None else ["--image", str(self.picture)]

    @property
    def name(self) -> str:
        return self.text if self.picture is None else self.picture.name


def search(folder: Path, queries: list[Query], model: str | None, top: int) -> list[dict]:
    """Runs the command once a query over one fresh index.

    Args:
        folder (`Path`): Its pictures are searched.
        queries (`list[Query]`): Texts and pictures.
        model (`str`, *optional*): Folder or Hub id; by default the command's own.
        top (`int`): Results a query.

    Returns:
        For each query `query` and `results`, each with `path` and `score`.

    Raises:
        ValueError: the command failed, with its message; or no picture was found.
    """
    found = []
    with tempfile.TemporaryDirectory() as index:
        for number, query in enumerate(queries):
            command = [sys.executable, "-m", "plume_embed", "search", str(folder), "--json"]
            command += ["--kind", "image"]  # the folder may hold more than what can be drawn
            command += ["--to", f"{index}/index", "--top", str(top)]
            command += [] if model is None else ["--model", model]
            command += ["--no-update"] if number else []
            command += query.arguments
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ValueError(done.stderr.strip())
            hits = [
                {"path": hit["path"], "score": round(hit["score"], 3)} for hit in json.loads(done.stdout)["results"]
            ]
            if not hits:
                raise ValueError(f"No pictures in {folder}")
            found.append({"query": query.name, "results": hits})
    return found


def draw(folder: Path, queries: list[Query], found: list[dict]) -> Image.Image:
    """The hits as one image, a row a query."""
    columns = max(len(row["results"]) for row in found)
    row_height = CELL + LABEL_HEIGHT + GAP
    width = 2 * MARGIN + QUERY_WIDTH + columns * (CELL + GAP)
    sheet = Image.new("RGB", (width, 2 * MARGIN + len(found) * row_height), GROUND)
    pen = ImageDraw.Draw(sheet)
    for number, (query, row) in enumerate(zip(queries, found, strict=True)):
        top = MARGIN + number * row_height
        if number:
            pen.line([(MARGIN, top - GAP), (width - MARGIN, top - GAP)], fill=LINE)
        _draw_query(sheet, pen, query, top)
        for rank, hit in enumerate(row["results"], start=1):
            left = MARGIN + QUERY_WIDTH + (rank - 1) * (CELL + GAP)
            sheet.paste(_thumbnail(folder / hit["path"]), (left, top))
            pen.text((left, top + CELL + 6), f"{rank}.  {hit['score']:.3f}", fill=INK, font=_font(18))
            pen.text((left, top + CELL + 28), _shortened(hit["path"]), fill=GREY, font=_font(15))
    return sheet


def _draw_query(sheet: Image.Image, pen: ImageDraw.ImageDraw, query: Query, top: int) -> None:
    pen.text((MARGIN, top), "query", fill=GREY, font=_font(15))
    if query.picture is not None:
        sheet.paste(_thumbnail(query.picture, CELL - 40), (MARGIN, top + 26))
        return
    lines: list[str] = [""]
    for word in f"“{query.text}”".split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if _font(24).getlength(longer) <= QUERY_WIDTH - GAP else [*lines, word]
    pen.multiline_text((MARGIN, top + 26), "\n".join(lines).strip(), fill=INK, font=_font(24), spacing=8)


def _thumbnail(path: Path, side: int = CELL) -> Image.Image:
    """A picture on a square of white, turned upright."""
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    picture = ImageOps.contain(picture, (side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (side, side), GROUND)
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square.convert("RGB")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # the one that comes with Pillow: the same everywhere


def _shortened(path: str) -> str:
    name = Path(path).name
    while _font(15).getlength(name) > CELL:
        name = name.removesuffix("…")[:-1] + "…"
    return name


def main(
    folder: Annotated[Path, typer.Option(help="Whose pictures are searched.", metavar="DIR")] = PICTURES,
    query: Annotated[list[str] | None, typer.Option(help="A text to search with; repeatable.")] = None,
    picture: Annotated[list[Path] | None, typer.Option(help="A picture to search with; repeatable.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or Hub id. Default: that of `search`.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Results a query.")] = 5,
    to: Annotated[Path, typer.Option(help="The image; the JSON has its name.")] = PICTURE_OF_THE_README,
) -> None:
    """Search a folder of pictures and draw what is found."""
    queries = [Query(text=text) for text in query or ()] + [Query(picture=path) for path in picture or ()]
    if not queries:
        queries = [Query("a cup of coffee"), Query("a flock of sheep"), Query("snowy mountains")]
    try:
        found = search(folder, queries, model, top)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    to.parent.mkdir(parents=True, exist_ok=True)
    draw(folder, queries, found).save(to, optimize=True)
    to.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    typer.echo(f"written: {to} and {to.with_suffix('.json').name}")


if __name__ == "__main__":
    typer.run(main)
