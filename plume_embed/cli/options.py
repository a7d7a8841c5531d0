"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from plume_embed.encode.batching import BATCH_SIZE as BATCH_SIZE


def named(value: str) -> str:
    """Refuses an empty name, as of an unset variable of the shell: a Path of it would be the current folder."""
    if not value:
        raise typer.BadParameter("the name is empty, as where a variable of the shell is not set; give one.")
    return value


def named_folder(value: str) -> Path:
    """[`named`], as a path."""
    return Path(named(value))


ModelOption = Annotated[
    str | None,
    typer.Option(help="Model folder or Hub id. Default: $PLUME_MODEL, then the bundled plume-small.", metavar="DIR|ID"),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        help="Embed by a running `plume-embed serve` instead of loading a model here; it gets $PLUME_API_KEY.",
        metavar="URL",
    ),
]
StepsOption = Annotated[
    int | None, typer.Option(min=0, help="K, the latent steps; 0 is a single pass. Default: the model's own.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Most items per pass; lower it if you run out of memory.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: cuda where there is one.")]
DtypeOption = Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")]
PixelsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most pixels of a picture or a film's frame; a larger one is refused before it is decoded. Default: the "
        "model's own, 100 million. With --verify what was refused before is tried again.",
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="Folder of the index, or s3://, gs:// or az:// address. Default: .plume-index in FOLDER, or in the folder "
        "above it that is indexed.",
        metavar="DB",
        parser=named,
    ),
]
FolderArgument = Annotated[
    Path,
    typer.Argument(help="Folder with texts, pictures, videos and PDFs.", metavar="FOLDER", parser=named_folder),
]
# How an index is updated.
AlsoOption = Annotated[
    list[Path] | None,
    typer.Option("--also", help="Another folder in the same index; repeatable.", metavar="FOLDER", parser=named_folder),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave out what matches, in the syntax of .gitignore; repeatable. The index remembers it and drops what "
        "matches; '' brings it back. A file .plumeignore does the same.",
        metavar="PATTERN",
    ),
]
PruneOption = Annotated[
    bool,
    typer.Option(
        "--prune", help="Remove missing files from the index even if none are left. Only if no drive is unmounted."
    ),
]
MovedOption = Annotated[bool, typer.Option("--moved", help="FOLDER was indexed under another path: keep its vectors.")]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify", help="Read every file, also those with the same size and date, and retry unreadable ones."
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        help="List all unreadable files, files of other types and links not followed. Default: newly unreadable ones.",
    ),
]


OutArgument = Annotated[
    Path,
    typer.Argument(help="Where to write; a folder that is new or empty.", metavar="OUT_DIR", parser=named_folder),
]

# Options of evaluations.
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="PLUME model folder or Hub id; repeatable. DIR@0,8 scores it with several K. Default: $PLUME_MODEL, then "
        "plume-small.",
        metavar="DIR|ID[@STEPS]",
    ),
]
PeersOption = Annotated[
    list[str] | None,
    typer.Option(help="Another model of sentence-transformers to compare with; repeatable.", metavar="DIR|ID"),
]
ParadigmOption = Annotated[
    str,
    typer.Option(
        help="latent (K steps), single (one pass), cot (explicit rationale), or read elsewhere: anchor, state (z(K))."
    ),
]
MaxNewTokensOption = Annotated[int | None, typer.Option(min=1, help="Most tokens of a rationale (cot). Default: 512.")]
ResamplesOption = Annotated[int, typer.Option(min=1, help="Bootstrap samples for the intervals.")]
TrustCodeOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let a --peer run code from its own folder.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.", metavar="FILE")]
