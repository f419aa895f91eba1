"""Cases: what a target is given, as small JSON files that last. Bytes are readable where they are text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

Case = dict[str, Any]
CORPUS = Path(__file__).parent / "corpus"
_LONG = 400
_MOST_BYTES = 64 * 1024


def load(path: Path) -> tuple[str, Case]:
    """Return a saved fault's target and case."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["target"], _decoded(kept["case"])


def save(folder: Path, target: str, fault: str, case: Case) -> Path | None:
    """Save a case for replay, and return its file; a case that would be a large file is not kept."""
    kept = {"target": target, "fault": fault, "case": _encoded(case)}
    text = json.dumps(kept, indent=1) + "\n"
    if len(text) > _MOST_BYTES:
        return None
    slug = re.sub(r"[^a-z0-9]+", "-", f"{target} {fault}".lower())[:60].strip("-")
    digest = hashlib.sha256(json.dumps(kept["case"], sort_keys=True).encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug}-{digest}.json"
    path.write_text(text, encoding="utf-8")
    return path


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        if len(value) > _LONG:
            return {"$zlib": base64.b85encode(zlib.compress(value, 9)).decode()}
        try:
            return {"$text": value.decode("ascii")}
        except UnicodeDecodeError:
            return {"$base85": base64.b85encode(value).decode()}
    if isinstance(value, dict):
        return {name: _encoded(part) for name, part in value.items()}
    return [_encoded(part) for part in value] if isinstance(value, list | tuple) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        match value:
            case {"$zlib": str(text)}:
                return zlib.decompress(base64.b85decode(text))
            case {"$text": str(text)}:
                return text.encode("ascii")
            case {"$base85": str(text)}:
                return base64.b85decode(text)
        return {name: _decoded(part) for name, part in value.items()}
    return [_decoded(part) for part in value] if isinstance(value, list) else value
