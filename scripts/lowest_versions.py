"""Prints the oldest releases that pyproject.toml admits, as constraints for pip.

    python scripts/lowest_versions.py train eval serve > lowest.txt
    python -m venv lowest && lowest/bin/python -m pip install -c lowest.txt -e '.[train,eval,serve]'

The arguments are the extras whose requirements count beside the package's own. A requirement that stands in several
places counts with its highest bound, as pip would have it.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(extras: list[str]) -> dict[str, Version]:
    """The lower bound of each requirement that has one and holds here, by its name."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    bounds: dict[str, Version] = {}
    for requirement in map(Requirement, wanted):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        for specifier in requirement.specifier:
            if specifier.operator in (">=", "=="):
                version = Version(specifier.version)
                bounds[requirement.name] = max(version, bounds.get(requirement.name, version))
    return bounds


if __name__ == "__main__":
    for name, version in sorted(lowest(sys.argv[1:]).items()):
        print(f"{name}=={version}")  # noqa: T201
