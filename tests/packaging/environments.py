"""An environment that holds a wheel, what that needs, and nothing else; made in a second, without an index.

What is needed is what the metadata of the wheel and of its dependencies say, so a requirement that is missing
there is missing in the new environment, too. The dependencies' files are links to those of this environment,
and this checkout is not among them. ``.ci/run`` has pip install the wheel and download all it needs.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from importlib.util import cache_from_source
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make_environment(home: Path, wheel: Path, *others: str, extra: str = "") -> Path:
    """Make the environment, and return its folder of programs.

    :param others: The names of what shall be there as well.
    :param extra: The extra of the wheel that is wanted, if any.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    with ZipFile(wheel) as file:
        file.extractall(site)  # it is pure Python and has no programs: that is what an installer does
    (ours,) = distributions(path=[str(site)])
    for needed in _needed_by(ours, extra, others):
        _link(needed, site, home / "bin")
    return home / "bin"


def _needed_by(wheel: Distribution, extra: str, others: tuple[str, ...]) -> Iterator[Distribution]:
    """Yield each distribution that is needed once; raises where one is not in this environment."""
    to_do = [*_requirements(wheel, {extra}), *map(Requirement, others)]
    seen = set()
    while to_do:
        need = to_do.pop()
        name, extras = canonicalize_name(need.name), frozenset(need.extras)
        if (name, extras) in seen:
            continue
        found = distribution(name)
        to_do += _requirements(found, extras)
        if name not in {name for name, _ in seen}:
            yield found
        seen.add((name, extras))


def _requirements(of: Distribution, extras: set[str] | frozenset[str]) -> list[Requirement]:
    """Return what a distribution with some of its extras needs on this Python and platform."""
    requirements = map(Requirement, of.requires or ())
    return [
        need
        for need in requirements
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def _link(needed: Distribution, site: Path, programs: Path) -> None:
    """Link a distribution's files, with their compiled form, and copy its programs."""
    for name in needed.files or ():
        file = Path(str(needed.locate_file(name))).resolve()
        if name.parts[0] != ".." and name.suffix != ".pyc":
            _link_file(file, site / name)
            if name.suffix == ".py":
                _link_file(Path(cache_from_source(str(file))), Path(cache_from_source(str(site / name))))
        elif file.parent == Path(sys.prefix, "bin").resolve():
            # Its first line says where its Python is.
            program = programs / file.name
            program.write_bytes(file.read_bytes().replace(sys.prefix.encode(), str(programs.parent).encode()))
            program.chmod(0o755)


def _link_file(file: Path, link: Path) -> None:
    if file.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
