"""What leaves the page with a query: its address, its results as files, and code that asks the same."""

import base64
import csv
import io
import json
import os
import re
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from plume_embed.encode.encoder import DEFAULT_MODEL
from space.content.corpora import ROOT
from space.content.items import Hit
from space.content.sessions import QueryResult
from space.trace import Trace

_FILE_IN_CODE = {"image": "picture.png", "video": "film.mp4"}
_FORMULA_STARTS = ("=", "+", "-", "@")


def rows(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """The results as the API gives them."""
    return [
        {
            "rank": rank,
            "score": round(hit.score, 6),
            "name": hit.item.label,
            "kind": hit.item.kind,
            "text": hit.item.text,
            "is_own": hit.item.is_own,
        }
        for rank, hit in enumerate(hits, start=1)
    ]


def takeaway(result: QueryResult, address: str) -> str:
    """HTML below the results: the link to the search, its results as files, and code for it."""
    share = '<p class="share">A search with a file of yours has no address that repeats it.</p>'
    if result.link:
        url = escape(f"{address}/?{result.link}")
        share = f'<p class="share"><a href="?{escape(result.link)}">Link to this search</a> {_copy_button(url)}</p>'
    table = rows(result.hits)
    files = (
        f'<p>Results as <a download="results.csv" href="{_data("text/csv", _csv(table))}">CSV</a> or '
        f'<a download="results.json" href="{_data("application/json", json.dumps(table, indent=1))}">JSON</a></p>'
    )
    blocks = "".join(
        f'<h3>{name}</h3>{_copy_button(escape(code))}<pre tabindex="0" aria-label="{name}">{escape(code)}</pre>'
        for name, code in code_for(result, address)
    )
    return (
        f'<div class="takeaway">{share}{files}<details><summary>Code for this query</summary>{blocks}</details></div>'
    )


def code_for(result: QueryResult, address: str) -> list[tuple[str, str]]:
    """The query with the Python client, with curl, and at home on the command line, each with its name."""
    text, steps = result.content.get("text", ""), result.trace.num_latent_steps
    media = [key for key in _FILE_IN_CODE if key in result.content]
    return [
        ("Python", _python(text, media, steps, result.corpus, address)),
        ("curl", _curl(text, media, steps, result.corpus, address)),
        ("Your own folder", _command(text, media, steps, result.model)),
    ]


def trace_file(result: QueryResult, trace: Trace) -> str:
    """The trace as a data address of JSON: all states, the routing, the times and the results."""
    content = {
        "query": result.description,
        "collection": result.corpus,
        "num_latent_steps": trace.num_latent_steps,
        "num_tokens": trace.num_tokens,
        "states": {name: state.round(7).tolist() for name, state in trace.path},
        "router_probs": None if trace.router_probs is None else trace.router_probs.round(7).tolist(),
        "milliseconds": {"prefix": trace.prefix_ms, "steps": trace.step_ms, "suffix": trace.suffix_ms},
        "results": rows(result.hits),
    }
    return _data("application/json", json.dumps(content))


def _python(text: str, media: list[str], steps: int, corpus: str, address: str) -> str:
    given = [f"text={text!r}"] if text else []
    given += [f'{key}=handle_file("{_FILE_IN_CODE[key]}")' for key in media]
    given += [f"num_latent_steps={steps}", f'collection="{corpus}"', 'api_name="/search"']
    names = "Client, handle_file" if media else "Client"
    where = os.environ.get("SPACE_ID") or address
    lines = ",\n".join(f"    {one}" for one in given)
    return (
        f'from gradio_client import {names}\n\nclient = Client("{where}")\nresults = client.predict(\n{lines},\n)\n'
        'for result in results:\n    print(result["rank"], result["score"], result["name"])'
    )


def _curl(text: str, media: list[str], steps: int, corpus: str, address: str) -> str:
    api, lines, files = f"{address}/gradio_api", [], {"image": "null", "video": "null"}
    for key in media:
        lines.append(f"{key.upper()}=$(curl -s {api}/upload -F files=@{_FILE_IN_CODE[key]} | tr -d '[]')")
        files[key] = f'{{"path": ${key.upper()}, "meta": {{"_type": "gradio.FileData"}}}}'
    written = re.sub(r"([\\\\$`])", r"\\\1", json.dumps(text))  # the shell reads the text below
    return "\n".join(
        [
            *lines,
            f"EVENT=$(curl -s {api}/call/search -H 'Content-Type: application/json' -d @- <<JSON | cut -d '\"' -f 4",
            f'{{"data": [{written}, {files["image"]}, {files["video"]}, {steps}, "{corpus}"]}}',
            "JSON",
            ")",
            f"curl -sN {api}/call/search/$EVENT",
        ]
    )


def _command(text: str, media: list[str], steps: int, model: str) -> str:
    parts = ["plume-embed", "search", "your-folder"]
    parts += [text] if text and not text.startswith("-") else []
    for key in media:
        parts += [f"--{key}", _FILE_IN_CODE[key]]
    parts += ["--latent-steps", str(steps)]
    parts += _model_option(model)
    parts += ["--", text] if text.startswith("-") else []  # else it would be read as an option
    return shlex.join(parts)


def _model_option(model: str) -> list[str]:
    folder = Path(model).resolve()
    if not folder.is_dir():  # of the Hub
        return ["--model", model]
    if folder == DEFAULT_MODEL.resolve():
        return []
    # A bundled one lies there in every checkout; others lie elsewhere on the visitor's machine.
    return ["--model", str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else folder.name]


def _copy_button(escaped: str) -> str:
    return f'<button type="button" class="copy" data-copy="{escaped}">Copy</button>'


def _csv(table: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["rank", "score", "name", "kind", "text", "is_own"])
    writer.writeheader()
    # A cell that begins like a formula would be run by spreadsheets.
    writer.writerows(
        {k: f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA_STARTS) else v for k, v in row.items()}
        for row in table
    )
    return out.getvalue()


def _data(media_type: str, content: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content.encode()).decode()}"
