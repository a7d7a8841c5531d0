"""Segments, suffixes, stages: tables of cases, and properties that hold for any text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plume_embed.training.curriculum import (
    Curriculum,
    parse_assistant_turn,
    split_segments,
    split_sentences,
    suffix_text,
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("No end", ["No end"]),
        ("It costs 3.50 at a.b", ["It costs 3.50 at a.b"]),
        ("He said “yes.” Then he left.", ["He said “yes.” ", "Then he left."]),
        ("(First.) Second.", ["(First.) ", "Second."]),
        ("一只猫。两只狗！三只鸟？", ["一只猫。", "两只狗！", "三只鸟？"]),
        ("他说“好。”然后走了。", ["他说“好。”", "然后走了。"]),
        ("猫；狗。A cat. 鳥", ["猫；", "狗。", "A cat. ", "鳥"]),
        ("a line\nanother\n\nlast", ["a line\n", "another\n\n", "last"]),
        ("Wait... what?! Yes…", ["Wait... ", "what?! ", "Yes…"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_say(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("rationale", "segments"),
    [
        ("A. B. C. D.", ["A. ", "B. ", "C. ", "D."]),
        ("A. B. C. D. E.", ["A. B. ", "C. ", "D. ", "E."]),
        ("A. B. C. D. E. F. G.", ["A. B. ", "C. D. ", "E. F. ", "G."]),
        ("一。二。三。四。五。六。", ["一。二。", "三。四。", "五。", "六。"]),
        ("abcdefgh", ["ab", "cd", "ef", "gh"]),
        ("One. Two. x", ["One", ". T", "wo.", " x"]),
        ("abc", ["a", "b", "c", ""]),
        ("", ["", "", "", ""]),
        ("  \n ", ["", "", "", ""]),
    ],
)
def test_segments_are_runs_of_sentences_or_of_characters_where_there_are_too_few(rationale, segments):
    assert split_segments(rationale, 4) == segments


@given(st.text(alphabet="aB .!?。！\n”)", max_size=80), st.integers(1, 8))
def test_segments_joined_are_the_rationale(text, num_segments):
    segments = split_segments(text, num_segments)
    assert len(segments) == num_segments
    assert "".join(segments) == text.strip()
    assert "".join(split_sentences(text)) == text


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("<think>why</think><answer>cat</answer>", ("why", "cat")),
        ("<think>why</think>\n<answer>cat\n<gen_emb>", ("why", "cat")),
        ("<think>why</think><answer>cat", ("why", "cat")),
        ("<think>why</think>", ("why", None)),
        ("<think>why</think><gen_emb>", ("why", None)),
        ("<think></think><answer></answer>", ("", None)),
        ("<think> a\nb </think><answer> c\nd </answer>\n<gen_emb>\n", ("a\nb", "c\nd")),
    ],
)
def test_assistant_turns_are_read_with_the_answer_closed_open_or_absent(value, parsed):
    assert parse_assistant_turn(value) == parsed


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("a cat", "must read <think>"),
        ("<think>no end", "must read <think>"),
        ("<think>a</think>stray words<answer>b</answer>", "must read <think>"),
        ("<think>a <bot> b</think>", "control token '<bot>'"),
        ("<think>a</think><answer>b<|im_end|></answer>", "control token '<|im_end|>'"),
        ("<think>a<think>b</think>", "control token '<think>'"),
    ],
)
def test_other_assistant_turns_are_refused(value, complaint):
    with pytest.raises(ValueError, match=complaint.replace("|", r"\|")):
        parse_assistant_turn(value)


@pytest.mark.parametrize(
    ("remaining", "answer", "after_latents", "after_rationale"),
    [
        ("C. D.", "x", "<eot>C. D.</think>\n<answer>x</answer>\n", "C. D.<eot></think>\n<answer>x</answer>\n"),
        ("D.", None, "<eot>D.</think>\n", "D.<eot></think>\n"),
        ("", "x", "<eot></think>\n<answer>x</answer>\n", "<eot></think>\n<answer>x</answer>\n"),
        ("", None, "<eot></think>\n", "<eot></think>\n"),
    ],
)
def test_the_end_of_the_latents_stands_before_or_behind_the_rest_of_the_rationale(
    remaining, answer, after_latents, after_rationale
):
    assert suffix_text(remaining, answer, "after_latents") == after_latents + "<gen_emb>"
    assert suffix_text(remaining, answer, "after_rationale") == after_rationale + "<gen_emb>"


def test_the_last_suffix_is_what_inference_runs():
    from plume_embed.model.prompt_plume import SUFFIX_TEXT

    assert suffix_text("", None, "after_latents") == suffix_text("", None, "after_rationale") == SUFFIX_TEXT


PAPER = Curriculum(max_steps=500)


@pytest.mark.parametrize(
    ("step", "stage", "latent_steps", "keeps_answer", "suffix"),
    [
        (0, 0, 0, True, "<eot>A. B. C. D.</think>\n<answer>x</answer>\n<gen_emb>"),
        (299, 0, 0, True, "<eot>A. B. C. D.</think>\n<answer>x</answer>\n<gen_emb>"),
        (300, 1, 2, True, "<eot>B. C. D.</think>\n<answer>x</answer>\n<gen_emb>"),
        (333, 2, 4, True, "<eot>C. D.</think>\n<answer>x</answer>\n<gen_emb>"),
        (399, 3, 6, True, "<eot>D.</think>\n<answer>x</answer>\n<gen_emb>"),
        (400, 4, 8, True, "<eot></think>\n<answer>x</answer>\n<gen_emb>"),
        (449, 4, 8, True, "<eot></think>\n<answer>x</answer>\n<gen_emb>"),
        (450, 4, 8, False, "<eot></think>\n<gen_emb>"),
        (499, 4, 8, False, "<eot></think>\n<gen_emb>"),
    ],
)
def test_the_default_is_the_papers_table_of_stages(step, stage, latent_steps, keeps_answer, suffix):
    state = PAPER.at(step)
    assert (state.stage, state.num_latent_steps, state.keeps_answer) == (stage, latent_steps, keeps_answer)
    assert PAPER.suffix("A. B. C. D.", "x", state) == suffix


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({}, [300, 333, 367, 400, 500]),
        ({"stages": (0, 4)}, [300, 500]),
        ({"stages": (4,)}, [500]),
        ({"stages": (0,)}, [500]),
        ({"stages": (0, 2, 4)}, [300, 333, 500]),
        ({"num_segments": 2, "stages": (0, 1, 2), "shares": (3, 1, 1), "learning_rates": (1, 1, 1)}, [300, 400, 500]),
        ({"max_steps": 5}, [1, 2, 3, 4, 5]),
        ({"shares": (1, 0, 0, 0, 1)}, [250, 251, 252, 253, 500]),
    ],
)
def test_steps_of_left_out_stages_go_to_the_last_one(settings, ends):
    curriculum = Curriculum(**{"max_steps": 500, **settings})
    assert curriculum.stage_ends() == ends
    changes = [step for step in range(curriculum.max_steps) if curriculum.is_stage_start(step)]
    assert changes == ends[:-1]
    stages = [curriculum.at(step).stage for step in range(curriculum.max_steps)]
    assert sorted(stages) == stages and tuple(sorted(set(stages))) == curriculum.stages


@pytest.mark.parametrize(
    ("num_latent_steps", "by_stage"), [(8, [0, 2, 4, 6, 8]), (4, [0, 1, 2, 3, 4]), (2, [0, 0, 1, 1, 2])]
)
def test_latent_steps_grow_with_the_stage(num_latent_steps, by_stage):
    curriculum = Curriculum(max_steps=100, num_latent_steps=num_latent_steps)
    assert [curriculum.latent_steps(stage) for stage in range(5)] == by_stage


@pytest.mark.parametrize(
    ("num_latent_steps", "num_segments", "sizes"),
    [(8, 4, [2, 2, 2, 2]), (8, 6, [1, 1, 2, 1, 1, 2]), (8, 3, [2, 3, 3]), (6, 4, [2, 2, 2, 2]), (2, 4, [0, 4, 0, 4])],
)
def test_segments_dealt_by_latents_are_as_long_as_their_share_of_the_steps(num_latent_steps, num_segments, sizes):
    curriculum = Curriculum(
        max_steps=100,
        num_latent_steps=num_latent_steps,
        num_segments=num_segments,
        stages=tuple(range(num_segments + 1)),
        shares=(1.0,) * (num_segments + 1),
        learning_rates=(1.0,) * (num_segments + 1),
        dealing="by_latents",
    )
    lengths = []
    for end in curriculum.stage_ends():
        suffix = curriculum.suffix("12345678", None, curriculum.at(end - 1))
        lengths.append(len(suffix) - len(curriculum.suffix("", None, curriculum.at(end - 1))))
    assert [before - after for before, after in pairwise(lengths)] == sizes and lengths[-1] == 0
    assert split_segments("A. B. C. D.", 2, [1, 3]) == ["A. ", "B. C. D."]


def test_in_the_last_stage_some_smaller_numbers_of_steps_are_drawn_for_each_step():
    curriculum = Curriculum(max_steps=100, anytime_steps=(0, 2, 4, 6), anytime_reads=2)
    drawn = [curriculum.at(step).early_steps for step in range(100)]
    last = curriculum.stage_ends()[-2]
    assert set(drawn[:last]) == {()} and {len(steps) for steps in drawn[last:]} == {2}
    assert {k for steps in drawn[last:] for k in steps} == {0, 2, 4, 6} and all(a < b for a, b in drawn[last:])
    assert drawn == [curriculum.at(step).early_steps for step in range(100)]
    assert Curriculum(max_steps=100).at(99).early_steps == ()


def test_the_rate_warms_up_in_every_stage_and_decays_once():
    curriculum = Curriculum(
        max_steps=100,
        shares=(40, 10, 10, 10, 30),
        learning_rates=(8.0, 4.0, 4.0, 4.0, 2.0),
        warmup=5,
        decay="linear",
        decay_share=0.3,
    )
    rates = [curriculum.at(step).learning_rate for step in range(100)]
    assert rates[:6] == pytest.approx([1.6, 3.2, 4.8, 6.4, 8.0, 8.0])
    assert rates[39:46] == pytest.approx([8.0, 0.8, 1.6, 2.4, 3.2, 4.0, 4.0])
    assert rates[85] == pytest.approx(2.0 * 15 / 30)
    assert rates[99] == pytest.approx(2.0 / 30)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"stages": ()}, "must ascend"),
        ({"anytime_steps": (2, 8)}, r"must differ and lie in 0..7, below num_latent_steps"),
        ({"anytime_steps": (2, 2)}, r"must differ and lie in 0..7"),
        ({"anytime_steps": (2,), "anytime_reads": 2}, r"anytime_reads must lie in 1..1"),
        ({"anytime_steps": (2,), "anytime_reads": 1, "stages": (0, 1)}, r"trained in the last stage, 4"),
        ({"dealing": "by_chance"}, "is equal or by_latents"),
        ({"dealing": "by_latents", "num_latent_steps": 0}, "is for curriculum.num_latent_steps >= 1"),
        ({"stages": (4, 0)}, "must ascend"),
        ({"stages": (0, 5)}, "num_segments=4"),
        ({"shares": (1.0, 1.0)}, "one value for each stage"),
        ({"max_steps": 3}, "less than one step"),
        ({"latent_end": "somewhere"}, "latent_end"),
        ({"decay": "sudden"}, "decay"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        Curriculum(**{"max_steps": 100, **settings})


def test_a_step_outside_the_run_is_refused():
    with pytest.raises(ValueError, match="outside the run"):
        PAPER.at(500)


def test_without_latent_transition_the_text_goes_stage_by_stage_and_no_latent_step_comes():
    curriculum = Curriculum(max_steps=100, num_latent_steps=0, single_pass_text=True)
    assert curriculum.has_suffix and not Curriculum(max_steps=100, num_latent_steps=0).has_suffix
    stages = {curriculum.at(step).stage: curriculum.at(step) for step in range(100)}
    assert [state.num_latent_steps for state in stages.values()] == [0] * 5
    texts = [curriculum.suffix("abcdefgh", None, state) for state in stages.values()]
    assert [text.count("h") for text in texts] == [2, 2, 2, 2, 1]  # the last one is that of </think>
    assert [len(text) for text in texts] == sorted((len(text) for text in texts), reverse=True)
    with pytest.raises(ValueError, match="is for curriculum.num_latent_steps=0"):
        Curriculum(max_steps=100, single_pass_text=True)


def test_the_warm_up_takes_at_most_five_sixths_of_a_stage():
    curriculum = Curriculum(max_steps=150, shares=(3, 1, 1, 1, 1), warmup=50, learning_rates=(1.0,) * 5, decay_share=0)
    ends = curriculum.stage_ends()
    rates = [curriculum.at(step).learning_rate for step in range(150)]
    assert rates[: ends[0]].index(1.0) == 49
    for start, end in pairwise(ends):
        assert max(rates[start:end]) == 1.0 and rates[start] < 0.1
