"""What plume-small is trained with: the fast prefix, stages that survive a kill, texts, and pictures without pixels."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model.families import BACKBONES, TEXT, make_tiny
from PIL import Image
from torch import nn

from plume_embed.evaluation.photos.benchmark import RankingTask
from plume_embed.hub.folders import check_replaceable
from plume_embed.training.log import append_log, read_log
from training.plume_small import compare
from training.plume_small import publish as publish_module
from training.plume_small import scenes as scenes_module
from training.plume_small import teacher as teacher_module
from training.plume_small import train as train_module
from training.plume_small.compare import Side, markdown, scores, sides, summary
from training.plume_small.data import Data
from training.plume_small.fast_forward import Prompt, embed
from training.plume_small.pictures import PLACES, PseudoPictures, Scenes, _rectangles
from training.plume_small.scenes import Scene, make_ground
from training.plume_small.stages import Stage, contrast_loss, load_finished, origin_of, run_stage
from training.plume_small.teacher import cached_vectors, reduction
from training.plume_small.texts import common_nouns, read_synsets, with_article
from training.plume_small.tower import ARCHITECTURE, timm_state
from training.plume_small.train import CHAINS
from training.plume_small.words import Words, class_mixtures, distillation_loss


@pytest.fixture(scope="module")
def tiny():
    BACKBONES["fast_vlm whole heads"] = BACKBONES["fast_vlm"] | {
        "text_config": TEXT | {"model_type": "qwen2", "num_key_value_heads": 4}
    }
    yield make_tiny("fast_vlm whole heads")
    del BACKBONES["fast_vlm whole heads"]


@pytest.mark.parametrize("num_latent_steps", [0, 1, 3])
def test_the_fast_prefix_gives_the_models_own_vectors(tiny, num_latent_steps):
    model, processor = tiny.model, tiny.processor
    prompt = Prompt.of(processor, "a")
    text = "red bicycle near the lake"
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    with torch.no_grad():
        wanted = model(**processor([text]), num_latent_steps=num_latent_steps).embeddings
        content = model.get_input_embeddings()(torch.tensor([ids]))
        assert torch.allclose(embed(model, prompt, content, num_latent_steps, torch.float32), wanted, atol=1e-5)
        rough = embed(model, prompt, content, num_latent_steps)
    assert (rough * wanted).sum() > 0.99


def test_gradients_reach_the_words_through_the_latent_steps(tiny):
    model = tiny.model
    content = model.get_input_embeddings()(torch.tensor([[5, 6, 7]]))
    embed(model, Prompt.of(tiny.processor, "a"), content, 2, torch.float32)[0, 0].backward()
    weights = (model.get_input_embeddings().weight, model.adapter.experts.fc1_weight)
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)
    model.zero_grad()


def test_heads_that_share_keys_are_refused():
    shared = make_tiny("fast_vlm")
    with pytest.raises(ValueError, match="share keys"):
        embed(shared.model, Prompt.bare(shared.processor), torch.zeros(1, 2, 64), 0)


def _line() -> tuple[nn.Linear, object]:
    torch.manual_seed(0)
    linear = nn.Linear(4, 4)

    def make(kind: str, step: int, num_latent_steps: int):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(2, 8, 4, generator=generator)
        return F.normalize(linear(x), dim=-1), F.normalize(y + (kind == "b"), dim=-1)

    return linear, make


STAGE = Stage("line", 45, 1e-2, {"a": 0.5, "b": 0.5}, contrast={"b": 0.5}, num_latent_steps=((0, (0,)), (20, (4,))))


def test_a_stage_that_was_killed_goes_on_to_the_same_weights_and_log(tmp_path, monkeypatch):
    straight, make = _line()
    first = straight.weight.detach().clone()
    run_stage(STAGE, {"m": straight}, make, tmp_path / "straight", seed=3, save_every=10)
    killed, make_killed = _line()

    def until_the_kill(kind, step, num_latent_steps):
        if step == 37:
            raise KeyboardInterrupt
        return make_killed(kind, step, num_latent_steps)

    with pytest.raises(KeyboardInterrupt):
        run_stage(STAGE, {"m": killed}, until_the_kill, tmp_path / "killed", seed=3, save_every=20)
    resumed, make = _line()
    run_stage(STAGE, {"m": resumed}, make, tmp_path / "killed", seed=3, save_every=20)
    assert torch.equal(resumed.weight, straight.weight)
    logs = [
        [line.partition('"k"')[2] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("straight", "killed")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 4
    again, unfinished = _line()[0], _line()[0]
    assert load_finished(STAGE, {"m": again}, tmp_path / "killed") and torch.equal(again.weight, straight.weight)
    assert not load_finished(replace(STAGE, steps=46), {"m": unfinished}, tmp_path / "killed")
    assert not load_finished(STAGE, {"m": unfinished}, tmp_path / "nowhere") and torch.equal(unfinished.weight, first)
    again, _ = _line()
    run_stage(STAGE, {"m": again}, None, tmp_path / "killed", seed=3)  # done: nothing is made, the weights are loaded
    assert torch.equal(again.weight, straight.weight)


def test_a_stage_killed_at_a_validation_has_each_of_them_once_when_it_has_ended(tmp_path):
    stage, asked = replace(STAGE, num_latent_steps=((0, (0, 4)),)), []

    def validate(number: int) -> dict[str, float]:
        asked.append(number)
        if len(asked) == 4:  # the second of the last step
            raise KeyboardInterrupt
        return {"R@1": 1.0}

    for _ in range(2):
        linear, make = _line()
        with suppress(KeyboardInterrupt):
            run_stage(stage, {"m": linear}, make, tmp_path, 3, validate, save_every=30)
    assert [(entry["step"], entry["k"]) for entry in read_log(tmp_path, having="validation")] == [
        *((30, 0), (30, 4)),
        *((45, 0), (45, 4)),
    ]


def test_a_state_of_other_settings_is_refused(tmp_path):
    linear, make = _line()
    run_stage(STAGE, {"m": linear}, make, tmp_path, 3)
    other = replace(STAGE, learning_rate=1e-3)
    for call in (load_finished, lambda *given: run_stage(given[0], given[1], make, given[2], 3)):
        with pytest.raises(ValueError, match="state.pt is of a stage with other settings; remove its folder"):
            call(other, {"m": linear}, tmp_path)


def test_a_state_of_other_data_of_other_stages_before_it_or_of_before_they_were_noted_is_refused(tmp_path):
    linear, make = _line()
    origin, other_data = origin_of("data", [STAGE]), origin_of("other data", [STAGE])
    other_stage = origin_of("data", [replace(STAGE, steps=46)])
    assert len({origin, other_data, other_stage, origin_of("data", [])}) == 4
    last, state_file = replace(STAGE, name="last"), tmp_path / "state.pt"
    run_stage(last, {"m": linear}, make, tmp_path, 3, origin=origin)
    assert load_finished(last, {"m": linear}, tmp_path, origin)
    for other in (other_data, other_stage):
        with pytest.raises(ValueError, match="state.pt is of other data, or comes behind stages with other settings"):
            load_finished(last, {"m": linear}, tmp_path, other)
        with pytest.raises(ValueError, match="remove its folder to train the stage anew"):
            run_stage(last, {"m": linear}, make, tmp_path, 3, origin=other)
    older = torch.load(state_file, weights_only=True)
    del older["origin"]
    torch.save(older, state_file)
    with pytest.raises(ValueError, match="older than the note of what a stage was trained on; remove its folder"):
        load_finished(last, {"m": linear}, tmp_path, origin)


def _short(stage: Stage) -> Stage:
    return replace(stage, steps=2)


@pytest.fixture
def small_training(tmp_path, monkeypatch):
    """`train` over a linear layer, with data that are one number: the stages are real, and so is what they leave."""
    monkeypatch.setattr(train_module, "CHAINS", {"single": tuple(map(_short, CHAINS["single"]))})
    monkeypatch.setattr(train_module, "teacher_folder", lambda: None)
    monkeypatch.setattr(train_module, "make_tokenizer", lambda folder: None)
    monkeypatch.setattr(train_module, "make_processor", lambda tokenizer: None)
    monkeypatch.setattr(train_module, "make_model", lambda processor, seed, **settings: _line()[0])
    monkeypatch.setattr(train_module, "load_state", lambda: None)
    monkeypatch.setattr(train_module, "take_over", lambda *given: None)
    data = SimpleNamespace(words=None, table=None)
    monkeypatch.setattr(train_module, "prepare", lambda work: data)

    class LineBatches:
        def __init__(self, data, model, processor, seed):
            self.model = model

        def make(self, stage):
            def vectors(kind, step, num_latent_steps):
                x, y = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(step))
                return F.normalize(self.model(x), dim=-1), F.normalize(y, dim=-1)

            return vectors

        def validate(self, num_latent_steps):
            return {}

    monkeypatch.setattr(train_module, "Batches", LineBatches)
    (tmp_path / "data.pt").write_bytes(b"data")
    return lambda: train_module.train(0, "single", tmp_path)[0].weight


def test_a_finished_model_is_not_taken_for_one_of_other_data_or_other_stages(small_training, tmp_path, monkeypatch):
    first = small_training()
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "prepare", lambda work: pytest.fail("it has ended"))
        assert torch.equal(small_training(), first)
    (tmp_path / "data.pt").write_bytes(b"other data")
    with pytest.raises(ValueError, match=r"single/state.pt is of other data, or comes behind stages with other"):
        small_training()
    (tmp_path / "data.pt").write_bytes(b"data")
    chain = train_module.CHAINS["single"]
    monkeypatch.setitem(train_module.CHAINS, "single", (*chain[:2], replace(chain[2], learning_rate=0.1), chain[3]))
    with pytest.raises(ValueError, match=r"single/state.pt is of other data, or comes behind stages with other"):
        small_training()
    shutil.rmtree(tmp_path / "seed-0" / "single")
    with pytest.raises(ValueError, match=r"base/state.pt is of a stage with other settings"):
        small_training()
    shutil.rmtree(tmp_path / "seed-0" / "base")
    assert not torch.equal(small_training(), first)


def test_a_folder_with_anything_but_a_model_is_refused_before_the_training_and_a_model_is_replaced(
    tiny, tmp_path, monkeypatch
):
    to = tmp_path / "Documents"
    (to / "thesis").mkdir(parents=True)
    monkeypatch.setattr(publish_module, "train", lambda *given: pytest.fail("hours of training"))
    with pytest.raises(ValueError, match="is not empty, it holds thesis"):
        publish_module.publish(0, "single", to, tmp_path)
    (to / "thesis").rmdir()
    for stage in CHAINS["single"]:
        (tmp_path / "seed-0" / stage.name).mkdir(parents=True)
        append_log(tmp_path / "seed-0" / stage.name, {"step": 100, "loss": 1.0})
    monkeypatch.setattr(publish_module, "train", lambda *given: (tiny.model, tiny.processor))
    monkeypatch.setattr(publish_module, "model_card", lambda model, processor: "# A model")
    for _ in range(2):
        publish_module.publish(0, "single", to, tmp_path)
        (to / "removed_plume.py").symlink_to("nowhere.py")
    (to / "removed_plume.py").unlink()
    code = {file.name for file in to.glob("*.py")}
    assert code == {file.name for file in publish_module.ROOT.glob("*_plume.py")}
    assert all((to / name).resolve() == publish_module.ROOT / name for name in code)
    assert json.loads((to / "training.json").read_text())["stages"][0]["curve"] == [{"step": 100, "loss": 1.0}]
    assert {file.name for file in tmp_path.iterdir()} == {"Documents", "seed-0"}
    check_replaceable(to)


def test_the_rate_rises_and_falls_and_k_grows():
    stage = Stage("s", 300, 1.0, {"a": 1}, num_latent_steps=((0, (1,)), (50, (2,)), (150, (0, 8))))
    assert [stage.latent_steps(0, step) for step in (0, 49, 50, 149)] == [1, 1, 2, 2]
    drawn = [stage.latent_steps(0, step) for step in range(150, 300)]
    assert 50 < drawn.count(0) < 100 and drawn.count(0) + drawn.count(8) == 150
    assert drawn == [stage.latent_steps(0, step) for step in range(150, 300)]
    assert [round(stage.rate(step), 3) for step in (0, 49, 99, 200, 299)] == [0.01, 0.5, 1.0, 0.5, 0.005]


def test_the_loss_is_zero_for_the_targets_and_contrast_tells_rows_apart():
    vectors = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert distillation_loss(vectors, vectors).abs() < 1e-6
    assert distillation_loss(vectors.flip(0), vectors) > 1
    assert contrast_loss(vectors, vectors) < contrast_loss(vectors.roll(1, 0), vectors)


def test_texts_of_a_batch_have_one_length_and_their_own_vectors(tiny):
    texts = [f"{word} near" for word in ("red", "lake", "bicycle")] * 30 + ["a red bicycle near the lake"] * 70
    targets = torch.arange(len(texts))[:, None].repeat(1, 2)
    words = Words(texts, targets, tiny.processor.tokenizer)
    for step in range(5):
        ids, wanted = words.batch(0, step, 16)
        again, _ = words.batch(0, step, 16)
        assert torch.equal(ids, again) and len(ids) == len(wanted) == 16
        assert all(ids[row].tolist() == words.ids[int(wanted[row, 0])] for row in range(16))


WORDNET = {
    "data.noun": '  1 licence\n00000001 05 n 02 Dog 0 hound 0 000 | a tame animal (of a kind); "the dog barked"  \n'
    "00000002 09 n 01 idea 0 000 | what is thought  \n",
    "data.verb": '00000003 38 v 01 run 0 000 01 + 02 00 | move fast; "they ran"; "we run daily"  \n',
    "data.adj": "00000004 00 a 01 red(a) 0 000 | of a colour  \n",
    "data.adv": "",
    "cntlist.rev": "dog%1:05:00:: 1 42\n",
}


def test_wordnet_is_read_with_definitions_examples_and_counts(tmp_path: Path):
    folder = tmp_path / "usr" / "share" / "wordnet"
    folder.mkdir(parents=True)
    for name, content in WORDNET.items():
        (folder / name).write_text(content)
    dog, idea, run, red = read_synsets(tmp_path)
    assert (dog.words, dog.file, dog.gloss, dog.count) == (("Dog", "hound"), 5, "a tame animal", 42)
    assert dog.examples == ("the dog barked",) and run.examples == ("they ran", "we run daily")
    assert red.words == ("red",) and idea.count == 0
    assert common_nouns([dog, idea]) == []  # a name with a capital, and what no picture shows
    assert (with_article("owl"), with_article("fox")) == ("an owl", "a fox")


def test_the_reduction_keeps_the_cosines_of_what_lies_in_few_dimensions():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(50, 3)) @ generator.normal(size=(3, 12))
    axes = reduction(vectors, 3)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    assert np.allclose((vectors @ axes) @ (vectors @ axes).T, vectors @ vectors.T, atol=1e-3)


def test_the_teachers_vectors_are_computed_once_a_shard(tmp_path, monkeypatch):
    asked = []

    class Fake:
        def __init__(self, folder):
            pass

        def encode(self, texts):
            asked.append(len(texts))
            return np.array([[float(text)] for text in texts], dtype=np.float32)

    monkeypatch.setattr(teacher_module, "Teacher", Fake)
    monkeypatch.setattr(teacher_module, "SHARD", 4)
    texts = [str(n) for n in range(10)]
    assert cached_vectors(texts, tmp_path, tmp_path / "v")[:, 0].tolist() == list(range(10))
    next((tmp_path / "v").glob("0000004*")).unlink()
    assert cached_vectors(texts, tmp_path, tmp_path / "v")[:, 0].tolist() == list(range(10))
    assert asked == [4, 4, 2, 4]
    others = [str(n) for n in range(7, 17)]
    assert cached_vectors(others, tmp_path, tmp_path / "v")[:, 0].tolist() == list(range(7, 17))


def test_things_lie_in_front_of_the_ground_and_the_target_is_the_mean_of_the_places():
    classes, size = 12, 40
    table = torch.eye(classes)
    pseudo = PseudoPictures(torch.randn(classes, 64, generator=torch.Generator().manual_seed(1)), table)
    meanings, wanted = pseudo.batch(0, 5, size)
    assert meanings.shape == (size, PLACES, classes) and torch.allclose(F.normalize(meanings.mean(1), dim=-1), wanted)
    assert torch.equal(pseudo.batch(0, 5, size)[0], meanings) and not torch.equal(pseudo.batch(0, 6, size)[0], meanings)
    owner = _rectangles(torch.Generator().manual_seed(0), size, torch.full((size, 1), 2))
    assert set(owner.unique().tolist()) == {-1, 0, 1}
    one = _rectangles(torch.Generator().manual_seed(0), size, torch.ones(size, 1))
    assert set(one.unique().tolist()) == {-1, 0} and (one == 0).any(1).all()


def test_mixtures_are_means_of_their_places():
    table = F.normalize(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    meanings, wanted = class_mixtures(table, 0, 1, 6)
    assert torch.allclose(F.normalize(meanings.mean(1), dim=-1), wanted)


def test_no_two_scenes_of_a_batch_share_a_thing():
    scenes = [Scene((f"a {n % 5}",), (str(n % 5),), "train") for n in range(30)]
    pairs = Scenes(
        scenes,
        torch.arange(30).half()[:, None, None].expand(30, 49, 2),
        {f"a {n}": torch.tensor([float(n)]) for n in range(5)},
    )
    meanings = pairs.batch(0, 0, 12)
    assert sorted((meanings[:, 0, 0] % 5).tolist()) == [0, 1, 2, 3, 4]


def test_the_data_are_read_as_they_were_written(tmp_path):
    scenes = Scenes([Scene(("a cat", "cat"), ("cat",), "train")], torch.rand(1, 49, 3).half(), {"a cat": torch.rand(3)})
    data = Data(["x"], torch.rand(1, 3), ["y"], torch.rand(1, 3), torch.rand(4, 3), torch.rand(5, 3), scenes, scenes)
    data.save(tmp_path / "data.pt")
    data.save(tmp_path / "made again.pt")
    assert (tmp_path / "data.pt").read_bytes() == (tmp_path / "made again.pt").read_bytes(), "one digest"
    again = Data.load(tmp_path / "data.pt")
    assert (again.texts, again.names, again.train.scenes) == (["x"], ["y"], scenes.scenes)
    assert torch.equal(again.words, data.words) and torch.equal(again.test.meanings, scenes.meanings)
    assert torch.equal(again.train.vectors["a cat"], scenes.vectors["a cat"])


class FakeBatches:
    """Texts and pictures on the axes: a text without steps points at the next one's picture."""

    def texts(self, texts, number, dtype):
        return torch.eye(len(texts)).roll(int(number == 0), 0).to(dtype)

    def pictures(self, meanings, number, dtype):
        return torch.eye(len(meanings), dtype=dtype)


def test_seeds_are_compared_in_pairs_with_the_single_pass():
    assert sides("steps") == [Side(8, 8)] and sides("anytime")[-1].label == "K = 8, documents 0"
    pictures = {f"{n}.png": torch.zeros(49, 2) for n in range(3)}
    items = [{"text": text} for text in "abc"], [{"image": file} for file in pictures]
    task = RankingTask("captions -> photos", *items, [[0], [1], [2]])
    with_steps, without = (scores([task], pictures, FakeBatches(), Side(k, 0)) for k in (8, 0))
    assert with_steps[task.name]["R@1"] == 1 and without[task.name]["R@1"] == 0
    runs = {"single, K = 0": {"0": without, "1": without}, "steps, K = 8": {"0": with_steps, "1": without}}
    found = summary(runs)
    assert found["steps, K = 8"][task.name]["R@1"]["difference"]["mean"] == 0.5
    table = markdown({"runs": runs, "summary": found})
    assert "| steps, K = 8 | 2 | 50.0 [-585.3, 685.3] |" in table


def test_without_a_seed_of_the_single_pass_there_is_no_difference_to_it():
    one = {"captions -> photos": {f"R@{k}": 0.5 for k in (1, 5, 10)}}
    for runs in (
        {"anytime, K = 0": {"0": one}},
        {"single, K = 0": {"0": one}, "anytime, K = 0": {"5": one}},
    ):
        found = summary(runs)
        assert found["anytime, K = 0"]["captions -> photos"]["R@10"]["difference"] is None
        assert markdown({"runs": runs, "summary": found}).endswith("| anytime, K = 0 | 1 | 50.0 | 50.0 | 50.0 |  |")


@pytest.fixture
def benchmark(tmp_path, monkeypatch) -> Path:
    """A benchmark of one picture, and a tower that sees its colour."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    stamp, sentences = {"file": "a.png", "caption": "A car.", "captions": {}}, {"file": "a.png", "sentences": ["a car"]}
    content = {"stamps": [stamp], "sentences": [sentences], "imagenet_names": ["car"]}
    (folder / "photos.json").write_text(json.dumps(content))
    (tmp_path / "data.pt").write_bytes(b"data")
    monkeypatch.setattr(compare, "prepare", lambda work: SimpleNamespace(table=torch.eye(3)))
    monkeypatch.setattr(compare, "load_tower", lambda: SimpleNamespace(classifier=None))
    monkeypatch.setattr(compare, "maps", lambda tower, pictures: [np.asarray(one)[0, 0] for one in pictures])
    monkeypatch.setattr(compare, "picture_meanings", lambda found, *_: torch.tensor(np.stack(found)))
    return folder


def test_meanings_are_of_the_pictures_that_lie_there_now(benchmark, tmp_path, monkeypatch):
    file = str(benchmark / "a.png")
    assert compare.photograph_meanings(benchmark, tmp_path)[file].tolist() == [255, 0, 0]
    Image.new("RGB", (8, 8), "blue").save(file)
    assert compare.photograph_meanings(benchmark, tmp_path)[file].tolist() == [0, 0, 255]
    with monkeypatch.context() as patch:
        patch.setattr(compare, "load_tower", lambda: pytest.fail("they are known"))
        assert compare.photograph_meanings(benchmark, tmp_path)[file].tolist() == [0, 0, 255]
    with monkeypatch.context() as patch:  # of other code
        patch.setattr(compare, "_CODE", (Path(__file__),))
        patch.setattr(compare, "maps", lambda tower, pictures: [np.full(3, 7) for _ in pictures])
        assert compare.photograph_meanings(benchmark, tmp_path)[file].tolist() == [7, 7, 7]
    assert compare.photograph_meanings(benchmark, tmp_path)[file].tolist() == [0, 0, 255]
    moved = benchmark.rename(tmp_path / "moved")
    assert list(compare.photograph_meanings(moved, tmp_path)) == [str(moved / "a.png")]


def test_a_comparison_keeps_its_runs_for_as_long_as_they_are_of_the_same_benchmark_data_and_stages(
    benchmark, tmp_path, monkeypatch
):
    trained, to = [], tmp_path / "results" / "seeds.json"
    monkeypatch.setattr(compare, "train", lambda seed, chain, *_: trained.append((seed, chain)) or (None, None))
    monkeypatch.setattr(compare, "Batches", lambda *_: None)
    monkeypatch.setattr(compare, "scores", lambda *_: {"captions -> photos": {f"R@{k}": 0.5 for k in (1, 5, 10)}})

    def call(**options: str) -> dict:
        trained.clear()
        compare.main(**({"seeds": "0", "chains": "steps"} | options), data=benchmark, work=tmp_path, to=to)
        return json.loads(to.read_text())

    made = call()["made"]["steps, K = 8"]["0"]
    assert trained == [(0, "steps")] and (made["device"], made["torch"]) == ("cpu", torch.__version__)
    assert list(call(chains="steps,single")["summary"]) == ["steps, K = 8", "single, K = 0"]
    assert trained == [(0, "single")]
    (tmp_path / "data.pt").write_bytes(b"other data")
    with pytest.raises(ValueError, match="holds seed 0 of 'steps, K = 8' from another benchmark"):
        call(seeds="1")
    assert call(chains="steps,single")["made"]["steps, K = 8"]["0"]["digest"] != made["digest"]
    assert trained == [(0, "steps"), (0, "single")]


def test_results_of_before_runs_had_digests_are_kept_with_their_device_and_version():
    report = compare.read_report(compare.RESULTS)
    assert set(report["made"]["single, K = 0"]) == {"0", "1", "2"} == set(report["runs"]["single, K = 0"])
    assert report["made"]["single, K = 0"]["0"].keys() == {"device", "torch"}


def test_a_shard_of_scenes_that_was_killed_while_it_was_written_is_made_again(tmp_path, monkeypatch):
    scene = Scene(("a cat",), ("cat",), "train")
    monkeypatch.setattr(scenes_module, "SHARD", 2)
    monkeypatch.setattr(scenes_module, "Painter", lambda cache: SimpleNamespace(scene=lambda number: (scene, None)))
    monkeypatch.setattr(scenes_module, "load_tower", lambda: None)
    monkeypatch.setattr(scenes_module, "maps", lambda tower, pictures: np.zeros((2, 49, 3), np.float16))

    def killed(path: Path, content: str | bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:5] if isinstance(content, bytes) else content[:5].encode())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        patch.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            scenes_module.make_scenes(tmp_path, 2)
    scenes_module.make_scenes(tmp_path, 2)
    assert scenes_module.read_scenes(tmp_path, 2)[0] == [scene, scene]


def test_grounds_fill_the_towers_square():
    import random

    grounds = [make_ground(random.Random(seed)) for seed in range(12)]
    assert {ground.size for ground in grounds} == {(224, 224)} and {ground.mode for ground in grounds} == {"RGB"}
    assert len({ground.tobytes() for ground in grounds}) > 6


def test_the_towers_tensors_are_taken_in_order_and_others_refused():
    import timm

    wanted = timm.create_model(ARCHITECTURE).state_dict()
    package = {f"layer{number}": tensor for number, tensor in enumerate(wanted.values())}
    assert list(timm_state(package)) == list(wanted)
    package["layer0"] = torch.zeros(3)
    with pytest.raises(ValueError, match="not those of timm"):
        timm_state(package)
