"""The README's first section, command by command: from a Dag file to a stored image, without a key.

The package is taken from this environment: .ci/run builds the wheel and installs it by the section's first
block. All else is as it stands there, but the folder and the port.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import BLOCKS

WALK = [block for block in BLOCKS if (block.page, block.section) == ("README.md", "Your first image")]


def as_a_script() -> str:
    """Turn the section into what its reader does: write each named file, type each command."""
    install, *blocks = WALK
    assert install.text.startswith("make build\n")
    lines = ["set -e", "trap 'kill $(jobs -p) 2> /dev/null || :' EXIT"]
    for block in blocks:
        if block.name:
            lines += [f"mkdir -p {Path(block.name).parent}", f"cat > {block.name} << 'END OF FILE'"]
            lines += [f"{block.text}END OF FILE"]
        else:
            assert block.language == "console", f"a block without a file's name above it: {block}"
            lines += block.text.splitlines()
    return "\n".join(lines)


def test_a_reader_without_a_key_has_an_image_and_a_second_run_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = as_a_script().replace("/tmp/bitdance", str(tmp_path)).replace("8700", port)
    programs = Path(sys.executable).parent
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}

    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert (tmp_path / "covers" / "2026-11-22.png").exists()
    assert re.search(r'"billed": ?1\b', done.stdout), done.stdout[-500:]
