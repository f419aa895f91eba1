"""How the API repeats a prediction's inputs: exactly, altered, or not at all. Plain functions.

A submit response shows them with every default filled in, as was seen in 2026. What results and the history
show is not known, so each place has its own option, and a client can be tried against all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from airflow_provider_bitdance.local.inputs import ImageInputs, Inputs

Echo = Literal[
    "none",
    "intact",
    "defaults",
    "size",
    "snapped",
    "no_size",
    "text_seed",
    "no_seed",
    "cut",
    "expanded",
]

COMMON_DEFAULTS: Final = {"enable_base64_output": False, "enable_sync_mode": False}
"""What a submit response showed besides what clients know and send; captured of flux-dev in August 2026."""
EXPANSION: Final = ", highly detailed, soft light, sharp focus"
SNAP: Final = 64
"""Pixels. A size that is shown snapped has sides that are smaller multiples of it."""


def _snapped(size: str) -> str:
    return "*".join(str((int(side) - 1) // SNAP * SNAP) for side in size.split("*"))


_ALTERED: Final[Mapping[Echo, tuple[tuple[str, ...], Callable[[Any], object]]]] = {
    "size": (("size",), lambda size: size.replace("*", "x")),
    "snapped": (("size",), _snapped),
    "no_size": (("size",), lambda _: None),
    "text_seed": (("seed",), str),
    "no_seed": (("seed",), lambda _: None),
    "cut": (("prompt", "text"), lambda prompt: prompt[: len(prompt) // 2]),
    "expanded": (("prompt", "text"), lambda prompt: prompt + EXPANSION),
}
"""Which input is altered, whatever the model calls it, and how; None leaves it out."""


def echoed(inputs: Inputs, echo: Echo) -> dict[str, object] | None:
    """Repeat inputs in one of the ways; None for not at all.

    :param inputs: as they were requested.
    :param echo: ``intact`` is what the client sent and nothing else; ``defaults`` adds all defaults, also
        those of parameters without effect here. All others have the model's defaults and one alteration.
    """
    sent, known = inputs.model_dump(exclude_unset=True), inputs.model_dump()
    match echo:
        case "none":
            return None
        case "intact":
            return sent
        case "defaults":
            return sent | known | (COMMON_DEFAULTS if isinstance(inputs, ImageInputs) else {})
        case _:
            names, alter = _ALTERED[echo]
            shown = {name: alter(value) if name in names else value for name, value in known.items()}
            return {name: value for name, value in shown.items() if value is not None}
