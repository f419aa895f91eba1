"""Mutations of what pages in Airflow's UI show: which sheets are kept for them, and which are sent."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

SHEET = mutations_of(
    "preview/sheet.py",
    "unit/preview/test_sheet.py",
    ("b64decode(encoded, validate=True)", "b64decode(encoded)", "what is no base64 is sent"),
    ("    return picture if _is_webp(picture) else None\n", "    return picture\n", "any bytes are sent"),
    (
        ' and int.from_bytes(data[4:8], "little") == len(data) - 8',
        "",
        "a page that is hidden behind a picture is sent with it",
    ),
    ("{{% filter urlencode %}}{path}{{% endfilter %}}", "{path}", "a run's id ends the address"),
)

SHEETS = mutations_of(
    "operators/contact_sheets.py",
    "unit/operators/test_previews.py",
    ("if not is_flagged and ", "if ", "a flagged image is shown"),
    (" and job.thumbnails.wants_sheet()", "", "previews = 0 costs time"),
)

COLLECTOR = mutations_of(
    "preview/collector.py",
    "unit/operators/test_previews.py",
    ("if sheet and self._room >= 0", "if sheet", "a batch of 1,000 rows fills Airflow's database"),
    ("MAX_SHEETS if limit else 0", "MAX_SHEETS", "sheets are kept where previews = 0"),
)

MUTATIONS = (*SHEET, *SHEETS, *COLLECTOR)
