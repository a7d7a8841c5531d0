"""What can be had without looking: the level that a score has to be compared with where answers are few or uneven."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from plume_embed.evaluation.miniature.schema import METRICS, Query, Task


def guessed(task: Task) -> float | None:
    """Hit@1 of the best answer to the question alone, 0..1; None unless a picture or clip is answered in words.

    That is the better of two answers that know how often each one is right, but not what is asked about:

    - one answer to all queries of the task;
    - the answer that is right most often for the *other* queries of the same text. A query's own answer does not
      count, else a question that is asked once would answer itself. Of equally frequent answers one is drawn.

    Pools that are filled up with answers of other types do not lower it, as they lower chance.
    """
    looks = all(query.side.image or query.side.video for query in task.queries)
    in_words = not any(side.image or side.video for side in task.candidates)
    if not (looks and in_words) or METRICS[task.meta] != "hit@1":
        return None
    by_text: dict[str, list[Query]] = defaultdict(list)
    for query in task.queries:
        by_text[query.side.text].append(query)
    one_for_all = max(_times_right(task.queries).values())
    one_for_text = sum(map(_hits_by_others, by_text.values()))
    return max(one_for_all, one_for_text) / len(task.queries)


def _times_right(queries: Sequence[Query]) -> Counter[int]:
    return Counter(answer for query in queries for answer in query.positives)


def _hits_by_others(queries: Sequence[Query]) -> float:
    times, hits = _times_right(queries), 0.0
    for query in queries:
        others = times - Counter(query.positives)  # drops what no other query has
        if others:
            most = max(others.values())
            best = [answer for answer, count in others.items() if count == most]
            hits += sum(answer in query.positives for answer in best) / len(best)
    return hits
