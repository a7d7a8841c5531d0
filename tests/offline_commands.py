"""Run by test_network.py in a fresh process: every command in turn, with every socket to another machine blocked."""

import json
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path
from unittest import mock

ATTEMPTS: list[str] = []


def blocked(*arguments, **options):
    """Stands in for what would leave the machine; notes who asked."""
    address = arguments[1] if len(arguments) > 1 and isinstance(arguments[0], socket.socket) else arguments[0]
    is_local = isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX
    if not is_local:
        ATTEMPTS.append(f"{address}: " + " < ".join(frame.name for frame in traceback.extract_stack()[-12:-1][::-1]))
    raise OSError("the test has no network")


def commands(root: Path, work: Path) -> list[list[str]]:
    """Each command of `plume-embed` over local files, as a user would type it without any Hub id."""
    fixtures, picture = root / "tests/fixtures", str(next((root / "examples/pictures").glob("*.png")))
    lines = [{"id": "a", "text": "a red car"}, {"id": "b", "image": picture}]
    (work / "rows.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (work / "folder").mkdir()
    (work / "folder/note.txt").write_text("a red car")
    shutil.copytree(fixtures / "mmeb_v2", work / "mmeb")
    backbone(work)
    model, mirror = f"--model {work}/model", f"--hub-dir {work}/mmeb/hub --media-dir {work}/mmeb/data_basedir"
    short = "curriculum.max_steps=5 curriculum.shares=[1,1,1,1,1] batch_size=6 workers=0".replace(" ", " --set ")
    lines = f"""
        convert {fixtures}/released_layout_tiny/checkpoint {work}/model
        index {work}/folder --to {work}/index {model}
        search {work}/folder red --to {work}/index {model}
        embed {work}/rows.jsonl --to {work}/rows.parquet {model}
        init {work}/backbone {work}/fresh
        export {work}/exported {model}
        evaluate mmeb-v2 {mirror} --tasks RefCOCO-Matching {model} --out {work}/scores
        train {root}/training/hops/hops.yaml --set output_dir={work}/run --set {short}
        report {work}/run
        bench adapter --shape 12x512 --batches 1
    """
    return [line.split() for line in lines.strip().splitlines()]


def backbone(work: Path) -> None:
    """A small Qwen2-VL with random weights, in a folder as the Hub has them."""
    from training.plume_tiny.backbone import write_backbone

    sizes = {"hidden_size": 64, "layers": 1, "intermediate_size": 64, "vision_size": 32, "vision_depth": 1}
    sizes["initializer_range"] = 0.05
    write_backbone(work / "backbone", ["some words for a tokenizer"] * 3, 420, **sizes)


def main(root: Path, work: Path) -> None:
    import torch

    from plume_embed.cli.main import main as plume_embed

    torch.set_num_threads(1)
    report = {}
    for command in commands(root, work):
        ATTEMPTS.clear()
        try:
            plume_embed(command)
        except SystemExit as stop:
            report[" ".join(command[:2])] = {"code": stop.code, "attempts": list(ATTEMPTS)}
    ATTEMPTS.clear()
    try:
        plume_embed(["search", str(work / "folder"), "red", "--to", str(work / "other"), "--model", "someone/plume"])
    except SystemExit as stop:
        report["a model of the Hub"] = {"code": stop.code, "attempts": list(ATTEMPTS)}
    (work / "report.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    os.environ.pop("HF_HUB_OFFLINE", None)
    names = ("connect", "connect_ex", "sendto")
    patches = [mock.patch.object(socket.socket, name, blocked) for name in names]
    patches += [mock.patch.object(socket, name, blocked) for name in ("getaddrinfo", "gethostbyname")]
    for patch in patches:
        patch.start()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
