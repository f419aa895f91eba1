"""Mutations of whose image it is and what is said of it: destinations, take-over, download, result."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

DESTINATION_LOCK = mutations_of(
    "engine/destination_lock.py",
    "unit/engine/test_destination_lock.py unit/engine/test_side_by_side.py",
    ("self.held[image.plan.key] = until", "pass", "a task forgets what it waits for"),
    (
        ".status not in (Status.PLANNED, Status.FAILED):",
        ".status is Status.STORED:",
        "an old image takes the place of what was bought later",
        "unit/maintenance/test_reconcile.py",
    ),
    (
        "    return await DestinationLock(regenerating).take(image)\n",
        "    return False\n",
        "an image is lost for one that failed later",
        "unit/maintenance/test_reconcile.py",
    ),
    (
        "            context.coordination.vacant.discard(key)\n",
        "",
        "a receipt that came after the plan is not looked for when the image is stored",
    ),
    (
        "            if first == mine:\n",
        "            if mine:\n",
        "two tasks buy what neither had found",
    ),
    (
        "self._reservation(image, held.number + 1)",
        "self._reservation(image, 1)",
        "a destination is never taken over",
    ),
    (
        "if context.journal.state.key_of.get(id_, key) != key:",
        "if False:",
        "another task's records make one prediction the picture of two images",
    ),
    ("return not is_adopted and not await", "return not await", "what was adopted is bought, too"),
    (
        "if await asyncio.to_thread(context.reservations.take, destination, mine) == mine:",
        "if await asyncio.to_thread(context.reservations.take, destination, mine):",
        "the slower of two tasks buys, too",
    ),
    (
        "return not is_adopted and not await self._was_bought_meanwhile(image, held)",
        "return not is_adopted",
        "what a stopped task bought after it came back is bought again",
        "unit/engine/test_destination_lock.py unit/engine/test_side_by_side.py",
    ),
    (
        "image)\n        command = decide_destination(self._facts(image, receipt=receipt, held",
        "image)\n        command = decide_destination(self._facts(image, receipt=None, held",
        "what a stopped task stored after it came back is bought again",
    ),
    (
        "if is_stored.get(key) or until <= now",
        "if is_stored.get(key)",
        "a task waits for a dead one for ever",
        "unit/engine/test_destination_lock.py::test_an_image_is_tried_again_once_another_task_has_stored_it_or_its_lease_has_ended",
    ),
    (
        "if is_stored.get(key) or until <= now",
        "if until <= now",
        "a task waits though the image is there",
        "unit/engine/test_destination_lock.py::test_an_image_is_tried_again_once_another_task_has_stored_it_or_its_lease_has_ended",
    ),
    (
        "receipt is not None and receipt.stored_at != self._found[key].stored_at",
        "receipt is not None",
        "a task that waits to replace an image never gives its worker back",
    ),
    (
        "return receipt if context.is_intact(receipt) else None",
        "return receipt",
        "an image whose file is gone is the result",
    ),
    (
        "is_stopped=holder is not None and holder.is_stopped",
        "is_stopped=holder is not None",
        "a living task's purchase is taken before it is stopped",
    ),
    (
        "if holder.journal.state.number == before:",
        "if True:",
        "a task that has moved its deadline on is stopped",
    ),
    (
        'if key in self._tried or context.policy.if_exists != "reuse":',
        "if key in self._tried:",
        'if_exists="regenerate" waits for the image of another task',
    ),
    (
        "if not holder.is_stopped and now < lease_end:",
        "if True:",
        "a task waits for one whose lease has ended",
    ),
    (
        "if wanted in theirs:",
        "if wanted[0] in {place for place, _ in theirs}:",
        "a task waits for an image of another request",
    ),
    ("        context.check_allowed(receipt)\n", "", "a flagged picture of another task is the result"),
    ("receipt=uri, reused=True)", "receipt=uri)", "another task's image is said to cost money here"),
    ("run_started_at=context.run_started_at,", "run_started_at=0.0,", "a cleared run is refused"),
    (
        "await context.write(adoption(command.image, image.plan.key, holder))",
        "pass",
        "what a dead task bought is bought again",
    ),
)

TAKEOVER = mutations_of(
    "engine/takeover.py",
    "unit/engine/test_destination_lock.py unit/engine/test_run.py unit/engine/test_plan.py",
    ("if not (planned or earlier.state.is_stored):", "if False:", "a cleared task's process buys on"),
    (
        "            while not await claim_journal(context, earlier):\n                pass\n",
        "            await claim_journal(context, earlier)\n",
        "a cleared task's process that writes at this moment is not stopped",
    ),
    (
        "context.journal.state.planned_at + CLOCK_MARGIN",
        "context.journal.state.planned_at",
        "a second between two workers' clocks stops a task",
    ),
    (
        "if planned_at < other.state.planned_at < math.inf:",
        "if False:",
        "a task goes on with a plan of before the last clear",
    ),
    (
        " | set(range(job.generation))",
        "",
        "a cleared process that has not written yet is not stopped, and buys",
    ),
    (
        "return sorted(journals, key=lambda journal: journal.state.planned_at or math.inf, reverse=True)",
        "return journals",
        "the generation with the highest number is taken for the last",
    ),
    ("planned_at or math.inf", "planned_at", "a generation without a plan hides behind an older one"),
    (
        "            if not any(newer.state.images for newer in journals):\n                raise\n",
        "",
        "a damaged journal is taken for none, and its images are bought again",
    ),
    (
        "submitted_at=datetime.fromtimestamp(image.submitted_at, UTC)",
        "submitted_at=datetime.now(UTC)",
        "the 7 days of an adopted prediction begin anew",
    ),
    ("bought_by=image.bought_by or owner", "bought_by=owner", "the wrong task is said to have paid"),
    (
        "if journal.state.having(Status.INTENDED):",
        "if False:",
        "a purchase whose response the stopped task lost is bought again",
    ),
    (
        "        await asyncio.to_thread(journal.load)\n        return False",
        "        await asyncio.to_thread(journal.load)\n        return True",
        "a journal is taken for claimed that another process has",
    ),
)

PLAN = mutations_of(
    "engine/plan.py",
    "unit/engine/test_run.py unit/engine/test_plan.py",
    (
        "    if image.enhancement is None or made is None:\n",
        "    if True:\n",
        "a manifest says a prompt of which no image was made",
        "unit/enhancer/test_stage.py",
    ),
    (
        "        if image.prediction_id not in used\n",
        "",
        "what is used is said to be left",
        "unit/engine/test_notices.py",
    ),
    (
        'if context.policy.if_exists == "reuse":  # else',
        "if True:  # else",
        "an old receipt stands beside a new file",
    ),
)

POLICY = mutations_of(
    "engine/policy.py",
    "unit/engine/test_run.py unit/engine/test_dispatcher.py unit/engine/test_download.py",
    (
        "image.failure is Failure.FAILED and image.failed_in_try != try_number",
        "image.failure is Failure.FAILED",
        "the try in which an image failed buys it again and again",
    ),
    (
        "self.retry_failed and image.failure is Failure.FAILED and image",
        "self.retry_failed and image",
        "a moderated prompt is bought with each try",
    ),
    ("return self.retry_failed and image", "return image", "retry_failed=False buys again"),
)

FAILURES = mutations_of(
    "engine/failures.py",
    "unit/engine/test_run.py unit/engine/test_dispatcher.py unit/engine/test_download.py",
    (
        "if image.failure is not Failure.FAILED or not context.policy.retry_failed:",
        "if False:",
        "an error says that a retry helps where none buys",
    ),
)

CONTEXT = mutations_of(
    "engine/context.py",
    "unit/engine/test_restore.py unit/engine/test_destination_lock.py",
    (
        "RECORD_PAUSES = (1.0, 3.0, 10.0)",
        "RECORD_PAUSES: tuple[float, ...] = ()",
        "a store that fails once loses a purchase",
        "unit/engine/test_purchase.py",
    ),
    (
        "await self.record_patiently(lambda: asyncio.to_thread(self.journal.claim, deadline, now, *events))",
        "await asyncio.to_thread(self.journal.claim, deadline, now, *events)",
        "a claim that was written, and seemed not to be, leaves an image possibly paid",
        "unit/engine/test_handoff.py",
    ),
    (
        "by_size = by_size or known.get(receipt.uri) == receipt.sha256",
        "by_size = True",
        "a changed file is the result",
    ),
)

RESTORE = mutations_of(
    "engine/restore.py",
    "unit/engine/test_restore.py",
    (
        "if context.clock.time() - receipt.submitted_at.timestamp() >= KEPT_BY_WAVESPEED.total_seconds():",
        "if True:",
        "what WaveSpeed still has is bought again",
    ),
    ("if not prediction.is_completed or", "if", "what is gone is never bought again"),
    (
        " or proof_of(prediction, receipt.request) is Proof.ANOTHER",
        "",
        "a receipt that names a prediction of another request brings its picture",
    ),
    ("    context.check_allowed(receipt)\n", "", "a flagged image is stored again"),
)

INTEGRITY = mutations_of(
    "records/integrity.py",
    "unit/engine/test_plan.py unit/engine/test_destination_lock.py unit/maintenance/test_verify.py",
    ("if folder.size(receipt.file) != receipt.bytes:", "if False:", "of many, a file that is gone is reused"),
    ("return by_size or not", "return True or not", "a changed file of the same size is reused"),
    ("if hashlib.sha256(data).hexdigest() != receipt.sha256:", "if False:", "a changed file passes"),
)

OUTPUT = mutations_of(
    "engine/output.py",
    "unit/engine/test_download.py unit/engine/test_run.py",
    (
        "            _raise_if_expired(context, prediction, error)\n",
        "            raise\n",
        "an output of 8 days ago is tried for ever",
    ),
    (
        "if made is None or context.clock.time() - made.timestamp() < KEPT_BY_WAVESPEED.total_seconds():",
        "if made is None:",
        "an output that can be had later is written off",
    ),
)

DOWNLOAD = mutations_of(
    "engine/download.py",
    "unit/engine/test_download.py unit/engine/test_run.py unit/engine/test_dispatcher.py",
    (
        "        _check_is_ours(image, prediction)\n",
        "",
        "another's picture is stored",
        "unit/engine/test_download.py",
    ),
    ("        _check_ended_well(context, image, prediction)\n", "", "a failed prediction is never recorded"),
    (
        "None if is_vacant else await asyncio.to_thread(_receipt_of_this, context, image)",
        "None",
        "an image that is stored is lost when its output expires before the journal says so",
    ),
    (
        "image.bought_by is None or image.bought_by.same_task(context.journal.job)",
        "True",
        "an image that another task paid for is said to cost money here",
        "unit/engine/test_destination_lock.py unit/engine/test_download.py",
    ),
    (
        "image.bought_by is None or image.bought_by.same_task(context.journal.job)",
        "image.bought_by is None",
        "an image of before a clear is said to be free",
        "unit/engine/test_destination_lock.py unit/engine/test_run.py",
    ),
    (
        'if prediction.is_nsfw and context.policy.nsfw != "allow":',
        "if prediction.is_nsfw:",
        'nsfw="allow" does not',
    ),
    (
        'if prediction.is_nsfw and context.policy.nsfw != "allow":',
        "if False:",
        "a flagged picture is stored",
    ),
    (
        "if receipt is None or receipt.prediction_id != image.prediction_id:",
        "if receipt is None:",
        "the old picture at a destination is taken for the new one",
    ),
    (
        "return receipt if is_intact(context.images, receipt) else None",
        "return receipt",
        "a file that is gone is said to be stored",
    ),
    (
        "            context.images.create(made.file, data)",
        "            context.images.replace(made.file, data)",
        "a process that slept puts its old picture over that of another",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "            context.receipts.create(destination, receipt)",
        "            context.receipts.write(destination, receipt)",
        "a process that slept puts its old receipt over that of another",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "        if context.coordination.creates and _is_within_lease(context):",
        "        if context.coordination.creates:",
        "a task whose lease has ended stores where another task makes its image",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "        if context.coordination.creates and _is_within_lease(context):",
        "        if _is_within_lease(context):",
        "a store that overwrites what it is to create loses another process's picture",
        "unit/engine/test_download.py",
    ),
    (
        "            number = context.coordination.reserved.get(image.plan.key, 0)",
        "            number = 0",
        "a receipt of a new image does not say under which reservation it was made",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "    context.journal.check_unchanged()\n    number =",
        "    number =",
        "a process that slept through a clear puts its old picture over the new one",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "number = _check_destination_is_ours(",
        "number = 0 * _check_destination_is_ours(",
        "a receipt does not say under which reservation its image was made",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "_check_destination_is_ours(context, image, known=replaced.reservation if replaced else 0)",
        "0",
        "another task's picture is overwritten",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "if replaced is not None and replaced.prediction_id != made.prediction_id:",
        "if False:",
        "a crash leaves the old receipt with the new picture",
        "unit/engine/test_download.py unit/engine/test_crashes.py",
    ),
    (
        "known=known, after=seen)",
        "known=known, after=seen + 1)",
        "another task's reservation is overlooked",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "if held.fingerprint != image.plan.fingerprint:",
        "if False:",
        "a task that slept puts its picture over that of another task",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "return seen",
        "return 0",
        "a receipt does not say under which reservation its image was made",
        "unit/engine/test_destination_lock.py",
    ),
    ("possibly_paid=image.possibly_paid,", "possibly_paid=0,", "a receipt hides what is possibly paid"),
    (
        '"size_differs": is_other_size(plan.request.size, valid.width, valid.height)',
        '"size_differs": False',
        "nobody says that the size is another than was asked",
    ),
    (
        "        context.check_allowed(receipt)\n",
        "",
        "a picture of another size is the result of the task that bought it",
        "unit/engine/test_other_sizes.py",
    ),
    ("prompt_asked=image.plan.prompt_asked,", "", "a receipt forgets the prompt as asked"),
    ("seed_asked=image.plan.seed_asked,", "seed_asked=-1,", "a receipt forgets the seed as asked"),
    (
        "    context.journal.check_unchanged()\n    _check_destination",
        "    _check_destination",
        "a process that slept through a clear puts its old receipt over the new one",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "    _check_destination_is_ours(context, image, known=number)\n",
        "",
        "a receipt is put over that of another task's picture",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "if replaced is not None and replaced.file != made.file:",
        "if False:",
        "a replaced picture of another format stays beside the new one",
    ),
    (
        "if replaced is not None and replaced.file != made.file:",
        "if replaced is not None:",
        "the new picture is removed with the old one",
        "unit/engine/test_download.py unit/engine/test_run.py",
    ),
)

RESULT = mutations_of(
    "engine/result.py",
    "unit/engine/test_dispatcher.py unit/engine/test_run.py",
    (
        "    context.check_allowed(receipt)\n",
        "",
        "a picture of another size that an earlier process stored is the result",
        "unit/engine/test_other_sizes.py",
    ),
    (
        "if not context.is_intact(receipt, by_size=True):",
        "if False:",
        "a picture that is gone is said to be stored and refused",
        "unit/engine/test_other_sizes.py",
    ),
    (
        "*((Status.PLANNED, Status.INTENDED, Status.SUBMITTED) if stopped else ())",
        "",
        "images that were not begun are failures",
    ),
    (
        "if key in found or image.status not in ends",
        "if image.status not in ends",
        "an image that failed before all were stopped is no failure",
    ),
    ("where=where, reused=image.reused)", "where=where, reused=False)", "reused images cost money"),
    (
        "possibly_paid=image.possibly_paid,",
        "possibly_paid=0,",
        "a summary hides what is possibly paid",
    ),
    (
        "if receipt.fingerprint != image.plan.fingerprint:",
        "if False:",
        "the picture of another request is the result",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "missing = state.having(Status.PLANNED, Status.INTENDED, Status.FAILED)",
        "missing = state.having(Status.PLANNED, Status.INTENDED)",
        "an error says too little of what the rest costs",
    ),
    ("    if image.status is Status.FAILED:\n", "    if False:\n", "a failure is called a time-out"),
)

BATCH = mutations_of(
    "operators/batch.py",
    "unit/operators/test_batch.py",
    (
        "plan.possibly_paid + image.unconfirmed",
        "image.unconfirmed",
        "the result forgets what was possibly paid before a clear",
    ),
    (
        "plan.possibly_paid + image.unconfirmed",
        "0",
        "the result hides what is possibly paid and not stored",
    ),
    (
        "sum(_purchases(image, finished) * image.plan.estimated_cost_usd for image in finished.images)",
        "sum(image.plan.estimated_cost_usd for image in finished.images if image.receipt)",
        "the result counts no failed purchase, and what was reused",
    ),
)

PLAIN_TASKS = "integration/test_plain_tasks.py"

SAVING = mutations_of(
    "engine/saving.py",
    PLAIN_TASKS,
    (
        "await DestinationLock(context).take(image)",
        "pass",
        "what is saved cannot replace an older image",
    ),
    (
        '.model_copy(update={"request": wanted.request})',
        "",
        "a plan says a seed that was drawn for what was bought long ago",
    ),
)

IMAGE_JOB = mutations_of(
    "hooks/image_job.py",
    PLAIN_TASKS,
    (
        'job.model_copy(update={"call": call})',
        "job",
        "several images of one plain task share a journal",
    ),
    (
        "    _check_is_first(journal, wanted, hook.settings.host)\n",
        "",
        "a second, different image at one path is answered with the first",
    ),
    ('"retry_failed": False', '"retry_failed": True', "to save what has failed buys it again"),
    ('"if_exists": "regenerate"', '"if_exists": "reuse"', "what is saved is another image of that request"),
    ("    _check_no_event_loop()\n    started_at", "    started_at", "an event loop is blocked for minutes"),
)

PROGRESS = mutations_of(
    "engine/progress.py",
    "unit/engine/test_progress.py",
    ("(last or now >= self._shown_at + SHOW_PAUSE)", "True", "each image is a request to Airflow"),
    ("self._context.policy.is_batch and (last", "(last", "each of a thousand mapped tasks has a row"),
)

STORING_LIMITER = mutations_of(
    "engine/storing_limiter.py",
    "unit/engine/test_storing_limiter.py",
    ("seconds > SLOWED * self._quickest", "seconds > 1e9 * self._quickest", "storing keeps others waiting"),
    ("seconds = max(seconds, QUICKEST)", "pass", "after a clock was set back all look slow"),
    (
        "if self.at_once < self._most and self._places.locked():",
        "if self._places.locked():",
        "more images are in memory than fit",
    ),
    ("                self._surplus += 1\n", "", "a place that was taken away is still given"),
    (
        "timer = asyncio.get_running_loop().call_later(STUCK_AFTER, self._admit_one_more)",
        "timer = asyncio.get_running_loop().call_later(1e6, self._admit_one_more)",
        "four downloads that hang hold up a batch",
    ),
    (
        "self.at_once = min(FEW, self._most)",
        "self.at_once = self._most",
        "a hundred that end together are seen late",
    ),
)

CONNECTIONS = mutations_of(
    "wavespeed/clients.py",
    "unit/wavespeed/test_connections.py unit/wavespeed/test_deadlines.py",
    ("if each.under_way < each.connections:", "if False:", "requests open connections beside idle ones"),
    ("            await spare.client.aclose()", "            pass", "the connections of a burst stay open"),
    (
        "        for lent in self._clients:\n",
        "        for lent in ():\n",
        "some stay open",
    ),
    ("if len(self._clients) == self.most:", "if False:", "there are more connections than the bound"),
)

DISPATCHER = mutations_of(
    "engine/dispatcher.py",
    "unit/engine/test_unanswered.py",
    (
        "                if allows(image):\n",
        "                if False:\n",
        "what is allowed by now stays failed",
        "unit/maintenance/test_reconcile.py",
    ),
    (
        "await self._context.record_patiently(lambda: self._context.write(event))",
        "await self._context.write(event)",
        "an intent that was never sent is possibly paid where the store failed for a moment",
        "unit/engine/test_handoff.py",
    ),
    (
        "                await self._recover(group)\n",
        "",
        "what a replaced process noted late is bought again",
        "unit/engine/test_lost_responses.py",
    ),
    (
        "                self.failures.stop(failure)\n        return failure is None",
        "                pass\n        return failure is None",
        "an API that answers nothing gets every image of a batch",
    ),
    (
        "            await self._withdraw_intents()\n",
        "            pass\n",
        "an image that was never sent is possibly paid",
    ),
    (
        "        if not left_open:\n            await self._withdraw",
        "        if True:\n            await self._withdraw",
        "what another process sent is called unsent",
        "unit/engine/test_unanswered.py unit/engine/test_lost_responses.py unit/engine/test_dispatcher.py",
    ),
)

MUTATIONS = (
    *CONNECTIONS,
    *DISPATCHER,
    *DESTINATION_LOCK,
    *TAKEOVER,
    *POLICY,
    *FAILURES,
    *CONTEXT,
    *RESTORE,
    *INTEGRITY,
    *OUTPUT,
    *DOWNLOAD,
    *RESULT,
    *BATCH,
    *SAVING,
    *IMAGE_JOB,
    *PROGRESS,
    *STORING_LIMITER,
)
