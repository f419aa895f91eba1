"""What this machine says for itself: versions, proxy and certificate settings, and its view of the stores."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from airflow_provider_bitdance import __version__
from airflow_provider_bitdance.check.observations import Environment, Store, Versions
from airflow_provider_bitdance.exceptions import BitDanceError, InputError, StorageError
from airflow_provider_bitdance.storage import Folder, LocalFolder
from airflow_provider_bitdance.version_compat import AIRFLOW_VERSION
from airflow_provider_bitdance.wavespeed.urls import uses_proxy

VARIABLES = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
WRITERS = 4
"""Threads that create one file at once."""


def versions() -> Versions:
    """Return the versions of what runs."""
    return Versions(
        provider=__version__,
        airflow=_version("apache-airflow-core") or _version("apache-airflow"),
        python=platform.python_version(),
        httpx=_version("httpx") or _version("httpx2"),
        is_supported=(3, 1) <= AIRFLOW_VERSION < (4,) and sys.version_info >= (3, 11),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def environment(api_url: str, variables: Mapping[str, str] = os.environ) -> Environment:
    """Return what the environment says of proxies and certificates.

    :raises InputError: A certificate file is named that is not there: then no client can be made.
    """
    names = tuple(name for name in VARIABLES if variables.get(name) or variables.get(name.lower()))
    for name, is_there in (("SSL_CERT_FILE", Path.is_file), ("SSL_CERT_DIR", Path.is_dir)):
        if name in names and not is_there(Path(variables.get(name, ""))):
            raise InputError(
                f"The environment variable {name} names a path that does not exist",
                fix=f"Correct or unset {name}, on every worker and triggerer",
            )
    others = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}.intersection(names)
    ours = {"SSL_CERT_FILE", "SSL_CERT_DIR"}.intersection(names)
    return Environment(
        variables=names,
        uses_proxy=uses_proxy(api_url),
        has_ignored_bundle=bool(others) and not ours and api_url.startswith("https"),
    )


def try_store(folder: Folder) -> Store:
    """Write, create, read, list and delete small files, and see whether creation is exclusive. Blocks."""
    name, is_local = f"checks/check-{secrets.token_hex(8)}", isinstance(folder, LocalFolder)
    winners, is_listed, is_exclusive = 0, False, False
    try:
        try:
            winners = _race(folder, name)
            is_exclusive = winners == 1 and folder.is_exclusive()
            if not folder.read(name):
                raise StorageError(f"{folder.uri}/{name} was written but cannot be found")
            is_listed = name in folder.names("checks")
        finally:
            folder.remove(name)
    except BitDanceError as error:
        return Store(is_local=is_local, error=type(error).__name__, winners=winners)
    return Store(is_local=is_local, is_exclusive=is_exclusive, winners=winners, is_listed=is_listed)


def _race(folder: Folder, name: str) -> int:
    """Create one file from several threads at once, and return how many succeeded."""

    def create(number: int) -> bool:
        with suppress(FileExistsError):
            folder.create(name, f"{number}\n".encode())
            return True
        return False

    with ThreadPoolExecutor(WRITERS, "bitdance-check") as pool:
        return sum(pool.map(create, range(WRITERS)))
