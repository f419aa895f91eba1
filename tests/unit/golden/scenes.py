"""The scenes of the golden files: jobs at every stage, as the package's own writers write them.

Nothing is drawn, and no clock is read: the same code writes the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from airflow_provider_bitdance.manifest import ManifestRow, manifest_bytes
from airflow_provider_bitdance.records import (
    Adopted,
    Failed,
    Failure,
    Intended,
    Job,
    Journal,
    Lost,
    NotCreated,
    Owner,
    Planned,
    PlannedImage,
    Stored,
    Submitted,
)
from airflow_provider_bitdance.records.enhanced_prompts import (
    EnhancedPrompts,
    PromptIntent,
    PromptKey,
    PromptOutcome,
)
from airflow_provider_bitdance.records.events import Enhancement, Rested
from airflow_provider_bitdance.records.receipts import Receipt, Receipts
from airflow_provider_bitdance.records.reservations import Reservation, Reservations
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.triggers.bitdance import BitDanceTrigger, Reason
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from tests.unit.support import API_HOST, START, MemoryFolder

DISK = "mem://disk/"
IMAGES, RECORDS = f"{DISK}images", f"{DISK}records"
RUN = "manual__2026-05-28T20:26:40+00:00"
DEADLINE = START + 600
COVER = parse_destination(f"{IMAGES}/cover.png", default_stem="unused")
LOGO = parse_destination(f"{IMAGES}/logo", default_stem="unused")
MODEL = "wavespeed-ai/another/text-to-image"
INPUTS: dict[str, Any] = {"steps": 4, "loras": [{"path": "a/b", "scale": 0.5}]}
STYLE = "photographic"
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PROMPT = "A lighthouse at dawn, café “Größe” 灯塔"

Disk = dict[str, bytes]


def written_today() -> dict[str, bytes]:
    """Return what today's code writes, by file name."""
    disk: Disk = {}
    a_stored_cover(disk)
    a_prediction_in_flight(disk)
    a_poster_that_was_lost_noted_and_cleared(disk)
    a_batch(disk)
    a_model_with_inputs_of_its_own(disk)
    files = {path.removeprefix(DISK): data for path, data in disk.items()}
    return files | {
        "triggers.json": as_json([*triggers()]),
        "events.json": as_json([{"reason": reason, "ended": 1, "pending": 2} for reason in Reason]),
        "fingerprints.json": as_json([*fingerprints()]),
    }


def as_json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def job(task_id: str, *, generation: int = 2) -> Job:
    return Job(dag_id="covers", run_id=RUN, task_id=task_id, map_index=-1, generation=generation)


def process(disk: Disk, writes_as: Job, *, try_number: int = 1, into: Job | None = None) -> Journal:
    """Return the journal of a job, its own if not another's, as one process of a job has loaded it."""
    token = f"{writes_as.task_id}-{writes_as.generation}-{try_number}"
    writer = Owner(job=writes_as, try_number=try_number, host="worker-1", pid=17, token=token)
    journal = Journal(MemoryFolder(disk, RECORDS), writer, job=into)
    journal.load()
    return journal


def planned(key: str, *, stem: str = "", drawn: int = 4242, **more: Any) -> PlannedImage:
    asked = ImageRequest(prompt=PROMPT, size="1280*720")
    return PlannedImage(
        key=key,
        request=asked.model_copy(update={"seed": drawn}),
        seed_asked=-1,
        fingerprint=asked.fingerprint(API_HOST),
        stem=stem or key,
        estimated_cost_usd=0.01,
        **more,
    )


def plan(*images: PlannedImage, is_batch: bool = False) -> Planned:
    return Planned(output=IMAGES, is_batch=is_batch, images=images)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


def a_stored_cover(disk: Disk) -> None:
    """One image at an address that the user named, bought and stored: journal, reservation, file, receipt."""
    ours = process(disk, job("cover"))
    image = planned("image", stem="cover", extension=".png", named=True)
    reservation = Reservation(
        number=1, time=moment(0), writer=ours.owner, key="image", fingerprint=image.fingerprint
    )
    assert Reservations(MemoryFolder(disk, RECORDS)).take(COVER, reservation) == reservation
    ours.claim(DEADLINE, START, plan(image), Intended(keys=("image",)))
    ours.append(START + 1.25, Submitted(key="image", prediction_id="pred-cover"))
    MemoryFolder(disk, IMAGES).replace("cover.png", PICTURE)
    receipts = Receipts(MemoryFolder(disk, RECORDS))
    receipts.write(COVER, receipt_of(image, ours.owner))
    ours.append(START + 5, Stored(key="image", receipt=receipts.uri(COVER)))
    summary = receipt_of(image, ours.owner).summary(
        receipt=receipts.uri(COVER), reused=False, possibly_paid=1
    )
    MemoryFolder(disk, IMAGES).replace("manifest.jsonl", manifest_bytes(rows(summary)))


def receipt_of(image: PlannedImage, writer: Owner) -> Receipt:
    return Receipt(
        uri=f"{IMAGES}/cover.png",
        file="cover.png",
        prediction_id="pred-cover",
        request=image.request,
        seed_asked=image.seed_asked,
        prompt_asked=image.prompt_asked,
        enhancement=image.enhancement,
        fingerprint=image.fingerprint,
        width=1,
        height=1,
        media_type="image/png",
        bytes=len(PICTURE),
        sha256=hashlib.sha256(PICTURE).hexdigest(),
        nsfw=False,
        inference_ms=1234.5,
        estimated_cost_usd=0.01,
        possibly_paid=1,
        reservation=1,
        submitted_at=moment(1.25),
        stored_at=moment(5),
        writer=writer,
    )


def rows(summary: dict[str, Any]) -> list[ManifestRow]:
    """Return the rows of a manifest, with free columns of each kind."""
    free = {"product_id": 7, "name": "Größe 38", "weight": 0.5, "is_new": True, "note": None}
    stored = {"key": "p7-0", "variant_of": "p7", "status": "stored", **summary}
    failed = {"key": "p7-1", "variant_of": "p7", "status": "failed", "error": "no GPU", "possibly_paid": 2}
    missing = {"key": "p8", "status": "missing"}
    return [ManifestRow.model_validate({**row, **free}) for row in (stored, failed, missing)]


def a_prediction_in_flight(disk: Disk) -> None:
    """One image that is bought, and whose task waits in the triggerer."""
    ours = process(disk, job("draft"))
    ours.claim(DEADLINE, START, plan(planned("image", stem="draft")), Intended(keys=("image",)))
    ours.append(START + 1.25, Submitted(key="image", prediction_id="pred-draft"))


def a_poster_that_was_lost_noted_and_cleared(disk: Disk) -> None:
    """Bought at the third intent, by the second try; a clear then adopts it."""
    first, cleared = job("poster"), job("poster", generation=3)
    image, intent = planned("image", stem="poster"), Intended(keys=("image",))
    one = process(disk, first)
    one.claim(DEADLINE, START, plan(image), intent)
    one.append(START + 60, Lost(key="image", reason="ReadTimeout: lost"), intent)
    two = process(disk, first, try_number=2)
    two.claim(DEADLINE + 300, START + 300, NotCreated(key="image", reason="the history has none"))
    one.note(START + 301, key="image", prediction_id="pred-orphan", intent=2)
    two.append(START + 302, intent)
    two.append(START + 303, Submitted(key="image", prediction_id="pred-poster"))
    bought = two.load().images["image"]
    process(disk, cleared, into=first).claim(DEADLINE + 400, START + 400)
    again = planned("image", stem="poster", drawn=99, possibly_paid=bought.possibly_paid)
    adopted = Adopted(
        key="image",
        request=bought.plan.request,
        prediction_id=bought.prediction_id,
        submitted_at=moment(303),
        bought_by=first,
    )
    process(disk, cleared).claim(DEADLINE + 400, START + 400, plan(again), adopted)


def a_batch(disk: Disk) -> None:
    """Fifty images, at every stage."""
    ids = job("batch")
    items = [f"item-{n:02}" for n in range(45)]
    others = ["reused", "adopted", "lost", "failed", "delayed"]
    images = [planned(key, columns={"row": n, "note": None}) for n, key in enumerate(others)]
    images += [planned(key, variant_of=f"row-{n // 3}") for n, key in enumerate(items)]
    one = process(disk, ids)
    adopted = Adopted(
        key="adopted",
        request=planned("adopted", drawn=99).request,
        prediction_id="pred-adopted",
        submitted_at=moment(-60),
        bought_by=job("draft"),
    )
    reused = Stored(key="reused", receipt=receipt_uri("reused"), reused=True)
    one.claim(DEADLINE, START, plan(*images, is_batch=True), reused, adopted)
    one.append(START + 1, Intended(keys=("lost", "failed", "delayed")))
    one.append(
        START + 2,
        Lost(key="lost", reason="ReadTimeout: lost"),
        NotCreated(key="delayed", reason="429"),
        Submitted(key="failed", prediction_id="pred-failed"),
    )
    failed = Failed(key="failed", failure=Failure.MODERATED, reason="content moderation")
    one.append(START + 3, failed, Rested(until=START + 63, window=8))
    two = process(disk, ids, try_number=2)
    for n, key in enumerate(items[:20]):
        now, intent = START + 100 + 10 * n, Intended(keys=(key,))
        two.append(now, intent) if n else two.claim(DEADLINE + 100, now, intent)
        two.append(now + 1, Submitted(key=key, prediction_id=f"pred-{key}"))
        two.append(now + 5, Stored(key=key, receipt=receipt_uri(key)))
    three = process(disk, ids, try_number=3)
    three.claim(DEADLINE + 400, START + 400, Intended(keys=tuple(items[20:22])))
    three.append(START + 401, Submitted(key=items[20], prediction_id=f"pred-{items[20]}", found=True))


def a_model_with_inputs_of_its_own(disk: Disk) -> None:
    """One image of a model without a seed, of an enhanced prompt that was lost once, and smaller."""
    ours = process(disk, job("logo"))
    an_enhanced_prompt(disk, ours.owner)
    sent = ImageRequest(prompt=f"{PROMPT}, enhanced", seed=None, model=MODEL, inputs=INPUTS)
    image = planned("image", stem="logo").model_copy(
        update={
            "request": sent,
            "seed_asked": None,
            "prompt_asked": PROMPT,
            "enhancement": Enhancement(
                style=STYLE,
                prediction_id="pred-text",
                estimated_cost_usd=0.001,
                possibly_paid=1,
                possibly_paid_usd=0.001,
            ),
            "fingerprint": sent.model_copy(update={"prompt": PROMPT}).fingerprint(
                API_HOST, enhance_prompt=STYLE
            ),
        }
    )
    ours.claim(DEADLINE, START, plan(image), Intended(keys=("image",)))
    ours.append(START + 1.25, Submitted(key="image", prediction_id="pred-logo"))
    MemoryFolder(disk, IMAGES).replace("logo.png", PICTURE)
    receipt = receipt_of(image, ours.owner).model_copy(
        update={
            "uri": f"{IMAGES}/logo.png",
            "file": "logo.png",
            "prediction_id": "pred-logo",
            "size_differs": True,
            "sha256_received": hashlib.sha256(b"as it came").hexdigest(),
            "reservation": 0,
        }
    )
    receipts = Receipts(MemoryFolder(disk, RECORDS))
    receipts.write(LOGO, receipt)
    ours.append(START + 5, Stored(key="image", receipt=receipts.uri(LOGO)))


def an_enhanced_prompt(disk: Disk, owner: Owner) -> None:
    """A text that was refused, lost and bought."""
    records, key = EnhancedPrompts(MemoryFolder(disk, RECORDS)), PromptKey(PROMPT, STYLE, API_HOST)
    for number, outcome in enumerate(({"reason": "429"}, {}, {"prediction_id": "pred-text"}), start=1):
        intent = PromptIntent(
            time=moment(number),
            owner=owner,
            text=key.text,
            style=key.style,
            host=key.host,
            until=START + number + 180,
            estimated_cost_usd=0.001,
        )
        assert records.begin(number, intent)
        if outcome:
            records.end(key, number, PromptOutcome(time=moment(number + 0.5), **outcome))
    enhanced = f"{PROMPT}, enhanced"
    records.write(key, enhanced, prediction_id="pred-text", owner=owner, now=START + 9)


def receipt_uri(stem: str) -> str:
    return Receipts(MemoryFolder({}, RECORDS)).uri(
        parse_destination(f"{IMAGES}/{stem}", default_stem="unused")
    )


def triggers() -> list[dict[str, Any]]:
    """Return what Airflow keeps of triggers: of one that waits for predictions, and of one that rests."""
    pending = {"pred-draft": START + 1.25, "pred-item-20": START + 401}
    waits = BitDanceTrigger(
        bitdance_conn_id="bitdance_default",
        pending=pending,
        deadline=DEADLINE,
        not_before=START + 11,
        poll_interval=3.0,
        enough=1,
    )
    rests = BitDanceTrigger(
        bitdance_conn_id="bitdance_default",
        pending=pending,
        deadline=DEADLINE,
        not_before=START + 63,
        enough=0,
    )
    return [dict(zip(("path", "arguments"), trigger.serialize(), strict=True)) for trigger in (waits, rests)]


def fingerprints() -> list[dict[str, Any]]:
    """Return requests, the default one and one with each field set, and their fingerprints; one enhanced."""
    host = "api.wavespeed.ai"
    asked = [
        ({"prompt": "A lighthouse at dawn"}, host),
        ({"prompt": PROMPT}, host),
        ({"prompt": "A lighthouse at dawn", "size": "1280*720"}, host),
        ({"prompt": "A lighthouse at dawn", "seed": 7}, host),
        ({"prompt": "A lighthouse at dawn", "model": "wavespeed-ai/another/text-to-image"}, host),
        ({"prompt": "A lighthouse at dawn"}, API_HOST),
        ({"prompt": "A lighthouse at dawn", "seed": None, "inputs": INPUTS}, host),
    ]
    pins = [
        {"request": fields, "api_host": api, "fingerprint": ImageRequest(**fields).fingerprint(api)}
        for fields, api in asked
    ]
    enhanced = ImageRequest(prompt=PROMPT).fingerprint(host, enhance_prompt=STYLE)
    more = {"request": {"prompt": PROMPT}, "enhance_prompt": STYLE}
    return [*pins, {**more, "api_host": host, "fingerprint": enhanced}]
