"""What a corpus of pictures costs on GPUs: arithmetic, and a simulation that checks it. `python -m scripts.scale_plan`

Nothing of a GPU here was measured. The model's time is what its floating-point operations and its weights take at the
limits of an H200, divided by an efficiency that is assumed. What the CPU does for a picture, and the CPU time of
building an index, are measured (benchmarks/results). Prices, sizes and lives of nodes are assumptions: all are options.
"""

import json
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.atomic import write_json
from scripts.scale_simulation import Cluster, simulate

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "scale_plan.json"
ITEMS = (10**6, 10**8, 10**10)
CHUNK = 128  # rows, as the engine has them
SEEDS = 20  # with one GPU in fifty slow, most runs on eight have no straggler
GB, HOUR, MONTH_HOURS = 1e9, 3600.0, 730.0


@dataclass(frozen=True)
class Gpu:
    """Limits of one H200 and the shape of Qwen2-VL-2B, in bfloat16.

    Args:
        flops (`float`): A second.
        bytes_a_second (`float`): Of its memory.
        language_parameters (`float`): That every token passes; the embedding table and the LM head are not among them.
        vision_parameters (`float`): That every patch passes.
        tokens, visual_tokens (`int`): Of a picture's row; four patches make a visual token.
        steps, suffix (`int`): K latent steps, and passes after them.
        cache_bytes (`float`): Keys and values of a token.
    """

    flops: float = 790e12
    bytes_a_second: float = 4.3e12
    language_parameters: float = 1.31e9
    vision_parameters: float = 0.665e9
    tokens: int = 700
    visual_tokens: int = 480
    steps: int = 8
    suffix: int = 1
    cache_bytes: float = 28 * 1024
    vision_layers: int = 32
    vision_width: int = 1280

    def prefix_seconds(self, batch: int) -> float:
        """The single pass: bound by computing."""
        patches = 4 * self.visual_tokens
        attention = 4 * self.vision_layers * self.vision_width * patches**2
        operations = 2 * (self.language_parameters * self.tokens + self.vision_parameters * patches) + attention
        return batch * operations / self.flops

    def rollout_seconds(self, batch: int) -> float:
        """The passes after the prefix: bound by reading the weights and the cache, however many rows there are."""
        passes = self.steps + self.suffix
        read = 2 * self.language_parameters + batch * self.tokens * self.cache_bytes
        return passes * read / self.bytes_a_second

    def overhead(self, batch: int) -> float:
        """Time with the rollout over that of a single pass."""
        return 1 + self.rollout_seconds(batch) / self.prefix_seconds(batch)

    def seconds_a_picture(self, batch: int) -> float:
        """At the limits of the hardware."""
        return (self.prefix_seconds(batch) + self.rollout_seconds(batch)) / batch


@dataclass(frozen=True)
class Plan:
    """Assumptions, in the units that people speak of. The defaults are round figures, not offers of anyone.

    Args:
        efficiency (`float`): Of the limits of a GPU that a real run reaches.
        batch (`int`): Pictures in a pass.
        cpu_ms, photograph_cpu_ms (`float`): One core for a picture of one megapixel, and for one of 12: decode, resize,
            cut into patches.
        picture_kb (`float`): As stored.
        dimension (`int`): D.
        index_cpu_s (`float`): One core to build an ANN index over a million vectors.
        gpus_per_node, cores_per_node (`int`), node_gbit (`float`): A node, and its network.
        gpu_hour, core_hour, gb_month (`float`): Dollars.
        slow_share, slow_factor (`float`): Stragglers, see [`Cluster`].
        node_days (`float`): Mean life of a node.
        return_minutes (`float`): Until another one is there with the model loaded.
    """

    efficiency: float = 0.4
    batch: int = 32
    cpu_ms: float = 0.0
    photograph_cpu_ms: float = 0.0
    picture_kb: float = 300.0
    dimension: int = 1536
    index_cpu_s: float = 0.0
    gpus_per_node: int = 8
    cores_per_node: int = 128
    node_gbit: float = 25.0
    gpu_hour: float = 3.5
    core_hour: float = 0.04
    gb_month: float = 0.023
    slow_share: float = 0.02
    slow_factor: float = 1.5
    node_days: float = 20.0
    return_minutes: float = 15.0

    @property
    def a_second(self) -> float:
        """Pictures of one GPU."""
        return self.efficiency / Gpu().seconds_a_picture(self.batch)


def gpus_for(items: int) -> int:
    """A choice that keeps a run within days: one node for a million, 64 nodes for ten thousand millions."""
    return {10**6: 8, 10**8: 32}.get(items, 512)


def shard_chunks(items: int) -> int:
    """Chunks of a shard: --shard-rows 4096, and 65,536 where there would be millions of files."""
    return 32 if items <= 10**8 else 512


def measured() -> dict[str, float]:
    """What benchmarks of this repository say: CPU of pictures of one and of 12 megapixels, of an index of a million."""
    results = ROOT / "benchmarks" / "results"
    cpu = json.loads((results / "picture_cpu.json").read_text())["cpu_ms"]
    ann = json.loads((results / "ann.json").read_text())
    index = ann["variants"]["binary"]["build_cpu_seconds"] * 1e6 / ann["rows"]

    def spent(megapixels: str) -> float:
        return round(sum(cpu[megapixels][step]["median"] for step in ("decode", "resize and patches")), 1)

    return {
        "cpu_ms": spent("1"),
        "photograph_cpu_ms": spent("12"),
        "index_cpu_s": round(index),
    }


def row(plan: Plan, items: int) -> dict[str, float]:
    """Time and cost of a corpus, by arithmetic alone: nothing waits, nothing dies."""
    gpus = gpus_for(items)
    gpu_hours = items / plan.a_second / HOUR
    cpu_hours = items * plan.cpu_ms / 1000 / HOUR
    index_hours = items / 1e6 * plan.index_cpu_s / HOUR
    size = 4 * plan.dimension * items / GB
    return {
        "items": items,
        "gpus": gpus,
        "gpu_hours": gpu_hours,
        "hours": gpu_hours / gpus,
        "gpu_dollars": gpu_hours * plan.gpu_hour,
        "read_tb": items * plan.picture_kb * 1000 / 1e12,
        "decode_core_hours": cpu_hours,
        "vectors_gb": size,
        "binary_gb": size / 32,
        "index_core_hours": index_hours,
        "index_dollars": index_hours * plan.core_hour,
        "storage_dollars_a_month": size * plan.gb_month,
    }


def stages(plan: Plan) -> list[dict[str, Any]]:
    """What a node's stages could do alone, in pictures a second, and how far the models' pace fills them."""
    pace = plan.gpus_per_node * plan.a_second
    limits = {
        "the models": pace,
        "decoding, 1 megapixel": plan.cores_per_node * 1000 / plan.cpu_ms,
        "decoding, 12 megapixels": plan.cores_per_node * 1000 / plan.photograph_cpu_ms,
        "the network": plan.node_gbit * 1e9 / 8 / (plan.picture_kb * 1000 + 4 * plan.dimension),
    }
    return [{"stage": name, "a_second": limit, "filled": pace / limit} for name, limit in limits.items()]


def cluster_of(plan: Plan, items: int) -> Cluster:
    """The same assumptions, for the simulation."""
    return Cluster(
        workers=gpus_for(items),
        workers_per_node=plan.gpus_per_node,
        cores=plan.cores_per_node // plan.gpus_per_node,
        chunk_decode=CHUNK * plan.cpu_ms / 1000,
        chunk_model=CHUNK / plan.a_second,
        chunks_per_shard=shard_chunks(items),
        buffer=max(2, plan.cores_per_node // plan.gpus_per_node),
        decode_spread=0.5,
        slow_share=plan.slow_share,
        slow_factor=plan.slow_factor,
        node_mean_life=plan.node_days * 24 * HOUR,
        node_return=plan.return_minutes * 60,
    )


def scenarios(plan: Plan, items: int, seeds: int) -> Iterator[dict[str, Any]]:
    """The simulation beside the arithmetic, over so many seeds: first what it assumes, then what it leaves out."""
    full = cluster_of(plan, items)
    calm = replace(full, slow_share=0.0, node_mean_life=float("inf"), decode_spread=0.0)
    shards = math.ceil(items / (CHUNK * full.chunks_per_shard))
    cases = {
        "nothing waits or dies": calm,
        "stragglers": replace(calm, slow_share=full.slow_share),
        "nodes die": replace(calm, node_mean_life=full.node_mean_life),
        "all of it": full,
        "all of it, and one core to decode for a GPU": replace(full, cores=1),
    }
    expected = row(plan, items)["hours"] * HOUR
    for name, cluster in cases.items():
        found = [simulate(cluster, shards, seed) for seed in range(seeds)]
        yield {
            "items": items,
            "case": name,
            "stragglers": _spread(one.stragglers for one in found),
            "hours": statistics.mean(one.seconds for one in found) / HOUR,
            "over_arithmetic": _spread(one.seconds / expected for one in found),
            "busy": statistics.mean(one.busy for one in found),
            "deaths": statistics.mean(one.deaths for one in found),
            "lost_gpu_hours": statistics.mean(one.lost_seconds for one in found) / HOUR,
        }


def _spread(values: Iterable[float]) -> dict[str, float]:
    kept = list(values)
    return {"mean": statistics.mean(kept), "least": min(kept), "most": max(kept)}


def plan_table(result: dict[str, Any]) -> str:
    """Cost and time."""
    plan = result["assumptions"]
    lines = [
        "| pictures | GPU hours | on so many GPUs | hours | GPUs, dollars | vectors, float32 | binary codes "
        "| core hours to index | storage a month, dollars |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in result["rows"]:
        sizes = [_size(one["vectors_gb"]), _size(one["binary_gb"])]
        cells = [f"{one['items']:,}", _few(one["gpu_hours"]), f"{one['gpus']:,}", _few(one["hours"])]
        cells += [_few(one["gpu_dollars"]), *sizes, _few(one["index_core_hours"])]
        lines.append(f"| {' | '.join([*cells, _few(one['storage_dollars_a_month'])])} |")
    lines += [
        "",
        f"Assumed: {plan['efficiency']:.0%} of the limits of an H200, batches of {plan['batch']}, "
        f"${plan['gpu_hour']:g} a GPU hour, ${plan['gb_month']:g} a gigabyte and month, pictures of "
        f"{plan['picture_kb']:g} kB, {plan['dimension']:,} dimensions. That is {result['a_second']:.0f} pictures a "
        f"second and GPU. The K = 8 steps cost {result['overhead']['1']:.2f} times a single pass at batch 1, "
        f"{result['overhead']['8']:.2f} at 8, {result['overhead']['32']:.2f} at 32.",
    ]
    return "\n".join(lines)


def stages_table(result: dict[str, Any]) -> str:
    """Where each stage saturates."""
    plan = result["assumptions"]
    node = f"{plan['gpus_per_node']} GPUs, {plan['cores_per_node']} cores, {plan['node_gbit']:g} Gbit/s"
    lines = [f"| a node of {node} | pictures a second at most | filled at the models' pace |", "|---|---:|---:|"]
    lines += [f"| {one['stage']} | {one['a_second']:,.0f} | {one['filled']:.0%} |" for one in result["stages"]]
    return "\n".join(lines)


def simulation_table(result: dict[str, Any]) -> str:
    """The simulation beside the arithmetic."""
    lines = [
        "| pictures | simulated | stragglers | hours | over the arithmetic | models busy | nodes that died "
        "| GPU hours lost |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in result["simulated"]:
        stragglers, over = _shown(one["stragglers"], ".1f"), _shown(one["over_arithmetic"], ".2f")
        cells = [f"{one['items']:,}", one["case"], stragglers, _few(one["hours"]), over, f"{one['busy']:.0%}"]
        cells += [f"{one['deaths']:.1f}", f"{one['lost_gpu_hours']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Means of {result['seeds']} seeds, in brackets the least and the most."])


def _shown(spread: dict[str, float], form: str) -> str:
    """The mean of seeds, and where they differ the least and the most."""
    mean, least, most = (f"{spread[name]:{form}}".removesuffix(".0") for name in ("mean", "least", "most"))
    return mean if least == most else f"{mean} ({least} to {most})"


def _few(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _size(gigabytes: float) -> str:
    return f"{_few(gigabytes / 1000)} TB" if gigabytes >= 1000 else f"{_few(gigabytes)} GB"


def main(
    efficiency: Annotated[float, typer.Option(help="Of a GPU's limits.")] = Plan.efficiency,
    batch: Annotated[int, typer.Option(help="Pictures in a pass.")] = Plan.batch,
    cpu_ms: Annotated[float | None, typer.Option(help="One core for one picture. Default: measured.")] = None,
    index_cpu_s: Annotated[float | None, typer.Option(help="To index a million vectors. Default: measured.")] = None,
    picture_kb: Annotated[float, typer.Option(help="Of a picture as stored.")] = Plan.picture_kb,
    dimension: Annotated[int, typer.Option(help="D.")] = Plan.dimension,
    gpus_per_node: Annotated[int, typer.Option(help="Of a node.")] = Plan.gpus_per_node,
    cores_per_node: Annotated[int, typer.Option(help="Of a node.")] = Plan.cores_per_node,
    node_gbit: Annotated[float, typer.Option(help="Network of a node.")] = Plan.node_gbit,
    gpu_hour: Annotated[float, typer.Option(help="Dollars.")] = Plan.gpu_hour,
    core_hour: Annotated[float, typer.Option(help="Dollars.")] = Plan.core_hour,
    gb_month: Annotated[float, typer.Option(help="Dollars.")] = Plan.gb_month,
    slow_share: Annotated[float, typer.Option(help="Stragglers among the GPUs.")] = Plan.slow_share,
    slow_factor: Annotated[float, typer.Option(help="How much longer they take.")] = Plan.slow_factor,
    node_days: Annotated[float, typer.Option(help="Mean life of a node.")] = Plan.node_days,
    return_minutes: Annotated[float, typer.Option(help="Until a node is replaced.")] = Plan.return_minutes,
    seeds: Annotated[int, typer.Option(min=1, help="So many runs of the simulation.")] = SEEDS,
    to: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Prints the tables of docs/scale.md for these assumptions."""
    known = measured()
    plan = Plan(
        efficiency=efficiency,
        batch=batch,
        cpu_ms=known["cpu_ms"] if cpu_ms is None else cpu_ms,
        photograph_cpu_ms=known["photograph_cpu_ms"],
        picture_kb=picture_kb,
        dimension=dimension,
        index_cpu_s=known["index_cpu_s"] if index_cpu_s is None else index_cpu_s,
        gpus_per_node=gpus_per_node,
        cores_per_node=cores_per_node,
        node_gbit=node_gbit,
        gpu_hour=gpu_hour,
        core_hour=core_hour,
        gb_month=gb_month,
        slow_share=slow_share,
        slow_factor=slow_factor,
        node_days=node_days,
        return_minutes=return_minutes,
    )
    result = planned(plan, seeds)
    for table in (plan_table, stages_table, simulation_table):
        typer.echo(table(result) + "\n")
    if to:
        write_json(to, result)


def planned(plan: Plan, seeds: int = SEEDS, simulated: tuple[int, ...] = ITEMS) -> dict[str, Any]:
    """All figures, rounded to four digits."""
    gpu = Gpu()
    return _rounded(
        {
            "assumptions": asdict(plan),
            "seeds": seeds,
            "a_second": plan.a_second,
            "overhead": {str(batch): gpu.overhead(batch) for batch in (1, 8, 32)},
            "rows": [row(plan, items) for items in ITEMS],
            "stages": stages(plan),
            "simulated": [one for items in simulated for one in scenarios(plan, items, seeds)],
        }
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    typer.run(main)
