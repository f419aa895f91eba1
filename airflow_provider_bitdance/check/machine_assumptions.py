"""What is assumed of the machine and its stores."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_bitdance.check.observations import Observations, Store
from airflow_provider_bitdance.check.verdicts import NOT_SEEN, Assumption, Judge, Judged, Verdict, judged


def _versions(seen: Observations) -> Judged:
    versions = seen.versions
    return judged(
        versions.is_supported,
        f"provider {versions.provider}, Airflow {versions.airflow}, Python {versions.python}, "
        f"httpx {versions.httpx}",
    )


def _certificates(seen: Observations) -> Judged:
    variables = [name for name in seen.environment.variables if "PROXY" not in name]
    return judged(not seen.environment.has_ignored_bundle, ", ".join(variables))


def _proxy(seen: Observations) -> Judged:
    if not any("PROXY" in name for name in seen.environment.variables):
        return Verdict.HOLDS, "no proxy is set"
    used = "through a proxy" if seen.environment.uses_proxy else "directly"
    reached = seen.account.balance is not None and seen.account.balance.shape.status > 0
    return judged(reached, f"requests go {used}")


def store(choose: Callable[[Observations], Store | None], judge: Callable[[Store], Judged]) -> Judge:
    """Judge one of the stores; where it was not tried, it was not seen."""

    def of_store(seen: Observations) -> Judged:
        found = choose(seen)
        return (Verdict.NOT_SEEN, "no path is set: use --output-path") if found is None else judge(found)

    return of_store


def _is_usable(found: Store) -> Judged:
    return judged(not found.error, found.error)


def _is_exclusive(found: Store) -> Judged:
    if found.error:
        return NOT_SEEN
    return judged(found.is_exclusive, "" if found.winners == 1 else f"{found.winners} writers succeeded")


def _is_shared(found: Store) -> Judged:
    if found.is_local:
        return Verdict.NOT_SEEN, "a path of this machine"
    return judged(None if found.error else True, "" if found.error else "an object store")


OF_MACHINE: tuple[Assumption, ...] = (
    Assumption(
        "versions",
        "The versions of Airflow and Python are supported.",
        "See docs/internals/versions.md, and install one of those",
        _versions,
    ),
    Assumption(
        "proxy",
        "Requests to the API follow the proxy settings.",
        "Correct HTTPS_PROXY and NO_PROXY on every worker and triggerer",
        _proxy,
    ),
    Assumption(
        "certificates",
        "A CA bundle that is set for other programs is also used here.",
        "Set SSL_CERT_FILE to the same file: httpx does not read REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE",
        _certificates,
    ),
    Assumption(
        "records_usable",
        "The records can be written, read, listed and deleted.",
        "Give the workers' user, or the store's credentials, all four rights below the records path",
        store(lambda seen: seen.records, _is_usable),
    ),
    Assumption(
        "records_exclusive",
        "If several writers create one record, exactly one succeeds.",
        "Use S3, Google Cloud Storage, Azure Blob Storage or a shared disk for records_path; otherwise two "
        "workers on one job could both buy",
        store(lambda seen: seen.records, _is_exclusive),
    ),
    Assumption(
        "records_listed",
        "A listing shows a new record at once.",
        "Expect reconcile and large batches to see records late; an image may then be bought again",
        store(lambda seen: seen.records, lambda found: judged(None if found.error else found.is_listed)),
    ),
    Assumption(
        "records_shared",
        "Every worker sees the records.",
        "Set records_path to an object store or a disk that all workers mount",
        store(lambda seen: seen.records, _is_shared),
    ),
    Assumption(
        "images_usable",
        "Images can be written, read, listed and deleted.",
        "Give the workers' user, or the store's credentials, all four rights below the output path",
        store(lambda seen: seen.images, _is_usable),
    ),
)
