"""The cost table: what receipts say that the stored images cost, added up by Dag, day and the like. Pure.

It needs no account. ``costs.py`` compares with the bill. Money is added up as ``Decimal``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.maintenance.scan import JobRecord, Loss, Records
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.redaction import shorten

DIMENSIONS: dict[str, Callable[[Receipt], str]] = {
    "dag": lambda receipt: receipt.writer.job.dag_id,
    "day": lambda receipt: f"{receipt.submitted_at.astimezone(UTC):%Y-%m-%d}",
    "month": lambda receipt: f"{receipt.submitted_at.astimezone(UTC):%Y-%m}",
    "model": lambda receipt: receipt.request.model,
    "task": lambda receipt: receipt.writer.job.task_id,
    "run": lambda receipt: receipt.writer.job.run_id,
    "size": lambda receipt: f"{receipt.width}*{receipt.height}",
}
"""What a table may be by; days and months are those of the purchase, UTC."""
HEADINGS = ("images", "estimated usd", "possibly paid", "possibly paid usd")
"""What stands above the figures of a row."""
_FORMULA = ("=", "+", "-", "@")
"""How a cell begins that a spreadsheet would run."""
_LONGEST = 250
"""Characters of a name: Airflow's own limit for ids."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Some purchases.

    :param usd: What they cost, estimated.
    """

    purchases: int = 0
    usd: Decimal = Decimal(0)

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.purchases + other.purchases, self.usd + other.usd)


@dataclass(frozen=True, slots=True)
class Row:
    """The receipts that have the same values.

    :param values: One for each dimension of the table.
    :param images: What was stored, each with the enhanced prompt that was bought for it.
    :param possibly_paid: What was possibly paid beside that for the same images.
    """

    values: tuple[str, ...]
    images: Sum = Sum()
    possibly_paid: Sum = Sum()


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs from receipts, and what no receipt has.

    :param by: The dimensions.
    :param rows: By their values.
    :param unstored: Predictions that some record says were bought, and that are in no receipt: not stored,
        failed, or replaced by another image since.
    :param unstored_possibly_paid: What was possibly paid for images that have no receipt.
    """

    records: str
    by: tuple[str, ...]
    rows: tuple[Row, ...]
    unstored: Sum
    unstored_possibly_paid: Sum

    @property
    def total(self) -> Row:
        """All rows together."""
        zero = Sum()
        return Row(
            ("in all", *[""] * (len(self.by) - 1)),
            sum((row.images for row in self.rows), zero),
            sum((row.possibly_paid for row in self.rows), zero),
        )


def dimensions_of(text: str) -> tuple[str, ...]:
    """Read the dimensions of a table, such as ``dag,day``.

    :raises InputError: One is not known, or there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= DIMENSIONS.keys() or len(set(names)) < len(names):
        raise InputError(
            f"--by is {shorten(text)}",
            allowed=(f"one or more of {', '.join(DIMENSIONS)}, separated by commas"),
        )
    return names


def cost_table(records: Records, by: Sequence[str], *, since: datetime | None = None) -> CostTable:
    """Add up what images cost.

    :param by: Names of :data:`DIMENSIONS`.
    :param since: Only what was bought since then; a time without a zone is in UTC.
    """
    start = (since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp() if since else 0.0
    found: dict[tuple[str, ...], Row] = {}
    for receipt in records.receipts.values():
        if receipt.submitted_at.timestamp() >= start:
            values = tuple(DIMENSIONS[name](receipt) for name in by)
            row = found.get(values, Row(values))
            images, lost = _costs(receipt)
            found[values] = Row(values, row.images + images, row.possibly_paid + lost)
    stored = {receipt.prediction_id for receipt in records.receipts.values()}
    stored |= {made.enhancement.prediction_id for made in records.receipts.values() if made.enhancement}
    left = [
        Sum(1, _usd(purchase.estimated_cost_usd))
        for purchase in records.purchases
        if purchase.prediction_id not in stored and purchase.bought_at >= start
    ]
    lost_elsewhere = [
        Sum(1, _usd(loss.plan.estimated_cost_usd))
        for record in records.jobs
        for loss in record.losses
        if loss.intended_at >= start and not loss.prediction_id and not _is_counted(records, record, loss)
    ]
    return CostTable(
        records=records.uri,
        by=tuple(by),
        rows=tuple(found[values] for values in sorted(found)),
        unstored=sum(left, Sum()),
        unstored_possibly_paid=sum(lost_elsewhere, Sum()),
    )


def _costs(receipt: Receipt) -> tuple[Sum, Sum]:
    """Return what an image cost with its prompt, and what was possibly paid beside."""
    price, made = _usd(receipt.estimated_cost_usd), receipt.enhancement
    lost = Sum(receipt.possibly_paid, receipt.possibly_paid * price)
    if made is None:
        return Sum(1, price), lost
    prompts_lost = Sum(made.possibly_paid, _usd(made.possibly_paid_usd))
    return Sum(1, price + _usd(made.estimated_cost_usd)), lost + prompts_lost


def _is_counted(records: Records, record: JobRecord, loss: Loss) -> bool:
    """Say whether the receipt at an image's destination counts a lost purchase: its task, before a clear too,
    had lost it when the image was stored."""
    destination = record.destination_of(record.state.images[loss.plan.key])
    receipt = records.receipts.get(f"{destination.record_name}.json")
    if receipt is None or not receipt.possibly_paid or not receipt.writer.job.same_task(record.job):
        return False
    return loss.given_up_at <= receipt.stored_at.timestamp()


def _usd(amount: float) -> Decimal:
    return Decimal(str(amount))


def table_as_json(table: CostTable) -> dict[str, Any]:
    """Return a table as plain JSON. Dollars are text, as ``"0.03"``: no number of JSON is decimal."""
    return {
        "records": table.records,
        "by": list(table.by),
        "rows": [dict(zip(columns_of(table), cells, strict=True)) for cells in _cells(table)],
        "total": _sums(table.total),
        "not_in_a_receipt": {
            "predictions": table.unstored.purchases,
            "estimated_usd": _written(table.unstored.usd),
            "possibly_paid": table.unstored_possibly_paid.purchases,
            "possibly_paid_usd": _written(table.unstored_possibly_paid.usd),
        },
    }


def table_as_csv(table: CostTable) -> str:
    """Return the rows as CSV, with a line of names and without a total."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns_of(table))
    for cells in _cells(table):
        writer.writerow([_cell(value) for value in cells])
    return text.getvalue().rstrip("\n")


def columns_of(table: CostTable) -> list[str]:
    """Return the names of the columns."""
    return [*table.by, *_sums(table.total)]


def _cells(table: CostTable) -> Iterator[list[str | int]]:
    for row in table.rows:
        yield [*row.values, *_sums(row).values()]


def _sums(row: Row) -> dict[str, str | int]:
    return {
        "images": row.images.purchases,
        "estimated_usd": _written(row.images.usd),
        "possibly_paid": row.possibly_paid.purchases,
        "possibly_paid_usd": _written(row.possibly_paid.usd),
    }


def _cell(value: str | int) -> str | int:
    if isinstance(value, str):
        value = shorten(value, _LONGEST)
        # Ids come from records, which others may write: no spreadsheet is to run them.
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value


def _written(usd: Decimal) -> str:
    """Write dollars with two digits, and as many more as there are."""
    cents = usd.quantize(Decimal("0.01"))
    return f"{cents if cents == usd else usd:f}"


def shown_table(table: CostTable) -> str:
    """Show a table, and what no receipt has."""
    rows = [[shorten(str(cell), _LONGEST) for cell in cells] for cells in _cells(table)]
    total = table.total
    rows.append([*total.values, *map(str, _sums(total).values())])
    names = [*table.by, *HEADINGS]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = [f"{table.records}: {total.images.purchases} stored images, from their receipts", ""]
    for cells in [names, *rows]:
        aligned = (
            cell.ljust(width) if place < len(table.by) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join([*lines, "", *_unstored_lines(table)])


def _unstored_lines(table: CostTable) -> Iterator[str]:
    bought, lost = table.unstored, table.unstored_possibly_paid
    yield "Not in a receipt, so not in the table:"
    cost = f"about ${_written(bought.usd)}"
    yield f"  bought, and not stored, failed or replaced since: {bought.purchases}, {cost}"
    yield f"  possibly paid for images that are not stored: {lost.purchases}, about ${_written(lost.usd)}"
