"""Accuracy against latency over the paradigms, as the paper's figure 1: an SVG without any library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from .miniature_run import Contestant

_WIDTH, _HEIGHT, _MARGIN = 720, 440, 70


def write_plot(contestants: Sequence[Contestant], file: Path) -> Path:
    """Draws mean Hit@1 with its interval over ms per item; the points of one model's K are joined.

    Raises:
        ValueError: no contestant has both a mean and a latency.
    """
    timed = [(c, c.mean_estimate()) for c in contestants if c.ms_per_item is not None]
    points = [(contestant, mean) for contestant, mean in timed if mean is not None]
    if not points:
        raise ValueError("There is nothing to plot: no model has a score on every task and a latency.")
    slowest = 1.15 * max(contestant.ms_per_item or 0.0 for contestant, _ in points)
    highest = min(1.0, 1.15 * max(mean.high for _, mean in points)) or 1.0

    def x(contestant: Contestant) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * (contestant.ms_per_item or 0.0) / slowest

    def y(share: float) -> float:
        return _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * share / highest

    left, bottom, right = _MARGIN, _HEIGHT - _MARGIN, _WIDTH - _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<path d="M{left} {_MARGIN}V{bottom}H{right}" fill="none" stroke="black"/>',
        f'<text x="{(left + right) / 2}" y="{_HEIGHT - 20}" text-anchor="middle">ms per item</text>',
        f'<text x="20" y="{_HEIGHT / 2}" transform="rotate(-90 20 {_HEIGHT / 2})" text-anchor="middle">'
        "mean Hit@1, %</text>",
    ]
    for step in range(5):
        share, speed = highest * step / 4, slowest * step / 4
        across = left + (right - left) * step / 4
        parts.append(f'<text x="{left - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{100 * share:.1f}</text>')
        parts.append(f'<text x="{across:.1f}" y="{bottom + 20}" text-anchor="middle">{speed:.1f}</text>')
    steps = sorted((p for p in points if p[0].num_latent_steps is not None), key=lambda p: p[0].num_latent_steps or 0)
    line = " ".join(f"{x(contestant):.1f},{y(mean.mean):.1f}" for contestant, mean in steps)
    parts.append(f'<polyline points="{line}" fill="none" stroke="steelblue"/>')
    for contestant, mean in points:
        at = x(contestant)
        parts.append(f'<path d="M{at:.1f} {y(mean.low):.1f}V{y(mean.high):.1f}" stroke="grey"/>')
        parts.append(f'<circle cx="{at:.1f}" cy="{y(mean.mean):.1f}" r="5" fill="steelblue"/>')
        parts.append(
            f'<text x="{at + 8:.1f}" y="{y(mean.mean) - 8:.1f}" font-size="13">{escape(contestant.name)}</text>'
        )
    file.write_text("\n".join([*parts, "</svg>"]) + "\n")
    return file
