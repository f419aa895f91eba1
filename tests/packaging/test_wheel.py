"""The wheel's content."""

from __future__ import annotations

from email import message_from_string
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

import airflow_provider_bitdance

ROOT = Path(airflow_provider_bitdance.__file__).parents[1]
DIST_INFO = f"airflow_provider_bitdance-{airflow_provider_bitdance.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> ZipFile:
    return ZipFile(wheel_file)


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    return message_from_string(wheel.read(f"{DIST_INFO}/METADATA").decode())


def test_it_holds_the_package_and_nothing_else(wheel: ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {"airflow_provider_bitdance", DIST_INFO}


def test_it_holds_every_module_of_the_package(wheel: ZipFile) -> None:
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "airflow_provider_bitdance").rglob("*.py")
    }

    assert {name for name in wheel.namelist() if name.endswith(".py")} == modules


def test_it_says_that_it_is_typed(wheel: ZipFile) -> None:
    assert "airflow_provider_bitdance/py.typed" in wheel.namelist()


def test_it_holds_what_the_plugins_page_is_made_of(wheel: ZipFile) -> None:
    for name in ("page.css", "page.html.jinja", "no_sheet.svg", "which_sheet.svg"):
        assert f"airflow_provider_bitdance/plugin/{name}" in wheel.namelist()


def test_it_holds_the_licence(wheel: ZipFile, metadata: Message) -> None:
    licence = wheel.read(f"{DIST_INFO}/licenses/LICENSE").decode()

    assert "Apache License" in licence
    assert metadata["License-Expression"] == "Apache-2.0"


def test_it_holds_the_entry_points(wheel: ZipFile) -> None:
    points = wheel.read(f"{DIST_INFO}/entry_points.txt").decode()

    assert "[apache_airflow_provider]" in points
    assert "airflow_provider_bitdance.get_provider_info:get_provider_info" in points
    assert "[airflow.plugins]" in points
    assert "bitdance = airflow_provider_bitdance.plugin:BitDancePlugin" in points
    assert "[pytest11]" in points
    assert "bitdance = airflow_provider_bitdance.local.pytest_plugin" in points


def test_it_needs_airflow_3_1_and_no_server_of_its_own(metadata: Message) -> None:
    needed = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]

    assert "apache-airflow<4,>=3.1" in needed
    assert metadata["Requires-Python"] == ">=3.11"
    assert not [need for need in needed if need.startswith(("fastapi", "uvicorn", "pytest"))]
