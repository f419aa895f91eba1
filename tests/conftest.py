"""An Airflow home of its own, made before Airflow is imported; a clock; the local service.

Nothing of the caller's shell counts: an AIRFLOW variable of theirs could point the tests at a real database.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SYSTEM = "tests/system/"
HOME = Path(tempfile.mkdtemp(prefix="bitdance-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

for name in [name for name in os.environ if name.lstrip("_").startswith("AIRFLOW")]:
    del os.environ[name]
(HOME / "dags").mkdir()
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(HOME / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
)

pytest.register_assert_rewrite("tests.suites")
# Other tests keep the machine busy meanwhile: an example that is slow proves nothing.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# BITDANCE_TEST_HTTPX=httpx2 lets the client have the other one; Airflow keeps its own.
if os.environ.get("BITDANCE_TEST_HTTPX") == "httpx2":
    sys.modules["httpx"] = None  # type: ignore[assignment]
    import_module("airflow_provider_bitdance.wavespeed.http")
    del sys.modules["httpx"]

from airflow_provider_bitdance.clock import Clock  # noqa: E402
from airflow_provider_bitdance.local import LocalService, Options, running_service  # noqa: E402
from airflow_provider_bitdance.wavespeed.client import AsyncClient  # noqa: E402
from tests.builders import API_KEY, connection_to  # noqa: E402
from tests.s3 import S3Server, running_s3  # noqa: E402
from tests.unit.support import Busy, FakeClock  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the system tests, for they wait most of their time."""
    items.sort(key=lambda item: not item.nodeid.startswith(SYSTEM))


# Not by marks for `--dist loadgroup`: pytest-xdist 3.8.0 writes groups where pytest 9.2 does not look.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give a file's tests to one process; all system tests, too, on one Airflow."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return SYSTEM if nodeid.startswith(SYSTEM) else super()._split_scope(nodeid)

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _sigterm_ends_the_tests() -> Iterator[None]:
    """Airflow's task runner hands SIGTERM to its task, and leaves it so: then it would end no test run."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Make the database that ``dag.test()`` needs, once: it takes seconds."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """Keep what other tests have left behind out of a measure: to go through it takes seconds."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Return a clock that the engine, the trigger and the service go by: it moves when somebody sleeps."""
    clock = FakeClock()
    monkeypatch.setattr(Clock, "time", lambda _: clock.time())
    monkeypatch.setattr(Clock, "sleep", lambda _, seconds: clock.sleep(seconds))
    monkeypatch.setattr("airflow_provider_bitdance.operators.engine_operator.ThreadPoolExecutor", Busy)
    for name in ("send", "download"):
        call = clock.stands_still_during(getattr(AsyncClient, name))
        monkeypatch.setattr(AsyncClient, name, call)
    return clock


@pytest.fixture(scope="session")
def running_local() -> Iterator[LocalService]:
    """Start the local service once: to stop it takes longer than most tests."""
    with running_service(Options(api_key=API_KEY)) as service:
        yield service


@pytest.fixture
def local(running_local: LocalService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> LocalService:
    """Return an empty local service on the test's clock, to which ``bitdance_default`` leads."""
    running_local.service.clock = clock.time
    running_local.reset()
    monkeypatch.setenv("AIRFLOW_CONN_BITDANCE_DEFAULT", connection_to(running_local))
    return running_local


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start a real S3 server once, where a test asks for it. Its log stays in the temporary folder."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server
