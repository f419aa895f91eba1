"""Checks of an installed wheel, run by `.ci/run` in an environment that holds the wheel and no checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path

PACKAGE = "airflow_provider_bitdance"
DISTRIBUTION = "airflow-provider-bitdance"


def main(wheel: Path) -> None:
    """Run every check; the first failure ends the program with a traceback."""
    the_wheel_holds_the_package_and_nothing_else(wheel)
    the_package_is_imported_from_the_wheel()
    the_entry_point_is_found()
    airflow_lists_the_provider_and_its_hook()
    the_local_service_has_a_command_line()


def the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    check(tops == {PACKAGE}, f"the wheel holds {PACKAGE} only, found {sorted(tops)}")
    check(f"{PACKAGE}/py.typed" in names, "the wheel holds py.typed")
    check(any(name.endswith("licenses/LICENSE") for name in names), "the wheel holds the licence")
    check(
        not any("test" in Path(name).stem.split("_") or "tests" in Path(name).parts for name in names),
        "the wheel holds no tests",
    )


def the_package_is_imported_from_the_wheel() -> None:
    module = import_module(PACKAGE)
    home = Path(sysconfig.get_paths()["purelib"])
    check(home in Path(str(module.__file__)).parents, f"imported from {module.__file__}")
    check(module.__version__ == version(DISTRIBUTION), f"version {module.__version__}")
    for name in ("hooks.bitdance", "operators.bitdance", "triggers.bitdance"):
        import_module(f"{PACKAGE}.{name}")
        print(f"ok: {PACKAGE}.{name} can be imported")


def the_entry_point_is_found() -> None:
    points = [
        point for point in entry_points(group="apache_airflow_provider") if point.module.startswith(PACKAGE)
    ]
    check(len(points) == 1, "one entry point apache_airflow_provider")
    info = points[0].load()()
    check(info["package-name"] == DISTRIBUTION, f"provider info of {info['package-name']}")


def airflow_lists_the_provider_and_its_hook() -> None:
    check(
        DISTRIBUTION in output("airflow", "providers", "list", "--output", "json"),
        "airflow providers list shows the provider",
    )
    check(
        "bitdance" in output("airflow", "providers", "hooks", "--output", "json"),
        "airflow providers hooks shows the hook",
    )


def the_local_service_has_a_command_line() -> None:
    check("--port" in output(f"{PACKAGE}.local", "--help"), f"python -m {PACKAGE}.local --help")


def output(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
