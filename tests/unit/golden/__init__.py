"""Golden files: what each version has left on disk, a folder each, which every later version must read.

A folder is what ``python -m tests.unit.golden`` wrote when the package had that version: the scenes of
``scenes.py``, through the package's own writers. The command writes over none, and the folder of a released
version never changes.

A new one is due when ``test_golden.py`` says that today's records differ from those of the newest folder:
raise ``__version__``, let the scenes show what is new, run the command. What older versions left stays.
"""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

GOLDEN = Path(__file__).parent
VERSIONS = sorted((path.name for path in GOLDEN.glob("[0-9]*")), key=Version)


def kept(version: str) -> dict[str, bytes]:
    """Return the files that a version has left, by their names in its folder."""
    folder = GOLDEN / version
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}
