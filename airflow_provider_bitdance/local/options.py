"""How a local service behaves. The defaults are those that tests want; the command line has its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airflow_provider_bitdance.local import latency, limits
from airflow_provider_bitdance.local.echo import Echo
from airflow_provider_bitdance.local.inputs import PictureFormat

Pictures = Literal["drawn", "fast", "photo"]
HistoryFilter = Literal["honest", "model", "date"]
InputsKey = Literal["input", "inputs"]
IncludeInputs = Literal["ignored", "needed", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a local service behaves.

    :param api_key: the only key that it accepts.
    :param latency: seconds from start to completion: a number, a pair of lowest and highest, or a mixture of
        ranges such as ``80%:4.5-5.5,20%:36-44``.
    :param api_latency: real seconds of the round trip of each request, also of one for an output file; half
        of them pass before the service sees it. TCP connections are made at once, and ``/admin`` is near.
    :param balance_usd: credit at the start.
    :param picture_format: the format of outputs, unless the inputs name one.
    :param pictures: ``drawn`` shows prompt, size and seed. Two kinds for load show no text and are always
        PNG: ``fast`` is one colour, ``photo`` has as many bytes as a photograph, 1 MB for 1024*1024.
    :param min_pixels: an image with fewer pixels is accepted and charged, then fails and is refunded. None:
        no minimum.
    :param submit_echo: how a submit response echoes the inputs: one of the modes of ``echo.py``.
    :param result_echo: how a result echoes them.
    :param history_echo: how history items echo them.
    :param history_inputs_key: the key under which history items echo them.
    :param include_inputs: what this flag of a history request does: items echo inputs with or without it;
        only with it; or the request is refused with HTTP 400.
    :param history_lag: seconds until the history shows a new prediction, in the forms of ``latency``.
    :param history_drop: the share of predictions, from 0 to 1, that the history never shows.
    :param history_filter: which filters work: all of them (``honest``), or all except ``model``, or all
        except ``created_after`` (``date``), which then match nothing.
    :param seed: the seed of everything random: latencies, lags, predictions that the history never shows,
        seeds drawn for -1, and faults by probability.
    :param tier: the account's limits, as WaveSpeed publishes them. None: no limits.
    :param requests_per_minute: predictions per minute of the clock; overrides the tier's limit.
    :param max_in_flight: predictions in flight at once; overrides the tier's limit.
    :param above_limit: ``refuse`` responds with HTTP 429 and charges nothing; ``queue`` accepts and charges,
        and the prediction stays ``created`` until both limits admit it.
    :param state: a file in which the service keeps its state across restarts. Use one file per service.
    """

    api_key: str = "local-key"
    latency: float | tuple[float, float] | str = 0.0
    api_latency: float = 0.0
    balance_usd: float = 100.0
    picture_format: PictureFormat = "png"
    pictures: Pictures = "drawn"
    min_pixels: int | None = None
    submit_echo: Echo = "defaults"
    result_echo: Echo = "none"
    history_echo: Echo = "none"
    history_inputs_key: InputsKey = "input"
    include_inputs: IncludeInputs = "ignored"
    history_lag: float | tuple[float, float] | str = 0.0
    history_drop: float = 0.0
    history_filter: HistoryFilter = "honest"
    seed: int = 0
    tier: limits.Tier | None = None
    requests_per_minute: int | None = None
    max_in_flight: int | None = None
    above_limit: limits.AboveLimit = "refuse"
    state: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be, so that a mistake shows where it was made."""
        latency.of(self.latency)
        latency.of(self.history_lag)
        self.limits()
        if not 0 <= self.history_drop <= 1:
            raise ValueError(f"history_drop {self.history_drop!r} is not a share; allowed: 0 to 1")
        if not 0 <= self.api_latency < math.inf:
            raise ValueError(
                f"api_latency {self.api_latency!r} is not a number of seconds; allowed: 0 and above"
            )
        if self.pictures != "drawn" and self.picture_format != "png":
            raise ValueError(
                f"{self.pictures} images are PNG; picture_format is {self.picture_format!r}, allowed: 'png'"
            )

    def limits(self) -> limits.Limits:
        """Find the account's limits."""
        return limits.of(self.tier, per_minute=self.requests_per_minute, in_flight=self.max_in_flight)
