"""The versions that images are built with: those of this environment, which its tests passed with.

    python -m k8s.constraints > k8s/constraints.txt

Only what EditFleet needs to run, with the extras of the image, is among them. What torch needs for CUDA it pins itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

EXTRAS = ("s3", "energy")  # as in the Dockerfile


def pins() -> dict[str, str]:
    """Every package's version by its name, without what it was built for (`+cpu`)."""
    found: dict[str, str] = {}
    asked = {("editfleet", extra) for extra in ("", *EXTRAS)}
    waiting = list(asked)
    while waiting:
        name, extra = waiting.pop()
        package = distribution(name)
        found[name] = Version(package.version).public
        new = {each for line in package.requires or () for each in _wanted(Requirement(line), extra)} - asked
        asked |= new
        waiting += new
    del found["editfleet"]
    return dict(sorted(found.items()))


def _wanted(requirement: Requirement, extra: str) -> Iterator[tuple[str, str]]:
    """The package, with each of its extras, if it is needed here at all."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
        for each in ("", *requirement.extras):
            yield canonicalize_name(requirement.name), each


def main() -> int:
    try:
        lines = [f"{name}=={version}" for name, version in pins().items()]
    except PackageNotFoundError as error:
        print(f"Error: {error.name} is not installed: pip install '.[{','.join(EXTRAS)}]'", file=sys.stderr)
        return 2
    print("# Made by `python -m k8s.constraints`, in an environment in which all tests pass.", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
