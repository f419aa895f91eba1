"""Manifest: the result of a batch, a file beside the images with one row per item, in the order of the items.

The operator writes it; a later task reads it with :func:`read_manifest`. Rows are flat, so that any tool can
read the file: our own columns first, then the free ones of the item.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_bitdance.batch import Item, Scalar
from airflow_provider_bitdance.batch.columns import URL_COLUMN
from airflow_provider_bitdance.batch.limits import MAX_COLUMNS, MAX_ITEMS, MAX_ROW
from airflow_provider_bitdance.batch.parquet import read_parquet
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten

if TYPE_CHECKING:
    import pandas
    import pyarrow

__all__ = [
    "ManifestRow",
    "manifest_bytes",
    "manifest_row",
    "parquet_bytes",
    "read_manifest",
    "read_manifest_frame",
]

_TYPES = {
    **dict.fromkeys(("width", "height", "bytes", "seed"), "int64"),
    **dict.fromkeys(("possibly_paid", "prompts_possibly_paid"), "int64"),
    **dict.fromkeys(("inference_ms", "estimated_cost_usd"), "float64"),
    **dict.fromkeys(("reused", "nsfw", "size_differs"), "bool"),
}
"""The columns of ours that are no text."""
_FREE_TYPES = {bool: "bool", int: "int64", float: "float64"}
"""The types of free columns whose values are all of one kind, and no text."""
_INT64 = range(-(2**63), 2**63)


_LONGEST_ROW = 2 * MAX_ROW
"""Bytes of a row: the columns of an item, and half of it for ours."""


class ManifestRow(BaseModel):
    """One item of a batch and its outcome. Free columns are in :attr:`columns`.

    :param key: The item's key.
    :param status: ``"stored"``; ``"failed"``; or ``"missing"``, which means not bought or not stored yet: a
        retry makes it.
    :param error: Why it failed, shortened.
    :param variant_of: The key of the item's row, if the row has several variants.
    :param uri: The URI of the image. This field and those after it are the ones of a single operator's
        result. They are empty if the image is not stored; an image that failed only because of its size is
        stored, and has them. With ``url_base`` a stored image also has :attr:`url`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    __pydantic_extra__: dict[str, Scalar]

    key: str
    variant_of: str | None = None
    status: Literal["stored", "failed", "missing"]
    error: str | None = None
    uri: str | None = None
    receipt: str | None = None
    prediction_id: str | None = None
    model: str | None = None
    size: str | None = None
    width: int | None = None
    height: int | None = None
    size_differs: bool | None = None
    media_type: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    seed: int | None = None
    inference_ms: float | None = None
    estimated_cost_usd: float | None = None
    reused: bool | None = None
    nsfw: bool | None = None
    possibly_paid: int = 0
    prompts_possibly_paid: int = 0
    prompt_asked: str | None = None
    prompt_sent: str | None = None

    @property
    def url(self) -> str | None:
        """The image's URL for a browser, if the task has a ``url_base``."""
        # No field: without a url_base an item may have a column of this name, as in every older manifest.
        url = (self.__pydantic_extra__ or {}).get(URL_COLUMN)
        is_ours = isinstance(url, str) and self.sha256 and url.endswith(f"?v={self.sha256[:8]}")
        return str(url) if is_ours else None

    @property
    def columns(self) -> dict[str, Scalar]:
        """The item's free columns."""
        ours = {URL_COLUMN} if self.url else set()
        return {name: value for name, value in (self.__pydantic_extra__ or {}).items() if name not in ours}

    def as_dict(self) -> dict[str, Scalar]:
        """Return the row as it is in the file: our columns, then the free ones."""
        return self.model_dump()


def manifest_row(
    item: Item,
    *,
    status: Literal["stored", "failed", "missing"],
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> ManifestRow:
    """Return the row of an item.

    :param item: A free column with the name of one of ours, which only a plan by somebody else has, is left
        out: it would pass for what became of the image.
    :param result: The result of a stored image, or what is known of one that is not stored.
    """
    ours = {"key": item.key, "variant_of": item.variant_of, "status": status, "error": error}
    known = {**(result or {}), **ours}
    taken = {*ManifestRow.model_fields, *known}
    free = {name: value for name, value in item.columns.items() if name not in taken}
    return ManifestRow.model_validate({**known, **free})


def manifest_bytes(rows: Iterable[ManifestRow]) -> bytes:
    """Return the manifest as JSON lines; the same rows give the same bytes."""
    return b"".join(
        json.dumps(row.as_dict(), ensure_ascii=False, allow_nan=False).encode() + b"\n" for row in rows
    )


def parquet_bytes(rows: Sequence[ManifestRow]) -> bytes:
    """Return the manifest as a Parquet file. A free column of mixed kinds becomes text.

    :raises InputError: pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    from pyarrow import parquet

    dicts = [row.as_dict() for row in rows]
    names = dict.fromkeys([*ManifestRow.model_fields, *(name for row in dicts for name in row)])
    table = {name: _array(pyarrow, name, [row.get(name) for row in dicts]) for name in names}
    file = BytesIO()
    parquet.write_table(pyarrow.table(table), file)
    return file.getvalue()


def read_manifest(uri: str) -> list[ManifestRow]:
    """Read the manifest of a batch, in a task.

    .. code-block:: python

        @task
        def write_back(result: dict) -> None:
            for row in read_manifest(result["manifest"]):
                print(row.columns["product"], row.status, row.uri)

    :param uri: The URI that the operator returned, including its connection id; ``.jsonl`` or ``.parquet``.
    :raises InputError: The file does not exist, cannot be opened on this worker, or is not a manifest.
    :raises StorageError: The store failed.
    """
    # Here: this module is also for the operators, and has to be cheap.
    from airflow_provider_bitdance.hooks.object_storage import read_regular

    uri = str(uri)  # a Path and an ObjectStoragePath, too
    folder, _, name = uri.rpartition("/")
    if not folder or not name.endswith((".jsonl", ".parquet")):
        raise InputError(
            f"{shorten(repr(uri), 200)} is not the URI of a manifest",
            allowed='an absolute path or a URI that ends in .jsonl or .parquet, such as result["manifest"]',
        )
    data = read_regular(folder, name)
    if data is None:
        raise InputError(
            f"There is no manifest at {shorten(uri, 200)}", fix='Pass result["manifest"] of a batch'
        )
    try:
        if name.endswith(".parquet"):
            return _from_parquet(data, uri)
        return [ManifestRow.model_validate_json(line) for line in _lines(data, uri)]
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(map(str, found["loc"]))
        raise _no_manifest(uri, f"{where} {found['msg']}".strip()) from None


def read_manifest_frame(uri: str) -> pandas.DataFrame:
    """Read the manifest of a batch as a pandas data frame with one row per item.

    :param uri: As for :func:`read_manifest`.
    :raises InputError: As :func:`read_manifest`, or pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError(
            "read_manifest_frame needs pandas",
            fix="Run pip install pandas on every worker, or use read_manifest",
        ) from None
    rows = [row.as_dict() for row in read_manifest(uri)]
    frame = pandas.DataFrame(rows, columns=None if rows else list(ManifestRow.model_fields))
    # pandas' own guess makes floats of whole numbers and objects of truth values where some are missing.
    nullable = {"int64": "Int64", "bool": "boolean", "float64": "float64"}
    try:
        return frame.astype({name: nullable[kind] for name, kind in _TYPES.items()})
    except (OverflowError, TypeError, ValueError) as error:
        raise _no_manifest(uri, str(error)) from None


def _from_parquet(data: bytes, uri: str) -> list[ManifestRow]:
    _pyarrow()
    try:
        _, found = read_parquet(data, columns=len(ManifestRow.model_fields) + 1 + MAX_COLUMNS)
    except ValueError as error:
        raise _no_manifest(uri, str(error)) from None
    return [ManifestRow.model_validate(row) for row in found]


def _lines(data: bytes, uri: str) -> Iterator[bytes]:
    """Yield the rows of a manifest: as many, and as long, as one may have that a batch has written."""
    file, number = BytesIO(data), 0
    while line := file.readline(_LONGEST_ROW + 1):
        number += line != b"\n"
        if len(line) > _LONGEST_ROW:
            raise _no_manifest(uri, f"row {number} has more than {_LONGEST_ROW} bytes")
        if number > MAX_ITEMS:
            raise _no_manifest(uri, f"it has more than {MAX_ITEMS} rows")
        if line != b"\n":
            yield line


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow",
            fix="Run pip install 'airflow-provider-bitdance[parquet]' on every worker",
        ) from None
    return pyarrow


def _array(pyarrow: Any, name: str, values: list[Scalar]) -> pyarrow.Array:
    given = [value for value in values if value is not None]
    kinds = {type(value) for value in given}
    kind = _TYPES.get(name) or (_FREE_TYPES.get(kinds.pop()) if len(kinds) == 1 else None)
    if kind is None or (kind == "int64" and not all(value in _INT64 for value in given)):
        kind = "string"
        values = [value if isinstance(value, str | None) else json.dumps(value) for value in values]
    return pyarrow.array(values, pyarrow.type_for_alias(kind))


def _no_manifest(uri: str, why: str) -> InputError:
    return InputError(
        f"{shorten(uri, 200)} is not a manifest: {shorten(why)}", fix='Pass result["manifest"] of a batch'
    )
