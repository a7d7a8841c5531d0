"""The miniature's folder as a corpus, small changes of pictures, and what the second edition starts from."""

import io
import random

import pytest
import torch
from PIL import Image
from training_folder import encoded, taught, training_folder

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.evaluation.miniature.schema import Pair, write_pairs
from plume_embed.training.data.augment import augment_side, enlarge
from plume_embed.training.data.corpus import Side as TrainingSide
from plume_embed.training.data.corpus_task import CorpusTask
from plume_embed.training.data.folder_corpus import read_folder
from plume_embed.training.recipe import load_recipe
from plume_embed.training.small_model import make_model, make_processor
from training.plume_tiny import TINY
from training.plume_tiny.base import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return training_folder(tmp_path_factory.mktemp("miniature"))


def test_pairs_come_with_their_media_rationales_and_answers(folder):
    corpus = read_folder(folder)
    assert corpus.subsets == ["clip-both"] + ["text-scene"] * 8
    clip, first = corpus[0], corpus[1]
    assert [len(video) for video in clip.query.item["video"]] == [4] and set(clip.target.item) == {"text", "image"}
    assert first.query.item == {"text": "scene number 0"} and first.query.answer == "a scene"
    assert first.target.answer is None and first.target.rationale == "It shows colours."
    original = Image.open(io.BytesIO(encoded(0))).convert("RGB")
    assert first.target.item["image"][0].tobytes() == original.tobytes()
    assert first.where == "text-scene.parquet:0"


def test_a_missing_medium_and_an_empty_folder_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="make miniature"):
        read_folder(tmp_path)
    write_pairs([Pair(taught("x"), taught(image="scene/99"), "broken")], tmp_path)
    with pytest.raises(ValueError, match=r"broken\.parquet:0: pos: no such medium: 'scene/99'"):
        read_folder(tmp_path)


def test_a_change_is_a_function_of_the_seed_and_leaves_large_pictures_and_videos():
    picture = Image.open(io.BytesIO(encoded(1))).convert("RGB")
    side = TrainingSide({"image": [picture], "text": "x"}, "", None)
    one, again, other = (augment_side(side, seed, 56).item["image"][0].tobytes() for seed in ("a", "a", "b"))
    assert one == again != other and one != picture.tobytes()
    assert augment_side(side, "a", 55) is side
    kept = augment_side(side, "a", 56, keeps_look=True)
    assert kept.item["image"][0].tobytes() == picture.tobytes() and kept.item["text"] == "x"


def test_videos_are_changed_where_asked_for_and_all_frames_of_one_alike():
    picture = Image.open(io.BytesIO(encoded(1))).convert("RGB")
    side = TrainingSide({"video": [[picture] * 3, [picture]]}, "", None)
    assert augment_side(side, "a", 56) is side
    assert augment_side(side, "a", 56, keeps_look=True, videos=True) is side
    one, again, other = (augment_side(side, seed, 0, videos=True).item["video"] for seed in ("a", "a", "b"))
    frames = [[frame.tobytes() for frame in film] for film in one]
    assert frames == [[frame.tobytes() for frame in film] for film in again]
    assert len(set(frames[0])) == 1 and frames[0][0] != picture.tobytes(), "the frames of one fit each other"
    assert frames[1][0] != frames[0][0] != other[0][0].tobytes(), "films are changed each in its own way"


def test_half_of_the_pictures_are_enlarged_and_half_of_these_to_the_largest_side():
    picture = Image.new("RGB", (60, 30))
    sides = [enlarge(picture, 120, random.Random(seed)).size for seed in range(200)]
    assert 70 < sum(side == (60, 30) for side in sides) < 130
    assert 30 < sum(side == (120, 60) for side in sides) < 70
    assert len({width for width, _ in sides}) > 20 and max(width for width, _ in sides) == 120
    assert all(abs(width - 2 * height) <= 1 for width, height in sides)
    assert enlarge(picture, 50, random.Random(0)) is picture and enlarge(picture, 0, random.Random(0)) is picture


def test_a_batch_of_the_folder_is_the_same_on_one_process_and_shared_by_two(folder):
    changes = [f"data.folder={folder}", "batch_size=4", "model.path=null", "model.side=28", "model.vocab_size=400"]
    changes += ["data.enlarge_to=0", "data.repeat={}"]
    recipe = load_recipe(TINY, [*changes, "data.augment_up_to=60"])
    whole, shares = CorpusTask(recipe), [CorpusTask(recipe, rank, 2) for rank in range(2)]
    state = recipe.curriculum.at(0)
    batch, parts = whole.batch(1, state), [task.batch(1, state) for task in shares]
    assert torch.equal(batch.target_keys[0::2], parts[0].target_keys)
    assert torch.equal(batch.target_keys[1::2], parts[1].target_keys)
    plain = CorpusTask(load_recipe(TINY, [*changes, "data.augment_up_to=0"])).batch(1, state)
    assert torch.equal(plain.target_keys, batch.target_keys), "equal targets are equal whatever is done to them"
    pixels = [b.targets[0].prefix["pixel_values"] for b in (plain, batch)]
    assert not torch.equal(*pixels)
    never = CorpusTask(load_recipe(TINY, [*changes, "data.never_augmented=[text-scene,clip-both]"])).batch(1, state)
    assert torch.equal(never.targets[0].prefix["pixel_values"], pixels[0])


@pytest.mark.parametrize("given", [[], ["data.files=[a.jsonl]", "data.folder=b"], ["data.folder=b", "data.dataset=c"]])
def test_files_or_a_folder_must_be_given(given):
    with pytest.raises(ValueError, match="one of them must be given"):
        CorpusTask(load_recipe(TINY, ["data.folder=null", *given]))


def test_other_limits_for_pictures_and_frames_leave_weights_and_tokenizer_as_they_are(tmp_path):
    processor = make_processor(["red fox", "blue whale"] * 20, 330, 28)
    model = make_model(processor, 48, 2, 64, 32, 1, 0.05, seed=0).eval()
    model.save_pretrained(tmp_path / "first")
    processor.save_pretrained(tmp_path / "first")
    main(tmp_path / "first", tmp_path / "base", side=56, max_side=112, frame_side=56)
    base, after = PlumeModel.from_pretrained(tmp_path / "base"), PlumeProcessor.from_pretrained(tmp_path / "base")
    assert all(torch.equal(tensor, base.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert after.tokenizer.get_vocab() == processor.tokenizer.get_vocab()

    def tokens(shown: PlumeProcessor, **item) -> int:
        ids = shown([item])["input_ids"][0].tolist()
        return ids.count(base.config.backbone_config.image_token_id) + ids.count(
            base.config.backbone_config.video_token_id
        )

    sides = (28, 56, 84, 112, 400)
    assert [tokens(processor, image=Image.new("RGB", (side, side))) for side in sides] == [1, 1, 1, 1, 1]
    assert [tokens(after, image=Image.new("RGB", (side, side))) for side in sides] == [4, 4, 9, 16, 16]
    film = [Image.new("RGB", (200, 200))] * 4
    assert tokens(after, video=film) == 8, "two times two frames of 56 x 56"
    main(tmp_path / "base", tmp_path / "frames", side=56, max_side=112, frame_side=84)
    assert tokens(PlumeProcessor.from_pretrained(tmp_path / "frames"), video=film) == 18, "of 84 x 84"
