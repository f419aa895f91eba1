"""Writes the golden files of this version."""

from __future__ import annotations

import sys

from airflow_provider_bitdance import __version__
from tests.unit.golden import GOLDEN
from tests.unit.golden.scenes import written_today

folder = GOLDEN / __version__
if folder.exists():
    sys.exit(f"{folder} is there: what a version has left does not change")
for name, data in written_today().items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
print(f"Written: {folder}")
