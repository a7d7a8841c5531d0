"""Facts about tasks.json: counts, groups, metrics, benchmark versions, published means."""

from collections import Counter

import pytest

from plume_embed.evaluation.mmeb_v2 import report
from plume_embed.evaluation.mmeb_v2.parsers import PARSERS
from plume_embed.evaluation.mmeb_v2.tasks import (
    META_TASKS,
    RELABELLED,
    VERSION_DEPENDENT,
    load_tasks,
    published_models,
    select_tasks,
    video_labels,
)

TASKS = load_tasks()


def mean(model: str, names: str) -> report.Average:
    column = next(c for c in report.published_columns() if c.model == model and c.variant != "fixed")
    return report.average(column, report.groups()[names])


def test_there_are_36_image_18_video_and_24_document_tasks_of_different_names():
    assert Counter(task.modality for task in TASKS) == {"image": 36, "video": 18, "visdoc": 24}
    assert len({task.name for task in TASKS}) == 78


def test_the_groups_have_the_sizes_of_the_benchmark():
    sizes = {"I-CLS": 10, "I-QA": 10, "I-RET": 12, "I-GD": 4, "V-CLS": 5, "V-QA": 5, "V-RET": 5, "V-MRET": 3}
    sizes |= {"VDRv1": 10, "VDRv2": 4, "VR": 6, "OOD": 4}
    assert Counter(task.meta_task for task in TASKS) == sizes
    assert [name for names in META_TASKS.values() for name in names] == list(sizes)
    for task in TASKS:
        assert task.meta_task in META_TASKS[task.modality]


def test_images_and_videos_are_scored_by_hit_at_1_and_documents_by_ndcg_at_5():
    for task in TASKS:
        assert task.score_key == ("ndcg_linear@5" if task.modality == "visdoc" else "hit@1")


def test_image_pools_are_local_document_pools_global_and_video_pools_half_and_half():
    assert Counter((task.modality, task.is_global) for task in TASKS) == {
        ("image", False): 36,
        ("video", False): 9,
        ("video", True): 9,
        ("visdoc", True): 24,
    }


def test_every_task_has_a_parser_and_videos_have_eight_frames():
    assert {task.parser for task in TASKS} == set(PARSERS)
    assert {task.num_frames for task in TASKS if task.modality == "video"} == {8}
    assert {task.num_frames for task in TASKS if task.modality != "video"} == {None}


def test_the_rows_of_plume_average_to_61_45_and_not_to_the_61_6_of_the_paper():
    assert f"{mean('PLUME', 'All 78').value:.2f}" == "61.45"
    assert any("61.45; the paper states 61.6: +0.15" in line for line in report.paper_notes())


@pytest.mark.parametrize(("model", "expected"), [("PLUME", 61.45), ("UME-R1-2B", 61.53), ("VLM2Vec-V2.0", 59.45)])
def test_the_75_tasks_of_every_version_average_to_the_stated_means(model, expected):
    average = mean(model, report.SAME_IN_ALL_VERSIONS)
    assert (average.of, f"{average.value:.2f}") == (75, f"{expected:.2f}")


def test_vlm2vec_v2_on_the_corrected_labels_averages_to_68_6_and_59_1():
    column = next(c for c in report.published_columns() if (c.model, c.variant) == ("VLM2Vec-V2.0", "fixed"))
    assert f"{report.average(column, report.groups()['VisDoc']).value:.1f}" == "68.6"
    assert f"{report.average(column, report.groups()['All 78']).value:.1f}" == "59.1"
    assert column.scores["ViDoSeek-page"] == 80.3 and column.scores["MMLongBench-page"] == 44.7


def test_a_published_row_with_gaps_has_no_average():
    for model in ("GME-2B", "LamRA", "VLM2Vec-7B"):
        average = mean(model, "VisDoc")
        assert (average.value, average.have, average.of) == (None, 22, 24)


def test_no_published_column_mixes_baselines_with_plumes_own_version():
    assert len(published_models()) == 7
    versions = {column.model: column.variant for column in report.published_columns()[:7]}
    assert versions.pop("PLUME") == "paper"
    assert set(versions.values()) == {"original"}


def test_the_versions_name_different_rows_for_the_two_relabelled_tasks_only():
    for task in TASKS:
        fixed, original = task.source("fixed"), task.source("original")
        assert (fixed != original) == (task.name in RELABELLED)
    page = select_tasks(["ViDoSeek-page"])[0]
    assert page.source("fixed").hub_id == "VLM2Vec/ViDoSeek-page-fixed"
    assert page.source("original").hub_id == page.source("plume").hub_id == "VLM2Vec/ViDoSeek-page"
    assert {*RELABELLED, "MomentSeeker"} == set(VERSION_DEPENDENT)


def test_the_plume_version_drops_the_instructions_of_18_tasks():
    changed = [task for task in TASKS if task.instruction("plume") != task.instruction("fixed")]
    assert len(changed) == 18 and {task.parser for task in changed} == {"vidore"}
    assert {(task.instruction("plume"), task.target_instruction("plume")) for task in changed} == {("", "")}
    assert {task.instruction("original") for task in changed} == {"Find a document image that matches the given query:"}


def test_the_plume_version_reads_three_row_files_beside_the_media():
    files = {task.name: task.source("plume").media_file for task in TASKS if task.source("plume").media_file}
    assert set(files) == {"ActivityNetQA", "Charades-STA", "MomentSeeker"}
    assert all(task.source(variant).media_file is None for task in TASKS for variant in ("fixed", "original"))


def test_the_label_lists_are_whole():
    sizes = {name: len(set(labels)) for name, labels in video_labels().items()}
    assert sizes == {"Kinetics-700": 700, "UCF101": 101, "HMDB51": 51, "Breakfast": 10}
    assert {t.dataset_name for t in TASKS if t.parser == "video_classification"} == set(sizes)


def test_tasks_are_selected_by_name_and_modality():
    assert [t.name for t in select_tasks(["vidoseek-doc", " RefCOCO"])] == ["RefCOCO", "ViDoSeek-doc"]
    assert len(select_tasks(modalities=["video"])) == 18
    with pytest.raises(ValueError, match="No task named ImageNet; the tasks are ImageNet-1K"):
        select_tasks(["ImageNet"])
    with pytest.raises(ValueError, match="the modalities are image, video, visdoc"):
        select_tasks(modalities=["audio"])
    with pytest.raises(ValueError, match="no task|No task"):
        select_tasks(["RefCOCO"], ["video"])


def test_an_unknown_version_is_refused():
    with pytest.raises(ValueError, match="fixed, original, plume"):
        TASKS[0].source("new")
