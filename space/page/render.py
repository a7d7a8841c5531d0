"""Pieces of HTML. Whatever a visitor may have named or written is escaped here, and nowhere else."""

from collections.abc import Sequence
from html import escape

from space.compare import Variant
from space.content.items import KIND_NAMES, Hit, Item
from space.content.passages import best_passage, matching_spans
from space.diagnostics import RankChange
from space.steps import Intervention
from space.trace import Trace


def status(sentence: str) -> str:
    """A line about how things stand."""
    return f"<p>{escape(sentence)}</p>" if sentence else ""


def summary(sentence: str, with_steps: bool) -> str:
    """The first line of the diagnostics. page.css reads its `data-shows`: with "steps" the whole tab is seen, with
    "sweep" what needs no latent steps."""
    return f'<p data-shows="{"steps" if with_steps else "sweep"}">{escape(sentence)}</p>'


def refused(*sentences: str) -> str:
    """Lines about what was not done, and why."""
    return "".join(f'<p class="refused">{escape(sentence)}</p>' for sentence in sentences)


def by_collection(pieces: dict[str, str]) -> str:
    """A piece of the page for each collection, of which the chosen one's is seen; see `choice_style`."""
    return "".join(f'<div data-collection="{escape(name)}">{piece}</div>' for name, piece in pieces.items())


def choice_style(names: Sequence[str]) -> str:
    """Style rules that hide what belongs to other collections than the chosen one."""
    return "".join(
        f'body:has(#corpus input[value="{name}"]:checked) [data-collection]:not([data-collection="{name}"])'
        " { display: none; }"
        for name in map(escape, names)
    )


def progress(done: int, total: int, sentence: str) -> str:
    """A progress bar with its label."""
    return (
        f'<label>{escape(sentence)} <progress max="{max(1, total)}" value="{done}">{done} of {total}</progress></label>'
    )


def examples(labels: Sequence[str], thumbnails: Sequence[str | None]) -> str:
    """A button for each prepared query, with its picture where it has one."""
    buttons = []
    for index, (label, thumbnail) in enumerate(zip(labels, thumbnails, strict=True)):
        picture = f'<img src="{escape(thumbnail)}" alt="">' if thumbnail else ""
        buttons.append(f'<button type="button" data-index="{index}">{picture}<span>{escape(label)}</span></button>')
    return f'<p class="label">Try one of these</p><div class="examples">{"".join(buttons)}</div>'


def results(hits: Sequence[Hit], query_text: str) -> str:
    """The results as a list of buttons that enlarge them; pages and texts with the passage that matches."""
    cards = []
    for rank, hit in enumerate(hits, start=1):
        passage = _passage(hit.item, query_text)
        cards.append(
            f'<li><button type="button" data-index="{rank - 1}" title="Enlarge">'
            f'<img src="{escape(hit.item.thumbnail)}" alt="">'
            f'<span class="caption">{escape(caption(rank, hit))}</span></button>{passage}</li>'
        )
    return f'<ol class="results" aria-label="Results">{"".join(cards)}</ol>' if cards else ""


def caption(rank: int, hit: Hit) -> str:
    """Plain text below a result."""
    return f"{rank} · {hit.score:.3f} · {hit.item.name}"


def detail(rank: int, hit: Hit, query_text: str) -> str:
    """A dialog with one result, enlarged or playing; a film without a copy that plays is shown as its strip."""
    item, large = hit.item, hit.item.make_preview()
    name = escape(item.name)
    if large and large.startswith("data:video/"):
        shown = f'<video src="{escape(large)}" aria-label="{name}" controls autoplay loop muted playsinline></video>'
    else:
        shown = f'<img src="{escape(large or item.thumbnail)}" alt="{name}">'
    if item.kind == "text":
        shown = f'<p class="passage">{_marked(item.text, query_text)}</p>'
    passage = "" if item.kind == "text" else _passage(item, query_text)
    note = f"{KIND_NAMES[item.kind]}, rank {rank}, cosine {hit.score:.3f}"
    return (
        f'<dialog aria-labelledby="detail-name"><div class="head"><h2 id="detail-name">{escape(item.label)}</h2>'
        '<form method="dialog"><button autofocus>Close</button></form></div>'
        f'<div class="media">{shown}</div><p>{note}</p>{passage}</dialog>'
    )


def own_files(items: Sequence[Item]) -> str:
    """What a private collection holds."""
    if not items:
        return "<p>You have not added any files.</p>"
    names = "".join(f"<li>{_picture(item)} <span>{escape(item.name)}</span></li>" for item in items)
    return f'<p>Your collection: {counted(len(items), "item")}.</p><ul class="items">{names}</ul>'


def rank_table(rows: Sequence[tuple[Item, RankChange]], num_items: int) -> str:
    """The anchor's ranking beside the final one."""
    lines = []
    for item, change in rows:
        climbed = change.anchor_rank - change.final_rank
        arrow = f"▲ {climbed}" if climbed > 0 else f"▼ {-climbed}" if climbed < 0 else "="
        words = f"up {climbed}" if climbed > 0 else f"down {-climbed}" if climbed < 0 else "unchanged"
        lines.append(
            f'<tr><th scope="row"><span class="item">{_picture(item)} <span>{escape(item.name)}</span></span></th>'
            f"<td>{change.anchor_rank}</td><td>{change.anchor_score:.3f}</td>"
            f"<td>{change.final_rank}</td><td>{change.final_score:.3f}</td>"
            f'<td><span aria-hidden="true">{arrow}</span><span class="unseen">{words}</span></td></tr>'
        )
    return (
        f'<div class="scrolls" tabindex="0" role="region" aria-label="Anchor and final ranking"><table>'
        f"<caption>Ranks among all {num_items:,} items</caption>"
        '<thead><tr><th scope="col">item</th><th scope="col">anchor rank</th><th scope="col">cosine</th>'
        '<th scope="col">final rank</th><th scope="col">cosine</th><th scope="col">moved</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def numbers_table(
    trace: Trace, cosines: Sequence[Sequence[float]], names: Sequence[str], experts: str, export: str
) -> str:
    """The charts' numbers as a table, for those who do not see them, and the trace as a file."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    times = ["", "", *(f"{elapsed:.1f}" for elapsed in trace.step_ms), f"{trace.suffix_ms:.1f}"]
    times[1] = f"{trace.prefix_ms:.1f}"
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{row[place]:.3f}</td>" for row in cosines)}'
        f"<td>{elapsed}</td></tr>"
        for place, ((name, _), elapsed) in enumerate(zip(trace.path, times, strict=True))
    ]
    return (
        '<details><summary>The numbers as a table</summary><div class="scrolls" tabindex="0" role="region" '
        'aria-label="Numbers of the charts"><table><caption>Cosine to each candidate, and the milliseconds that led to '
        f'each state</caption><thead><tr><th scope="col">state</th>{head}<th scope="col">ms</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div><p>{escape(experts)}</p></details>"
        f'<p><a download="trace.json" href="{export}">Download the trace as JSON</a>: states, routing, times, '
        "results.</p>"
    )


def variant_cards(variants: Sequence[tuple[Variant, Sequence[Hit], str]]) -> str:
    """The three variants side by side."""
    return f'<div class="variants">{"".join(_variant(*entry) for entry in variants)}</div>'


def _variant(variant: Variant, hits: Sequence[Hit], remark: str) -> str:
    if variant.vector is None:
        return f"<section><h2>{escape(variant.name)}</h2><p>{escape(variant.note)}</p></section>"
    runs = f"median of {variant.runs} runs" if variant.runs > 1 else "one run"
    text = f"<blockquote>{escape(variant.text)}</blockquote>" if variant.text else ""
    text += f'<p class="remark">{escape(remark)}</p>' if remark else ""
    return (
        f"<section><h2>{escape(variant.name)}</h2><p><strong>{variant.milliseconds:.1f} ms</strong> "
        f"<small>({runs})</small>, <strong>{counted(variant.passes, 'pass', 'passes')}</strong> over the layers</p>"
        f"<p>{escape(variant.note)}</p>{text}{hit_list(hits)}</section>"
    )


def intervention_cards(entries: Sequence[tuple[Intervention, str, Sequence[Hit]]]) -> str:
    """What becomes of the results when the latents are tampered with, side by side."""
    return '<div class="variants">{}</div>'.format(
        "".join(
            f"<section><h3>{escape(one.name)}</h3><p>{escape(one.note)} {escape(effect)}</p>{hit_list(hits)}</section>"
            for one, effect, hits in entries
        )
    )


def hit_list(hits: Sequence[Hit]) -> str:
    """A short ranking."""
    found = "".join(
        f"<li>{_picture(hit.item)} <span>{escape(hit.item.name)}<br><small>{hit.score:.3f}</small></span></li>"
        for hit in hits
    )
    return f'<ol class="items">{found}</ol>'


def counted(number: int, thing: str, plural: str | None = None) -> str:
    """ "1 item", "2 items"."""
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


def _passage(item: Item, query_text: str) -> str:
    if not item.text:
        return ""
    return f'<p class="passage">{_marked(best_passage(item.text, query_text), query_text)}</p>'


def _marked(text: str, query_text: str) -> str:
    """A text with the query's words marked."""
    parts, end = [], 0
    for start, stop in matching_spans(text, query_text):
        parts += [escape(text[end:start]), f"<mark>{escape(text[start:stop])}</mark>"]
        end = stop
    return "".join([*parts, escape(text[end:])])


def _picture(item: Item) -> str:
    # The name stands beside it, so an empty alternative text keeps screen readers from saying it twice.
    return f'<img src="{escape(item.thumbnail)}" alt="">'
