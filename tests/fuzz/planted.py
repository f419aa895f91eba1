"""Faults planted in the package from outside, at least one for each target. The fuzzer must find every one.

A rule that has never found a fault proves nothing. ``python -m tests.fuzz --planted`` plays them.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from airflow_provider_bitdance.batch import validation as items
from airflow_provider_bitdance.engine import plan, purchase
from airflow_provider_bitdance.exceptions import Paid, RecordUnreadableError
from airflow_provider_bitdance.imaging import validation as imaging
from airflow_provider_bitdance.imaging.structure import Structure
from airflow_provider_bitdance.maintenance import scan
from airflow_provider_bitdance.records import receipts
from airflow_provider_bitdance.storage import LocalFolder
from airflow_provider_bitdance.wavespeed import client, inputs, protocol, urls

EXAMPLES = 500
"""In so many examples a planted fault has to be found; most are found in the first fifty."""


@dataclass(frozen=True)
class Plant:
    """A fault.

    :param finds: A word of each rule that may find it.
    """

    target: str
    plant: Callable[[pytest.MonkeyPatch], None]
    finds: tuple[str, ...]


def a_record_is_taken_as_it_is(patch: pytest.MonkeyPatch) -> None:
    def read(kind: Any, folder: Any, name: str) -> Any:
        data = folder.read(name)
        return None if data is None else kind.model_construct(**json.loads(data))

    patch.setattr(receipts, "read_record", read)


def the_budget_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    async def pass_over(*_: Any, **__: Any) -> None:
        return None

    patch.setattr(plan, "check_plan", pass_over)
    patch.setattr(purchase, "check_purchase", lambda *_, **__: None)


def a_damaged_record_stops_maintenance(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scan, "RecordUnreadableError", _Never)


class _Never(RecordUnreadableError):
    """Nobody raises it."""


def a_file_is_written_beside_the_folder(patch: pytest.MonkeyPatch) -> None:
    replace = LocalFolder.replace

    def write_twice(folder: LocalFolder, name: str, data: bytes) -> None:
        replace(folder, name, data)
        if name.endswith(".png"):
            _outside(folder).write_bytes(data)

    patch.setattr(LocalFolder, "replace", write_twice)


def _outside(folder: LocalFolder) -> Path:
    return Path(folder.uri.removeprefix("file://")).parent / "outside" / "copy.png"


def a_read_deletes_a_file_elsewhere(patch: pytest.MonkeyPatch) -> None:
    read = LocalFolder.read

    def read_and_delete(folder: LocalFolder, name: str) -> bytes | None:
        if name.endswith(".json"):
            os.remove("/tmp/a-file-that-is-not-there")
        return read(folder, name)

    patch.setattr(LocalFolder, "read", read_and_delete)


def an_answer_is_not_bounded(patch: pytest.MonkeyPatch) -> None:
    def unpack(response: Any, *_: Any) -> bytes:
        try:
            return gzip.decompress(response.body) if response.encoding else response.body
        except (OSError, EOFError, zlib.error):
            return b""

    patch.setattr(client, "decoded", unpack)


def any_status_is_a_good_one(patch: pytest.MonkeyPatch) -> None:
    read = protocol.read
    patch.setattr(protocol, "read", lambda call, _, *more: read(call, 200, *more))


def a_purchase_is_called_not_paid(patch: pytest.MonkeyPatch) -> None:
    read = protocol.read
    patch.setattr(protocol, "read", lambda call, *more: read(replace(call, paid=Paid.NO), *more))


def an_output_may_come_from_anywhere(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(urls, "_is_public", lambda _: True)


def only_the_first_hop_is_checked(patch: pytest.MonkeyPatch) -> None:
    check = urls.OutputRule.check

    async def check_once(rule: Any, url: str) -> None:
        if not getattr(rule, "checked", False):
            rule.checked = True
            await check(rule, url)

    patch.setattr(urls.OutputRule, "check", check_once)


def a_name_is_looked_up(patch: pytest.MonkeyPatch) -> None:
    check = urls.OutputRule.check

    async def look_up(rule: Any, url: str) -> None:
        await check(rule, url)
        socket.getaddrinfo("cdn.example", 443)

    patch.setattr(urls.OutputRule, "check", look_up)


def a_folder_is_opened_in_lower_case(patch: pytest.MonkeyPatch) -> None:
    from tests.fuzz.targets import urls as target

    open_folder = target.open_folder
    patch.setattr(target, "open_folder", lambda uri: open_folder(uri.lower()))


def two_rows_may_have_one_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(items, "_find_duplicates", lambda _: None)


def a_url_may_be_any(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inputs, "input_url_fault", lambda _: "")


def a_column_may_hold_anything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(items, "scalar", lambda _, value: value)


def a_manifest_is_taken_as_it_is(patch: pytest.MonkeyPatch) -> None:
    from airflow_provider_bitdance import manifest

    def take(cls: Any, line: Any, **_: Any) -> Any:
        return cls.model_construct(**json.loads(line))

    patch.setattr(manifest.ManifestRow, "model_validate_json", classmethod(take))


def half_a_picture_will_do(patch: pytest.MonkeyPatch) -> None:
    def read(data: bytes) -> Structure:
        kinds = {b"\x89": "PNG", b"\xff": "JPEG", b"R": "WEBP"}
        return Structure(kinds.get(data[:1], "PNG"), data, len(data))  # type: ignore[arg-type]

    patch.setattr(imaging, "read_structure", read)
    patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def a_picture_may_have_any_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(imaging, "MAX_PIXELS", 2**60)
    patch.setattr(imaging, "MAX_SCANNED_PIXELS", 2**60)
    patch.setattr(Image, "MAX_IMAGE_PIXELS", None)


PLANTS = (
    Plant("records", a_record_is_taken_as_it_is, ("Error", "elsewhere")),
    Plant("tasks", the_budget_is_not_checked, ("max_cost_usd",)),
    Plant("tasks", a_file_is_written_beside_the_folder, ("write outside",)),
    Plant("commands", a_damaged_record_stops_maintenance, ("stops a command", "Error")),
    Plant("commands", a_read_deletes_a_file_elsewhere, ("remove outside",)),
    Plant("answers", an_answer_is_not_bounded, ("memory",)),
    Plant("answers", any_status_is_a_good_one, ("refuses", "lost")),
    Plant("answers", a_purchase_is_called_not_paid, ("not paid",)),
    Plant("output-urls", an_output_may_come_from_anywhere, ("inside",)),
    Plant("output-urls", only_the_first_hop_is_checked, ("inside", "TLS")),
    Plant("output-urls", a_name_is_looked_up, ("getaddrinfo",)),
    Plant("output-paths", a_folder_is_opened_in_lower_case, ("opened",)),
    Plant("models", a_url_may_be_any, ("signed", "private")),
    Plant("item-rows", two_rows_may_have_one_key, ("one key",)),
    Plant("item-rows", a_column_may_hold_anything, ("column", "Error")),
    Plant("item-files", two_rows_may_have_one_key, ("one key",)),
    Plant("manifests", a_manifest_is_taken_as_it_is, ("row", "Error")),
    Plant("pictures", half_a_picture_will_do, ("missing",)),
    Plant("pictures", a_picture_may_have_any_size, ("memory", "slow")),
)


def find_all(names: Sequence[str], seed: int) -> int:
    """Plant one fault after the other, and return how many were not found."""
    from tests.fuzz.fuzzer import Fuzzer
    from tests.fuzz.meter import set_backstop
    from tests.fuzz.sandbox import Sandbox
    from tests.fuzz.targets import load

    sandbox, missed = Sandbox(), 0
    chosen = [plant for plant in PLANTS if not names or plant.target in names]
    fuzzers = {plant.target: Fuzzer(load(plant.target), sandbox) for plant in chosen}
    set_backstop()
    for plant in chosen:
        fuzzer = fuzzers[plant.target]
        found = _find(fuzzer, plant, seed)
        missed += not found
        print(f"fuzz: {plant.target}: {plant.plant.__name__}: {found or 'NOT FOUND'}", flush=True)
    for fuzzer in fuzzers.values():
        fuzzer.close()
    return missed


def _find(fuzzer: Any, plant: Plant, seed: int) -> str:
    """Return when and how a planted fault is found; nothing where it is not."""
    before = fuzzer.examples
    fuzzer.forget()
    with pytest.MonkeyPatch.context() as patch:
        plant.plant(patch)
        fuzz = partial(
            fuzzer.fuzz, shrinks=False, is_wanted=lambda fault: any(w in fault.kind for w in plant.finds)
        )
        while fuzzer.examples - before < EXAMPLES:
            fuzz(seed)
            seed += 1
            for found in fuzzer.take_found():
                return f"after {fuzzer.examples - before} examples: {found.fault.kind}"
    return ""
