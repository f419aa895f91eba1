"""What the tests of the local service's state build on: a clock moved by hand, and a service to submit to."""

from __future__ import annotations

from airflow_provider_bitdance.local import faults
from airflow_provider_bitdance.local.catalogue import MODELS
from airflow_provider_bitdance.local.options import Options
from airflow_provider_bitdance.local.prediction import Prediction
from airflow_provider_bitdance.local.service import Service

BITDANCE = "wavespeed-ai/bitdance-14b/text-to-image"
FLUX = "wavespeed-ai/flux-dev"
FULL_MINUTE = 1_780_000_020.0
"""2026-05-28T20:27:00Z."""


class Account:
    """A service on a clock of its own, and its only client."""

    def __init__(self, options: Options | None = None, *, now: float = FULL_MINUTE) -> None:
        self.now = now
        self.service = Service(options or Options(), clock=lambda: self.now)

    def submit(self, prompt: str = "a lighthouse", model: str = BITDANCE) -> Prediction:
        inputs = MODELS[model].inputs.model_validate({"prompt": prompt})
        fault = self.service.faults.for_prediction(prompt)
        return self.service.submit(model, inputs, fault)

    def move(self, seconds: float) -> None:
        self.now += seconds

    def rule(self, **rule: object) -> None:
        self.service.faults.add(faults.parse(rule))
