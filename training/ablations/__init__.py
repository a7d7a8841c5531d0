"""The paper's tables 3 to 6 with paired seeds, on `hops`, `hops_mixed` and `scene_hops`."""
