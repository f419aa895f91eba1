"""A world with an account: the fake WaveSpeed has a bill, too, and a reconciliation of the records there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_bitdance.engine import Wanted, run_job
from airflow_provider_bitdance.engine.policy import Policy
from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.maintenance.reconcile import Reconciliation
from airflow_provider_bitdance.maintenance.report import Report
from airflow_provider_bitdance.maintenance.scan import Records, read_records
from airflow_provider_bitdance.records import Job
from airflow_provider_bitdance.storage import Folder
from tests.unit.support import (
    OUTPUT,
    RECORDS,
    Crash,
    FakeAPI,
    MemoryFolder,
    World,
    a_wanted,
    envelope,
    run,
)
from tests.wire import httpx

DAY = 24 * 3600.0


@dataclass(frozen=True)
class Line:
    """A line of the bill."""

    kind: str
    price: float
    at: float
    prediction_id: str


class BillingAPI(FakeAPI):
    """Charges for each prediction when it is made; a test may add refunds and other lines.

    :ivar page_size: The most that a page of the bill has, whatever is asked.
    """

    lines: list[Line]
    price_charged = 0.01
    page_size = 100
    refuse_bill: httpx.Response | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lines = []

    def create(self, body: dict[str, Any]) -> Any:
        made = super().create(body)
        self.lines.append(Line("deduct", self.price_charged, self.clock.now, made.id))
        return made

    def refund(self, prediction_id: str) -> None:
        self.lines.append(Line("refund", self.price_charged, self.clock.now, prediction_id))

    @property
    def paid(self) -> float:
        """What the account paid: charges less refunds."""
        return round(sum(line.price * (-1 if line.kind == "refund" else 1) for line in self.lines), 6)

    def _bill(self, asked: dict[str, Any]) -> httpx.Response:
        if self.refuse_bill is not None:
            return self.refuse_bill
        start = datetime.fromisoformat(asked["start_time"]).timestamp()
        lines = [line for line in reversed(self.lines) if line.at >= start]
        first = (asked["page"] - 1) * self.page_size
        items = [
            {
                "uuid": f"bill-{self.lines.index(line)}",
                "billing_type": line.kind,
                "price": line.price,
                "created_at": datetime.fromtimestamp(line.at, UTC).isoformat(),
                "prediction": {"uuid": line.prediction_id} if line.prediction_id else None,
            }
            for line in lines[first : first + self.page_size]
        ]
        return envelope({"page": asked["page"], "items": items})


class Office(World):
    """A world with a bill, the records below one path, and a reconciliation of them."""

    api: BillingAPI

    def __init__(self, *, latency: float = 3.0) -> None:
        super().__init__(latency=latency)
        self.api = BillingAPI(self.clock, latency=latency)

    @property
    def folder(self) -> Folder:
        return MemoryFolder(self.disk, RECORDS)

    @property
    def records(self) -> Records:
        return read_records(self.folder)

    def task(
        self,
        *,
        job: Job | None = None,
        wanted: Wanted | None = None,
        dies: str = "",
        try_number: int = 1,
        **policy: Any,
    ) -> None:
        """Run a task's process to its end, or until it dies at a step."""

        def step(name: str) -> None:
            if dies and name == dies:
                raise Crash(name)

        context = self.context(job=job, step=step, try_number=try_number, **policy)
        try:
            run(run_job(context, [wanted or a_wanted()]))
        except (Crash, BitDanceError):
            assert dies or policy
        self.clock.now += 1

    def wait(self, **span: float) -> None:
        self.clock.now += timedelta(**span).total_seconds()

    def reconcile(self, **changes: Any) -> Report:
        fields: dict[str, Any] = {
            "client": self.api.client(),
            "records": self.folder,
            "open_folder": self.open_folder,
            "since": datetime.fromtimestamp(self.clock.now - 7 * DAY, UTC),
            "policy": Policy(),
            "clock": self.clock,
        }
        return Reconciliation(**({"outputs": (OUTPUT,)} | fields | changes)).run()

    def open_folder(self, uri: str) -> Folder:
        assert uri.startswith(OUTPUT)
        return MemoryFolder(self.disk, uri)

    def damage(self, part: str) -> str:
        """Spoil the last record whose address has this in it, and return that."""
        name = max(path for path in self.disk if part in path)
        self.disk[name] = b'{"format": 1, "number"'
        return name
