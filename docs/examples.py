"""Run the Python examples of the documents as they stand: `python -m docs.examples PAGE.md ... [--json FILE]`.

All examples of a call run in one process, each with names of its own. `print(x)  # shown` in an example asserts that
`shown` is printed, as a whole line and behind what the prints above it show. An example whose library is not installed
is skipped and named; everything else has to run.
"""

import contextlib
import io
import json
import re
import traceback
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
# Libraries that an example may lack, by the name that is imported.
OPTIONAL = {
    "bertopic": ("bertopic",),
    "chromadb": ("chromadb",),
    "faiss": ("faiss-cpu",),
    "haystack": ("haystack-ai",),
    "haystack_integrations": ("sentence-transformers-haystack",),
    "langchain_core": ("langchain-core",),
    "langchain_huggingface": ("langchain-huggingface",),
    "lancedb": ("lancedb",),
    "llama_index": ("llama-index-core", "llama-index-embeddings-huggingface"),
    "mteb": ("mteb",),
    "openai": ("openai",),
    "qdrant_client": ("qdrant-client",),
    "sentence_transformers": ("sentence-transformers",),
}


@dataclass
class Example:
    """One block of Python.

    Args:
        page (`str`): Its page.
        heading (`str`): The heading above it.
        code (`str`): As it stands.
        status (`str`): "not run", "run", "skipped" or "failed".
        reason (`str`): Why it was skipped or failed.
        versions (`dict[str, str]`): Of the optional libraries that it imports.
    """

    page: str
    heading: str
    code: str
    status: str = "not run"
    reason: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> list[str]:
        """What its prints say that they print."""
        lines = [line for line in self.code.splitlines() if line.lstrip().startswith("print(") and "  # " in line]
        return [line.split("  # ", 1)[1] for line in lines]

    def not_printed(self, printed: str) -> list[str]:
        """Of [`shown`] what is no line of its own in what was printed, in the same order."""
        lines = iter(printed.splitlines())
        return [shown for shown in self.shown if shown not in lines]  # an iterator: the next one is sought behind it


def read_examples(page: Path) -> list[Example]:
    """The Python blocks of a page, in order."""
    text = page.read_text()
    found = []
    for block in _BLOCK.finditer(text):
        headings = _HEADING.findall(_BLOCK.sub("", text[: block.start()]))
        found.append(Example(page.name, headings[-1] if headings else page.stem, block[1]))
    return found


def run(example: Example) -> None:
    """Runs one and notes how it went."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(example.code, f"<{example.page}: {example.heading}>", "exec"), {"__name__": "__main__"})
    except ModuleNotFoundError as error:
        is_optional = (error.name or "").partition(".")[0] in OPTIONAL
        example.status, example.reason = ("skipped" if is_optional else "failed"), str(error)
        return
    except Exception:
        example.status, example.reason = "failed", traceback.format_exc(limit=-3)
        return
    missing = example.not_printed(printed.getvalue())
    example.status = "failed" if missing else "run"
    example.reason = f"expected {missing}, printed {printed.getvalue()!r}" if missing else ""
    example.versions = _versions(example.code)


def _versions(code: str) -> dict[str, str]:
    imported = re.findall(r"^(?:from|import) (\w+)", code, flags=re.MULTILINE)
    names = [name for module in dict.fromkeys(imported) for name in OPTIONAL.get(module, ())]
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main(
    pages: Annotated[list[Path], typer.Argument(help="Markdown files.", metavar="PAGE.md ...")],
    json_to: Annotated[Path | None, typer.Option("--json", help="Also write what happened.", metavar="FILE")] = None,
) -> None:
    """Run the Python examples of pages; exit code 1 if one fails."""
    examples = [example for page in pages for example in read_examples(page)]
    for example in examples:
        run(example)
        typer.echo(f"{example.status:8} {example.page}: {example.heading} {example.reason}")
    if json_to is not None:
        rows = [{name: value for name, value in asdict(e).items() if name not in ("code", "page")} for e in examples]
        json_to.write_text(json.dumps(rows, indent=1) + "\n")
    if any(example.status == "failed" for example in examples):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
