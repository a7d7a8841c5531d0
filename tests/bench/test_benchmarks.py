"""The benchmarks measure what they say: their inputs, their rivals, their clock and their files."""

import json
import math
import random
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import gpu_suite
from plume_embed.bench import cot, rollout
from plume_embed.bench.adapter import adapter_rows
from plume_embed.bench.encode import example_items
from plume_embed.bench.inputs import KINDS, media_grid, random_batch, random_model
from plume_embed.bench.limits import Machine, Pass, measure_machine, rollout_passes, work
from plume_embed.bench.released_style import embed_one_by_one
from plume_embed.bench.report import environment, slug, table
from plume_embed.bench.rollout import NotAvailableError, cot_rows, embed_with, rollout_rows, row
from plume_embed.bench.timing import LEAST_ROUNDS, LEAST_STEADY_ROUNDS, STEADY, Timing, _all_steady, interleaved
from plume_embed.cli.bench import app
from plume_embed.model import rollout_plume

CPU = torch.device("cpu")
MACHINE = Machine(bytes_per_s=1e9, flops_per_s=1e12)


@pytest.fixture(scope="module")
def model():
    return random_model("test")


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_the_asked_length_and_the_model_accepts_it(model, kind):
    batch = random_batch(model, 3, 90, kind)
    assert batch["input_ids"].shape == (3, 90)
    embeddings = embed_with(model, batch, "static", 8)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3))
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


def test_an_image_takes_480_of_700_tokens():
    assert math.prod(media_grid("image", 700)) == math.prod(media_grid("video", 700)) == 480


def test_a_prefix_too_short_for_its_media_is_refused(model):
    with pytest.raises(ValueError, match="no room"):
        random_batch(model, 1, 20, "image")


@pytest.mark.parametrize("kind", KINDS)
def test_the_released_style_gives_the_same_vectors(model, kind):
    batch = random_batch(model, 3, 90, kind)
    expected = embed_with(model, batch, "reference", 8)
    torch.testing.assert_close(embed_one_by_one(model, batch, 8), expected, atol=1e-5, rtol=0)


def test_a_rationale_is_greedy_on_the_models_own_weights_with_either_cache(model):
    generator = cot.language_model(model)
    assert generator.lm_head.weight is model.get_input_embeddings().weight
    assert not any(parameter.is_meta for parameter in generator.parameters())
    batch = random_batch(model, 2, 90, "image")
    growing = cot.write_rationale(generator, batch, 5)
    with torch.no_grad():
        hidden = model.backbone(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"].transpose(0, 1),
            pixel_values=batch["pixel_values"],
            image_grid_thw=batch["image_grid_thw"],
        ).last_hidden_state
    assert growing.shape == (2, 5)
    assert torch.equal(growing[:, 0], (hidden[:, -1] @ generator.lm_head.weight.T).argmax(dim=-1))
    assert torch.equal(growing, cot.write_rationale(generator, batch, 5, static_cache=True))


def test_cases_take_turns_and_ratios_are_of_the_same_round():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = interleaved(cases, CPU, budget_s=0, min_rounds=4, warm_up=2)
    assert calls[:6] == list("aabbcc")
    assert all(sorted(calls[start : start + 3]) == ["a", "b", "c"] for start in range(6, 18, 3))
    assert [len(timing.times) for timing in timings.values()] == [4, 4, 4]
    slow, fast = Timing([20.0, 40.0, 90.0]), Timing([10.0, 20.0, 30.0])
    assert slow.ratio_to(fast) == 2.0
    assert slow.median == 40.0 and slow.spread == 35.0


def test_rows_hold_what_was_asked_for(model):
    rows = rollout_rows(model, MACHINE, 2, 40, names=("reference", "static"), budget_s=0, min_rounds=2)
    names = [row["name"] for row in rows]
    assert names == [
        "single pass",
        "reference",
        "static",
        "static, K = 4",
        "static, K = 6",
        "released style, one by one",
        "static, weights by column",
        "rollout alone, static",
        "rollout alone, static, weights by column",
    ]
    for each in rows:
        assert each["batch"] == 2 and each["prefix"] == 40 and each["ms_median"] > 0 and each["rounds"] == 2
        assert each["times_limit"] == pytest.approx(each["ms_median"] / each["limit_ms"])
    limits = {row["name"]: row["limit_ms"] for row in rows}
    assert limits["static"] == pytest.approx(limits["single pass"] + limits["rollout alone, static"])
    assert limits["released style, one by one"] > 1.9 * limits["rollout alone, static"]
    assert rows[0]["ratio_to_single_pass"] == 1.0
    assert rows[0]["samples_per_s"] == pytest.approx(2000 / rows[0]["ms_median"])
    assert "static, K = 4" in table(rows)


def test_an_implementation_that_falls_through_is_not_timed_as_itself(model, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")

    def no_compiler(*args, **kwargs):
        raise RuntimeError("left out for its time")

    monkeypatch.setattr(torch, "compile", no_compiler)
    batch = random_batch(model, 1, 40)
    model.rollout_engine.release()
    with pytest.raises(NotAvailableError, match="not as 'cuda_graph'"):
        embed_with(model, batch, "cuda_graph", 8)
    model.rollout_engine.release()
    rows = rollout_rows(model, MACHINE, 1, 40, names=("static", "cuda_graph"), budget_s=0, min_rounds=1, released=False)
    left_out = [row for row in rows if row["name"] == "cuda_graph"]
    assert len(left_out) == 1 and "not run" in left_out[0]["note"] and "ms_median" not in left_out[0]


@pytest.fixture
def no_compiler(model, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", refuse)
    model.rollout_engine.release()
    yield
    model.rollout_engine.release()


def test_what_fell_through_at_one_batch_size_is_not_timed_at_the_next(model, no_compiler):
    """The engine logs a reason once for a model; the benchmark asks what ran in each run."""
    for batch in (1, 2):
        rows = rollout_rows(
            model,
            MACHINE,
            batch,
            40,
            steps=(2,),
            budget_s=0,
            min_rounds=1,
            released=False,
            names=("static", "compiled"),
        )
        (left_out,) = [row for row in rows if "compiled" in row["name"]]
        assert left_out["name"] == "compiled" and "ms_median" not in left_out
        assert left_out["note"].startswith("not run: 'compiled' did not run. ") and "no compiler" in left_out["note"]


def test_a_model_in_training_mode_is_not_timed_as_a_fast_implementation(model):
    model.train()
    try:
        with pytest.raises(NotAvailableError, match="'static' did not run. Is the model in training mode"):
            embed_with(model, random_batch(model, 1, 40), "static", 2)
    finally:
        model.eval()


def test_a_batch_over_the_memory_limit_has_rows_that_say_so(model, monkeypatch):
    monkeypatch.setattr(rollout_plume, "CPU_MEMORY_LIMIT", 1000)
    names = ("reference", "static")
    rows = rollout_rows(model, MACHINE, 1, 40, steps=(1, 2), budget_s=0, min_rounds=1, released=False, names=names)
    timed = [row["name"] for row in rows if "ms_median" in row]
    left_out = {row["name"]: row for row in rows if "ms_median" not in row}
    assert timed == ["single pass", "reference"]
    assert list(left_out) == ["static", "static, K = 1", "static, weights by column"]
    assert [row["steps"] for row in left_out.values()] == [2, 1, 2]
    assert all("above memory_limit" in row["note"] for row in left_out.values())
    rows = {row["name"]: row for row in cot_rows(model, 1, 40, measured_tokens=2, caches=("growing",), steps=2)}
    assert rows["explicit CoT, growing cache"]["ratio_to_single_pass"] > 1
    assert rows["explicit CoT, growing cache"]["times_ours"] is None
    for name in ("static", "explicit CoT at the speed of our steps"):
        assert "ms_median" not in rows[name] and "above memory_limit" in rows[name]["note"]
    assert "not run" in table(list(rows.values()))


def test_chain_of_thought_is_scaled_up_only_where_it_was_cut_and_says_so(model):
    rows = {row["name"]: row for row in cot_rows(model, 1, 40, measured_tokens=5, caches=("growing",))}
    explicit = rows["explicit CoT, growing cache"]
    assert explicit["tokens"] == 403 and explicit["tokens_measured"] == 5 and "from 5 tokens" in explicit["note"]
    assert explicit["times_ours"] > 10
    assert rows["explicit CoT at the speed of our steps"]["note"] == "estimate"


def test_steps_that_cannot_be_told_from_the_rest_give_no_estimate_of_a_chain_of_thought(model, monkeypatch):
    def timed(cases, *settings, **named):
        if set(cases) == {"4", "8"}:
            return {"4": Timing([5.0, 6.0, 5.0]), "8": Timing([6.0, 5.9, 7.0])}
        return interleaved(cases, *settings, **named)

    monkeypatch.setattr(rollout, "interleaved", timed)
    *_, row = cot_rows(model, 1, 40, measured_tokens=5, caches=("growing",))
    assert row["note"].startswith("no estimate") and "ms_median" not in row and "times_ours" not in row


def test_the_work_is_every_weight_and_the_cache_once_a_pass_and_the_limit_the_slower_of_both(model):
    layers, adapter = (
        sum(p.numel() for p in part.parameters()) for part in (model.backbone.language_model.layers, model.adapter)
    )
    entry, attended = 2 * 2 * 2 * 16, 4 * 2 * 4 * 16  # two layers, two key heads and four heads of 16
    passes = rollout_passes(model, 40, 2)
    assert passes == [Pass(1, 40, True), Pass(6, 41, True)]
    found = work(model, 3, passes, MACHINE)
    assert found.bytes == 4 * (2 * (layers + adapter) + 3 * entry * (40 + 41))
    keys = (40 + 1) + (6 * 41 + 21)
    assert found.flops == 3 * (2 * (7 * layers + 2 * adapter) + attended * keys)
    assert found.limit_ms == pytest.approx(1000 * found.bytes / 1e9)
    slow = work(model, 3, passes, Machine(bytes_per_s=1e15, flops_per_s=1e9))
    assert slow.limit_ms == pytest.approx(1000 * found.flops / 1e9)


def test_a_machine_reads_and_multiplies():
    machine = measure_machine(CPU, torch.float32, budget_s=0)
    assert 1e8 < machine.bytes_per_s < 1e13 and 1e8 < machine.flops_per_s < 1e15


def test_rounds_end_once_ratios_are_certain_and_rows_say_where_they_are_not(model):
    one, alike, wild = Timing([10.0] * 9), Timing([20.0, 20.2, 19.9] * 3), Timing([10.0, 30.0, 90.0] * 3)
    assert alike.ratio_uncertainty(one) < STEADY < wild.ratio_uncertainty(one)
    assert math.isinf(Timing([20.0] * (LEAST_ROUNDS - 1)).ratio_uncertainty(one))
    assert Timing([20.0] * LEAST_ROUNDS).ratio_uncertainty(one) == 0
    timings = {"single pass": one, "alike": alike, "wild": wild, "few": Timing([20.0] * 3)}
    notes = {name: row(name, each, timings, "single pass", {"batch": 1}).get("note") for name, each in timings.items()}
    assert notes["alike"] is None and notes["wild"].startswith("not steady")
    assert notes["few"] == "too few rounds to be certain" and notes["single pass"] is None
    instant = interleaved({"a": lambda: None}, CPU, budget_s=60, min_rounds=3, steady_against="a")
    assert len(instant["a"].times) == LEAST_STEADY_ROUNDS


def covers(times: list[float], true: float) -> bool:
    """Whether the interval of the median of `times` holds the median of where they come from."""
    timing, one = Timing(times), Timing([1.0] * len(times))
    return abs(timing.ratio_to(one) - true) <= timing.ratio_uncertainty(one) * timing.ratio_to(one) + 1e-12


@pytest.mark.parametrize("count", [6, 7, 10, 20, 60])
def test_the_interval_of_a_ratio_holds_its_median_in_95_of_100_runs(count):
    rng = random.Random(count)
    even = [covers([math.exp(rng.gauss(0, 0.06)) for _ in range(count)], 1) for _ in range(1000)]
    # Nothing makes a run quicker than it is, much makes it slower.
    skewed = [covers([1 + 0.1 * rng.expovariate(1) for _ in range(count)], 1 + 0.1 * math.log(2)) for _ in range(1000)]
    assert sum(even) >= 940 and sum(skewed) >= 940


@pytest.mark.parametrize("noise", [0.03, 0.06])
def test_a_run_that_ends_once_its_ratio_is_certain_has_an_interval_that_holds(noise):
    rng, held = random.Random(0), []
    for _ in range(300):
        timings = {"one": Timing(), "other": Timing()}
        while len(timings["one"].times) < 60 and not _all_steady(timings, "one"):
            timings["one"].times.append(10.0)
            timings["other"].times.append(10 * math.exp(rng.gauss(0, noise)))
        held.append(covers([time / 10 for time in timings["other"].times], 1))
    assert sum(held) >= 282  # 94 %


def test_the_looped_adapter_gives_what_the_batched_one_gives(model):
    from plume_embed.bench.released_style import looped_experts

    z, anchor = torch.randn(9, 64), torch.randn(9, 64)
    with torch.no_grad():
        refined, probs = model.adapter(z, anchor, z, 3)
        looped = z + looped_experts(model.adapter, model.adapter.layer_norm(z), probs)
    torch.testing.assert_close(looped, refined, atol=1e-5, rtol=0)
    rows = adapter_rows(model, (1, 3), budget_s=0)
    assert [row["batch"] for row in rows] == [1, 1, 3, 3]


def test_the_gpu_suite_runs_all_parts_in_small_on_a_cpu_and_writes_equal_rows(tmp_path, monkeypatch, capsys):
    # Compiling is test_rollout.py's.
    monkeypatch.setattr("plume_embed.bench.rollout.CPU_IMPLEMENTATIONS", ("reference", "static"))
    code = gpu_suite.main(["--out", str(tmp_path), "--device", "cpu", "--small"])
    report = json.loads((tmp_path / f"{slug(environment(CPU)['device'])}.json").read_text())
    assert code == 0, report["failed"]
    assert report["failed"] == []
    equal = [row for name in report["parts"] if "equality" in name for row in report["parts"][name]["rows"]]
    assert {row["dtype"] for row in equal} == {"torch.float32", "torch.bfloat16"} and all(row["equal"] for row in equal)
    conditions = {"device", "versions", "commit", "clock", "read_gigabytes_per_s"}
    assert all(conditions <= set(part["conditions"]) and part["seconds"] > 0 for part in report["parts"].values())
    kernels = report["parts"]["kernels, batch 2"]["rows"]
    assert kernels[0]["name"] == "all kernels" and kernels[0]["ms"] > kernels[1]["ms"] > kernels[2]["ms"] > 0
    assert "packed attention, matmul" in capsys.readouterr().out
    assert gpu_suite.main(["--out", str(tmp_path), "--device", "cpu", "--small", "--only", "adapter,attention"]) == 0
    again = json.loads((tmp_path / f"{slug(environment(CPU)['device'])}.json").read_text())["parts"]
    assert list(again) == list(report["parts"])
    assert {name for name in again if again[name] != report["parts"][name]} == {"adapter", "attention"}


def test_a_part_that_fails_costs_neither_the_others_nor_the_exit_code(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("out of memory")

    plan = [("broken", broken), ("good", lambda: [{"name": "x", "batch": 1}])]
    monkeypatch.setattr(gpu_suite, "parts", lambda device, small, machine: plan)
    assert gpu_suite.main(["--out", str(tmp_path), "--device", "cpu"]) == 1
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["failed"] == [{"name": "broken", "error": "RuntimeError: out of memory"}]
    assert {name: part["rows"] for name, part in report["parts"].items()} == {"good": [{"name": "x", "batch": 1}]}


def test_a_part_that_there_is_not_is_refused_with_the_list_and_a_part_is_stamped_when_it_ends(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(gpu_suite, "environment", lambda device: {"device": "cpu", "finished": "at the start"})
    monkeypatch.setattr(gpu_suite, "now", lambda: "at the end")
    monkeypatch.setattr(gpu_suite, "measure_machine", lambda *_: SimpleNamespace(conditions=dict))
    monkeypatch.setattr(gpu_suite, "parts", lambda *_: [("adapter", lambda: [{"name": "x", "batch": 1}])])
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--only"]
    assert gpu_suite.main([*arguments, "adap"]) == 0
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["parts"]["adapter"]["conditions"]["finished"] == "at the end"
    with pytest.raises(SystemExit) as end:
        gpu_suite.main([*arguments, "adapter,TYPO"])
    assert end.value.code == 2 and "no part begins with 'TYPO'; there are adapter" in capsys.readouterr().err


class TestCommands:
    def run(self, *arguments):
        return CliRunner().invoke(app, list(arguments))

    def test_rollout_prints_the_table_and_writes_its_json(self, tmp_path, monkeypatch):
        monkeypatch.setattr("plume_embed.bench.rollout.CPU_IMPLEMENTATIONS", ("reference", "static"))
        file = tmp_path / "deep" / "rollout.json"
        options = ["--shape", "test", "--prefix", "40", "--batches", "1,2", "--device", "cpu"]
        result = self.run("rollout", *options, "--minutes", "0.1", "--no-cot", "--json", str(file))
        assert result.exit_code == 0, result.output
        assert "ratio_to_single_pass" in result.output
        report = json.loads(file.read_text())
        assert report["clock"] == "process CPU time" and report["threads"] == 1 and report["shape"] == "test"
        assert {row["batch"] for row in report["rows"]} == {1, 2}
        assert report["read_gigabytes_per_s"] > 0 and report["matrix_gigaflops_per_s"] > 0
        assert "times_limit" in result.output

    def test_adapter_and_help(self):
        result = self.run("adapter", "--shape", "test", "--batches", "1", "--device", "cpu")
        assert result.exit_code == 0 and "adapter looped" in result.output and "ratio_to_batched" in result.output
        for command in ("rollout", "encode", "adapter"):
            assert "Example: plume-embed bench" in self.run(command, "--help").output

    def test_encode_says_that_it_measures_by_the_clock(self, tmp_path, released_model_dir, monkeypatch):
        rows = [{"name": "model", "batch": 1, "ms_median": 1.0}]
        monkeypatch.setattr("plume_embed.bench.encode.encode_rows", lambda *args, **options: rows)
        monkeypatch.setattr("plume_embed.bench.encode.padding_rows", lambda *args: [])
        file = tmp_path / "encode.json"
        result = self.run("encode", "--model", str(released_model_dir), "--device", "cpu", "--json", str(file))
        assert result.exit_code == 0 and "clock: wall time" in result.output
        assert json.loads(file.read_text())["clock"] == "wall time"

    @pytest.mark.parametrize("options", [("--batches", "1,x"), ("--shape", "7b"), ("--batches", "0")])
    def test_a_wrong_option_is_an_expected_error(self, options):
        result = self.run("rollout", "--device", "cpu", *options)
        assert isinstance(result.exception, ValueError)

    @pytest.mark.parametrize("command", ["rollout", "encode", "adapter"])
    def test_threads_of_a_cpu_are_refused_on_another_device(self, command, monkeypatch):
        monkeypatch.setattr("plume_embed.encode.encoder.checked_device", lambda device: torch.device("meta"))
        result = self.run(command, "--threads", "1")
        assert isinstance(result.exception, ValueError)
        assert "--threads is of a CPU, and this runs on meta; leave it out" in str(result.exception)

    @pytest.mark.parametrize("command", ["rollout", "encode", "adapter"])
    def test_a_device_that_is_not_there_is_an_expected_error(self, command):
        result = self.run(command, "--device", "foo")
        assert isinstance(result.exception, ValueError) and "No such device: 'foo'" in str(result.exception)

    def test_items_to_encode_are_of_their_kind(self):
        text, image, video = example_items("mixed", 3)
        assert isinstance(text, str) and image.size[0] >= 320 and len(video["video"]) == 8
