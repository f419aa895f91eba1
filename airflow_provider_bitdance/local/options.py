"""How a local service behaves. The defaults are those that tests want; the command line has its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airflow_provider_bitdance.local import latency, limits
from airflow_provider_bitdance.local.inputs import PictureFormat


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
    :param echo_inputs: whether results and history items carry the inputs. The documented API does not do so.
    :param seed: of latencies, of the seeds drawn for requests that ask for -1, and of faults by probability.
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
    echo_inputs: bool = False
    seed: int = 0
    tier: limits.Tier | None = None
    requests_per_minute: int | None = None
    max_in_flight: int | None = None
    above_limit: limits.AboveLimit = "refuse"
    state: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be, so that a mistake shows where it was made."""
        latency.of(self.latency)
        self.limits()
        if self.pictures == "fast" and self.picture_format != "png":
            raise ValueError(
                f"fast pictures are PNG; picture_format is {self.picture_format!r}, allowed: 'png'"
            )

    def limits(self) -> limits.Limits:
        """Find the account's limits."""
        return limits.of(self.tier, per_minute=self.requests_per_minute, in_flight=self.max_in_flight)
