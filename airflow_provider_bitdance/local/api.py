"""WaveSpeed's endpoints, under ``/api/v3``, and the output files, under ``/outputs``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_bitdance.local import faults, inputs, pictures, responses, schemas
from airflow_provider_bitdance.local.catalogue import MODELS, NOT_FOUND, Model, find
from airflow_provider_bitdance.local.faulty_responses import OutageError, faulty, stopped_within
from airflow_provider_bitdance.local.openapi import API, DescribedApp
from airflow_provider_bitdance.local.prediction import Prediction
from airflow_provider_bitdance.local.responses import ok
from airflow_provider_bitdance.local.service import Service

SYNC_SECONDS: Final = 90.0
"""How long a submit in sync mode waits."""
SYNC_POLL_SECONDS: Final = 0.02
"""Real seconds between two checks, for the service's clock may be moved by hand."""
MEDIA_TYPES: Final[dict[str, pictures.MediaType]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
NEED_PICTURE: Final = (faults.Slow, faults.Drip, faults.Truncated, faults.NotWhole)
"""Faults that send the picture or some of it."""


class Api:
    """The endpoints; ``base_url`` is where clients reach them, for the URLs in responses."""

    def __init__(self, service: Service, base_url: str) -> None:
        self.service = service
        self.base_url = base_url

    def add_to(self, app: DescribedApp) -> None:
        """Add the routes."""
        self._add_predictions(app)
        self._add_account(app)
        self._add_models(app)

    def _add_predictions(self, app: DescribedApp) -> None:
        path = f"{API}/predictions"
        one = path + "/{prediction_id}"
        up = self._up
        app.add("GET", one + "/result", self.result, schemas.Prediction, refuses=(404,), before=up("result"))
        app.add("DELETE", one, self.delete_one, schemas.Deleted, refuses=(404,), before=up("delete"))
        app.add("POST", path, self.history, schemas.History, body=inputs.HistoryQuery, before=up("history"))
        app.add(
            "POST",
            path + "/delete",
            self.delete,
            schemas.DeletedCount,
            body=inputs.DeleteQuery,
            before=up("delete"),
        )
        path, files = "/outputs/{prediction_id}/{name}", tuple(MEDIA_TYPES.values())
        app.add("GET", path, self.output, files=files, refuses=(404,), before=up("output"))

    def _add_account(self, app: DescribedApp) -> None:
        up, body = self._up("billing"), inputs.BillingQuery
        app.add("GET", f"{API}/balance", self.balance, schemas.Balance, before=self._up("balance"))
        app.add("POST", f"{API}/billings/search", self.billings, schemas.Billings, body=body, before=up)

    def _add_models(self, app: DescribedApp) -> None:
        app.add("GET", f"{API}/models", self.models, list[schemas.Model], before=self._up("models"))
        up, body = self._up("price"), inputs.PriceQuery
        app.add("POST", f"{API}/model/price", self.price, schemas.Price, body=body, before=up)
        up = self._up("submit")
        for model in MODELS.values():
            path, submit = f"{API}/{model.id}", self._submit_to(model)
            app.add("POST", path, submit, schemas.Prediction, body=model.inputs, refuses=(429,), before=up)
        # Last, for it matches every path.
        app.add_api_route(
            API + "/{model_id:path}",
            self.no_model,
            methods=["POST"],
            dependencies=[Depends(up)],
            include_in_schema=False,
        )

    def _up(self, on: faults.Point) -> Callable[[], Awaitable[None]]:
        """Make the check that no outage spoils a request."""

        async def up() -> None:
            rule = self.service.faults.outage(on, self.service.clock())
            if rule is not None:
                raise OutageError(rule)

        return up

    def _submit_to(self, model: Model) -> Callable[[Request], Awaitable[Response]]:
        async def submit(request: Request) -> Response:
            return await self.submit(model, request)

        submit.__doc__ = f"Submit a task to {model.name}, for ${model.price}."
        return submit

    async def submit(self, model: Model, request: Request) -> Response:
        """Make a prediction, unless a fault rule says otherwise."""
        service = self.service
        requested = await _checked(model.inputs, request)
        fault = service.faults.for_prediction(requested.prompt)
        rule = service.faults.for_response("submit", prompt=requested.prompt)
        if rule is None:
            task = service.submit(model.id, requested, fault)
            if isinstance(requested, inputs.OptimizerInputs) and requested.enable_sync_mode:
                return await self._when_ended(task, request)
            return ok(self._submitted(task))

        def create(late: float = 0.0) -> Response:
            return ok(self._submitted(service.submit(model.id, requested, fault, late=late)))

        if isinstance(rule, faults.AnyResponseFault) and rule.after_create:
            created = create(rule.late)
            return faulty(rule, lambda: created)
        return faulty(rule, create)

    async def no_model(self) -> Response:
        """Refuse a submission to any other path."""
        raise inputs.Refused(400, NOT_FOUND)

    async def result(self, prediction_id: str) -> Response:
        """Status and outputs."""
        task = self.service.find(prediction_id)
        status = task.status(self.service.clock())
        rule = self.service.faults.for_response(
            "result",
            prompt=task.inputs.prompt,
            reads=task.reads,
            completed=status == "completed",
            failed=status == "failed" or (status == "completed" and task.nsfw),
        )
        self.service.count_read(task)
        echo = self.service.options.result_echo

        def result() -> Response:
            return ok(responses.with_inputs(self._shown(task), task, echo))

        return result() if rule is None else faulty(rule, result)

    async def history(self, request: Request) -> Response:
        """History: the predictions of the past seven days, newest first."""
        query, options = await _checked(inputs.HistoryQuery, request), self.service.options
        if options.include_inputs == "refused" and "include_inputs" in query.model_fields_set:
            raise inputs.unsupported("include_inputs")
        is_shown = query.include_inputs or options.include_inputs != "needed"
        echo, key = options.history_echo if is_shown else "none", options.history_inputs_key

        def page() -> schemas.History:
            tasks = self.service.history(query)
            items = [responses.with_inputs(self._shown(task), task, echo, key) for task in tasks]
            return {"page": query.page, "items": items}

        return self._respond("history", page)

    async def delete(self, request: Request) -> Response:
        """Delete predictions; unknown ids are ignored."""
        query = await _checked(inputs.DeleteQuery, request)
        return self._respond("delete", lambda: {"deleted_count": self.service.delete(query.ids)})

    async def delete_one(self, prediction_id: str) -> Response:
        """Delete a prediction."""
        self.service.find(prediction_id)

        def deleted() -> schemas.Deleted:
            self.service.delete([prediction_id])
            return {"id": prediction_id, "status": "deleted"}

        return self._respond("delete", deleted)

    # Not async: FastAPI runs it on a thread, so that drawing does not hold up the API.
    def output(self, prediction_id: str, name: str) -> Response:
        """The picture of a prediction."""
        task = self.service.output(prediction_id, name)
        rule = self.service.faults.for_response("output", prompt=task.inputs.prompt)
        if rule is None:
            return self._picture(task)
        picture = self._picture(task) if isinstance(rule, NEED_PICTURE) else Response()
        return faulty(rule, lambda: picture)

    async def balance(self) -> Response:
        """Credit left."""
        return self._respond("balance", lambda: {"balance": float(self.service.balance())})

    async def models(self) -> Response:
        """The models."""
        return self._respond("models", lambda: responses.models(self.base_url))

    async def price(self, request: Request) -> Response:
        """Quote a price."""
        model = find((await _checked(inputs.PriceQuery, request)).model_id)
        return self._respond("price", lambda: responses.price(model))

    async def billings(self, request: Request) -> Response:
        """Charges and refunds, newest first."""
        query = await _checked(inputs.BillingQuery, request)

        def page() -> schemas.Billings:
            records, has_more = self.service.billing(query)
            items = [responses.billing(record, self.service.clock()) for record in records]
            return {"page": query.page, "has_more": has_more, "items": items}

        return self._respond("billing", page)

    async def _when_ended(self, task: Prediction, request: Request) -> Response:
        """Respond to a submit in sync mode when its prediction ended, or after ``SYNC_SECONDS``."""
        until = task.created_at + SYNC_SECONDS
        while (now := self.service.clock()) < min(task.due_at, until):
            if await stopped_within(SYNC_POLL_SECONDS, request.scope):
                break
        shown = self._submitted(task)
        return ok(shown if now >= task.due_at else responses.unfinished(shown, SYNC_SECONDS))

    def _respond(self, on: faults.ApiPoint, data: Callable[[], object]) -> Response:
        """Respond with data, unless a fault rule says otherwise."""
        rule = self.service.faults.for_response(on)
        return ok(data()) if rule is None else faulty(rule, lambda: ok(data()))

    def _shown(self, task: Prediction) -> schemas.Prediction:
        return responses.prediction(task, self.service.clock(), base_url=self.base_url)

    def _submitted(self, task: Prediction) -> schemas.Prediction:
        shown = responses.submitted(self._shown(task), task)
        return responses.with_inputs(shown, task, self.service.options.submit_echo)

    def _picture(self, task: Prediction) -> Response:
        assert isinstance(task.inputs, inputs.ImageInputs)
        width, height = task.inputs.sides()
        prompt, media_type = task.inputs.prompt, MEDIA_TYPES[task.picture_format]
        kind = self.service.options.pictures
        if kind != "drawn":
            draw = pictures.draw_fast if kind == "fast" else pictures.draw_photo
            picture = draw(model=task.model, prompt=prompt, width=width, height=height, seed=task.seed)
        else:
            picture = pictures.draw(
                model=task.model,
                prompt=prompt,
                width=width,
                height=height,
                seed=task.seed,
                media_type=media_type,
            )
        return Response(picture, media_type=media_type)


async def _checked(kind: type[inputs.AnyBody], request: Request) -> inputs.AnyBody:
    return inputs.checked(kind, inputs.decoded(await request.body()))
