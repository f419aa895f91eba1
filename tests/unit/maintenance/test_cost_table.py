"""The cost table: what receipts say that images cost, by any of its dimensions, and what no receipt has."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.maintenance.cost_table import (
    DIMENSIONS,
    CostTable,
    Sum,
    cost_table,
    dimensions_of,
    shown_table,
    table_as_csv,
    table_as_json,
)
from tests.unit.maintenance.support import DAY, Office
from tests.unit.support import a_job, a_wanted


def two_days() -> Office:
    """Return an account with three images: two of one Dag and day, one of another Dag a day later."""
    office = Office()
    office.task(job=a_job(dag_id="covers"), wanted=a_wanted("a fox", name="fox"))
    office.task(job=a_job(dag_id="covers", task_id="second"), wanted=a_wanted("a hare", name="hare"))
    office.wait(days=1)
    office.task(job=a_job(dag_id="posters"), wanted=a_wanted("a cat", name="cat"))
    return office


def rows(table: CostTable) -> list[tuple[str, ...]]:
    return [(*row.values, str(row.images.purchases), str(row.images.usd)) for row in table.rows]


def test_costs_are_added_up_by_dag_and_day() -> None:
    table = cost_table(two_days().records, ("dag", "day"))

    assert rows(table) == [
        ("covers", "2026-05-28", "2", "0.02"),
        ("posters", "2026-05-29", "1", "0.01"),
    ]
    assert table.total.images == Sum(3, Decimal("0.03"))


@pytest.mark.parametrize("name", DIMENSIONS)
def test_whatever_the_table_is_by_no_image_is_lost(name: str) -> None:
    assert cost_table(two_days().records, (name,)).total.images == Sum(3, Decimal("0.03"))


def test_only_what_was_bought_since_a_day_is_counted() -> None:
    office = two_days()
    start = datetime.fromtimestamp(office.clock.now - DAY / 2, UTC)

    for since in (start, start.replace(tzinfo=None)):
        assert rows(cost_table(office.records, ("dag",), since=since)) == [("posters", "1", "0.01")]


def test_what_was_possibly_paid_stands_beside_the_image_and_is_counted_once() -> None:
    office = Office()
    office.api.on_post = [office.api.lose_answer]
    office.task()

    (row,) = cost_table(office.records, ("dag",)).rows

    assert row.images == row.possibly_paid == Sum(1, Decimal("0.01"))
    assert cost_table(office.records, ("dag",)).unstored_possibly_paid == Sum()


def test_what_a_later_generation_lost_is_not_in_the_receipt_of_an_earlier_one() -> None:
    office = Office()
    office.api.on_post = [office.api.lose_answer]
    office.task()
    office.wait(minutes=10)
    office.api.on_post = [office.api.lose_answer, office.api.answer_failing(status="failed", error="no GPU")]
    again = a_job(generation=1)
    office.task(job=again, try_number=2, wanted=a_wanted("a fox"), retry_failed=False)

    table = cost_table(office.records, ("dag",))

    assert table.total.possibly_paid == table.unstored_possibly_paid == Sum(1, Decimal("0.01"))


def test_what_is_bought_and_not_stored_is_in_no_row_and_is_said() -> None:
    office = two_days()
    office.task(job=a_job(dag_id="dead"), wanted=a_wanted("a dog", name="dog"), dies="before poll")

    table = cost_table(office.records, ("dag",))

    assert table.unstored == Sum(1, Decimal("0.01"))
    assert [values for values, *_ in rows(table)] == ["covers", "posters"]
    assert "  bought, and not stored, failed or replaced since: 1, about $0.01" in shown_table(table)


def test_what_is_possibly_paid_for_an_image_that_is_not_stored_is_said() -> None:
    office = Office()
    office.api.on_post = [office.api.lose_answer]
    office.task(on_lost_response="fail")

    table = cost_table(office.records, ("dag",))

    assert (table.rows, table.unstored_possibly_paid.purchases > 0) == ((), True)


def test_the_csv_has_the_rows_and_no_cell_that_a_spreadsheet_runs() -> None:
    office = Office()
    office.task(job=a_job(run_id="=cmd|'/c calc'!A1"))

    (row,) = csv.DictReader(io.StringIO(table_as_csv(cost_table(office.records, ("run", "day")))))

    assert row == {
        "run": "'=cmd|'/c calc'!A1",
        "day": "2026-05-28",
        "images": "1",
        "estimated_usd": "0.01",
        "possibly_paid": "0",
        "possibly_paid_usd": "0.00",
    }


def test_the_json_has_money_as_text_that_is_exact() -> None:
    office = Office()
    for number in range(3):
        office.task(wanted=a_wanted(f"a fox {number}", name=f"fox-{number}"), job=a_job(task_id=f"t{number}"))

    as_json = table_as_json(cost_table(office.records, ("model", "size")))

    assert as_json["total"]["estimated_usd"] == "0.03"
    assert [row["images"] for row in as_json["rows"]] == [3]


@pytest.mark.parametrize("text", ["", "dag,hour", "dag,dag", "dag;day"])
def test_a_dimension_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="Allowed: one or more of dag, day, month, model, task, run, size"):
        dimensions_of(text)


def test_dimensions_may_be_written_with_spaces() -> None:
    assert dimensions_of("dag, day") == ("dag", "day")


def test_records_without_a_receipt_give_an_empty_table() -> None:
    assert "in all       0           0.00" in shown_table(cost_table(Office().records, ("dag",)))
