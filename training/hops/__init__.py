"""`hops` and `hops_mixed`: state tracking, which needs serial computation."""

from pathlib import Path

HOPS = str(Path(__file__).parent / "hops.yaml")
HOPS_MIXED = str(Path(__file__).parent / "hops_mixed.yaml")
