"""Links into an environment what a package of this one needs, in place of a download of TensorFlow.

    .venv/bin/python .ci/link_packages.py FOLDER NAME…

FOLDER is an environment of the same Python. It gets what NAME requires, such as `kdant-tf` or
`kdant-tf[flow]`, and what that requires in turn, at the versions installed here; not NAME itself, and
nothing else: an import of what is not declared fails there.
"""

import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def requirements_of(package: Distribution, extras: set[str]) -> list[Requirement]:
    """What `package` requires on this machine, with these extras."""
    declared = [Requirement(line) for line in package.requires or ()]
    return [
        each
        for each in declared
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def find_packages(names: list[str]) -> dict[str, Distribution]:
    """Every package that is reached from `names`, these included, by its canonical name."""
    found: dict[str, Distribution] = {}
    wanted, done = [Requirement(name) for name in names], set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) not in done:
            done.add((name, frozenset(requirement.extras)))
            found[name] = distribution(name)
            wanted += requirements_of(found[name], requirement.extras)
    return found


def link(package: Distribution, site: Path) -> None:
    """Links the files of `package` into the folder of packages `site`, but for its commands."""
    for file in package.files or ():
        target = site / file
        if ".." not in file.parts and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(package.locate_file(file))


def main(folder: str, *names: str) -> None:
    """Fills `folder`."""
    (site,) = Path(folder).glob("lib/python*/site-packages")
    left_out = {canonicalize_name(Requirement(name).name) for name in names}
    for name, package in find_packages(list(names)).items():
        if name not in left_out:
            link(package, site)


if __name__ == "__main__":
    main(*sys.argv[1:])
