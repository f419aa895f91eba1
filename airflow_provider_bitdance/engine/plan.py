"""Plan: what will be bought and what is there already. Decided once a generation, before any money moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from airflow_provider_bitdance.engine.budget import check_plan, prices
from airflow_provider_bitdance.engine.context import FEW_IMAGES, MANY, JobContext, Wanted, compares_by_size
from airflow_provider_bitdance.engine.decisions import (
    Adopt,
    Buy,
    Refusal,
    Refuse,
    Reuse,
    WantedFacts,
    decide_wanted,
)
from airflow_provider_bitdance.engine.failures import FAILURE_OF
from airflow_provider_bitdance.engine.output import KEPT_BY_WAVESPEED
from airflow_provider_bitdance.engine.takeover import adoption, take_over_earlier
from airflow_provider_bitdance.exceptions import InputError, NsfwError, SizeMismatchError
from airflow_provider_bitdance.records import (
    Adopted,
    Failed,
    ImageState,
    Intended,
    Journal,
    Planned,
    PlannedImage,
    Status,
    Stored,
)
from airflow_provider_bitdance.records.events import Enhancement, Event
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.redaction import shorten, some_of
from airflow_provider_bitdance.storage import check_writable
from airflow_provider_bitdance.storage.naming import EXTENSIONS
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest

READS_AT_ONCE = 16
"""If one fails, what the job still writes would have to wait behind all that is queued."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done about one image.

    :param event: What needs no purchase; without one it is bought.
    :param standing: The receipt of the image at its destination.
    :param leaves: A prediction, bought before the task was cleared, that is not used; empty without one.
    :param lost: A receipt whose file is not there as it was stored; the image may be restored.
    """

    image: PlannedImage
    event: Event | None
    standing: Receipt | None = None
    lost: Receipt | None = None
    leaves: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """How the receipts of a plan are looked up.

    :param listed: The names of all receipts that are there; ``None`` where they are not listed.
    :param by_size: Their files are compared by size.
    """

    listed: set[str] | None
    by_size: bool

    def may_have(self, item: Wanted) -> bool:
        """Say whether there may be a receipt of an image."""
        return self.listed is None or item.destination.record_name in self.listed


async def plan(context: JobContext, wanted: list[Wanted]) -> list[Event]:
    """Return the events of a first entry: the plan, what needs no purchase, and the intent of one image.

    That is not an image that the user named: its destination has to be reserved first.

    :raises InputError: ``if_exists="fail"``, and there is an image.
    :raises BudgetError: What is to be bought costs too much.
    """
    earlier = await take_over_earlier(context)
    price = await prices(context.client, context.policy, (item.request for item in wanted))
    listed = await asyncio.to_thread(context.receipts.known) if len(wanted) > MANY else None
    known = _Known(listed, by_size=compares_by_size(len(wanted)))
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def decide(item: Wanted) -> Decision:
        async with gate:
            return await _decide(context, item, earlier, price, known)

    decided = await asyncio.gather(*(decide(item) for item in wanted))
    _log_lost(context, decided)
    _log(context, decided, left=_left(context, earlier, decided))
    if context.policy.if_exists == "reuse":  # else no receipt was looked for
        nothing = (found for found in decided if found.event is None and not (found.standing or found.lost))
        context.coordination.vacant.update(found.image.key for found in nothing)
    to_buy = [decision.image for decision in decided if decision.event is None]
    enhanced = (item.enhancement for item in wanted if item.enhancement is not None)
    await check_plan(context, to_buy, prompts_usd=sum(made.spent_usd for made in enhanced))
    if to_buy:
        await _prepare_to_buy(context)
    return [
        Planned(
            output=wanted[0].destination.folder,
            is_batch=context.policy.is_batch,
            images=tuple(decision.image for decision in decided),
        ),
        *(decision.event for decision in decided if decision.event is not None),
        *_first_intent(decided),
    ]


def _first_intent(decided: list[Decision]) -> list[Intended]:
    to_buy = (found for found in decided if found.event is None)
    keys = [found.image.key for found in to_buy if not (found.image.named or found.lost)]
    return [Intended(keys=(key,)) for key in keys[:1]]


async def _prepare_to_buy(context: JobContext) -> None:
    """See whether what is bought will have its place, and a next try to collect it."""
    # The journal's own entry proves its store; where images go elsewhere, that store has to prove itself.
    if not context.journal.uri.startswith(f"{context.images.uri}/"):
        exclusive = await asyncio.to_thread(check_writable, context.images)
    else:
        exclusive = await asyncio.to_thread(context.records.is_exclusive)
    context.coordination.creates = exclusive
    owner = context.journal.owner
    if owner.job.is_task and not owner.has_tries_left:
        context.log.warning(
            "This is the task's last try: if its worker dies, what it buys stays "
            "uncollected until the task is cleared or reconcile runs. With retries=2, "
            "the next try collects it"
        )


async def _decide(
    context: JobContext,
    item: Wanted,
    earlier: list[Journal],
    price: dict[str, float],
    known: _Known,
) -> Decision:
    """Plan one image: fetch the facts, and turn what is decided into the plan's events."""
    of_image = [journal for journal in earlier if item.key in journal.state.images]
    before = tuple(journal.state.images[item.key] for journal in of_image)
    image = planned_image(context, item, price[item.request.kind], before[0] if before else None)
    receipt = lost = None
    if context.policy.if_exists == "reuse" and known.may_have(item):
        receipt, lost = await asyncio.to_thread(_standing_receipt, context, item, known.by_size)
    facts = WantedFacts(
        fingerprint=image.fingerprint,
        policy=context.policy,
        exists=context.policy.if_exists == "fail" and await asyncio.to_thread(_exists, context, item),
        receipt=receipt,
        earlier=before,
    )
    match decide_wanted(facts):
        case Reuse(standing):
            stored = Stored(key=item.key, receipt=context.receipts.uri(item.destination), reused=True)
            return Decision(_made_of(image, standing.request, standing.enhancement), stored, receipt)
        case Adopt(theirs):
            owner = next(journal.job for journal in of_image if journal.state.images[item.key] is theirs)
            image = _made_of(image, theirs.plan.request, theirs.plan.enhancement)
            return Decision(image, adoption(theirs, item.key, owner), receipt)
        case Refuse(why):
            return _refused(context, item, image, receipt, why)
        case Buy(leaves):
            return Decision(image, None, receipt, lost, leaves)


def _made_of(image: PlannedImage, request: ImageRequest, made: Enhancement | None) -> PlannedImage:
    """Return a plan with the enhanced prompt that an image was made of: a person may have had the text
    enhanced again since. What that cost stays.

    :param request: What was sent for the image.
    :param made: How its prompt was made.
    """
    if image.enhancement is None or made is None:
        return image
    sent = image.request.model_copy(update={"prompt": request.prompt})
    enhancement = image.enhancement.model_copy(update={"prediction_id": made.prediction_id})
    return image.model_copy(update={"request": sent, "enhancement": enhancement})


def _refused(
    context: JobContext, item: Wanted, image: PlannedImage, receipt: Receipt | None, why: Refusal
) -> Decision:
    """Refuse the whole plan, or write down that one image of a batch is not available."""
    if why is Refusal.EXISTS or receipt is None:
        raise InputError(
            f"An image already exists at {shorten(item.destination.identity, 200)}",
            allowed='an unused output_path, or if_exists="reuse" or "regenerate"',
        )
    try:
        context.check_allowed(receipt)
    except (NsfwError, SizeMismatchError) as error:
        if not context.policy.is_batch:
            raise
        return Decision(image, Failed(key=item.key, failure=FAILURE_OF[type(error)], reason=error.what))
    raise AssertionError("unreachable: what the policy does not allow is refused")


def planned_image(
    context: JobContext, item: Wanted, price_usd: float, earlier: ImageState | None = None
) -> PlannedImage:
    """Fix what is requested; the seed is drawn here, because the API does not return the one that it uses.

    :param earlier: The image in the task's last generation that planned it.
    """
    request = item.request
    if request.seed == -1:
        request = request.model_copy(update={"seed": item.model.seed_of(context.draw_seed())})
    return PlannedImage(
        key=item.key,
        request=request,
        seed_asked=item.request.seed,
        prompt_asked=item.asked.prompt if item.asked else None,
        enhancement=item.enhancement,
        fingerprint=item.fingerprint(context.client.settings.host),
        stem=item.destination.stem,
        extension=item.destination.extension,
        # A clear may begin an iteration again as another job, which stores at the same destination.
        named=item.destination.named or context.journal.job.iteration is not None,
        estimated_cost_usd=price_usd,
        columns=dict(item.columns),
        variant_of=item.variant_of,
        possibly_paid=earlier.possibly_paid if earlier else 0,
    )


def _standing_receipt(
    context: JobContext, item: Wanted, by_size: bool
) -> tuple[Receipt | None, Receipt | None]:
    """Return the receipt at an image's destination: first if its file is as it was stored, second if not."""
    receipt = context.receipts.find(item.destination)
    if receipt is not None and not context.is_intact(receipt, by_size=by_size):
        return None, receipt
    return receipt, None


def _exists(context: JobContext, item: Wanted) -> bool:
    # What is stored has an extension always.
    extensions = {*EXTENSIONS.values(), ".jpeg", item.destination.extension} - {""}
    return any(context.images.size(item.destination.stem + extension) is not None for extension in extensions)


def _left(context: JobContext, earlier: list[Journal], decided: list[Decision]) -> list[str]:
    """Return the predictions that were bought before a clear, can be collected, and are not used: another
    image is requested now, or the row is gone."""
    used = {found.event.prediction_id for found in decided if isinstance(found.event, Adopted)}
    last = {
        image.prediction_id: image
        for journal in reversed(earlier)
        for image in journal.state.images.values()
        if image.prediction_id not in used
    }
    now = context.clock.time()
    waiting = (
        prediction_id
        for prediction_id, image in last.items()
        if image.status is Status.SUBMITTED and now - image.submitted_at < KEPT_BY_WAVESPEED.total_seconds()
    )
    return list(dict.fromkeys([*waiting, *(found.leaves for found in decided if found.leaves)]))


def _log_earlier(context: JobContext, decided: list[Decision], left: list[str]) -> None:
    adopted = [found.event.prediction_id for found in decided if isinstance(found.event, Adopted)]
    if adopted:
        context.log.info(
            "Waiting for predictions that were bought before the task was cleared; nothing is bought "
            "again: %s",
            some_of(adopted),
        )
    if left:
        context.log.warning(
            "Not using predictions that were bought before the task was cleared; they stay collectable for "
            "7 days: %s",
            some_of(left),
        )


def _log(context: JobContext, decided: list[Decision], left: list[str]) -> None:
    _log_earlier(context, decided, left)
    reused = [found.standing for found in decided if found.standing and isinstance(found.event, Stored)]
    replaced = [found.standing for found in decided if found.standing and found.event is None]
    for receipt in (receipt for receipt in reused if receipt.is_other_size):
        context.notices.size_differs(receipt)
    if len(decided) <= FEW_IMAGES:
        for receipt in reused:
            _log_reuse(context, receipt)
        for receipt in replaced:
            context.log.warning(
                "%s was made for a different request; buying a new image to replace it", receipt.uri
            )
        return
    there = sum(found.event is not None for found in decided)
    if there:
        by_size = "; files were compared by size" if compares_by_size(len(decided)) else ""
        context.log.info(
            "%d of %d images are already stored or bought%s; they are not bought again",
            there,
            len(decided),
            by_size,
        )
    if replaced:
        context.log.warning(
            "%d of %d images were made for different requests; buying new images to replace them",
            len(replaced),
            len(decided),
        )


def _log_lost(context: JobContext, decided: list[Decision]) -> None:
    lost = [found.lost for found in decided if found.lost]
    if len(lost) <= FEW_IMAGES:
        for receipt in lost:
            context.log.warning("%s is missing or has changed since it was stored", receipt.uri)
    else:
        context.log.warning("%d stored files are missing or have changed since they were stored", len(lost))


def _log_reuse(context: JobContext, receipt: Receipt) -> None:
    made = receipt.writer.job
    ours = context.journal.job
    if (made.dag_id, made.run_id) == (ours.dag_id, ours.run_id):
        context.log.info("Reusing %s, which is already stored; nothing is bought", receipt.uri)
        return
    context.log.warning(
        "Reusing %s, which run %s of Dag %s made for the same request; nothing is "
        'bought. Use if_exists="regenerate" to buy it again',
        receipt.uri,
        shorten(made.run_id, 250),
        shorten(made.dag_id, 250),
    )
