"""Each parser family on generated rows in the real column layout."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from mmeb_v2_data import MemoryRows, parse_rows, task_named, write_frames, write_picture, write_table
from PIL import Image

from plume_embed.evaluation.mmeb_v2.candidates import make_pool
from plume_embed.evaluation.mmeb_v2.items import Item
from plume_embed.evaluation.mmeb_v2.media import Media, evenly_spaced, natural_order
from plume_embed.evaluation.mmeb_v2.parsers import parse
from plume_embed.evaluation.mmeb_v2.parsers_video import MVBENCH_SUBSETS
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.tasks import load_tasks, select_tasks

IMG, V = "<|image_pad|>", "<|video_pad|>"
QA = (
    "Given a video and a question, select the most accurate answer from the provided candidates. Return only the exact "
    "text of your chosen answer. Question: "
)
PAGE = "Understand the content of the provided document image."
VIDEO = f"{V} Understand the content of the provided video."
CLIP = f"{V} Understand the content of the provided video clip."


@pytest.fixture
def media(tmp_path) -> Path:
    """Pictures a.jpg, b.jpg, c.jpg of an image task, without the doubled level."""
    for number, name in enumerate("abc"):
        write_picture(tmp_path / "image-tasks" / "Set" / f"{name}.jpg", number)
    return tmp_path


def keys(query) -> list:
    return [candidate.key for candidate in query.candidates]


def texts(query) -> list[str]:
    return [candidate.item.text for candidate in query.candidates]


def image_row(**columns) -> dict:
    return {
        "qry_inst": "<|image_1|>\nName the object",
        "qry_text": "",
        "qry_img_path": "Set/a.jpg",
        "tgt_inst": "<|image_1|>\nRepresent the given image.",
        "tgt_text": ["", ""],
        "tgt_img_path": ["Set/b.jpg", "Set/c.jpg"],
    } | columns


# Images


def test_image_cls_puts_the_picture_first_and_ranks_texts(media):
    (query,), corpus = parse_rows("ImageNet-1K", [image_row(tgt_text=["cat", "dog", "cat"])], media)
    assert query.item == Item(f"{IMG}\nName the object\n", (media / "image-tasks/Set/a.jpg",), "image")
    assert keys(query) == texts(query) == ["cat", "dog", "cat"]
    assert query.labels == ("cat",) and query.grades is None and corpus == []


def test_image_cls_appends_the_text_of_the_query(media):
    (query,), _ = parse_rows("N24News", [image_row(qry_text="a caption \nof two lines", tgt_text=["art"])], media)
    assert query.item.text == f"{IMG}\nName the object a caption\nof two lines\n"


def test_image_qa_strips_the_instruction_and_keeps_one_line_end_before_it(media):
    row = image_row(qry_inst="<|image_1|>\n Answer the question: \n", qry_text="how many?", tgt_text=["two", "one"])
    (query,), _ = parse_rows("OK-VQA", [row], media)
    assert query.item.text == f"{IMG}\nAnswer the question: how many?\n"
    assert query.labels == ("two",)


def test_image_i2t_keeps_the_instruction_unstripped(media):
    (query,), _ = parse_rows("MSCOCO_i2t", [image_row(qry_inst="<|image_1|> Find a caption ", tgt_text=["x"])], media)
    assert query.item.text == f"{IMG}  Find a caption \n"
    assert query.candidates[0].item == Item("x")


def test_image_t2i_has_a_query_without_picture_and_targets_known_by_path(media):
    (query,), _ = parse_rows("MSCOCO_t2i", [image_row(qry_inst="Find an image:", qry_text="a cat")], media)
    assert query.item == Item("Find an image: a cat\n")
    assert keys(query) == ["Set/b.jpg", "Set/c.jpg"] and query.labels == ("Set/b.jpg",)
    assert texts(query) == [f"{IMG}\nRepresent the given image.\n"] * 2
    assert query.candidates[1].item.media == (media / "image-tasks/Set/c.jpg",)


def test_visdial_ends_its_query_in_two_line_ends(media):
    (query,), _ = parse_rows("VisDial", [image_row(qry_inst="Dialogue:", qry_text="q")], media)
    assert query.item.text == "Dialogue: q\n\n"


def test_image_t2i_writes_captions_into_the_targets(media):
    row = image_row(qry_inst="Q:", qry_text="q", tgt_inst="<|image_1|>\nWith text:", tgt_text=["one", "two \nlines"])
    (query,), _ = parse_rows("WebQA", [row], media)
    assert texts(query) == [f"{IMG}\nWith text: one\n", f"{IMG}\nWith text: two\nlines\n"]
    assert keys(query) == ["Set/b.jpg", "Set/c.jpg"]


def test_image_i2i_without_captions_has_no_line_end_and_keys_with_a_colon(media):
    (query,), _ = parse_rows("CIRR", [image_row(qry_text="but red")], media)
    assert query.item.text == f"{IMG}\nName the object but red\n"
    assert texts(query) == [f"{IMG}\nRepresent the given image."] * 2
    assert keys(query) == ["Set/b.jpg:", "Set/c.jpg:"] and query.labels == ("Set/b.jpg:",)


def test_image_i2i_tells_objects_of_one_picture_apart_by_their_caption(media):
    row = image_row(tgt_inst="<|image_1|>\nSelect:", tgt_text=['"left"', '"right"'], tgt_img_path=["Set/b.jpg"] * 2)
    (query,), _ = parse_rows("RefCOCO-Matching", [row], media)
    assert keys(query) == ["Set/b.jpg:left", "Set/b.jpg:right"]
    assert texts(query) == [f'{IMG}\nSelect: "left"\n', f'{IMG}\nSelect: "right"\n']


def test_an_image_row_without_candidates_is_refused_by_number(media):
    with pytest.raises(ValueError, match="row 1 has no candidates"):
        parse_rows("ImageNet-1K", [image_row(tgt_text=["a"]), image_row(tgt_text=[])], media)


def test_target_texts_and_pictures_of_different_number_are_refused(media):
    with pytest.raises(ValueError, match="row 0: 1 target texts for 2 target pictures"):
        parse_rows("CIRR", [image_row(tgt_text=[""])], media)


def test_a_missing_picture_is_named_with_both_places(media):
    with pytest.raises(ValueError, match=r"no picture Set/z.jpg below image-tasks/MMEB or image-tasks"):
        parse_rows("ImageNet-1K", [image_row(qry_img_path="Set/z.jpg", tgt_text=["a"])], media)


def test_a_row_without_a_needed_column_is_refused(media):
    row = image_row(tgt_text=["a"])
    del row["qry_inst"]
    with pytest.raises(ValueError, match="lacks the column qry_inst; it has qry_text"):
        parse_rows("ImageNet-1K", [row], media)


# Videos: frames


@pytest.mark.parametrize(
    ("total", "expected"), [(3, [0, 1, 2]), (8, list(range(8))), (9, [0, 1, 2, 3, 4, 5, 6, 8]), (64, None)]
)
def test_eight_frames_are_evenly_spaced_and_all_are_used_where_there_are_fewer(total, expected):
    chosen = evenly_spaced(total, 8)
    assert chosen == (expected or np.linspace(0, 63, 8, dtype=int).tolist())
    assert chosen[0] == 0 and chosen[-1] == total - 1


def test_frames_are_sorted_by_number_and_other_files_ignored(tmp_path):
    folder = tmp_path / "video-tasks/frames/video_cls/UCF101/v"
    for name in ("frame_10.jpg", "frame_2.JPEG", "frame_1.png"):
        write_picture(folder / name)
    (folder / "notes.txt").write_text("no frame")
    frames = Media(tmp_path, task_named("UCF101")).frames("v", 8)
    assert [path.name for path in frames] == ["frame_1.png", "frame_2.JPEG", "frame_10.jpg"]
    assert sorted(["b", "10", "a9", "a10"], key=natural_order) == ["10", "a9", "a10", "b"]


@pytest.mark.parametrize("problem", ["missing", "empty"])
def test_a_missing_or_empty_frame_folder_is_named(tmp_path, problem):
    folder = tmp_path / "video-tasks/frames/video_cls/UCF101/v"
    if problem == "empty":
        folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="no frame folder v below|holds no jpg, jpeg or png"):
        parse_rows("UCF101", [{"video_id": "v", "pos_text": "Diving"}], tmp_path)


# Videos: classification


def test_video_classification_ranks_the_whole_label_list_and_an_unseen_label_besides(tmp_path):
    for name in ("v1", "v2"):
        write_frames(tmp_path / "video-tasks/frames/video_cls/HMDB51" / name)
    rows = [{"video_id": "v1", "pos_text": "wave"}, {"video_id": "v2", "pos_text": "not in the list"}]
    queries, corpus = parse_rows("HMDB51", rows, tmp_path)
    assert queries[0].item.text == f"{V} What actions or objects interactions are the person in the video doing?"
    assert len(queries[0].item.media) == 3 and queries[0].item.kind == "video"
    pool = make_pool(task_named("HMDB51"), "fixed", queries, corpus)
    assert len(pool.candidates) == 52 and pool.keys[:2] == ["wave", "not in the list"]
    assert pool.keys.count("wave") == 1 and pool.queries[0].candidates is None


def test_breakfasts_instruction_keeps_its_blank_at_the_end(tmp_path):
    write_frames(tmp_path / "video-tasks/frames/video_cls/Breakfast/v")
    (query,), corpus = parse_rows("Breakfast", [{"video_id": "v", "pos_text": "tea"}], tmp_path)
    assert query.item.text == f"{V} Recognize the breakfast type that the person is cooking in the video. "
    assert len(corpus) == 10


def test_ssv2_ranks_the_list_of_the_row_and_uses_the_first_thousand_rows(tmp_path):
    write_frames(tmp_path / "video-tasks/frames/video_cls/SSv2/7")
    row = {"video_id": "7", "pos_text": "Closing something", "neg_text": ["Opening something", "Closing something"]}
    queries, corpus = parse_rows("SmthSmthV2", [row] * 1001, tmp_path)
    assert len(queries) == 1000 and corpus == []
    assert keys(queries[0]) == ["Opening something", "Closing something"]
    assert queries[0].labels == ("Closing something",)


def test_ssv2_without_its_label_among_the_candidates_is_refused(tmp_path):
    write_frames(tmp_path / "video-tasks/frames/video_cls/SSv2/7")
    row = {"video_id": "7", "pos_text": "a", "neg_text": ["b"]}
    with pytest.raises(ValueError, match="row 0: the correct answer 'a' is not among its candidates"):
        parse_rows("SmthSmthV2", [row], tmp_path)


# Videos: questions


def qa_frames(tmp_path: Path, task: str, name: str) -> Path:
    write_frames(tmp_path / f"video-tasks/frames/video_qa/{task}/{name}")
    return tmp_path


def test_mvbench_letters_its_options_and_reads_twenty_subsets(tmp_path):
    row = {"video": "x.mp4", "question": "What?", "candidates": ["up", "down"], "answer": "down"}
    for subset in MVBENCH_SUBSETS:
        qa_frames(tmp_path, "MVBench", f"{subset}/x.mp4")
    queries, _ = parse_rows("MVBench", [row], tmp_path)
    assert len(queries) == 20 == len(set(MVBENCH_SUBSETS))
    assert queries[0].item.text == f"{V} {QA} What?\nOptions:\n(A) up\n(B) down"
    assert keys(queries[0]) == texts(queries[0]) == ["(A) up", "(B) down"]
    assert queries[0].labels == ("(B) down",)
    assert {query.item.media[0].parent.parent.name for query in queries} == set(MVBENCH_SUBSETS)


def test_an_answer_that_is_no_option_is_refused_with_its_subset(tmp_path):
    row = {"video": "x", "question": "What?", "candidates": ["up"], "answer": "left"}
    qa_frames(tmp_path, "MVBench", f"{MVBENCH_SUBSETS[0]}/x")
    with pytest.raises(ValueError, match="row 0 of episodic_reasoning: the correct answer 'left'"):
        parse_rows("MVBench", [row], tmp_path)


def test_videomme_embeds_the_option_without_its_letter_and_knows_it_by_the_whole(tmp_path):
    columns = {"question_id": "1", "domain": "d", "sub_category": "s"}
    row = {"videoID": "v", "question": "Q?", "options": ["A. Apples.", "B. Pears."], "answer": "B", **columns}
    (query,), _ = parse_rows("Video-MME", [row], qa_frames(tmp_path, "Video-MME", "v"))
    assert query.item.text == f"{V} {QA} Q?\nA. Apples.\nB. Pears."
    assert keys(query) == ["A. Apples.", "B. Pears."] and texts(query) == ["Apples", "Pears"]
    assert query.labels == ("B. Pears.",)
    for answer in ("", "AB", "E"):
        with pytest.raises(ValueError, match="row 0"):
            parse_rows("Video-MME", [row | {"answer": answer}], tmp_path)


def test_nextqa_letters_the_question_but_ranks_the_raw_answers(tmp_path):
    answers = {f"a{number}": text for number, text in enumerate(("one", "two", "three", "four", "five"))}
    row = {"video": 4010069381, "question": "how many", "answer": 1, "qid": 3, "type": "CW", **answers}
    (query,), _ = parse_rows("NExTQA", [row], qa_frames(tmp_path, "NExTQA", "4010069381"))
    assert query.item.text == f"{V} {QA} how many\nOptions:\n(A) one\n(B) two\n(C) three\n(D) four\n(E) five"
    assert keys(query) == list(answers.values()) and query.labels == ("two",)


def test_egoschema_joins_question_and_options_by_blanks_alone(tmp_path):
    row = {"video_idx": "v", "question": "Why?", "answer": "1", "question_idx": "0", "option": ["A. x.", "B. y."]}
    (query,), _ = parse_rows("EgoSchema", [row], qa_frames(tmp_path, "EgoSchema", "v"))
    assert query.item.text == f"{V} {QA} Why?A. x. B. y."
    assert texts(query) == ["x", "y"] and query.labels == ("B. y.",)


def test_activitynetqa_asks_yes_or_no(tmp_path):
    row = {"video_name": "abc", "question": "is it red", "answer": "no", "question_id": "q"}
    (query,), _ = parse_rows("ActivityNetQA", [row], qa_frames(tmp_path, "ActivityNetQA", "v_abc"))
    assert query.item.text == f"{V} {QA} is it red? (A) yes; (B) no."
    assert keys(query) == ["yes", "no"] and query.labels == ("no",)


# Videos: retrieval


@pytest.mark.parametrize(
    ("name", "row", "instruction"),
    [
        ("DiDeMo", {"video": "a/vid.mp4", "caption": "text"}, "Find a video that includes the following described"),
        ("MSR-VTT", {"video_id": "vid", "video": "vid.mp4", "caption": "text"}, "Find a video that contains"),
        ("MSVD", {"video_id": "vid", "video": "vid.avi", "caption": ["text", "no"]}, "Find the video snippet"),
        ("VATEX", {"videoID": "vid", "enCap": ["text", "no"]}, "Select a video that fits the description provided:"),
        ("YouCook2", {"id": "vid", "video_path": "x/y.mp4", "sentence": "text"}, "Find a video that demonstrates"),
    ],
)
def test_video_retrieval_ranks_the_videos_of_all_rows(tmp_path, name, row, instruction):
    # "frames" below the set is the layout of the PLUME release
    write_frames(tmp_path / f"video-tasks/frames/video_ret/{name}/frames/vid")
    (query,), corpus = parse_rows(name, [row], tmp_path)
    assert query.item.kind == "text" and query.item.text.startswith(instruction) and query.item.text.endswith(" text")
    assert keys(query) == ["vid"] == list(query.labels) and texts(query) == [VIDEO] and corpus == []
    assert make_pool(task_named(name), "fixed", [query], corpus).queries[0].candidates is None


# Videos: moments


def test_moment_retrieval_ranks_the_clips_beside_the_query(tmp_path):
    root = tmp_path / "video-tasks/frames/video_mret/QVHighlight/vid"
    for clip in ("query", "negative_0", "negative_10", "negative_2", "positive"):
        write_frames(root / clip, 10)
    (root / "info.json").write_text("{}")
    (query,), _ = parse_rows("QVHighlight", [{"query": "a dog", "video_path": "x/vid.mp4"}], tmp_path)
    assert query.item.text == (f"{V} Find the clip that corresponds to the described scene in the given video: a dog")
    assert len(query.item.media) == 8 and query.item.media[0].parent.name == "query"
    below = "video-tasks/frames/video_mret/QVHighlight/vid"
    assert keys(query) == [f"{below}/{clip}" for clip in ("negative_0", "negative_2", "negative_10", "positive")]
    assert query.labels == (f"{below}/positive",) and set(texts(query)) == {VIDEO}


@pytest.mark.parametrize("folder", ["Charades-STA", "Charades_STA"])
def test_charades_is_found_under_both_of_its_names(tmp_path, folder):
    for clip in ("query", "positive"):
        write_frames(tmp_path / f"video-tasks/frames/video_mret/{folder}/vid/{clip}")
    (query,), _ = parse_rows("Charades-STA", [{"query": "q", "video_path": "vid.mp4"}], tmp_path)
    assert query.labels == ("video-tasks/frames/video_mret/Charades_STA/vid/positive",)  # the name that upstream has


def test_a_video_without_a_positive_clip_is_refused(tmp_path):
    for clip in ("query", "negative_0"):
        write_frames(tmp_path / f"video-tasks/frames/video_mret/QVHighlight/vid/{clip}")
    with pytest.raises(ValueError, match=r"row 0: no clip of vid is named positive\*"):
        parse_rows("QVHighlight", [{"query": "q", "video_path": "vid.mp4"}], tmp_path)


def test_the_last_of_several_positive_clips_is_the_label(tmp_path):
    for clip in ("query", "positive_1", "positive_0"):
        write_frames(tmp_path / f"video-tasks/frames/video_mret/QVHighlight/vid/{clip}")
    (query,), _ = parse_rows("QVHighlight", [{"query": "q", "video_path": "vid.mp4"}], tmp_path)
    below = "video-tasks/frames/video_mret/QVHighlight/vid"
    assert keys(query) == [f"{below}/positive_0", f"{below}/positive_1"] and query.labels == (f"{below}/positive_1",)


def moment_row(medium: str, frame_path: str | None = None) -> dict:
    positives = [{"output_path": f"p/{number}.mp4", "frame_path": frame_path} for number in range(2)]
    negatives = [{"output_path": "n/0.mp4", "frame_path": frame_path}]
    return {
        "query": "a goal",
        "positive_frames": positives,
        "negative_frames": negatives,
        "input_frames": medium,
    }


@pytest.fixture
def moments(tmp_path) -> Path:
    root = tmp_path / "video-tasks/frames/video_mret/MomentSeeker"
    for clip in ("p_0", "p_1", "n_0", "q_7"):
        write_frames(root / "video_frames" / clip, 10)
    write_picture(root / "query_pic.jpg")
    write_picture(root / "shown.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("medium", "text", "kind", "count"),
    [
        ("", "Find the clip that corresponds to the given text: a goal", "text", 0),
        ("pic.jpg", f"{IMG} Select the video clip that aligns with the given text and image: a goal", "image", 1),
        ("q/7.mp4", f"{V} Find the clip that corresponds to the given sentence and video segment: a goal", "video", 10),
    ],
)
def test_momentseeker_has_text_image_and_video_queries_with_several_positives(moments, medium, text, kind, count):
    (query,), _ = parse_rows("MomentSeeker", [moment_row(medium)], moments)
    assert (query.item.text, query.item.kind, len(query.item.media)) == (text, kind, count)
    clips = [f"video-tasks/frames/video_mret/MomentSeeker/video_frames/{name}" for name in ("p_0", "p_1", "n_0")]
    assert keys(query) == clips and query.labels == tuple(clips[:2])
    assert set(texts(query)) == {CLIP} and len(query.candidates[0].item.media) == 10


def test_the_plume_version_of_momentseeker_shows_one_frame_and_leaks_the_positive(moments):
    rows = [moment_row("gone/1.mp4", "shown.jpg")]
    tables = {None: rows}
    task = task_named("MomentSeeker")
    queries, _ = parse(task, "plume", MemoryRows(task, "plume", tables), Media(moments, task))
    (query,) = queries
    assert [len(candidate.item.media) for candidate in query.candidates] == [1, 1, 1]
    assert query.item.media[0].name == "shown.jpg"
    with pytest.raises(ValueError, match="no frame folder video_frames/gone_1"):
        parse_rows("MomentSeeker", rows, moments)


def test_the_plume_version_reads_its_rows_from_the_file_beside_the_media(tmp_path):
    for clip in ("query", "positive"):
        write_frames(tmp_path / f"video-tasks/frames/video_mret/Charades-STA/vid/{clip}")
    (tmp_path / "video-tasks/data").mkdir(parents=True)
    (tmp_path / "video-tasks/data/charades_sta.jsonl").write_text('{"query": "q", "video_path": "vid.mp4"}\n')
    task = task_named("Charades-STA")
    rows = Rows(task, "plume", None, tmp_path, tmp_path / "cache")
    (query,) = parse(task, "plume", rows, Media(tmp_path, task))[0]
    assert query.labels == ("video-tasks/frames/video_mret/Charades-STA/vid/positive",)


# Documents


def document_tables(**changes) -> dict[str, list[dict]]:
    picture = {"bytes": None, "path": "unused.png"}
    return {
        "queries": [{"query-id": 5, "query": "what grows?"}],
        "qrels": [
            {"query-id": 5, "corpus-id": 2, "score": 1},
            {"query-id": 5, "corpus-id": 0, "score": 2},
            {"query-id": 5, "corpus-id": 2, "score": 3},
            {"query-id": 5, "corpus-id": 0, "score": 1},
            {"query-id": 5, "corpus-id": 1, "score": 0},
        ],
        "corpus": [{"corpus-id": number, "image": picture} for number in range(3)],
    } | changes


@pytest.fixture
def pages(tmp_path) -> Path:
    for number in range(3):
        write_picture(tmp_path / f"visdoc-tasks/ViDoRe_arxivqa/{number}.png", number)
    return tmp_path


def test_vidore_keeps_the_higher_of_duplicate_scores_and_drops_zeros(pages):
    (query,), corpus = parse_rows("ViDoRe_arxivqa", document_tables(), pages)
    assert query.item == Item("Find a document image that matches the given query: what grows?")
    assert query.labels == (2, 0) and query.grades == (3, 2)
    pool = make_pool(task_named("ViDoRe_arxivqa"), "fixed", [query], corpus)
    assert pool.keys == [2, 0, 1] and {c.item.text for c in pool.candidates} == {f"{IMG} {PAGE}"}


def test_a_query_without_positive_page_and_a_page_outside_the_corpus_are_refused(pages):
    with pytest.raises(ValueError, match="query 5 has no page with a positive score"):
        parse_rows("ViDoRe_arxivqa", document_tables(qrels=[{"query-id": 5, "corpus-id": 1, "score": 0}]), pages)
    with pytest.raises(ValueError, match="query 5: its page 9 is not in the corpus"):
        parse_rows("ViDoRe_arxivqa", document_tables(qrels=[{"query-id": 5, "corpus-id": 9, "score": 1}]), pages)


def test_visrag_shortens_the_file_names_of_its_pages(tmp_path):
    name = "x" * 80 + ".jpg"
    short = "x" * 50 + "_" + hashlib.md5(name.encode()).hexdigest()[:8] + ".jpg"
    write_picture(tmp_path / "visdoc-tasks/visdoc-tasks/VisRAG_ChartQA" / short)
    tables = document_tables(
        qrels=[{"query-id": "q", "corpus-id": name, "score": 1}],
        queries=[{"query-id": "q", "query": "chart?"}],
        corpus=[{"corpus-id": name, "image": {"bytes": None, "path": None}}],
    )
    (query,), corpus = parse_rows("VisRAG_ChartQA", tables, tmp_path)
    assert corpus[0].item.media[0].name == short and corpus[0].key == name
    assert query.labels == (name,) and query.grades == (1,)


def test_missing_pages_are_written_from_the_corpus_column_without_loss(tmp_path):
    source = write_picture(tmp_path / "page.png", 3)
    hub = tmp_path / "hub"
    picture = {"bytes": source.read_bytes(), "path": "page.png"}
    tables = document_tables(corpus=[{"corpus-id": n, "image": picture} for n in range(3)])
    for config, rows in tables.items():
        write_table(hub, "vidore/arxivqa_test_subsampled_beir", config, "test", rows)
    media = tmp_path / "media"
    (media / "visdoc-tasks").mkdir(parents=True)
    task = task_named("ViDoRe_arxivqa")
    rows = Rows(task, "fixed", hub, media, tmp_path / "cache")
    _, corpus = parse(task, "fixed", rows, Media(media, task))
    written = corpus[2].item.media[0]
    assert written == media / "visdoc-tasks/ViDoRe_arxivqa/2.png"
    assert np.array_equal(np.asarray(Image.open(written)), np.asarray(Image.open(source)))


def test_a_missing_page_without_a_picture_in_the_corpus_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no page image .*0\.png, and the corpus column holds no picture"):
        parse_rows("ViDoRe_arxivqa", document_tables(), tmp_path)


# All


def test_media_never_reach_a_model_as_text():
    assert Item(f"{IMG}\nName it\n", (Path("a.jpg"),), "image").model_input() == {
        "image": Path("a.jpg"),
        "text": "Name it",
    }
    assert Item(f"{V} ", (Path("1.jpg"), Path("2.jpg")), "video").model_input() == {
        "video": [Path("1.jpg"), Path("2.jpg")]
    }
    assert Item("plain\n").model_input() == {"text": "plain"}


def test_no_mirror_is_one_clear_line_for_every_task(tmp_path):
    (tmp_path / "hub").mkdir()
    for task in load_tasks():
        rows = Rows(task, "fixed", tmp_path / "hub", tmp_path)
        with pytest.raises(ValueError, match="cannot read the rows of .*: no folder .*; download the data set"):
            list(parse(task, "fixed", rows, Media(tmp_path, task))[0])


def test_every_image_task_is_of_one_data_set():
    assert {task.source("fixed").hub_id for task in select_tasks(modalities=["image"])} == {
        "ziyjiang/MMEB_Test_Instruct"
    }
