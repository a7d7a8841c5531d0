"""Facts about the intervals of the miniature: queries about one thing are drawn together, in all tasks."""

import numpy as np
import pytest
from miniature_colours import ColourEmbedder, run

from plume_embed.evaluation.bootstrap import RESAMPLES, cluster_weights, resampled_means, weighted_means
from plume_embed.evaluation.miniature.clusters import clusters
from plume_embed.evaluation.miniature.report import as_dict, notes
from plume_embed.evaluation.miniature.run import Contestant
from plume_embed.evaluation.miniature.schema import Query, Side, Task

TEXTS = tuple(Side(f"name {n}") for n in range(60))
CLIPS = tuple(Side(video=f"videos/clip/{n}") for n in range(60))


def task(name: str, queries: tuple[Side, ...], candidates: tuple[Side, ...]) -> Task:
    """The query of each number finds the candidate of the same number."""
    return Task(name, "known", tuple(Query(side, (n,)) for n, side in enumerate(queries)), candidates)


TO_CLIP, TO_TEXT = task("V-RET/text to clip", TEXTS, CLIPS), task("V-RET/clip to text", CLIPS, TEXTS)
HARD = task("V-RET/text to clip hard", TEXTS[:40], CLIPS)


def width(tasks: list[Task], hits: list[np.ndarray]) -> float:
    """Of the interval of the meta-task V-RET."""
    scores = {number: np.stack([own, own], axis=1) for number, own in enumerate(hits)}
    _, low, high = as_dict(tasks, [Contestant("m", scores)])["models"][0]["means"]["V-RET"]
    return high - low


def test_asking_the_same_twice_makes_no_interval_narrower():
    hits = np.random.default_rng(0).integers(2, size=60).astype(float)
    alone, twice = width([TO_CLIP], [hits]), width([TO_CLIP, TO_TEXT], [hits, hits])
    assert twice == pytest.approx(alone) and alone > 0.2
    others = task("V-RET/other", tuple(Side(video=f"videos/clip/other {n}") for n in range(60)), TEXTS)
    assert width([TO_CLIP, others], [hits, hits]) == pytest.approx(alone / np.sqrt(2), rel=0.1)


def test_queries_about_one_thing_are_one_cluster_in_every_task_style_and_direction():
    stills = (Side("which?", image="twemoji/7"), Side(image="noto/8"), Side("what?", image="scenes/known-1"))
    asked = task("I-QA/x", stills, TEXTS)
    (to_clip, to_text, hard, of_stills), count = clusters([TO_CLIP, TO_TEXT, HARD, asked])
    assert (to_clip == to_text).all() and (hard == to_clip[:40]).all()
    assert of_stills[0] == to_clip[7] and of_stills[1] == to_clip[8] and of_stills[2] == 60 and count == 61


def test_weighted_means_spread_as_those_of_queries_drawn_again():
    values = np.random.default_rng(1).random((400, 1))
    weighted = weighted_means(values, cluster_weights(400, RESAMPLES, np.random.default_rng(2)))
    drawn = resampled_means(values, RESAMPLES, np.random.default_rng(3))
    assert weighted.std() == pytest.approx(drawn.std(), rel=0.1)
    assert weighted.mean() == pytest.approx(values.mean(), abs=0.005)


def test_results_of_the_earlier_kind_say_that_their_intervals_are_too_narrow(data):
    _, _, report = run(data, ColourEmbedder())
    assert not any("too narrow" in note for note in notes(report))
    del report["conditions"]["interval"]
    assert any("up to a third too narrow" in note for note in notes(report))
