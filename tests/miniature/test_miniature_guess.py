"""Facts about the level that scores are compared with where answers are few or uneven."""

import pytest
from miniature_colours import ColourEmbedder, run

from plume_embed.atomic import write_json
from plume_embed.evaluation.miniature.guess import guessed
from plume_embed.evaluation.miniature.report import LEVELS, main, markdown, mean_level
from plume_embed.evaluation.miniature.schema import Query, Side, Task

ANSWERS = tuple(map(Side, ("female", "male", *(f"answer of another type {n}" for n in range(62)))))


def asked(*questions: tuple[str, int], meta: str = "I-QA") -> Task:
    """Questions about one picture each, with the number of the right answer."""
    queries = tuple(Query(Side(text, f"a/{n}"), (right,)) for n, (text, right) in enumerate(questions))
    return Task(f"{meta}/x", "known", queries, ANSWERS)


def test_a_pool_that_is_filled_up_with_other_answers_does_not_lower_the_best_guess():
    task = asked(*[("Which gender?", 0)] * 6, *[("Which gender?", 1)] * 4)
    assert guessed(task) == 0.6
    assert guessed(Task(task.name, "known", task.queries, ANSWERS[:2])) == 0.6


def test_the_best_guess_may_differ_by_question():
    task = asked(*[("How many birds?", 3)] * 5, *[("How many fish?", 4)] * 5)
    assert guessed(task) == 1.0  # where one answer to all is right half the time


def test_a_question_that_is_asked_once_does_not_answer_itself():
    assert guessed(asked(("a?", 0), ("b?", 1), ("c?", 2), ("d?", 3))) == 0.25
    assert guessed(asked(("a?", 0), ("a?", 0), ("a?", 1), ("a?", 1))) == 0.5


def test_what_is_not_answered_in_words_has_no_guess_but_chance():
    picture = Side(image="a/0")
    to_picture = Task("I-RET/x", "known", (Query(Side("a cat"), (0,)), Query(Side("a cat"), (0,))), (picture,) * 2)
    assert guessed(to_picture) is None and guessed(Task("VisDoc/x", "known", to_picture.queries, ANSWERS)) is None


def test_the_report_has_the_best_guess_beside_chance(data):
    _, _, report = run(data, ColourEmbedder())
    facts = {task["task"]: task for task in report["tasks"]}
    assert facts["I-QA/colour"]["best_guess"] == facts["I-QA/colour"]["chance"] == 0.5  # four colours, pools of two
    assert facts["VisDoc/page"]["best_guess"] == facts["VisDoc/page"]["chance"]
    facts["I-QA/colour"]["best_guess"] = 0.95
    assert mean_level(report, "mean", "best_guess") == pytest.approx(mean_level(report, "mean", "chance") + 0.45 / 9)
    assert mean_level(report, "mean, known concepts (9 meta-tasks)", "chance") is None
    row = next(line for line in markdown(report).splitlines() if line.startswith("| I-QA"))
    assert row.startswith("| I-QA (Hit@1) | 50.0 | 95.0 | ")
    assert list(LEVELS.values()) == ["chance", "best guess"]


def test_results_without_the_best_guess_are_refused_with_the_remedy(data, tmp_path):
    _, _, report = run(data, ColourEmbedder())
    for task in report["tasks"]:
        del task["best_guess"]
    write_json(tmp_path / "old.json", report)
    with pytest.raises(ValueError, match="of an earlier version, without the best guess of its tasks: evaluate again"):
        main(tmp_path / "old.json")
