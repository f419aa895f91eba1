"""docs/how-to/testing.md, followed to the letter, in an environment that holds the wheel and no checkout."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.environments import make_environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "testing.md").read_text()
BLOCK = re.compile(r"^(?:`(?P<file>[\w./]+)`\n\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
INSTALL = "pip install airflow-provider-bitdance pytest\n"


@pytest.fixture(scope="module")
def programs(wheel_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do what the page's first command asks for, with this wheel, and return the folder of programs."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    return make_environment(home, wheel_file, "pytest", "pytest-xdist")


def as_a_script(page: str) -> str:
    """Turn the page into what its reader does: write each named file, type each command, top to bottom."""
    lines = ["set -e"]
    for block in BLOCK.finditer(page):
        file, language, text = block["file"], block["language"], block["text"]
        if file:
            lines += [f"mkdir -p $(dirname {file})", f"cat > {file} << 'END OF FILE'", f"{text}END OF FILE"]
        elif text != INSTALL:
            assert language == "console", f"a snippet without a file's name above it: {text}"
            lines.append(text)
    return "\n".join(lines)


def test_a_user_who_follows_the_page_sees_all_its_tests_pass(programs: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", as_a_script(PAGE)],
        cwd=tmp_path,
        env={"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert re.findall(r"=+ (\d+) passed", done.stdout) == ["1", str(PAGE.count("\ndef test_"))]


def test_the_page_names_the_command_that_the_environment_was_made_for() -> None:
    assert [block["text"] for block in BLOCK.finditer(PAGE) if "pip" in block["text"]] == [INSTALL]
