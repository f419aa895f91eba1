"""Checks of what a user requests against what is known of the model: all that is wrong, in one error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import BYTE_ORDER_MARK, invisible_in, shows_nothing
from airflow_provider_bitdance.wavespeed.inputs import Finding, read_inputs, shown_input
from airflow_provider_bitdance.wavespeed.models import Model


class RequestChecks:
    """Makes the fields of one request of what a user gives, and collects what is wrong with it.

    :param model: What is known of the model.
    :ivar findings: What is wrong, so far.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.findings: list[Finding] = []

    def prompt(self, prompt: object) -> object:
        """Return the prompt as it is sent. A recorded one was bought, and is read as it is."""
        if not isinstance(prompt, str):
            return prompt
        prompt = prompt.replace(BYTE_ORDER_MARK, "")
        if len(prompt) > self._model.longest_prompt:
            self._refuse("prompt", f"has {len(prompt)} characters", prompt)
        elif "\0" in prompt:
            self._refuse("prompt", "contains a NUL character", prompt)
        elif prompt.strip() and shows_nothing(prompt):
            hidden = invisible_in(prompt) or f"U+{ord(prompt.strip()[0]):04X}"
            self._refuse("prompt", f"has only invisible characters, such as {hidden}", prompt)
        return prompt

    def size(self, size: object, width: object, height: object) -> str | None:
        """Return the size as it is sent, made of ``size`` or of width and height."""
        sizes, sides = self._model.sizes, {"width": width, "height": height}
        given = {name: value for name, value in {"size": size, **sides}.items() if value is not None}
        if sizes is None:
            for name, value in given.items():
                self._refuse(name, "is not an option of this model", value)
            return None
        if not given:
            if self._model.needs_size:
                self._refuse("size", "is missing", size)
            return sizes.default
        if "size" in given and len(given) > 1:
            for name, value in given.items():
                contradicted = "width and height" if name == "size" else "size"
                self._refuse(name, f"contradicts {contradicted}", value)
            return None
        asked = given["size"] if "size" in given else self._size_of(sides)
        try:
            return None if asked is None else sizes.read(asked)
        except ValueError as error:
            self._refuse("size", str(error), asked)
            return None

    def _size_of(self, sides: Mapping[str, object]) -> str | None:
        """Return the size that width and height make."""
        bounds = self._model.sizes.sides if self._model.sizes else None
        before = len(self.findings)
        for name, side in sides.items():
            if side is None:
                self._refuse(name, "is missing", side)
            elif isinstance(side, bool) or not re.fullmatch(r"\s*\d{1,5}\s*", str(side), re.ASCII):
                self._refuse(name, "is not a whole number", side)
            elif bounds and not bounds[0] <= int(str(side)) <= bounds[1]:
                self._refuse(name, "is out of range", side)
        return "*".join(map(str, sides.values())) if len(self.findings) == before else None

    def seed(self, seed: object) -> object:
        """Return the seed, ``None`` for a model that takes none."""
        if self._model.seeds is not None:
            return -1 if seed is None else seed
        if seed is not None and str(seed).strip() != "-1":
            self._refuse("seed", "is not an option of this model", seed)
        return None

    def seed_range(self, seed: int | None) -> None:
        """Check a seed that some model takes, and perhaps not this one."""
        if self._model.seeds is None or seed is None or seed == -1:
            return
        if not self._model.seeds[0] <= seed <= self._model.seeds[1]:
            self._refuse("seed", "is out of range", seed)

    def inputs(self, inputs: object) -> dict[str, Any]:
        """Return the other inputs as they are sent."""
        try:
            sent, findings = self._model.inputs.check(read_inputs(inputs), options=self._model.options)
        except ValueError as error:
            self._refuse("inputs", str(error), inputs)
            return {}
        self.findings += findings
        return sent

    def error(self, *faults: Mapping[str, Any]) -> InputError:
        """Return the error that names all that is wrong.

        :param faults: What pydantic finds wrong.
        """
        for fault in faults:
            wrong = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
            self._refuse(str(fault["loc"][0]), wrong, fault["input"])
        what = [f"{field} {wrong}: {_shown(field, value)}" for field, wrong, value, _ in self.findings]
        allowed = dict.fromkeys(f"{field}: {allowed}" for field, _, _, allowed in self.findings)
        return InputError("; ".join(what), allowed="; ".join(allowed))

    def _refuse(self, field: str, wrong: str, value: object) -> None:
        self.findings.append((field, wrong, value, self._allowed(field)))

    def _allowed(self, field: str) -> str:
        model, sizes = self._model, self._model.sizes
        if field == "prompt":
            return f"text of at most {model.longest_prompt} characters, at least one of them visible"
        if field == "seed" and model.seeds is None:
            return f"omit it: {model.path} draws its own, and the API does not return it"
        if field == "seed":
            least, most = model.seeds or (0, 0)
            return f"-1 (any seed) to {most}" if least == 0 else f"-1 (any seed), or {least} to {most}"
        if field == "inputs":
            return f"an object with names of the model's inputs; {model.inputs.in_words}"
        if sizes is None:
            return f"omit it; {model.inputs.in_words}"
        if field == "size":
            return sizes.allowed
        if sizes.sides is None:
            return f"the sides of {sizes.allowed}"
        other = "height" if field == "width" else "width"
        return f"{sizes.sides[0]} to {sizes.sides[1]} pixels, together with {other} and without size"


def _shown(field: str, value: object) -> str:
    return shown_input(value) if field.startswith("inputs") else shorten(repr(value))
