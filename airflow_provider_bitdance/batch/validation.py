"""Checks: rows become items, or one error names every bad row. No money is spent before this is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_bitdance.batch.columns import ASKED, Scalar, free_columns, scalar
from airflow_provider_bitdance.batch.keys import KEY_ALLOWED, check_key, derived_key, shown
from airflow_provider_bitdance.batch.readers import Row
from airflow_provider_bitdance.batch.template import PromptTemplate
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.wavespeed.image_request import BITDANCE_14B, MAX_SEED, ImageRequest

MAX_ITEMS = 10_000
MAX_VARIANTS = 16
FINDINGS_SHOWN = 50

_ANY_PROMPT = "any"
_LINE_SHOWN = 400
_ROWS_ALLOWED = "a list of prompts, or of objects with key, prompt, size, seed and columns of your own"


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch.

    :param key: Its name, and that of its file without the extension.
    :param request: What is asked, the seed as the user gave it.
    :param columns: The row's free columns.
    :param row: Where a person finds the row: its place in the list or its line in the file, from 1.
    :param variant_of: The row's key, where the row has several variants.
    """

    key: str
    request: ImageRequest
    columns: Mapping[str, Scalar]
    row: int
    variant_of: str | None = None


def checked_items(
    rows: object,
    *,
    prompt: str | None = None,
    size: object = None,
    seed: object = -1,
    model: object = BITDANCE_14B,
    variants: int = 1,
    max_items: int = MAX_ITEMS,
) -> list[Item]:
    """Return what to make, in the order of the rows, variants of a row next to one another.

    :param rows: Prompts, objects with ``key``, ``prompt``, ``size``, ``seed`` and free columns, or the rows
        of a file.
    :param prompt: A template over a row's columns, such as ``"A {style} poster"``. Where it is given it is
        the prompt of every row; a row's own prompt is its column ``{prompt}``.
    :param size: Of rows that give none; as for :class:`ImageRequest`.
    :param seed: Of rows that give none; -1 for any.
    :param model: Of all rows.
    :param variants: Images a row, 1 to 16. A fixed seed counts up from variant to variant.
    :param max_items: The most images, all variants counted.
    :raises InputError: Names every bad row with its number, what is wrong, and what is allowed.
    """
    asked = _Asked(prompt, size, seed, model, variants)
    numbered = _numbered(rows)
    if not numbered:
        raise InputError("There is nothing to do: items is empty", allowed=_ROWS_ALLOWED)
    if len(numbered) * variants > max_items:
        times = f" times {variants} variants" if variants > 1 else ""
        raise InputError(
            f"There are {len(numbered)} items{times}",
            allowed=f"{max_items} images",
            fix="Split them into chunks, as in .expand(items=[chunk, chunk])",
        )
    checked = [asked.check(row) for row in numbered]
    _find_duplicates(checked)
    if any(row.faults for row in checked):
        raise _refusal(checked)
    return [item for row in checked for item in row.items(variants)]


@dataclass(slots=True)
class _Checked:
    """A row, as far as it could be used."""

    number: int
    key: str | None = None
    is_derived: bool = False
    request: ImageRequest | None = None
    columns: dict[str, Scalar] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def items(self, variants: int) -> Iterator[Item]:
        """Yield the items of a row without faults."""
        assert self.key is not None
        assert self.request is not None
        if variants == 1:
            yield Item(self.key, self.request, self.columns, self.number)
            return
        for number in range(variants):
            request = self.request
            if request.seed is not None and request.seed != -1:
                request = request.model_copy(update={"seed": request.seed + number})
            yield Item(f"{self.key}-v{number + 1}", request, self.columns, self.number, self.key)


class _Asked:
    """What holds for all rows, itself checked first."""

    def __init__(self, prompt: str | None, size: object, seed: object, model: object, variants: int) -> None:
        if isinstance(variants, bool) or not isinstance(variants, int) or not 1 <= variants <= MAX_VARIANTS:
            raise InputError(
                f"variants is {shorten(repr(variants))}", allowed=f"a whole number, 1 to {MAX_VARIANTS}"
            )
        common = ImageRequest.of(
            prompt=_ANY_PROMPT if prompt is None else prompt, size=size, seed=seed, model=model
        )
        self._template = None if prompt is None else PromptTemplate(prompt)
        self._size, self._seed, self._model = common.size, common.seed, common.model
        self._variants = variants

    def check(self, row: Row) -> _Checked:
        """Look at everything in a row, so that a person has to mend it once."""
        checked = _Checked(row.number)
        value = {"prompt": row.value} if isinstance(row.value, str) else row.value
        if row.fault or not isinstance(value, Mapping):
            checked.faults.append(row.fault or f"is of type {type(value).__name__}")
            checked.allowed.append(_ROWS_ALLOWED)
            return checked
        checked.columns, checked.faults = free_columns(value)
        if value.get("key") is not None:
            self._check_key(checked, value["key"])
        self._check_request(checked, self._prompt(checked, value), value)
        if checked.request is not None and value.get("key") is None:
            checked.key, checked.is_derived = derived_key(checked.request), True
        return checked

    def _check_key(self, checked: _Checked, key: object) -> None:
        suffix = f"-v{self._variants}" if self._variants > 1 else ""
        try:
            checked.key = check_key(key, suffix=suffix)
        except ValueError as error:
            checked.faults.append(f"key {error}: {shown(key)}")
            checked.allowed.append(KEY_ALLOWED)

    def _prompt(self, checked: _Checked, value: Mapping[object, object]) -> object:
        """Return the row's prompt; where there is none, that is a fault."""
        own = value.get("prompt")
        given = ", ".join(str(name) for name in value if value[name] is not None) or "no columns"
        if self._template is None:
            if own is None:
                checked.faults.append(f"has no prompt; it has {shorten(given)}")
            return own
        if own is not None and "prompt" not in self._template.columns:
            # Left out in silence, all rows would be bought with one and the same prompt.
            checked.faults.append("has a prompt of its own, and the operator's prompt does not use {prompt}")
        values = _values(checked.columns, value)
        missing = [column for column in self._template.columns if values.get(column) is None]
        # A column with a fault of its own is named already.
        if unknown := [column for column in missing if value.get(column) is None]:
            names = ", ".join(f"{{{column}}}" for column in unknown)
            checked.faults.append(f"has nothing for {shorten(names)} of the prompt; it has {shorten(given)}")
        return None if missing else self._template.fill(values)

    def _check_request(self, checked: _Checked, prompt: object, value: Mapping[object, object]) -> None:
        size, seed = value.get("size"), value.get("seed")
        try:
            request = ImageRequest.of(
                prompt=_ANY_PROMPT if prompt is None else prompt,
                size=self._size if size is None else size,
                seed=self._seed if seed is None else seed,
                model=self._model,
            )
        except InputError as error:
            checked.faults.append(error.what)
            checked.allowed += (error.allowed or "").split("; ")
            return
        # Without a prompt there is no request, and the rest of the row is checked all the same.
        checked.request = None if prompt is None else request
        if request.seed is not None and request.seed + self._variants - 1 > MAX_SEED:
            checked.faults.append(f"seed {request.seed} leaves no room for {self._variants} variants")


def _values(columns: Mapping[str, Scalar], value: Mapping[object, object]) -> dict[str, Scalar]:
    """Return what a template may use of a row: its free columns, and what it asks for."""
    values = dict(columns)
    for name in ASKED:
        try:
            values[name] = scalar(value.get(name))
        except ValueError:
            values[name] = None
    return values


def _numbered(rows: object) -> list[Row]:
    if isinstance(rows, str | bytes) or not isinstance(rows, Sequence):
        raise InputError(f"items is of type {type(rows).__name__}", allowed=_ROWS_ALLOWED)
    return [row if isinstance(row, Row) else Row(number, row) for number, row in enumerate(rows, start=1)]


def _find_duplicates(checked: list[_Checked]) -> None:
    """Add a fault to each row whose key an earlier row has; some stores fold case, so keys do."""
    first: dict[str, _Checked] = {}
    for row in checked:
        if row.key is None:
            continue
        other = first.setdefault(row.key.casefold(), row)
        if other is row:
            continue
        if row.is_derived and other.is_derived:
            row.faults.append(f"asks for the same image as row {other.number}; give each a key, or variants")
        else:
            row.faults.append(f"key {shown(row.key)} is that of row {other.number}")
        row.allowed.append(KEY_ALLOWED)


def _refusal(checked: list[_Checked]) -> InputError:
    bad = [row for row in checked if row.faults]
    lines = [
        f"row {row.number}: {shorten('; '.join(row.faults), _LINE_SHOWN)}" for row in bad[:FINDINGS_SHOWN]
    ]
    if len(bad) > FINDINGS_SHOWN:
        lines.append(f"and {len(bad) - FINDINGS_SHOWN} more")
    found = "\n  ".join([f"{len(bad)} of {len(checked)} rows cannot be used:", *lines])
    allowed = dict.fromkeys(text for row in bad for text in row.allowed if text)
    return InputError(found, allowed="; ".join(allowed) or None)
