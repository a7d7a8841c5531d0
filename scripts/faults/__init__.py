"""What `scripts.kills` and `scripts.soak` do to the package: kills, full and read-only disks, company."""
