"""Pieces of HTML. Whatever a visitor may have named or written is escaped here, and nowhere else."""

from collections.abc import Sequence
from html import escape

from space.compare import Variant
from space.content.items import Hit, Item
from space.page.diagnostics import RankChange
from space.trace import Trace


def status(sentence: str) -> str:
    """A line about how things stand."""
    return f"<p>{escape(sentence)}</p>" if sentence else ""


def refused(*sentences: str) -> str:
    """Lines about what was not done, and why."""
    return "".join(f'<p class="refused">{escape(sentence)}</p>' for sentence in sentences)


def progress(done: int, total: int, sentence: str) -> str:
    """A progress bar with its label."""
    return (
        f'<label>{escape(sentence)} <progress max="{max(1, total)}" value="{done}">{done} of {total}</progress></label>'
    )


def caption(rank: int, hit: Hit) -> str:
    """Plain text below a result; the gallery shows it as text."""
    return f"{rank} · {hit.score:.3f} · {hit.item.name}"


def own_files(items: Sequence[Item]) -> str:
    """What a private collection holds."""
    if not items:
        return "<p>You have not added any files.</p>"
    names = "".join(f"<li>{_picture(item)} <span>{escape(item.name)}</span></li>" for item in items)
    return f'<p>Your collection: {counted(len(items), "item")}.</p><ul class="items">{names}</ul>'


def rank_table(rows: Sequence[tuple[Item, RankChange]], num_items: int) -> str:
    """The anchor's ranking beside the final one."""
    lines = []
    for item, move in rows:
        climbed = move.anchor_rank - move.final_rank
        arrow = f"▲ {climbed}" if climbed > 0 else f"▼ {-climbed}" if climbed < 0 else "="
        sentence = f"up {climbed}" if climbed > 0 else f"down {-climbed}" if climbed < 0 else "unchanged"
        lines.append(
            f'<tr><th scope="row"><span class="item">{_picture(item)} <span>{escape(item.name)}</span></span></th>'
            f"<td>{move.anchor_rank}</td><td>{move.anchor_score:.3f}</td>"
            f"<td>{move.final_rank}</td><td>{move.final_score:.3f}</td>"
            f'<td><span aria-label="{sentence}">{arrow}</span></td></tr>'
        )
    return (
        f'<div class="scrolls" tabindex="0" role="region" aria-label="Anchor and final ranking"><table>'
        f"<caption>Ranks among all {num_items} items</caption>"
        '<thead><tr><th scope="col">item</th><th scope="col">anchor rank</th><th scope="col">cosine</th>'
        '<th scope="col">final rank</th><th scope="col">cosine</th><th scope="col">moved</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def numbers_table(trace: Trace, cosines: Sequence[Sequence[float]], names: Sequence[str], experts: str) -> str:
    """The charts' numbers as a table, for those who do not see them."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = [
        f'<tr><th scope="row">{step + 1}</th>{"".join(f"<td>{row[step]:.3f}</td>" for row in cosines)}'
        f"<td>{elapsed:.1f}</td></tr>"
        for step, elapsed in enumerate(trace.step_ms)
    ]
    return (
        '<details><summary>The numbers as a table</summary><div class="scrolls" tabindex="0" role="region" '
        'aria-label="Numbers of the charts"><table><caption>Cosine to each candidate, and time, by step</caption>'
        f'<thead><tr><th scope="col">step</th>{head}<th scope="col">ms</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div><p>{escape(experts)}</p></details>"
    )


def variant_cards(variants: Sequence[tuple[Variant, Sequence[Hit]]]) -> str:
    """The three variants side by side."""
    return f'<div class="variants">{"".join(_variant(variant, hits) for variant, hits in variants)}</div>'


def _variant(variant: Variant, hits: Sequence[Hit]) -> str:
    if variant.vector is None:
        return f"<section><h3>{escape(variant.name)}</h3><p>{escape(variant.note)}</p></section>"
    runs = f"median of {variant.runs} runs" if variant.runs > 1 else "one run"
    found = "".join(
        f"<li>{_picture(hit.item)} <span>{escape(hit.item.name)}<br><small>{hit.score:.3f}</small></span></li>"
        for hit in hits
    )
    text = f"<blockquote>{escape(variant.text)}</blockquote>" if variant.text else ""
    return (
        f"<section><h3>{escape(variant.name)}</h3>"
        f"<p><strong>{variant.milliseconds:.1f} ms</strong> <small>({runs})</small></p>"
        f'<p>{escape(variant.note)}</p>{text}<ol class="items">{found}</ol></section>'
    )


def counted(number: int, thing: str) -> str:
    """ "1 item", "2 items"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _picture(item: Item) -> str:
    # The name stands beside it, so an empty alternative text keeps screen readers from saying it twice.
    return f'<img src="{escape(item.thumbnail)}" alt="">'
