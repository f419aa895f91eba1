"""Ours, under ``/admin``: the bill, what is behind the predictions, the event log, the faults, the webhooks.

No key is asked for, which is the reason why the service listens on loopback addresses only.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from airflow_provider_bitdance.local import answers, faults, shapes
from airflow_provider_bitdance.local.openapi import ADMIN, DescribedApp
from airflow_provider_bitdance.local.service import Bill, Event, Service
from airflow_provider_bitdance.local.webhooks import Webhooks
from airflow_provider_bitdance.local.wire import body_of, error


class Admin:
    """The endpoints of ``/admin``."""

    def __init__(self, service: Service, webhooks: Webhooks) -> None:
        self.service = service
        self.webhooks = webhooks

    def add_to(self, app: DescribedApp) -> None:
        """Add the routes."""
        add = app.add
        add("GET", f"{ADMIN}/bill", self.bill, summary="What was asked for and what it cost", answer=Bill)
        add(
            "GET",
            f"{ADMIN}/predictions",
            self.predictions,
            summary="All predictions, oldest first, with prompt and real seed",
            answer=list[shapes.AdminPrediction],
        )
        add(
            "GET",
            f"{ADMIN}/requests",
            self.requests,
            summary="The requests that came in, oldest first, without those to /admin",
            answer=list[Event],
        )
        add(
            "GET",
            f"{ADMIN}/webhooks",
            self.sent_webhooks,
            summary="The webhooks, oldest first, and what became of them",
            answer=list[shapes.AdminWebhook],
        )
        add(
            "GET",
            f"{ADMIN}/faults",
            self.faults,
            summary="The fault rules in order, and how often each applied",
            answer=list[shapes.AdminFault],
        )
        add(
            "POST",
            f"{ADMIN}/faults",
            self.add_fault,
            summary="Add a fault rule",
            body=faults.AnyRule,
            answer=shapes.AdminFault,
            status=201,
            refuses=(400, 422),
        )
        add("DELETE", f"{ADMIN}/faults", self.clear_faults, summary="Forget all fault rules", status=204)
        add("POST", f"{ADMIN}/reset", self.reset, summary="Forget everything", status=204)

    async def bill(self) -> Response:
        """Answer ``GET /admin/bill``."""
        return JSONResponse(asdict(self.service.bill()))

    async def predictions(self) -> Response:
        """Answer ``GET /admin/predictions``."""
        return JSONResponse(answers.admin_predictions(self.service))

    async def requests(self) -> Response:
        """Answer ``GET /admin/requests``."""
        return JSONResponse([asdict(event) for event in self.service.log])

    async def sent_webhooks(self) -> Response:
        """Answer ``GET /admin/webhooks``."""
        return JSONResponse([answers.admin_webhook(delivery) for delivery in self.webhooks.deliveries])

    async def faults(self) -> Response:
        """Answer ``GET /admin/faults``."""
        return JSONResponse([planned.as_json() for planned in self.service.faults.all()])

    async def add_fault(self, request: Request) -> Response:
        """Answer ``POST /admin/faults``."""
        try:
            rule = faults.parse(await body_of(request))
        except ValueError as bad:
            return error(422, str(bad))
        return JSONResponse(self.service.faults.add(rule).as_json(), 201)

    async def clear_faults(self) -> Response:
        """Answer ``DELETE /admin/faults``."""
        self.service.faults.clear()
        return Response(status_code=204)

    async def reset(self) -> Response:
        """Answer ``POST /admin/reset``."""
        self.webhooks.forget()
        self.service.reset()
        return Response(status_code=204)
