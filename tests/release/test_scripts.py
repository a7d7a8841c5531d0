"""Facts about scripts/ that need no network."""

import re
import tomllib

from scripts import licences, matrix


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
