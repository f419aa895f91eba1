"""Folders for an Airflow that is started to be measured, or to be killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_home(name: str, *, keep: bool) -> Iterator[Path]:
    """Make a folder, and delete it when done; or keep it, and say where it is."""
    home = Path(tempfile.mkdtemp(prefix=f"bitdance-{name}-"))
    try:
        yield home
    finally:
        if keep:
            print(f"Kept: {home}", flush=True)
        else:
            shutil.rmtree(home, ignore_errors=True)
