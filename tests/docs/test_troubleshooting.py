"""operations/troubleshooting.md quotes what the code says, as the code says it, and leaves no error out."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.bases.operator import TriggerFailureReason

from airflow_provider_bitdance.exceptions import Paid
from airflow_provider_bitdance.hooks.bitdance import BitDanceHook
from airflow_provider_bitdance.operators.bitdance import BitDanceTextToImageOperator
from tests.docs.messages import ERRORS, is_quoted, texts, texts_by_error, warnings
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "operations" / "troubleshooting.md").read_text()
PAID = {Paid.NO: "no", Paid.POSSIBLY: "possibly", Paid.YES: "yes"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the page's tables; those of warnings have no error."""

    quote: str
    error: str = ""
    retry: str = ""
    paid: str = ""


def rows() -> list[Row]:
    found = []
    for line in re.findall(r"^\| (`.*) \|$", PAGE, re.M):
        cells = [cell.strip() for cell in line.split(" | ")]
        quote, *rest = (cell.strip("` ") for cell in cells)
        found.append(Row(quote, *(rest[:3] if len(rest) == 4 else ())))
    return found


ROWS = rows()


def operator() -> BitDanceTextToImageOperator:
    with DAG("page", schedule=None):
        return BitDanceTextToImageOperator(task_id="t", prompt="A fox, {{ ds }}", output_path="/data/")


def without_the_package() -> None:
    """Import it in a process that has Python's own library only."""
    command = [sys.executable, "-I", "-S", "-c", "import airflow_provider_bitdance"]
    done = subprocess.run(command, capture_output=True, text=True)
    raise ModuleNotFoundError(done.stderr.splitlines()[-1].removeprefix("ModuleNotFoundError: "))


SAID_BY_AIRFLOW: dict[str, Callable[[], object]] = {
    "No module named 'airflow_provider_bitdance'": without_the_package,
    "task decorator <'bitdance'> not found": lambda: task.of_nobody,
    "The conn_id `<bitdance_default>` isn't defined": lambda: BitDanceHook("of_nobody").settings,
    "'ds' is undefined": lambda: operator().render_template_fields({}),
    "Trigger timeout": lambda: operator().resume_execution(
        "__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT.value}, {}
    ),
    "Trigger failure": lambda: operator().resume_execution(
        "__fail__", {"error": TriggerFailureReason.TRIGGER_FAILURE.value}, {}
    ),
}
"""What is not ours to say, with what makes Airflow or Python say it."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.quote)
def test_a_quoted_message_is_one_that_there_is(row: Row) -> None:
    if row.quote in SAID_BY_AIRFLOW:
        said = re.sub(r"<[^<>]*>", ".+", row.quote)
        with pytest.raises(Exception, match=f"^{said}$"):
            SAID_BY_AIRFLOW[row.quote]()
    else:
        assert is_quoted(row.quote, texts() | texts_by_error()["InputError"])


@pytest.mark.parametrize("row", [row for row in ROWS if row.error], ids=lambda row: row.quote)
def test_a_row_says_of_an_error_what_its_class_says(row: Row) -> None:
    kind = ERRORS[row.error]

    assert is_quoted(row.quote, texts_by_error()[row.error])
    assert row.retry == ("yes" if kind.retry_helps else "no")
    assert row.paid.partition(",")[0] == PAID[kind.default_paid]


def test_every_error_that_there_is_has_a_row() -> None:
    assert {row.error for row in ROWS if row.error} | {"InputError"} == texts_by_error().keys()


def test_every_error_s_class_is_one_that_the_page_may_name() -> None:
    """Those without a message of their own are the branches of the tree."""
    branches = {
        name for name, kind in ERRORS.items() if kind.__subclasses__() and name not in texts_by_error()
    }

    assert ERRORS.keys() - branches == texts_by_error().keys()


def test_every_warning_has_a_row() -> None:
    assert [
        text for text in warnings() if not any(is_quoted(row.quote, frozenset({text})) for row in ROWS)
    ] == []
