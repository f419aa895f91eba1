"""How a local service behaves. The defaults are those that tests want; the command line has its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airflow_provider_bitdance.local import latency, limits
from airflow_provider_bitdance.local.echo import Echo
from airflow_provider_bitdance.local.inputs import PictureFormat

HistoryFilter = Literal["honest", "model", "date"]
InputsKey = Literal["input", "inputs"]
IncludeInputs = Literal["ignored", "needed", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a local service behaves.

    :param api_key: the one key it accepts.
    :param latency: seconds from start to completion: one number, lowest and highest, or a mixture of ranges
        such as ``80%:4.5-5.5,20%:36-44``.
    :param balance_usd: credit at the start.
    :param picture_format: what the outputs are, unless the inputs name a format.
    :param pictures: ``drawn`` shows prompt, size and seed; ``fast`` is one colour without text, for load,
        and always PNG.
    :param min_pixels: an image of fewer pixels is accepted, charged, fails and is refunded; None is without
        such a minimum.
    :param submit_echo: how a submit response shows the inputs, in one of the ways of ``echo.py``.
    :param result_echo: how a result shows them.
    :param history_echo: how history items show them.
    :param history_inputs_key: under which key history items show them.
    :param include_inputs: what becomes of this flag of a history request: items show inputs without it, too;
        only with it; or it is refused with HTTP 400.
    :param history_lag: seconds until the history shows a new prediction, in the forms of ``latency``.
    :param history_drop: the share of predictions, from 0 to 1, that it never shows.
    :param history_filter: whose filters match what they should: all, or nothing matches the filter ``model``,
        or the filter ``created_after``.
    :param seed: of latencies and lags, of what the history never shows, of the seeds drawn for requests that
        ask for -1, and of faults by probability.
    :param tier: the account's limits, as published; None is without limits.
    :param requests_per_minute: tasks a minute, in windows on the clock; goes before the tier's.
    :param max_in_flight: tasks in flight at once; goes before the tier's.
    :param above_limit: ``refuse`` responds with HTTP 429 and charges nothing; ``queue`` accepts and charges,
        and the task stays ``created`` until both limits admit it.
    :param state: a file that the service writes its state to and starts from. One service a file.
    """

    api_key: str = "local-key"
    latency: float | tuple[float, float] | str = 0.0
    balance_usd: float = 100.0
    picture_format: PictureFormat = "png"
    pictures: Literal["drawn", "fast"] = "drawn"
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
            raise ValueError(f"history_drop {self.history_drop!r} is no share; allowed: 0 to 1")
        if self.pictures == "fast" and self.picture_format != "png":
            raise ValueError(
                f"fast pictures are PNG; picture_format is {self.picture_format!r}, allowed: 'png'"
            )

    def limits(self) -> limits.Limits:
        """Find the account's limits."""
        return limits.of(self.tier, per_minute=self.requests_per_minute, in_flight=self.max_in_flight)
