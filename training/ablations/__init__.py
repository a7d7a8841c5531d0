"""The paper's tables 3 to 6 with paired seeds, on `hops` and `hops_mixed`."""
