"""`scene_hops`: composed pictures and instructions that must be followed one step after another."""

from pathlib import Path

SCENE_HOPS = str(Path(__file__).parent / "scene_hops.yaml")
SCENE_BASE = str(Path(__file__).parent / "base.yaml")
CHECKPOINT = Path(__file__).parent / "checkpoint"  # what base.yaml made, which every run begins with
