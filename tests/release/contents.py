"""What a wheel and a source distribution have to hold, and what they say of themselves."""

from __future__ import annotations

import re
import subprocess
import tarfile
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

PACKAGE = "airflow_provider_bitdance"
NOT_PUBLISHED = (".gitignore", ".github/", ".pre-commit-config.yaml")
"""Files for those who work on the repository."""
MADE = ("PKG-INFO",)
"""Files that only the source distribution has."""


@dataclass(frozen=True, slots=True)
class Release:
    """The two files that would be published, and the checkout that they were made of.

    :ivar version: The one that the package says.
    :ivar sources: Paths in the source distribution, without its top folder.
    :ivar tracked: Paths in the checkout that git knows.
    :ivar in_wheel: Paths in the wheel.
    :ivar description: The README as an index shows it.
    """

    version: str
    changelog: str
    names: tuple[str, ...]
    sources: frozenset[str]
    tracked: frozenset[str]
    in_wheel: frozenset[str]
    description: str

    @classmethod
    def of(cls, dist: Path, root: Path) -> Release:
        """Read both files in ``dist``.

        :raises ValueError: There is not one of each.
        """
        (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            sources = frozenset(name.split("/", 1)[1] for name in archive.getnames() if "/" in name)
        with ZipFile(wheel) as archive:
            in_wheel = frozenset(archive.namelist())
            (metadata,) = (name for name in in_wheel if name.endswith(".dist-info/METADATA"))
            description = message_from_string(archive.read(metadata).decode()).get_payload()
        tracked = subprocess.run(
            ["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True
        ).stdout.split("\n")
        found = re.search(r'__version__ = "(.+)"', (root / PACKAGE / "__init__.py").read_text())
        assert found, "the package does not say its version"
        return cls(
            version=found[1],
            changelog=(root / "CHANGELOG.md").read_text(),
            names=(wheel.name, sdist.name),
            sources=sources,
            tracked=frozenset(filter(None, tracked)),
            in_wheel=in_wheel,
            description=str(description),
        )

    def check(self) -> None:
        """Raise an ``AssertionError`` that names all that is wrong."""
        assert not (faults := self.faults()), "; ".join(faults)

    def faults(self) -> list[str]:
        """Return a sentence for each thing that is wrong."""
        sections = re.findall(r"^## (.+)$", self.changelog, re.MULTILINE)
        published = {path for path in self.tracked if not path.startswith(NOT_PUBLISHED)}
        modules = {path for path in self.tracked if path.startswith(f"{PACKAGE}/")}
        missing, foreign = published - self.sources, self.sources - self.tracked - set(MADE)
        differs = modules ^ {path for path in self.in_wheel if ".dist-info/" not in path}
        dead = re.findall(r"\]\((?!https?:|#)[^)]*\)", self.description)
        checks = {
            f"the changelog's first section is {sections[:1]}, not {self.version}": not (
                sections and sections[0].split()[0].strip("[]") == self.version
            ),
            f"files are named {self.names}": any(f"-{self.version}" not in name for name in self.names),
            f"the source distribution lacks {sorted(missing)}": missing,
            f"the source distribution holds {sorted(foreign)}, which git does not know": foreign,
            f"wheel and package differ in {sorted(differs)}": differs,
            f"the description links files that an index does not have: {dead}": dead,
        }
        return [fault for fault, is_there in checks.items() if is_there]
