"""WaveSpeed's endpoints, under ``/api/v3``. What they say is in ``answers.py``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_bitdance.local import answers, faults, inputs, shapes
from airflow_provider_bitdance.local.catalogue import MODELS, Model, find
from airflow_provider_bitdance.local.openapi import API, DescribedApp
from airflow_provider_bitdance.local.prediction import Prediction
from airflow_provider_bitdance.local.service import Service
from airflow_provider_bitdance.local.shapes import Envelope
from airflow_provider_bitdance.local.spoiled import spoiled, stopped_within
from airflow_provider_bitdance.local.webhooks import checked_url
from airflow_provider_bitdance.local.wire import body_of, ok

Webhook = Annotated[str, Query(description="http or https on a loopback address; tells when it ended")]

SYNC_SECONDS: Final = 90.0
"""How long a submit in sync mode waits."""
SYNC_LOOK_SECONDS: Final = 0.02
"""Real seconds from look to look, for the service's clock may be moved by hand."""


class Api:
    """The endpoints.

    :param service: the state.
    :param base_url: where clients reach it, for the URLs in answers.
    """

    def __init__(self, service: Service, base_url: str) -> None:
        self.service = service
        self.base_url = base_url

    def add_to(self, app: DescribedApp) -> None:
        """Add the routes."""
        self._add_predictions(app)
        self._add_account(app)
        self._add_models(app)

    def _add_predictions(self, app: DescribedApp) -> None:
        path, one = f"{API}/predictions", Envelope[shapes.Prediction]
        for form in (f"{path}/{{prediction_id}}/result", f"{path}/{{prediction_id}}"):
            app.add("GET", form, self.result, summary="Status and outputs", answer=one, refuses=(404,))
        app.add(
            "POST",
            path,
            self.history,
            summary="History: the predictions of the past seven days, newest first",
            body=inputs.HistoryQuery,
            answer=Envelope[shapes.History],
            refuses=(400,),
        )
        app.add(
            "POST",
            f"{path}/delete",
            self.delete,
            summary="Delete predictions; unknown ids are ignored",
            body=inputs.DeleteQuery,
            answer=Envelope[shapes.DeletedCount],
            refuses=(400,),
        )
        app.add(
            "DELETE",
            f"{path}/{{prediction_id}}",
            self.delete_one,
            summary="Delete a prediction",
            answer=Envelope[shapes.Deleted],
            refuses=(404,),
        )

    def _add_account(self, app: DescribedApp) -> None:
        balance, secret = Envelope[shapes.Balance], Envelope[shapes.Secret]
        app.add("GET", f"{API}/balance", self.balance, summary="Credit left", answer=balance)
        app.add("GET", f"{API}/webhook/secret", self.secret, summary="What signs webhooks", answer=secret)
        app.add(
            "POST",
            f"{API}/billings/search",
            self.billings,
            summary="Charges and refunds, newest first",
            body=inputs.BillingQuery,
            answer=Envelope[shapes.Billings],
            refuses=(400,),
        )
        app.add(
            "POST",
            f"{API}/user/usage_stats",
            self.usage,
            summary="What was used in a span of at most 31 days",
            body=inputs.UsageQuery,
            answer=Envelope[shapes.Usage],
            refuses=(400,),
        )

    def _add_models(self, app: DescribedApp) -> None:
        catalogue = Envelope[list[shapes.Model]]
        app.add("GET", f"{API}/models", self.models, summary="The models", answer=catalogue)
        app.add(
            "POST",
            f"{API}/model/price",
            self.price,
            summary="Quote a price",
            body=inputs.PriceQuery,
            answer=Envelope[shapes.Price],
            refuses=(400, 404),
        )
        app.add(
            "POST",
            f"{API}/model/pricing",
            self.legacy_price,
            summary="Quote a price, in the older form",
            body=inputs.PriceQuery,
            answer=Envelope[shapes.LegacyPrice],
            refuses=(400, 404),
        )
        for model in MODELS.values():
            app.add(
                "POST",
                f"{API}/{model.id}",
                self._submit_to(model),
                summary=f"Submit a task to {model.name}, for ${model.price}",
                body=model.inputs,
                answer=Envelope[shapes.Prediction],
                refuses=(400, 429),
            )
        # Last, for it matches every path.
        app.add_api_route(API + "/{model_id:path}", self.no_model, methods=["POST"], include_in_schema=False)

    def _submit_to(self, model: Model) -> Callable[..., Awaitable[Response]]:
        async def submit(request: Request, webhook: Webhook = "") -> Response:
            return await self.submit(model, request, webhook)

        return submit

    async def submit(self, model: Model, request: Request, webhook: str) -> Response:
        """Answer ``POST /{model}``."""
        service = self.service
        asked = inputs.checked(model.inputs, await body_of(request))
        url = checked_url(webhook) if webhook else None
        shape = service.faults.shape(asked.prompt)
        rule = service.faults.spoiler("submit", prompt=asked.prompt)

        def create() -> Prediction:
            return service.submit(model.id, asked, shape, webhook=url)

        if rule is None:
            task = create()
            if isinstance(asked, inputs.OptimizerInputs) and asked.enable_sync_mode:
                return await self._when_ended(task, request)
            return ok(self._shown(task))
        if isinstance(rule, faults.AnySpoiler) and rule.after_create:
            created = ok(self._shown(create()))
            return spoiled(rule, lambda: created)
        return spoiled(rule, lambda: ok(self._shown(create())))

    async def no_model(self, model_id: str) -> Response:
        """Answer ``POST`` to any other path."""
        raise inputs.Refused(404, f"Model not found: {model_id}")

    async def result(self, prediction_id: str) -> Response:
        """Answer ``GET /predictions/{prediction_id}`` and ``…/result``."""
        task = self.service.find(prediction_id)
        rule = self.service.faults.spoiler(
            "result",
            prompt=task.inputs.prompt,
            reads=task.reads,
            completed=task.status(self.service.clock()) == "completed",
        )
        self.service.count_read(task)
        return _unless(rule, lambda: ok(self._echoed(task)))

    async def history(self, request: Request) -> Response:
        """Answer ``POST /predictions``."""
        query = inputs.checked(inputs.HistoryQuery, await body_of(request))
        return self._answer(
            "history",
            lambda: {
                "page": query.page,
                "items": [self._echoed(task) for task in self.service.history(query)],
            },
        )

    async def delete(self, request: Request) -> Response:
        """Answer ``POST /predictions/delete``."""
        query = inputs.checked(inputs.DeleteQuery, await body_of(request))
        return self._answer("delete", lambda: {"deleted_count": self.service.delete(query.ids)})

    async def delete_one(self, prediction_id: str) -> Response:
        """Answer ``DELETE /predictions/{prediction_id}``."""
        self.service.find(prediction_id)

        def deleted() -> object:
            self.service.delete([prediction_id])
            return {"id": prediction_id, "status": "deleted"}

        return self._answer("delete", deleted)

    async def balance(self) -> Response:
        """Answer ``GET /balance``."""
        return self._answer("balance", lambda: {"balance": float(self.service.balance())})

    async def secret(self) -> Response:
        """Answer ``GET /webhook/secret``."""
        return ok({"secret": self.service.webhook_secret})

    async def models(self) -> Response:
        """Answer ``GET /models``."""
        return self._answer("models", lambda: answers.models(self.base_url))

    async def price(self, request: Request) -> Response:
        """Answer ``POST /model/price``."""
        model = await self._priced(request)
        return self._answer("price", lambda: answers.price(model.id, model.price))

    async def legacy_price(self, request: Request) -> Response:
        """Answer ``POST /model/pricing``."""
        model = await self._priced(request)
        return self._answer("price", lambda: answers.legacy_price(model.id, model.price))

    async def billings(self, request: Request) -> Response:
        """Answer ``POST /billings/search``."""
        query = inputs.checked(inputs.BillingQuery, await body_of(request))
        return self._answer("billing", lambda: answers.billings(query.page, *self.service.billing(query)))

    async def usage(self, request: Request) -> Response:
        """Answer ``POST /user/usage_stats``."""
        query = inputs.checked(inputs.UsageQuery, await body_of(request))
        return self._answer("usage", lambda: answers.usage(self.service.usage(query)))

    async def _priced(self, request: Request) -> Model:
        return find(inputs.checked(inputs.PriceQuery, await body_of(request)).model_id)

    async def _when_ended(self, task: Prediction, request: Request) -> Response:
        """Answer a submit in sync mode when its prediction ended, or after ``SYNC_SECONDS``."""
        until = task.created_at + SYNC_SECONDS
        while (now := self.service.clock()) < min(task.due_at, until):
            if await stopped_within(SYNC_LOOK_SECONDS, request.scope):
                break
        shown = self._shown(task)
        return ok(shown if now >= task.due_at else answers.unfinished(shown, SYNC_SECONDS))

    def _answer(self, on: faults.ApiPoint, data: Callable[[], object]) -> Response:
        """Answer with data, unless a fault rule says otherwise."""
        return _unless(self.service.faults.spoiler(on), lambda: ok(data()))

    def _shown(self, task: Prediction) -> shapes.Prediction:
        return answers.prediction(task, self.service.clock(), base_url=self.base_url)

    def _echoed(self, task: Prediction) -> shapes.Prediction:
        shown = self._shown(task)
        if self.service.options.echo_inputs:
            shown["input"] = answers.inputs(task)
        return shown


def _unless(rule: faults.Spoiler | None, whole: Callable[[], Response]) -> Response:
    return whole() if rule is None else spoiled(rule, whole)
