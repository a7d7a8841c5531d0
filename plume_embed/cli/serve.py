"""`plume-embed serve`."""

from typing import Annotated

import typer

from plume_embed.cli.console import make_console
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports, load_encoder
from plume_embed.cli.options import BATCH_SIZE, BatchOption, DeviceOption, DtypeOption, ModelOption


@extra("serve")
def serve(
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="By which clients call the model. Default: its folder's name or Hub id.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Fetch pictures and films from this host; repeatable.", metavar="HOST[:PORT]"),
    ] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a request.")] = 64,
    max_items: Annotated[int, typer.Option(min=1, help="Items of a request.")] = 512,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Items that may wait, of all clients; beyond it they are told to come again.")
    ] = 2048,
    max_image_mp: Annotated[
        int | None,
        typer.Option(min=1, help="Megapixels of a picture or a film's frame. Default: the model's own, at most 100."),
    ] = None,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds for a request.")] = 60,
    stop_timeout: Annotated[int, typer.Option(min=1, help="Seconds that a stop waits for requests.")] = 30,
    token_budget: Annotated[
        int | None, typer.Option(min=1, help="Most tokens per pass, visual ones and padding included. Default: 16384.")
    ] = None,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
) -> None:
    """Serve the model over HTTP, as OpenAI's and vLLM's clients ask: POST /v1/embeddings.

    Requests of all clients are batched together. With PLUME_API_KEY set, clients must send that key. Ctrl-C or SIGTERM
    finishes what is there and ends.
    """
    with heavy_imports("Loading the model"):
        from plume_embed.encode.batching import TOKEN_BUDGET
        from plume_embed.model.images_plume import MAX_PIXELS
        from plume_embed.serve.app import create_app, served_name
        from plume_embed.serve.run import run
        from plume_embed.serve.settings import API_KEY_VARIABLE, MEGABYTE, Limits, api_key

        encoder = load_encoder(model, device, dtype)
        own = min(encoder.processor.max_image_pixels, MAX_PIXELS)
        encoder.processor.max_image_pixels = own if max_image_mp is None else max_image_mp * 1_000_000
    limits = Limits(
        body_bytes=max_body_mb * MEGABYTE,
        items=max_items,
        queue_items=max_queue,
        request_seconds=timeout,
        batch_size=batch_size,
        token_budget=token_budget or TOKEN_BUDGET,
        stop_seconds=stop_timeout,
    )
    console, key = make_console(), api_key()
    if key is None and host not in ("127.0.0.1", "::1", "localhost"):
        console.print(f"No API key is asked for, and other machines reach {host}: set {API_KEY_VARIABLE}.")
    app = create_app(encoder, limits, name, frozenset(allow_host or ()), key)

    def started(address: str) -> None:
        console.print(f"{name or served_name(encoder)} at {address}/v1 (Ctrl-C stops)")

    run(app, host, port, limits.stop_seconds, started)
