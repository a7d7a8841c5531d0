"""The fast rollout against the reference: exactness, buckets, compile count, threads, and what it must not leave."""

import copy
import gc
import pickle
import random
import threading
import weakref

import pytest
import torch
from common import random_item
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.model import rollout_plume
from plume_embed.model.attention_plume import (
    PACKED_ATTENTION,
    attend_matmul,
    attend_sdpa,
    decoder_layer,
    packed_attention,
    packed_layers,
)
from plume_embed.model.buckets_plume import Bucket, BucketKey, round_batch, round_length
from plume_embed.model.rollout_plume import RolloutEngine, RolloutRun, rollout, rollout_engine

POSITION_MODES = ("mrope", "cache_length", "released_training")
WHOLE_BUCKET = "cuda_graph"  # on CPU with a capture that captures nothing, see `whole_bucket`


class NoCapture:
    """Stands for CapturedRollout where there is no GPU: runs the body over the whole bucket each time."""

    num_bytes = 0

    def __init__(self, body, device, pool):
        self.body = body

    def __call__(self):
        return self.body()


@pytest.fixture
def whole_bucket(monkeypatch):
    """`"cuda_graph"` does on CPU all that it does on a GPU except the capture."""
    monkeypatch.setattr(RolloutEngine, "_unavailable_reason", lambda self, name, key, model: None)
    monkeypatch.setattr(RolloutEngine, "_capture", lambda self, body, device: NoCapture(body, device, None))
    monkeypatch.setattr(RolloutEngine, "_compiled_layer", lambda self, key: decoder_layer)


@pytest.fixture(scope="module")
def processor(released_model_dir):
    processor = PlumeProcessor.from_pretrained(released_model_dir)
    processor.blank_image_for_text = False
    return processor


@pytest.fixture(scope="module")
def shared_model(released_model_dir):
    return PlumeModel.from_pretrained(released_model_dir).eval()


@pytest.fixture
def model(shared_model):
    """With a new engine and the reference's settings, whatever the test before has done."""
    rollout_engine(shared_model).release()
    rollout_engine(shared_model).memory_limit = None
    shared_model.rollout_implementation, shared_model.config.position_mode = "auto", "mrope"
    return shared_model


@pytest.fixture
def warnings(monkeypatch):
    """What the engine logs as a warning."""
    messages = []
    monkeypatch.setattr(rollout_plume.logger, "warning", messages.append)
    return messages


def run(model, batch, implementation, **kwargs):
    model.rollout_implementation = implementation
    with torch.inference_mode():
        return model(**batch, **kwargs)


def assert_equal(output, reference, tolerance=1e-5):
    torch.testing.assert_close(output.embeddings, reference.embeddings, atol=tolerance, rtol=0)
    if reference.latent_states is not None:
        # The fixture's weights are large on purpose: each step makes the rounding of the one before half as much again.
        worst = (output.latent_states - reference.latent_states).norm(dim=-1)
        assert (worst <= 10 * tolerance * reference.latent_states.norm(dim=-1)).all()
        torch.testing.assert_close(output.router_probs, reference.router_probs, atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize("implementation", ["static", "compiled", WHOLE_BUCKET])
def test_100_random_mixed_batches_equal_the_reference_while_buckets_change(model, processor, request, implementation):
    if implementation == WHOLE_BUCKET:
        request.getfixturevalue("whole_bucket")
    rng = random.Random(implementation)
    pool = [random_item(rng) for _ in range(30)]
    request_all = {"output_latent_states": True, "output_router_probs": True}
    keys = set()
    for index in range(100):
        # Every pair of position mode and K, several times; a few long rows, so that lengths cross buckets.
        model.config.position_mode, steps = POSITION_MODES[index % 3], (0, 1, 4, 8)[index // 3 % 4]
        items = [pool[rng.randrange(len(pool))] for _ in range(rng.choice((1, 1, 2, 3, 4, 5)))]
        if rng.random() < 0.2:
            items.append("many words " * rng.randint(20, 150))
        batch = processor(items)
        reference = run(model, batch, "reference", num_latent_steps=steps, **request_all)
        assert_equal(run(model, batch, implementation, num_latent_steps=steps, **request_all), reference)
        keys.update(model.rollout_engine.buckets)
    assert len({key.batch for key in keys}) >= 3 and len({key.length for key in keys}) >= 4


def exactly_full_texts(processor, count: int) -> list[str]:
    """Texts whose prefix is as long as its bucket, which is where views of buffers are easily whole by accident."""
    texts = (" ".join(["word"] * length) for length in range(1, 200))
    lengths = ((text, processor([text])["input_ids"].shape[1]) for text in texts)
    return [text for text, length in lengths if round_length(length) == length][:count]


def test_one_layer_function_compiles_to_four_graphs_for_all_batches_lengths_and_steps(model, processor, warnings):
    before = counters["stats"]["unique_graphs"]
    rng = random.Random(0)
    for size, words, steps in ((1, 5, 8), (2, 60, 8), (1, 90, 4), (5, 1, 1), (3, 140, 6), (8, 20, 8), (1, 1, 1)):
        batch = processor([" ".join(["word"] * rng.randint(1, words)) for _ in range(size)])
        run(model, batch, "compiled", num_latent_steps=steps)
    for text in exactly_full_texts(processor, count=2):
        for size in (1, 2):
            run(model, processor([text] * size), "compiled")
    with torch.no_grad():
        model(**processor(["another mode of autograd"]))
        bucket = Bucket(BucketKey.of(prefix := model.prefix(**processor(["a", "b c"])), 8, model.config), prefix)
        compiled = next(iter(model.rollout_engine._layer_functions.values()))
        rollout(model, bucket.load(prefix, whole=True), 8, compiled)
    assert warnings == []
    assert counters["stats"]["unique_graphs"] - before == 4


@pytest.mark.slow
def test_a_second_and_third_model_compile_for_themselves(model, processor, warnings, monkeypatch):
    # What is limited is Dynamo's count of graphs; the compiler behind it is left out for its time.
    with_inductor = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kwargs: with_inductor(f, backend="aot_eager", **kwargs))
    for size in (64, 96, 128):
        config = copy.deepcopy(model.config)
        config.backbone_config.text_config.intermediate_size = size
        other = PlumeModel(config).eval()
        for texts in (["a"], ["a", "b c"]):
            assert_equal(run(other, processor(texts), "compiled"), run(other, processor(texts), "reference"))
    assert warnings == []


@pytest.mark.parametrize("implementation", ["static", "compiled", WHOLE_BUCKET])
def test_threads_that_encode_at_once_get_the_answers_of_one_thread(model, processor, request, implementation):
    if implementation == WHOLE_BUCKET:
        request.getfixturevalue("whole_bucket")
    rng = random.Random(1)
    batches = [processor([random_item(rng) for _ in range(rng.randint(1, 3))]) for _ in range(6)]
    expected = [run(model, batch, "reference").embeddings for batch in batches]
    model.rollout_implementation = implementation
    failures, barrier = [], threading.Barrier(2)

    def work(seed: int) -> None:
        order = random.Random(seed)
        barrier.wait()
        for index in (order.randrange(len(batches)) for _ in range(12)):
            with torch.inference_mode():
                embeddings = model(**batches[index]).embeddings
            if (embeddings - expected[index]).abs().max() > 1e-5:
                failures.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


class TestBuckets:
    def prefix(self, model, processor, items):
        with torch.inference_mode():
            return model.prefix(**processor(items))

    @pytest.mark.parametrize("whole", [False, True])
    def test_what_an_earlier_batch_left_in_a_bucket_is_never_read(self, model, processor, whole):
        prefix = self.prefix(model, processor, ["a", "b c d", "e"])
        bucket = Bucket(BucketKey.of(prefix, 8, model.config), prefix)
        with torch.no_grad():
            clean = rollout(model, bucket.load(prefix, whole), 8, decoder_layer)
            for buffer in (*bucket.buffers.keys, *bucket.buffers.values, bucket.buffers.z0, bucket.buffers.anchor):
                buffer.fill_(float("nan"))
            after = rollout(model, bucket.load(prefix, whole), 8, decoder_layer)
        assert torch.equal(after.gen_state[:3], clean.gen_state[:3])
        assert torch.equal(after.latent_states[:3], clean.latent_states[:3])

    def test_a_whole_bucket_holds_real_rows_only(self, model, processor):
        prefix = self.prefix(model, processor, ["a", "b c d", "e"])
        inputs = Bucket(BucketKey.of(prefix, 8, model.config), prefix).load(prefix, whole=True)
        assert inputs.z0.shape[0] == 4
        assert torch.equal(inputs.z0[3], prefix.z0[2])
        assert torch.equal(inputs.keys[1][3], inputs.keys[1][2])

    def test_loading_leaves_the_prefix_as_it_was(self, model, processor):
        prefix = self.prefix(model, processor, ["a", "b c d"])
        before = copy.deepcopy(prefix)
        rollout_engine(model).run(model, prefix, 8, "static")
        assert prefix.cache.get_seq_length() == before.cache.get_seq_length()
        assert torch.equal(prefix.cache.layers[1].keys, before.cache.layers[1].keys)

    def test_the_least_recently_used_goes_first_and_the_limit_holds(self, model, processor):
        engine = model.rollout_engine
        small, large = processor(["a"]), processor(["many words " * 80])
        run(model, small, "static")
        one = engine.num_bytes
        run(model, large, "static")
        both = engine.num_bytes
        run(model, small, "static")
        assert [key.length for key in engine.buckets] == [large_length(large), large_length(small)]
        engine.memory_limit = both
        run(model, processor(["a", "b"]), "static")
        assert [key.batch for key in engine.buckets] == [1, 2]
        assert one < engine.num_bytes <= both

    def test_a_batch_above_the_limit_takes_the_reference_path_and_says_so(self, model, processor, warnings):
        batch = processor(["a"])
        reference = run(model, batch, "reference")
        model.rollout_engine.memory_limit = 1000
        assert torch.equal(run(model, batch, "static").embeddings, reference.embeddings)
        assert len(warnings) == 1 and "memory_limit" in warnings[0] and "'reference'" in warnings[0]
        run(model, batch, "static")
        assert len(warnings) == 1
        assert model.rollout_engine.buckets == []

    def test_release_frees_everything(self, model, processor):
        run(model, processor(["a"]), "static")
        engine = model.rollout_engine
        buffer = weakref.ref(next(iter(engine._buckets.values())).buffers.keys[0])
        assert engine.num_bytes > 0
        engine.release()
        gc.collect()
        assert engine.num_bytes == 0 and engine.buckets == [] and buffer() is None
        run(model, processor(["a"]), "static")

    def test_preparing_begins_with_the_biggest(self, model, processor):
        prefixes = [self.prefix(model, processor, ["word " * n] * b) for n, b in ((1, 1), (90, 4), (1, 4))]
        model.rollout_engine.prepare(model, prefixes, 8, "static")
        sizes = [key.batch * key.length for key in model.rollout_engine.buckets]
        assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True)

    @pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 449, 513, 700, 1300, 5000])
    def test_rounding_never_loses_a_slot_and_wastes_little(self, size):
        assert size <= round_batch(size) < 2 * size or size == 1
        assert size <= round_length(size) < size + max(64, size / 4 + 1)


def large_length(batch) -> int:
    return round_length(batch["input_ids"].shape[1])


class TestFallingThrough:
    def test_without_a_gpu_a_graph_falls_through_to_compiled_and_says_so(self, model, processor, warnings):
        if torch.cuda.is_available():
            pytest.skip("needs a machine without CUDA")
        batch = processor(["a"])
        assert_equal(run(model, batch, "cuda_graph"), run(model, batch, "reference"))
        assert len(warnings) == 1
        assert "'compiled', not as 'cuda_graph': the model is on cpu" in warnings[0]

    def test_a_failing_compiler_falls_through_to_static_once_and_says_so(self, model, processor, warnings, monkeypatch):
        calls = []

        def broken(function, **kwargs):
            calls.append(function)
            raise RuntimeError("no C++ compiler\nsearched everywhere")

        monkeypatch.setattr(torch, "compile", broken)
        batch = processor(["a"])
        for _ in range(2):
            assert_equal(run(model, batch, "compiled"), run(model, batch, "reference"))
        assert len(calls) == 1
        assert warnings == ["The rollout runs as 'static', not as 'compiled': RuntimeError: no C++ compiler."]

    def test_an_error_of_the_model_is_not_taken_for_one_of_the_compiler(self, model, processor, monkeypatch):
        def broken(*args):
            raise ZeroDivisionError("in the adapter")

        monkeypatch.setattr(model.adapter, "forward", broken)
        for implementation in ("static", "compiled"):
            with pytest.raises(ZeroDivisionError):
                run(model, processor(["a"]), implementation)

    def test_autocast_takes_the_reference_path_and_says_so(self, model, processor, warnings):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            run(model, processor(["a"]), "static")
        assert len(warnings) == 1 and "autocast" in warnings[0]

    def test_a_replaced_forward_takes_the_reference_path_and_says_so(self, model, processor, warnings, monkeypatch):
        attention = model.backbone.language_model.layers[0].self_attn
        monkeypatch.setattr(attention, "forward", attention.forward)
        run(model, processor(["a"]), "static")
        assert len(warnings) == 1 and "forward of a layer has been replaced" in warnings[0]

    def test_an_unknown_name_is_refused(self, model, processor):
        with pytest.raises(ValueError, match="must be one of auto, cuda_graph"):
            run(model, processor(["a"]), "fastest")


class TestWhenItRuns:
    @pytest.fixture
    def runs(self, monkeypatch):
        """The implementations that engines are asked for."""
        seen, original = [], RolloutEngine.run

        def run_and_note(self, model, prefix, num_steps, implementation="auto"):
            seen.append(implementation)
            return original(self, model, prefix, num_steps, implementation)

        monkeypatch.setattr(RolloutEngine, "run", run_and_note)
        return seen

    def test_in_eval_mode_without_gradients(self, model, processor, runs):
        batch = processor(["a"])
        with torch.no_grad():
            model(**batch)
        with torch.inference_mode():
            model(**batch)
        assert runs == ["auto", "auto"]

    def test_not_in_training_nor_where_gradients_are_wanted_nor_for_a_single_pass(self, model, processor, runs):
        batch = processor(["a"])
        assert model(**batch).embeddings.requires_grad
        with torch.no_grad():
            model(**batch, num_latent_steps=0)
            model.train()
            model(**batch)
            model.eval()
        run(model, batch, "reference")
        assert runs == []

    def test_outputs_of_inference_mode_and_no_grad_serve_each_other(self, model, processor):
        batch = processor(["a", "b c"])
        with torch.inference_mode():
            first = model(**batch).embeddings
        with torch.no_grad():
            second = model(**batch).embeddings
        assert torch.equal(first, second)

    def test_the_rollout_asks_the_device_for_nothing(self, model, processor):
        class Ops(TorchDispatchMode):
            names: set[str] = set()

            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                self.names.add(function.__name__.split(".")[0])
                return function(*args, **(kwargs or {}))

        with torch.no_grad():
            prefix = model.prefix(**processor(["a", "b c"]))
            bucket = Bucket(BucketKey.of(prefix, 8, model.config), prefix)
            with Ops() as ops:
                rollout(model, bucket.load(prefix, whole=True), 8, decoder_layer)
        assert "mm" in ops.names or "addmm" in ops.names
        waits = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "lift_fresh"}
        assert ops.names & waits == set()

    def test_k_steps_and_the_suffix_take_k_passes(self, model, processor):
        calls = []

        def counting(layer, hidden, *args):
            calls.append(hidden.shape[1])
            return decoder_layer(layer, hidden, *args)

        with torch.no_grad():
            prefix = model.prefix(**processor(["a"]))
            bucket = Bucket(BucketKey.of(prefix, 8, model.config), prefix)
            rollout(model, bucket.load(prefix, whole=False), 8, counting)
        layers = len(model.backbone.language_model.layers)
        assert calls == [1] * 7 * layers + [1 + len(model.config.suffix_token_ids)] * layers


class TestNothingStays:
    def test_copies_pickles_and_files_hold_no_engine(self, model, processor, tmp_path):
        keys = set(model.state_dict())
        embeddings = run(model, processor(["a"]), "static").embeddings
        assert rollout_engine(model).num_bytes > 0
        twin, thawed = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        model.save_pretrained(tmp_path)
        loaded = PlumeModel.from_pretrained(tmp_path).eval()
        for other in (twin, thawed, loaded):
            assert rollout_engine(other).num_bytes == 0
            assert set(other.state_dict()) == keys
            # Weights at other addresses may be multiplied in another order.
            torch.testing.assert_close(run(other, processor(["a"]), "static").embeddings, embeddings, atol=1e-5, rtol=0)
        assert "rollout" not in (tmp_path / "config.json").read_text()

    def test_an_engine_ends_with_its_model(self, released_model_dir, processor):
        model = PlumeModel.from_pretrained(released_model_dir).eval()
        run(model, processor(["a"]), "static")
        engine = weakref.ref(model.rollout_engine)
        del model
        gc.collect()
        assert engine() is None

    def test_the_model_keeps_its_attention(self, model, processor):
        attention = [layer.self_attn for layer in model.backbone.language_model.layers]
        before = model.backbone.language_model.config._attn_implementation
        run(model, processor(["a"]), "static")
        assert {module.config._attn_implementation for module in attention} == {before}
        assert before != PACKED_ATTENTION

    def test_changed_weights_and_replaced_modules_are_seen(self, released_model_dir, processor):
        model, batch = PlumeModel.from_pretrained(released_model_dir).eval(), processor(["a", "b c"])
        first = run(model, batch, "static").embeddings
        layer = model.backbone.language_model.layers[1]
        with torch.no_grad():
            layer.mlp.down_proj.weight.mul_(2)
        scaled = torch.nn.Linear(64, 64)
        layer.self_attn.q_proj = scaled
        layer.input_layernorm = copy.deepcopy(layer.input_layernorm)
        with torch.no_grad():
            layer.input_layernorm.weight.mul_(0.5)
        second = run(model, batch, "static")
        assert not torch.allclose(first, second.embeddings, atol=1e-3)
        assert_equal(second, run(model, batch, "reference"))

    def test_another_dtype_takes_other_buckets(self, released_model_dir, processor):
        model, batch = PlumeModel.from_pretrained(released_model_dir).eval(), processor(["a", "b c"])
        run(model, batch, "static")
        model.double()
        output = run(model, batch, "static")
        assert {key.dtype for key in model.rollout_engine.buckets} == {torch.float32, torch.float64}
        assert_equal(output, run(model, batch, "reference"))


class TestPackedAttention:
    @pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
    @pytest.mark.parametrize("n", [1, 6])
    def test_it_equals_attention_over_repeated_keys(self, heads, n):
        generator = torch.Generator().manual_seed(0)
        query = torch.randn(3, heads[0], n, 16, generator=generator)
        key, value = (torch.randn(3, heads[1], 20, 16, generator=generator) for _ in range(2))
        mask = torch.zeros(3, 1, n, 20)
        mask[1, :, :, :7] = float("-inf")
        mask = mask + torch.full((n, 20), float("-inf")).triu(21 - n)
        output, weights = packed_attention(None, query, key, value, mask, scaling=0.25)
        repeated = [tensor.repeat_interleave(heads[0] // heads[1], dim=1) for tensor in (key, value)]
        naive = (query @ repeated[0].mT * 0.25 + mask).softmax(dim=-1) @ repeated[1]  # [B, heads, n, d]
        torch.testing.assert_close(output, naive.transpose(1, 2), atol=1e-6, rtol=0)
        assert weights is None

    def test_both_forms_agree(self):
        query, key, value = torch.randn(2, 2, 12, 16), torch.randn(2, 2, 33, 16), torch.randn(2, 2, 33, 16)
        mask = torch.zeros(2, 1, 12, 33).masked_fill(torch.rand(2, 1, 12, 33) < 0.5, float("-inf"))
        mask[..., 0] = 0
        first, second = (attend(query, key, value, mask, 0.3) for attend in (attend_sdpa, attend_matmul))
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)

    def test_it_serves_a_whole_model_with_padding(self, released_model_dir, model, processor):
        packed = PlumeModel.from_pretrained(released_model_dir, position_mode="mrope").eval()
        packed.backbone.language_model.set_attn_implementation(PACKED_ATTENTION)
        rng = random.Random(2)
        batch = processor([random_item(rng) for _ in range(5)])
        assert (batch["attention_mask"] == 0).any()
        assert_equal(run(packed, batch, "reference"), run(model, batch, "reference"))

    def test_without_its_mask_or_with_dropout_it_refuses(self):
        tensors = [torch.randn(1, 2, 3, 4) for _ in range(3)]
        with pytest.raises(ValueError, match="needs its mask"):
            packed_attention(None, *tensors, None, scaling=1.0)
        with pytest.raises(ValueError, match="for inference"):
            packed_attention(None, *tensors, torch.zeros(1, 1, 3, 3), scaling=1.0, dropout=0.1)

    def test_packed_layers_share_all_weights_with_the_models(self, model):
        decoder = model.backbone.language_model
        for layer, packed in zip(decoder.layers, packed_layers(decoder), strict=True):
            assert packed is not layer and packed.self_attn is not layer.self_attn
            assert [id(p) for p in packed.parameters()] == [id(p) for p in layer.parameters()]
            assert packed.self_attn.config._attn_implementation == PACKED_ATTENTION


@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturing a CUDA graph needs an NVIDIA GPU")
class TestCapture:
    @pytest.fixture
    def on_gpu(self, released_model_dir):
        torch.backends.cuda.matmul.allow_tf32 = False
        return PlumeModel.from_pretrained(released_model_dir).eval().to("cuda")

    def test_replayed_graphs_equal_the_reference_while_buckets_change(self, on_gpu, processor, warnings):
        rng = random.Random(4)
        pool = [random_item(rng) for _ in range(20)]
        for _ in range(40):
            batch = processor([pool[rng.randrange(20)] for _ in range(rng.randint(1, 5))]).to("cuda")
            reference = run(on_gpu, batch, "reference").embeddings
            graph = run(on_gpu, batch, "cuda_graph").embeddings
            torch.testing.assert_close(graph, reference, atol=1e-4, rtol=0)
        assert warnings == []
        assert len(on_gpu.rollout_engine.buckets) >= 3

    def test_threads_on_their_own_streams_get_the_right_answers(self, on_gpu, processor):
        rng = random.Random(5)
        batches = [processor([random_item(rng) for _ in range(3)]).to("cuda") for _ in range(4)]
        expected = [run(on_gpu, batch, "reference").embeddings for batch in batches]
        on_gpu.rollout_implementation = "cuda_graph"
        worst = []

        def work(seed: int) -> None:
            order = random.Random(seed)
            with torch.cuda.stream(torch.cuda.Stream()), torch.inference_mode():
                for index in (order.randrange(4) for _ in range(25)):
                    worst.append((on_gpu(**batches[index]).embeddings - expected[index]).abs().max().item())

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(worst) == 50 and max(worst) <= 1e-4

    def test_other_weights_take_other_graphs(self, on_gpu, processor):
        batch = processor(["a", "b c"]).to("cuda")
        run(on_gpu, batch, "cuda_graph")
        weight = on_gpu.backbone.language_model.layers[0].mlp.down_proj.weight
        on_gpu.backbone.language_model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(weight * 2)
        graph, reference = (run(on_gpu, batch, name).embeddings for name in ("cuda_graph", "reference"))
        torch.testing.assert_close(graph, reference, atol=1e-4, rtol=0)

    def test_release_gives_the_memory_back(self, on_gpu, processor):
        before = torch.cuda.memory_allocated()
        run(on_gpu, processor(["a", "b c"]).to("cuda"), "cuda_graph")
        on_gpu.rollout_engine.release()
        gc.collect()
        assert torch.cuda.memory_allocated() <= before + 2**20


def test_a_hook_on_the_decoder_takes_the_reference_path_and_is_seen(released_model_dir):
    model = PlumeModel.from_pretrained(released_model_dir).eval()
    batch = PlumeProcessor.from_pretrained(released_model_dir)(["a text"])
    with torch.inference_mode():
        plain = model(**batch).embeddings
        handle = model.backbone.get_decoder().register_forward_hook(lambda module, args, output: calls.append(1))
        calls: list[int] = []
        hooked = model(**batch).embeddings
        handle.remove()
    assert len(calls) == 1 + model.config.num_latent_steps + 1  # prefix, steps, suffix
    torch.testing.assert_close(hooked, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("implementation", "calls"), [("static", 1 + 8), ("reference", 1 + 8 + 1)])
def test_a_hook_on_a_layer_is_handed_the_layer_itself_by_the_reference_alone(model, processor, implementation, calls):
    layer, modules, batch = model.backbone.get_decoder().layers[1], [], processor(["a text"])
    handle = layer.register_forward_hook(lambda module, args, output: modules.append(module))
    try:
        run(model, batch, implementation)
    finally:
        handle.remove()
    assert len(modules) == calls and all(module.mlp is layer.mlp for module in modules)
    assert all(module is layer for module in modules) == (implementation == "reference")


GRAPH_KEY = BucketKey(1, 64, 8, (1,), "mrope", torch.device("cuda"), torch.float32, 64, ((2, 16), (2, 16)))


@pytest.mark.parametrize("where", ["layer", "mlp", "norm", "adapter", "router"])
@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook"])
def test_a_graph_is_not_replayed_past_a_hook_below_the_decoder_or_in_the_adapter(model, where, kind):
    """A replay runs no Python: hooks would be called at the capture only."""
    decoder, reason = model.backbone.get_decoder(), model.rollout_engine._unavailable_reason
    places = {"layer": decoder.layers[1], "mlp": decoder.layers[1].mlp, "norm": decoder.norm}
    places |= {"adapter": model.adapter, "router": model.adapter.router}
    assert reason("cuda_graph", GRAPH_KEY, model) is None
    handle = getattr(places[where], f"register_{kind}")(lambda *_: None)
    try:
        assert "has a forward hook, which 'cuda_graph' would pass over" in reason("cuda_graph", GRAPH_KEY, model)
        assert (reason("compiled", GRAPH_KEY, model) is None) == (where not in ("layer", "mlp"))
        assert reason("static", GRAPH_KEY, model) is None
    finally:
        handle.remove()
    assert reason("cuda_graph", GRAPH_KEY, model) is None
    vision = model.backbone.visual.register_forward_hook(lambda *_: None)  # it runs before the rollout
    assert reason("cuda_graph", GRAPH_KEY, model) is None
    vision.remove()


def test_a_hook_registered_after_compiling_is_called_and_the_compiled_layer_serves_again_once_it_is_gone(
    model, processor, warnings
):
    batch, engine, calls = processor(["a text"]), model.rollout_engine, []
    plain = run(model, batch, "compiled").embeddings
    assert engine.last_run == RolloutRun("compiled")
    handle = (
        model.backbone.get_decoder()
        .layers[1]
        .mlp.register_forward_hook(lambda module, args, output: calls.append(1) or 3 * output)
    )
    try:
        hooked, steps = run(model, batch, "compiled").embeddings, model.config.num_latent_steps
        assert len(calls) == 1 + steps, "in the prefix and in every step"
        assert engine.last_run.implementation == "static" and "has a forward hook" in engine.last_run.reasons[0]
        torch.testing.assert_close(hooked, run(model, batch, "reference").embeddings, atol=1e-5, rtol=0)
        assert (hooked - plain).abs().max() > 1e-3
    finally:
        handle.remove()
    assert torch.equal(run(model, batch, "compiled").embeddings, plain)
    assert engine.last_run == RolloutRun("compiled") and len(warnings) == 1


def test_the_engine_says_of_each_run_what_ran_and_why(model, processor):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    batch, engine, seen = processor(["a text"]), model.rollout_engine, []
    engine._failed["compiled"] = "left out for its time"
    for implementation in ("static", "cuda_graph", "cuda_graph", "reference", "auto"):
        run(model, batch, implementation)
        seen.append(engine.last_run)
    assert [each.implementation for each in seen] == ["static"] * 5
    assert [len(each.reasons) for each in seen] == [0, 2, 2, 2, 0]
    assert seen[1] == seen[2] and seen[1] is not seen[2], "each run has its own"
    assert seen[2] is seen[3], "the model's own loop is no run of the engine"
    engine.memory_limit = 1000
    run(model, batch, "static")
    assert engine.last_run.implementation == "reference" and "memory_limit" in engine.last_run.reasons[0]
    engine.release()
    assert engine.last_run is None


def test_a_model_with_peft_layers_is_not_captured(released_model_dir):
    peft = pytest.importorskip("peft")
    model = PlumeModel.from_pretrained(released_model_dir).eval()
    engine = model.rollout_engine
    assert engine._unavailable_reason("cuda_graph", GRAPH_KEY, model) is None
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2))
    assert "peft layers" in engine._unavailable_reason("cuda_graph", GRAPH_KEY, model)
    assert engine._unavailable_reason("static", GRAPH_KEY, model) is None
