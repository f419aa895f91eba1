"""Ours, under ``/admin``: the bill, what is behind the predictions, the event log, the faults.

No key is asked for, which is the reason why the service listens on this computer only.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from airflow_provider_bitdance.local import faults, inputs, responses, schemas
from airflow_provider_bitdance.local.ledger import Bill
from airflow_provider_bitdance.local.openapi import ADMIN, DescribedApp
from airflow_provider_bitdance.local.service import Event, Service


class Admin:
    """The endpoints of ``/admin``."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def add_to(self, app: DescribedApp) -> None:
        """Add the routes."""
        app.add("GET", f"{ADMIN}/bill", self.bill, Bill)
        app.add("GET", f"{ADMIN}/predictions", self.predictions, list[schemas.AdminPrediction])
        app.add("GET", f"{ADMIN}/requests", self.requests, list[Event])
        app.add("POST", f"{ADMIN}/faults", self.add_fault, body=faults.AnyRule, status=204, refuses=(422,))
        app.add("POST", f"{ADMIN}/reset", self.reset, status=204)

    async def bill(self) -> Response:
        """What was asked for and what it cost."""
        return JSONResponse(asdict(self.service.bill()))

    async def predictions(self) -> Response:
        """All predictions, oldest first, with prompt and real seed."""
        now = self.service.clock()
        return JSONResponse([responses.admin_prediction(task, now) for task in self.service.predictions()])

    async def requests(self) -> Response:
        """The requests that came in, oldest first, without those to /admin."""
        return JSONResponse([asdict(event) for event in self.service.log])

    async def add_fault(self, request: Request) -> Response:
        """Add a fault rule."""
        try:
            rule = faults.parse(inputs.decoded(await request.body()))
        except ValueError as bad:
            return responses.error(422, str(bad))
        self.service.faults.add(rule)
        return Response(status_code=204)

    async def reset(self) -> Response:
        """Forget everything."""
        self.service.reset()
        return Response(status_code=204)
