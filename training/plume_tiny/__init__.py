"""The making of plume-tiny, and plume-tiny by four paradigms."""

from pathlib import Path

TINY = str(Path(__file__).parent / "tiny.yaml")
TINY_MORE = str(Path(__file__).parent / "tiny_more.yaml")
