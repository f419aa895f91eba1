"""The picture of all variants of a row that a question to a person shows: its XCom, its bounds, its address.

The worker makes it, the api-server serves it (``plugin/``) from its own database. Pure, and trusts nothing
that it reads.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

MAX_SHEET = 150_000
"""Bytes of a picture."""
MAX_SHEET_XCOM = 4 * MAX_SHEET // 3
"""Characters of it as base64."""
MAX_SHEETS = 600_000
"""Bytes of all pictures of a task instance."""
_ADDRESS = "bitdance/sheets"


def sheet_key(key: str) -> str:
    """Return the key of the XCom with the picture of a row."""
    return f"bitdance_sheet_{key}"


def sheet_markdown(task_id: str, key: str, *, map_index: int | str = -1) -> str:
    """Return a line of Markdown that shows a person all variants of a row as thumbnails.

    Use it in the ``body`` of a ``HITLOperator`` or ``ApprovalOperator``, which is templated, in the same Dag
    run:

    .. code-block:: python

        from airflow.providers.standard.operators.hitl import HITLOperator
        from airflow_provider_bitdance.operators.bitdance import sheet_markdown

        choose = HITLOperator(
            task_id="choose",
            subject="Which poster is published?",
            body=sheet_markdown("posters", key="jazz-night"),
            options=["v1", "v2"],
        )

    The image comes from Airflow's own database; everyone who may read the XComs of the Dag can see it. Its
    URL is relative to Airflow's UI, so it does not work elsewhere, for example in an e-mail. If there is no
    contact sheet, a placeholder that explains why is shown instead. Free.

    :param task_id: The id of the batch task with ``variants``, including its task groups.
    :param key: The key of the row, or a template for it such as ``"{{ params.name }}"``.
    :param map_index: The map index of the batch task, if it is mapped: such as ``"{{ ti.map_index }}"``
        inside a mapped group. In a loop (Airflow 3.4), ``"{{ loop.index }}"``; for a batch that is mapped in
        a loop, Airflow does not tell the iterations apart, and the placeholder says so.
    """
    path = "/".join(("{{ dag.dag_id }}", "{{ run_id }}", task_id, str(map_index), key))
    # A run's id may have signs that mean something in an address or in Markdown.
    address = f"{_ADDRESS}/{{% filter urlencode %}}{path}{{% endfilter %}}"
    # Airflow's UI shows it 300 pixels wide; the link leads to all of it.
    return f"[![Contact sheet]({address})]({address})"


def read_sheet(value: object) -> bytes | None:
    """Return the picture in an XCom's value, a WebP; nothing where it is none, or is too large."""
    match value:
        case {"format": 1, "webp": str(encoded)} if len(encoded) <= MAX_SHEET_XCOM:
            pass
        case _:
            return None
    try:
        picture = b64decode(encoded, validate=True)
    except ValueError:
        return None
    return picture if _is_webp(picture) else None


def as_xcom(encoded: str) -> dict[str, Any]:
    """Return the XCom's value.

    :param encoded: The WebP as base64.
    """
    return {"format": 1, "webp": encoded}


def _is_webp(data: bytes) -> bool:
    """Say whether a browser finds a WebP and nothing behind it."""
    is_riff = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") == len(data) - 8
    return is_riff and data[8:16] in (b"WEBPVP8 ", b"WEBPVP8L", b"WEBPVP8X")
