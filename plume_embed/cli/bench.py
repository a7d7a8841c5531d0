"""`plume-embed bench rollout | encode | adapter`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import DeviceOption, JsonOption, ModelOption
from plume_embed.outputs import check_output

app = typer.Typer(
    name="bench", help="Measure the speed on this machine, side by side in one run.", no_args_is_help=True
)

_Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads on a CPU. With one, process CPU time is measured, but by encode. Default: 1."),
]
_Shape = Annotated[
    str | None,
    typer.Option(help="Backbone: 12x512 (layers x width), or 2b as Qwen2-VL-2B. Default: 12x512, or 2b on CUDA."),
]
_Batches = Annotated[str, typer.Option(help="Batch sizes, separated by commas.")]
_Family = Annotated[
    str, typer.Option(help="Kind of backbone: qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe or fast_vlm.")
]


@app.command(epilog="Example: plume-embed bench rollout --batches 1,8 --json rollout.json")
def rollout(
    shape: _Shape = None,
    prefix: Annotated[
        int | None, typer.Option(min=16, help="Tokens of the prefix. Default: 256, or 700 on CUDA.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="text, image or video. Default: text, or image on CUDA.")] = None,
    batches: _Batches = "1,8,32",
    family: _Family = "qwen2_vl",
    cot: Annotated[bool, typer.Option(help="Whether to time explicit rationales, the slowest part.")] = True,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Approximate duration, without rationales and compiling.")
    ] = 6,
    json_file: JsonOption = None,
    device: DeviceOption = None,
    threads: _Threads = None,
) -> None:
    """The rollout against a single pass, the released style and explicit chain of thought, on random weights."""
    check_output(json_file, "--json")
    with heavy_imports():
        import torch

        from plume_embed.bench.inputs import KINDS, SHAPES, random_model
        from plume_embed.bench.limits import measure_machine
        from plume_embed.bench.rollout import cot_rows, rollout_rows

    where = _device(device, threads)
    on_cuda = where.type == "cuda"
    shape, kind = shape or ("2b" if on_cuda else "12x512"), kind or ("image" if on_cuda else "text")
    if shape not in SHAPES or kind not in KINDS:
        raise ValueError(f"--shape must be one of {', '.join(SHAPES)} and --kind one of {', '.join(KINDS)}.")
    prefix = prefix or (700 if on_cuda else 256)
    sizes = _sizes(batches)
    model = random_model(shape, str(where), _dtype(where), family=family)
    machine = measure_machine(where, _dtype(where))
    speeds = ", ".join(f"{name}: {value:.1f}" for name, value in machine.conditions().items())
    typer.echo(f"threads: {torch.get_num_threads()}, {speeds}", err=True)
    rows = []
    for batch in sizes:
        typer.echo(f"batch {batch} ...", err=True)
        small = batch < 32 or on_cuda
        rows += rollout_rows(
            model,
            machine,
            batch,
            prefix,
            kind,
            steps=(4, 6, 8) if small else (8,),
            budget_s=60 * minutes / len(sizes) / 2,
            min_rounds=3 if small else 2,
            released=small,
        )
        if cot and small:
            rows += cot_rows(model, batch, prefix, kind, measured_tokens=403 if batch == 1 or on_cuda else 48)
    about = {"benchmark": "rollout", "shape": shape, "family": family, **machine.conditions()}
    _finish(about, rows, where, json_file)


@app.command(epilog="Example: plume-embed bench encode --model checkpoints/plume-tiny --batches 1,16")
def encode(
    model: ModelOption = None,
    batches: _Batches = "1,8,32",
    json_file: JsonOption = None,
    device: DeviceOption = None,
    threads: _Threads = None,
) -> None:
    """Items to vectors with a real model: time of the processor, of the model, and of both overlapped."""
    check_output(json_file, "--json")
    with heavy_imports():
        from plume_embed.bench.encode import encode_rows, padding_rows
        from plume_embed.encode.encoder import Encoder

    sizes, where = tuple(_sizes(batches)), _device(device, threads)
    encoder = Encoder(model, device=str(where))
    rows = encode_rows(encoder, batches=sizes) + padding_rows(encoder)
    _finish({"benchmark": "encode", "model": encoder.folder.name}, rows, where, json_file, clock="wall")


@app.command(epilog="Example: plume-embed bench adapter --shape 2b --batches 1,32")
def adapter(
    shape: _Shape = None,
    batches: _Batches = "1,8,32",
    json_file: JsonOption = None,
    device: DeviceOption = None,
    threads: _Threads = None,
) -> None:
    """The adapter as two batched products against a loop over the experts."""
    check_output(json_file, "--json")
    with heavy_imports():
        from plume_embed.bench.adapter import adapter_rows
        from plume_embed.bench.inputs import SHAPES, random_model

    sizes, where = tuple(_sizes(batches)), _device(device, threads)
    shape = shape or ("2b" if where.type == "cuda" else "12x512")
    if shape not in SHAPES:
        raise ValueError(f"--shape must be one of {', '.join(SHAPES)}.")
    rows = adapter_rows(random_model(shape, str(where), _dtype(where)), sizes)
    _finish({"benchmark": "adapter", "shape": shape}, rows, where, json_file)


def _device(device: str | None, threads: int | None):
    import torch

    from plume_embed.encode.encoder import checked_device

    where = checked_device(device)
    if where.type == "cpu":
        torch.set_num_threads(threads or 1)
    elif threads is not None:
        raise ValueError(f"--threads is of a CPU, and this runs on {where}; leave it out, or add --device cpu.")
    return where


def _dtype(device):
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ValueError(f"--batches takes whole numbers with commas between, like 1,8,32, got {text!r}.")
    return sizes


def _finish(
    about: dict[str, Any], rows: list[dict[str, Any]], device, json_file: Path | None, clock: str | None = None
) -> None:
    from plume_embed.atomic import write_json
    from plume_embed.bench.report import environment, table

    conditions = {**about, **environment(device, clock)}
    print(table(rows))
    print("\n" + ", ".join(f"{name}: {value}" for name, value in conditions.items()))
    if json_file is not None:
        write_json(json_file, {**conditions, "rows": rows})
