"""Validation: rows become items, or one error names every bad row. No money is spent before this is done.

:class:`ImageRequest` is the pydantic model of prompt, size, seed and inputs. This module checks what it
cannot: the key, free columns, the template that makes a prompt of them, and whether another row has the same
key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_bitdance.batch.columns import REQUESTED, Scalar, column_name, plain, scalar
from airflow_provider_bitdance.batch.keys import KEY_ALLOWED, check_key, derived_key
from airflow_provider_bitdance.batch.limits import MAX_BATCH, MAX_COLUMNS, MAX_INT_BITS, MAX_ITEMS, MAX_ROW
from airflow_provider_bitdance.batch.readers import Row
from airflow_provider_bitdance.batch.template import InputTemplates, PromptTemplate, unfilled_in
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import texts_in, unrendered_in
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest, known_model
from airflow_provider_bitdance.wavespeed.models import BITDANCE_14B, Model

FINDINGS_SHOWN = 50

_ANY_PROMPT = "any"
_LINE_SHOWN = 400
_ROWS_ALLOWED = "a list of prompts, or of objects with key, prompt, size, seed, inputs and free columns"


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch.

    :param key: Its name, and that of its file without the extension.
    :param request: What is requested, the seed as the user gave it.
    :param columns: The row's free columns.
    :param variant_of: The row's key, where the row has several variants.
    """

    key: str
    request: ImageRequest
    columns: Mapping[str, Scalar]
    variant_of: str | None = None


def checked_items(
    rows: object,
    *,
    prompt: str | None = None,
    size: object = None,
    seed: object = -1,
    model: str | Model = BITDANCE_14B,
    inputs: object = None,
    style: str | None = None,
    variants: int = 1,
    is_rendered: bool = True,
    is_published: bool = False,
) -> list[Item]:
    """Return what to make, in the order of the rows, variants of a row next to one another.

    :param rows: Prompts, objects with ``key``, ``prompt``, ``size``, ``seed``, ``inputs`` and free columns,
        or the rows of a file.
    :param prompt: A template over a row's columns, such as ``"A {style} poster"``. Where it is given it is
        the prompt of every row; a row's own prompt is its column ``{prompt}``.
    :param size: Of rows that give none; as for :class:`ImageRequest`.
    :param seed: Of rows that give none; -1 for any.
    :param model: Of all rows: a path that the provider knows, or what is known of the model.
    :param inputs: The model's other inputs, of all rows; a row's own go before them. Texts may be templates.
    :param is_rendered: Airflow was to render the rows: Jinja that is left in them is a fault.
    :param is_published: The manifest has the images' URLs, in a column ``url`` of its own.
    :param style: In which prompts are enhanced before they are sent.
    :param variants: Images a row, 1 to 16. A fixed seed counts up from variant to variant.
    :raises InputError: Names every bad row with its number, what is wrong, and what is allowed.
    """
    template = PromptTemplate(prompt) if isinstance(prompt, str) else None
    model = model if isinstance(model, Model) else known_model(model)
    own = InputTemplates(inputs)
    needing_none = replace(model, inputs=replace(model.inputs, required=frozenset()))  # rows may give them
    sample = _sample(prompt, template)
    defaults = ImageRequest.of(prompt=sample, size=size, seed=seed, model=needing_none, inputs=own.fixed)
    batch = _Batch(template, own, model, defaults, style, variants, is_rendered, is_published)
    checked = list(_bounded(_check(row, batch) for row in _numbered(rows, variants)))
    _refuse_bad_rows(checked)
    return [item for row in checked for item in row.items]


def _sample(prompt: object, template: PromptTemplate | None) -> object:
    """Return a prompt as the rows may have it."""
    if template is None:
        return _ANY_PROMPT if prompt is None else prompt
    return template.fill({name: name for name in template.columns})


def _numbered(rows: object, variants: int) -> list[Row]:
    if isinstance(rows, str | bytes) or not isinstance(rows, Sequence):
        raise InputError(f"items is of type {type(rows).__name__}", allowed=_ROWS_ALLOWED)
    if not rows:
        raise InputError("There is nothing to make: items is empty", allowed=_ROWS_ALLOWED)
    if len(rows) * variants > MAX_ITEMS:
        times = f" times {variants} variants" if variants > 1 else ""
        raise InputError(
            f"There are {len(rows)} items{times}",
            allowed=f"{MAX_ITEMS} images",
            fix="Split them into chunks, as in .expand(items=[chunk, chunk])",
        )
    return [row if isinstance(row, Row) else Row(number, row) for number, row in enumerate(rows, start=1)]


@dataclass(slots=True)
class _Checked:
    """A row, as far as it could be used.

    :param faults: What is wrong, each with what is allowed.
    :param size: Bytes that prompt, inputs and columns have as JSON.
    """

    number: int
    faults: dict[str, str] = field(default_factory=dict)
    key: str | None = None
    is_key_derived: bool = False
    size: int = 0
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What holds for all rows."""

    template: PromptTemplate | None
    inputs: InputTemplates
    model: Model
    defaults: ImageRequest
    style: str | None
    variants: int
    is_rendered: bool
    is_published: bool


def _bounded(checked: Iterable[_Checked]) -> Iterator[_Checked]:
    """Stop where the plan of the batch would be more than a record may hold."""
    size = 0
    for row in checked:
        size += row.size * len(row.items)
        if size > MAX_BATCH:
            raise InputError(
                f"At row {row.number}, prompts, inputs and columns exceed {MAX_BATCH} bytes in total",
                allowed=f"{MAX_BATCH} bytes for all variants together",
                fix="Split them into chunks, as in .expand(items=[chunk, chunk]), or omit columns",
            )
        yield row


def _check(row: Row, batch: _Batch) -> _Checked:
    """Check all of a row whatever is wrong with a part of it, so that a person corrects it once."""
    value = {"prompt": row.value} if isinstance(row.value, str) else row.value
    if row.fault or not isinstance(value, Mapping):
        return _Checked(row.number, {row.fault or f"is of type {type(value).__name__}": _ROWS_ALLOWED})
    value = {name: plain(cell) for name, cell in value.items()}
    if oversized := _oversized(value):
        return _Checked(row.number, {oversized: ""})
    checked = _Checked(row.number)
    columns = _columns(value, batch, checked.faults)
    if (key := value.get("key")) is not None:
        checked.key = str(key)
        try:
            check_key(key, suffix=f"-v{batch.variants}" if batch.variants > 1 else "")
        except ValueError as error:
            checked.faults[f"key {error}: {shorten(repr(key))}"] = KEY_ALLOWED
    request = _request(value, batch, checked.faults)
    if request is None:
        return checked
    held = [request.prompt, request.inputs, columns]
    checked.size = len(json.dumps(held, ensure_ascii=False).encode())
    if checked.size > MAX_ROW:
        checked.faults[f"has {checked.size} bytes as JSON; the limit is {MAX_ROW}"] = ""
    if checked.key is None:
        checked.key, checked.is_key_derived = derived_key(request, style=batch.style), True
    checked.items = list(_variants(checked.key, request, columns, batch.variants))
    return checked


def _oversized(row: Mapping[object, object]) -> str:
    """Say what of a row is too large to look at its values."""
    if len(row) > MAX_COLUMNS:
        return f"has {len(row)} columns; the limit is {MAX_COLUMNS}"
    if any(isinstance(cell, int) and cell.bit_length() > MAX_INT_BITS for cell in row.values()):
        return "has a whole number of more than 300 digits"
    return ""


def _columns(row: Mapping[object, object], batch: _Batch, faults: dict[str, str]) -> dict[str, Scalar]:
    """Return the row's free columns, or add to its faults."""
    columns: dict[str, Scalar] = {}
    for name, cell in row.items():
        if name not in REQUESTED:
            try:
                known = column_name(name, is_published=batch.is_published)
                columns[known] = scalar(name, cell)
            except ValueError as error:
                faults[str(error)] = ""
    return columns


def _variants(
    key: str, request: ImageRequest, columns: Mapping[str, Scalar], variants: int
) -> Iterator[Item]:
    for number in range(variants):
        seed = request.seed
        if seed is not None and seed != -1:
            seed += number
        name, variant_of = (f"{key}-v{number + 1}", key) if variants > 1 else (key, None)
        yield Item(name, request.model_copy(update={"seed": seed}), columns, variant_of)


def _request(row: Mapping[object, object], batch: _Batch, faults: dict[str, str]) -> ImageRequest | None:
    """Return the row's request, or add to its faults."""
    size, seed = row.get("size"), row.get("seed")
    prompt = _rendered("prompt", lambda: _prompt(row, batch.template), batch, faults)
    inputs = _rendered("inputs", lambda: batch.inputs.of_row(row), batch, faults)
    try:
        request = ImageRequest.of(
            # Without a prompt there is no request, and size and seed are checked all the same.
            prompt=_ANY_PROMPT if prompt is None else prompt,
            size=batch.defaults.size if size is None else size,
            seed=batch.defaults.seed if seed is None else seed,
            model=batch.model,
            inputs=inputs,
        )
    except InputError as error:
        faults[error.what] = error.allowed or ""
        return None
    if request.seed is not None and request.seed + batch.variants - 1 > batch.model.highest_seed:
        faults[f"seed {request.seed} leaves no room for {batch.variants} variants"] = ""
    return None if prompt is None or inputs is None else request


def _rendered(name: str, read: Callable[[], object], batch: _Batch, faults: dict[str, str]) -> object:
    """Return the prompt or the inputs of a row; nothing, and a fault, where they cannot be read."""
    try:
        value = read()
    except ValueError as error:
        faults[str(error)] = ""
        return None
    if batch.is_rendered and (left := next(filter(None, map(unrendered_in, texts_in(value))), "")):
        faults[f"{name} has {shorten(left)}, which was not rendered"] = ""
    return value


def _prompt(row: Mapping[object, object], template: PromptTemplate | None) -> object:
    """Return the row's prompt, or raise a ``ValueError`` that says why there is none."""
    own = row.get("prompt")
    given = shorten(", ".join(str(name) for name in row if row[name] is not None) or "no columns")
    if template is None and own is None:
        raise ValueError(f"has no prompt; it has {given}")
    if template is None:
        if column := unfilled_in(own, row):
            raise ValueError(f"has {column} in its prompt, but columns fill in only the operator's prompt")
        return own
    faults = []
    if own is not None and "prompt" not in template.columns:
        # Left out in silence, all rows would be bought with one and the same prompt.
        faults.append("has its own prompt, but the operator's prompt does not use {prompt}")
    if missing := ", ".join(f"{{{name}}}" for name in template.columns if row.get(name) is None):
        faults.append(f"has no value for {shorten(missing)} in the prompt; it has {given}")
    if faults:
        raise ValueError("; ".join(faults))
    return template.fill({name: scalar(name, row[name]) for name in template.columns})


def _find_duplicates(checked: list[_Checked]) -> None:
    """Add a fault to each row whose key an earlier row has; some stores fold case, so keys do."""
    first: dict[str, _Checked] = {}
    for row in checked:
        if row.key is None or (other := first.setdefault(row.key.casefold(), row)) is row:
            continue
        if row.is_key_derived and other.is_key_derived:
            fault = f"requests the same image as row {other.number}; give each row a key, or use variants"
        else:
            fault = f"key {shorten(repr(row.key))} is already used by row {other.number}"
        row.faults[fault] = KEY_ALLOWED


def _refuse_bad_rows(checked: list[_Checked]) -> None:
    _find_duplicates(checked)
    if any(row.faults for row in checked):
        raise _refusal(checked)


def _refusal(checked: list[_Checked]) -> InputError:
    bad = [row for row in checked if row.faults]
    lines = [
        f"row {row.number}: {shorten('; '.join(row.faults), _LINE_SHOWN)}" for row in bad[:FINDINGS_SHOWN]
    ]
    if len(bad) > FINDINGS_SHOWN:
        lines.append(f"and {len(bad) - FINDINGS_SHOWN} more")
    found = "\n  ".join([f"{len(bad)} of {len(checked)} rows cannot be used:", *lines])
    allowed = "; ".join(text for row in bad for text in row.faults.values() if text)
    return InputError(found, allowed="; ".join(dict.fromkeys(allowed.split("; "))) or None)
