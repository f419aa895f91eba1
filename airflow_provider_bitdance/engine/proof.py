"""Proof: whether a prediction is ours, another's, or may be either. Pure.

Only the echo of our prompt and seed is proof, of a prediction that none of our records knows. Time alone
proves nothing, for other programs buy, too; a wrong image costs more than a cent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.responses import Prediction


class Proof(StrEnum):
    """What the API's echo of a prediction's inputs says: ours, perhaps ours, not ours, or nothing."""

    OURS = "ours"
    SIMILAR = "similar"
    ANOTHER = "another"
    NONE = "none"


def proof_of(prediction: Prediction, request: ImageRequest) -> Proof:
    """Compare what the API echoes of a prediction with what was sent.

    Only the seed distinguishes two images of one prompt, so ours has both, and nothing is proven for a model
    that takes none. The API may write a size in another form, leave it and other inputs out, or add its
    defaults. It may trim, cut or extend a prompt and leave out a seed: a prediction is another's only if both
    differ.
    """
    echoed = prediction.input or {}
    prompt, seed = echoed.get("prompt"), _number(echoed.get("seed"))
    if not isinstance(prompt, str) and seed is None:
        return Proof.NONE
    if request.seed is None:
        return Proof.SIMILAR
    is_same_prompt = isinstance(prompt, str) and prompt.split() == request.prompt.split()
    is_same_seed = seed == request.seed
    if is_same_prompt and is_same_seed:
        return Proof.SIMILAR if _shows_others(echoed, request) else Proof.OURS
    is_another = isinstance(prompt, str) and seed is not None and not (is_same_prompt or is_same_seed)
    return Proof.ANOTHER if is_another else Proof.SIMILAR


def contradicted(prediction: Prediction, request: ImageRequest) -> dict[str, object]:
    """Return what the API echoes of a prediction, prompt or seed, that cannot be that of a request.

    It may trim, cut or extend a prompt; -1 stands for any seed.
    """
    echoed = prediction.input or {}
    prompt, seed = echoed.get("prompt"), _number(echoed.get("seed"))
    found: dict[str, object] = {}
    if isinstance(prompt, str):
        ours, theirs = " ".join(request.prompt.split()), " ".join(prompt.split())
        if not (ours.startswith(theirs) or theirs.startswith(ours)):
            found["prompt"] = prompt
    if seed is not None and request.seed not in (None, -1, seed):
        found["seed"] = seed
    return found


def _shows_others(echoed: Mapping[str, Any], request: ImageRequest) -> bool:
    """Say whether an echo has another size, or another value of an input that was sent."""
    return any(
        name in echoed and not _is_echo(name, value, echoed[name])
        for name, value in request.body().items()
        if name not in ("prompt", "seed")
    )


def _is_echo(name: str, sent: object, echoed: object) -> bool:
    if name == "size" and sides_of(sent):
        return sides_of(echoed) in (None, sides_of(sent))
    is_plain = not isinstance(echoed, list | dict | None)  # the rest is not kept, see account_history
    return not is_plain or echoed == sent or str(echoed).strip() == str(sent).strip()


def are_alike(one: ImageRequest, other: ImageRequest) -> bool:
    """Say whether two requests have model, prompt and seed in common. They also do if they are the same."""
    return (one.model, one.prompt, one.seed) == (other.model, other.prompt, other.seed)


def _number(value: object) -> int | None:
    """Read a seed, a number or one as text."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else None


def sides_of(value: object) -> tuple[int, int] | None:
    """Read a size such as 1024*1024 or 1024x1024; ``None`` where it does not say two sides."""
    found = re.fullmatch(r"\s*([0-9]{1,5})\s*[*xX]\s*([0-9]{1,5})\s*", str(value or ""))
    return (int(found[1]), int(found[2])) if found else None
