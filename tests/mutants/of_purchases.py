"""Mutations of what spends: the purchase, its budget, lost responses, the account's history."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

PURCHASE = mutations_of(
    "engine/purchase.py",
    "unit/engine/test_purchase.py",
    (
        "            await _record_refusal(context, NotCreated(key=key, reason=str(postponed)))\n",
        "",
        "a postponed image counts as bought",
        "unit/engine/test_purchase.py unit/engine/test_handoff.py unit/engine/test_dispatcher.py",
    ),
    (
        "raise lost or postponed",
        "raise postponed",
        "each process of a try loses as many responses again",
    ),
    (
        "await resolve_intents(context, context.journal, {key}, may_arrive=may_arrive(error))",
        "await resolve_intents(context, context.journal, may_arrive=may_arrive(error))",
        "purchases under way are written off with the lost one",
        "unit/engine/test_purchase.py unit/engine/test_many_at_once.py unit/engine/test_dispatcher.py",
    ),
    (
        "may_arrive=may_arrive(error)",
        "may_arrive=False",
        "a request that still arrives is bought again after ten seconds",
    ),
    (
        "may_arrive=may_arrive(error)",
        "may_arrive=True",
        "an error of the API itself holds the purchase for a minute",
    ),
    (
        "await context.record_patiently(lambda: context.write(refused))",
        "pass",
        "a refused purchase costs as much of the budget as a real one",
    ),
    (
        "await context.record_patiently(lambda: context.write(refused))",
        "await context.write(refused)",
        "a store that fails for a moment makes a refused purchase possibly paid",
    ),
    (
        "await context.record_patiently(leave)",
        "await leave()",
        "what a replaced process bought is bought again where the store failed for a moment",
    ),
    ("    _check_losses(context, image)\n", "", "a try of many processes loses any number of responses"),
    (
        "    check_purchase(context, image)\n",
        "",
        "the budget is not looked at before a purchase",
        "unit/engine/test_budget.py",
    ),
    (
        "context.coordination.starting.add(key)",
        "pass",
        "two purchases at once each take the last of the budget",
        "unit/engine/test_budget.py",
    ),
    (
        "context.coordination.starting.discard(key)",
        "pass",
        "a purchase counts twice for the budget",
        "unit/engine/test_budget.py",
    ),
    (
        "if not await lock.take(image) or await",
        "if await",
        "two tasks at one destination each buy",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "if lost >= PURCHASES_A_TRY * context.journal.owner.try_number:",
        "if lost >= PURCHASES_A_TRY:",
        "a retry does not buy after losses",
    ),
    (
        "if lost >= PURCHASES_A_TRY * context.journal.owner.try_number:",
        "if lost > PURCHASES_A_TRY * context.journal.owner.try_number:",
        "one loss more than documented",
    ),
    (
        "if isinstance(error, FencedError):",
        "if False:",
        "nobody learns of a purchase of a replaced process",
        "unit/engine/test_purchase.py unit/engine/test_run.py unit/engine/test_crashes.py",
    ),
    (
        "await context.record_patiently(lambda: context.write(intent))",
        "await context.write(intent)",
        "an intent that was written, and seemed not to be, is possibly paid though nothing was sent",
    ),
    ("paid=Paid.YES,", "paid=Paid.NO,", "an error says free where it is paid"),
    (
        "            take(context, prediction)\n",
        "",
        "a response that a gateway repeats is a purchase",
        "unit/engine/test_purchase.py unit/engine/test_many_at_once.py",
    ),
    (
        "    taken.add(prediction.id)\n",
        "",
        "two purchases under way are both the same prediction",
        "unit/engine/test_many_at_once.py",
    ),
    (
        "isinstance(refusal, NotSentError) else 0",
        "False else 0",
        "an API that cannot be reached holds the worker",
    ),
    (
        "deadline=context.journal.state.deadline,",
        'deadline=float("inf"),',
        "an image is bought after the deadline",
    ),
    (
        "max(wait, min(waited / 100, 1.0))",
        "wait",
        "a purchase that waits for its turn asks for it twenty times a second, for minutes",
    ),
    (
        "await context.check_unchanged()",
        "pass",
        "a process that slept through its replacement buys",
        "unit/engine/test_purchase.py unit/engine/test_run.py unit/engine/test_crashes.py",
    ),
    (
        "    if context.coordination.killed.is_set():\n        return",
        "    if False:\n        return",
        "a task that Airflow stops buys on",
    ),
    (
        "is_over = limiter.is_closed or context.coordination.killed.is_set()",
        "is_over = False",
        "a purchase begins after Airflow has stopped the task",
        "unit/engine/test_unanswered.py",
    ),
)

UNANSWERED = mutations_of(
    "engine/unanswered.py",
    "unit/engine/test_unanswered.py",
    (
        "            self._free -= 1  # until the other one is back: nobody else may take that\n",
        "",
        "each place that is handed on becomes two, and a kill loses more than it may",
    ),
    (
        "await record(*([intent] if intent else []))",
        "await record()",
        "a purchase is sent that no entry of the journal speaks of",
    ),
    (
        "        if self._free > 0 and (first",
        "        if (first",
        "a place goes to two purchases",
    ),
    (
        "                self.leave()  # it came at this very moment\n",
        "                pass\n",
        "a place is lost with the purchase that was cancelled",
    ),
)

CONTRADICTED = mutations_of(
    "engine/proof.py",
    "integration/test_plain_tasks.py",
    (
        "if not (ours.startswith(theirs) or theirs.startswith(ours)):",
        "if False:",
        "a receipt says a prompt that the image was not made from",
    ),
    ("request.seed not in (None, -1, seed):", "request.seed is False:", "a receipt says another seed"),
    (
        "if not (ours.startswith(theirs) or theirs.startswith(ours)):",
        "if ours != theirs:",
        "an image whose prompt the API has cut cannot be saved",
    ),
)

PROOF = mutations_of(
    "engine/proof.py",
    "unit/engine/test_lost_responses.py",
    (
        "if is_same_prompt and is_same_seed:",
        "if is_same_prompt:",
        "a prompt without its seed is proof: the picture of another seed",
    ),
    ("if is_same_prompt and is_same_seed:", "if is_same_seed:", "a seed is proof: a wrong picture"),
    (
        "return Proof.SIMILAR if _shows_others(echoed, request) else Proof.OURS",
        "return Proof.OURS",
        "a prediction of another size, or of other inputs, is ours",
    ),
    (
        "in (None, sides_of(sent))",
        "in (sides_of(sent),)",
        "an echo without the size is not believed",
    ),
    (
        "    if request.seed is None:\n        return Proof.SIMILAR\n",
        "",
        "for a model without a seed a prompt alone is proof",
    ),
    (
        "(one.model, one.prompt, one.seed) == (other.model, other.prompt, other.seed)",
        "one == other",
        "of two images that differ in an input each may take the other's",
    ),
    ("not (is_same_prompt or is_same_seed)", "not is_same_prompt", "a cut prompt is another program's"),
    (
        "not (is_same_prompt or is_same_seed)",
        "not is_same_seed",
        "another form of the seed is another program's",
    ),
    (
        "is_another = isinstance(prompt, str) and seed is not None and",
        "is_another =",
        "what the API leaves out makes a prediction another program's",
    ),
    ("prompt.split() == request.prompt.split()", "prompt == request.prompt", "a trimmed prompt is not ours"),
)

LISTING = mutations_of(
    "engine/listing.py",
    "unit/engine/test_lost_responses.py",
    ("in self.unknown.since(since)", "in self.unknown.items", "what was made before is taken for it"),
    (
        "(item for item in history.items if item.id not in known))",
        "history.items)",
        "the prediction of another task of the run is taken",
        "unit/engine/test_lost_responses.py unit/engine/test_destination_lock.py",
    ),
    (
        'journal.job.folder.split("/")[:3]',
        'journal.job.folder.split("/")[:4]',
        "the prediction of another task of the run is taken",
    ),
    (
        "for own in (journal.job.folder, journal.job.folder + NOTES):",
        "for own in (journal.job.folder,):",
        "a note hides the very prediction that it is of",
    ),
    (
        "for name in sorted(names, reverse=True):",
        "for name in sorted(names):",
        "a long journal of another task is not read to its newest entries",
    ),
    ("since - CLOCKS_MAY_DIFFER", "since + CLOCKS_MAY_DIFFER", "a worker's slow clock hides what it bought"),
    (
        "CLOCKS_MAY_DIFFER and not is_note(name):",
        "CLOCKS_MAY_DIFFER:",
        "an old note hides a newer one",
    ),
    ("return math.inf", "return -math.inf", "a damaged entry hides what is before it"),
    (
        "not isinstance(error, UnsafeFileError) and",
        "",
        "a pipe in another task's journal hides the purchase",
    ),
    ("RecursionError, OverflowError", "OverflowError", "a deep entry of another task hides the purchase"),
)

LOST_RESPONSES = mutations_of(
    "engine/lost_responses.py",
    "unit/engine/test_lost_responses.py",
    (
        "        await _take_noted(context, journal)\n",
        "        pass\n",
        "what a replaced process has bought and noted is bought again",
    ),
    (
        """            await context.retrying(
                lambda: asyncio.to_thread(journal.read_notes),
                pauses=READING_PAUSES,
                is_transient=lambda error: isinstance(error, StorageError),
                until=context.coordination.killed,
            )
""",
        "            pass\n",
        "what a replaced process notes during the search is bought again",
    ),
    (
        "is_transient=lambda error: isinstance(error, StorageError)",
        "is_transient=lambda error: False",
        "a store that fails for a moment hides what a replaced process has noted",
    ),
    (
        "left = _open_intents(journal, searched)",
        "left = attempt.intents",
        "a search that failed halfway decides an intent twice",
    ),
    (
        "    except (RateLimitError, ServerError):\n        raise",
        '    except (RateLimitError, ServerError):\n        return ""',
        "a look that fails in passing makes a purchase possibly paid, and it is bought again",
    ),
    (
        "may_be_noted = keys is None and may_arrive",
        "may_be_noted = False",
        "what is bought is bought again a moment before its response is noted",
    ),
    (
        "and id_ not in journal.state.key_of:",
        "and True:",
        "a noted prediction is taken a second time, and the journal called damaged",
        "unit/engine/test_lost_responses.py unit/engine/test_run.py unit/engine/test_replaced.py",
    ),
    (
        "if note.intent == image.intent",
        "if True",
        "a purchase that is counted as lost is the open one, too",
    ),
    (
        "return intents if keys is None else [image for image in intents if image.plan.key in keys]",
        "return intents",
        "purchases under way are written off",
        "unit/engine/test_lost_responses.py unit/engine/test_purchase.py unit/engine/test_many_at_once.py",
    ),
    (
        "        async with context.coordination.resolving:\n            return await",
        "        async with contextlib.nullcontext():\n            return await",
        "two lost purchases take one prediction",
        "unit/engine/test_lost_responses.py unit/engine/test_many_at_once.py",
    ),
    (
        "    except passed_on:\n        raise\n",
        "",
        "a replaced process gives intents up that are another's by now",
    ),
    (
        "since=image.intended_at, without=known)",
        "since=image.intended_at)",
        "the prediction of another image of the job is taken",
        "unit/engine/test_lost_responses.py unit/engine/test_many_at_once.py",
    ),
    (
        "(is_unproven(image), -image.intended_at)",
        "-image.intended_at",
        "the prediction that proves one intent leaves doubt about another",
    ),
    (
        "if other.plan.key not in searched",
        "if False",
        "a purchase under way is taken for one that cannot be the answer",
        "unit/engine/test_lost_responses.py unit/engine/test_many_at_once.py unit/engine/test_purchase.py",
    ),
    (
        "are_alike(other.plan.request, image.plan.request) for other in others",
        "False for other in others",
        "the prediction of a purchase under way is taken",
        "unit/engine/test_lost_responses.py unit/engine/test_many_at_once.py unit/engine/test_purchase.py",
    ),
    (
        "since = min(image.intended_at for image in attempt.intents)",
        "since = max(image.intended_at for image in attempt.intents)",
        "the history is not read far enough: the older intent is taken for not created",
    ),
    (
        "    if error.retry_helps:\n        raise LostResponseError(",
        "    if False:\n        raise LostResponseError(",
        "a history that fails for a moment makes a purchase possibly paid",
    ),
    (
        "    if error.retry_helps:\n        raise LostResponseError(",
        "    if True:\n        raise LostResponseError(",
        "a key without a right to the history stops each try",
    ),
    (
        "any(proof_of(item, other) is Proof.OURS for other in others.values())",
        "False",
        "of one prompt and seed in two sizes the pictures are swapped",
    ),
    (
        "context.clock.time()\n    with context.notices",
        "0.0\n    with context.notices",
        "a lost purchase is settled at once",
    ),
    (
        "if len(candidates) != 1 or",
        "if not candidates or",
        "one of several candidates is taken for its pixels",
    ),
    (
        "if sides_of(size) and any(proof_of(item, other) is Proof.OURS for other in requests):",
        "if False:",
        "the picture of another request of ours is taken",
    ),
    (
        "(output.width, output.height) == sides_of(request.size)",
        "True",
        "a picture of another size is taken",
    ),
)

SETTLEMENT = mutations_of(
    "engine/settlement.py",
    "unit/engine/test_lost_responses.py",
    (
        "key=lambda each: each[2].intended_at, reverse=True)",
        "key=lambda each: each[2].intended_at)",
        "of two losses the wrong one stays possibly paid",
    ),
    (
        "if number not in {note.intent for note in image.notes}",
        "if True",
        "a loss that is noted accounts for another one",
    ),
    (
        "loss.intended_at - BILLING_MARGIN.total_seconds()",
        "loss.intended_at",
        "another worker's clock hides what was bought",
    ),
    (
        "listing.proofs(loss.request, since=start)",
        "listing.proofs(context.journal.state.images[losses[0][0]].plan.request, since=start)",
        "a loss is compared with what its image became",
    ),
)

ACCOUNT_HISTORY = mutations_of(
    "engine/account_history.py",
    "unit/engine/test_account_history.py unit/engine/test_lost_responses.py",
    ("item.created_at.timestamp() - self.skew", "item.created_at.timestamp()", "an API whose clock is fast"),
    ("when >= moment - CLOCK_MARGIN]", "when >= moment]", "a second's rounding hides a purchase"),
    (
        "if when is None or when >= moment",
        "if when is not None and when >= moment",
        "a prediction without a time is taken for nothing bought",
    ),
    ("in reversed(self.items)", "in self.items", "of two doubts the newer one is taken"),
    (
        "since + (skew or 0.0) - CLOCK_MARGIN",
        "since + (skew or 0.0)",
        "the API leaves out what it made in the same second",
    ),
    (
        "since + (skew or 0.0) - CLOCK_MARGIN",
        "since - CLOCK_MARGIN",
        "an API whose clock is slow shows nothing",
    ),
    (
        "response.api_time - allowance.clock.time()",
        "allowance.clock.time() - response.api_time",
        "the skew has the wrong sign",
    ),
    ("elif abs(skew) > CLOCK_MARGIN:", "elif False:", "the first page is that of the wrong period"),
    ("is_end = not new", "is_end = len(new) < 100", "a short page is taken for the last"),
    (
        "            place.shows_inputs = False",
        "            raise",
        "a flag that is refused hides the history",
    ),
    (
        "is_whole = is_end and not unreadable",
        "is_whole = is_end",
        "a row that cannot be read is taken for nothing",
    ),
    (
        "is_whole = is_end and not unreadable",
        "is_whole = not unreadable",
        "a history without an end is taken for whole",
    ),
    ("and skew is not None", "", "an API whose clock is not known hides what was bought"),
    ("and self.read_bytes < MAX_BYTES", "", "a history of large rows takes all memory"),
    ("and not allowance.is_over\n", "\n", "a slow history keeps a task beyond its timeout"),
    ("echoes and left and", "echoes and", "a history without inputs is polled row after row"),
    ("MAX_PAGES = 100", "MAX_PAGES = 10", "a long history is not read to its end"),
    (
        "return self.pages < MAX_PAGES and",
        "return",
        "an API without an end holds the worker",
    ),
    (
        "        completed.append(item",
        "        if inputs or not echoes:\n            completed.append(item",
        "a prediction that cannot be polled is taken for nothing bought",
    ),
    (
        "echoes = inputs is not None",
        "pass",
        "an API that echoes nothing is asked for each prediction of the account",
    ),
    ("if inputs is None and echoes and", "if False and", "an echo elsewhere than in the history is not seen"),
)

BUDGET = mutations_of(
    "engine/budget.py",
    "unit/engine/test_budget.py unit/engine/test_purchase.py unit/engine/test_run.py",
    (
        'if context.policy.on_lost_response == "fail" and image.unconfirmed:',
        "if image.unconfirmed:",
        'on_lost_response="buy_again" does not',
    ),
    (
        'if context.policy.on_lost_response == "fail" and image.unconfirmed:',
        "if False:",
        'on_lost_response="fail" buys again',
    ),
    (
        'if context.policy.on_lost_response == "fail" and image.unconfirmed:',
        'if context.policy.on_lost_response == "fail" and image.possibly_paid:',
        'on_lost_response="fail" does not buy after a clear',
    ),
    ("if other.status is not Status.INTENDED)", ")", "a purchase counts twice while its intent is written"),
    ("state.spent_usd + starting,", "state.spent_usd,", "two purchases at once each take the last cent"),
    (
        "if limit is not None and so_far + cost > limit",
        "if limit is not None and so_far > limit",
        "one too many",
    ),
    ("so_far + cost > limit + ROUNDING", "so_far + cost > limit", "ten times a cent is more than a dime"),
    (
        "if limit is not None and to_buy and prompts_usd + cost > limit + ROUNDING:",
        "if False:",
        "a plan beyond the budget is begun",
    ),
    ("    if context.policy.check_balance:\n", "    if True:\n", "each plan asks for the balance"),
    ("if cost > balance + ROUNDING:", "if False:", "a batch is begun that the balance does not pay"),
    (
        "await asyncio.gather(*map(quote, kinds.values()))",
        "[await quote(next(iter(kinds.values())))] * len(kinds)",
        "each size has the price of the first",
    ),
    (
        "if len(state.images) > context.most_images:",
        "if False:",
        "a planted plan buys more images than the task requests",
        "unit/engine/test_hostile_plan.py",
    ),
    (
        "if not _is_wanted(context, image.plan.request):",
        "if False:",
        "a planted plan buys another model than the task requests",
        "unit/engine/test_hostile_plan.py",
    ),
    (
        "context.journal.state = at_least(state, await prices(context.client, context.policy, requests))",
        "await prices(context.client, context.policy, requests)",
        "a planted plan at no price costs nothing of the budget",
        "unit/engine/test_hostile_plan.py",
    ),
    (
        "max(quotes.get(kind, 0.0), known[kind] or 0.0)",
        "quotes.get(kind, known[kind] or 0.0)",
        "a low quote switches the budget off",
    ),
    ("if price is None or policy.live_price", "if policy.live_price", "the API's price is not asked for"),
    (
        "if price < LEAST_PRICE and (",
        "if False and (",
        "what has no price is bought within any budget",
    ),
    ("    if len(kinds) > MAX_QUOTES:\n", "    if False:\n", "a batch asks for 10,000 prices"),
)

PROTOCOL = mutations_of(
    "wavespeed/protocol.py",
    "unit/wavespeed/test_protocol.py",
    (
        'return is_accepted or bool(isinstance(data, dict) and data.get("status"))',
        "return is_accepted",
        "a prediction that a 429 names is bought again",
    ),
    (
        "return envelope or (_remains(body) if call.paid is not Paid.NO else {})",
        "return envelope",
        "an id in a defaced response is thrown away",
    ),
    (
        "if is_accepted and not is_whole and not",
        "if False and not",
        "two envelopes in one response are no purchase, whatever the second says",
    ),
    (
        'if isinstance(found, Prediction) and call.about not in ("", found.id):',
        "if False:",
        "a poll that is answered with another prediction is believed",
    ),
)

RESPONSE_ERRORS = mutations_of(
    "wavespeed/response_errors.py",
    "unit/wavespeed/test_response_errors.py",
    ("GAVE_UP = frozenset({408, 460, 499})", "GAVE_UP = frozenset({408})", "a 499 costs nothing, it says"),
)

MUTATIONS = (
    *(*PURCHASE, *UNANSWERED, *PROOF, *CONTRADICTED, *LISTING, *LOST_RESPONSES, *SETTLEMENT),
    *(*ACCOUNT_HISTORY, *BUDGET, *PROTOCOL, *RESPONSE_ERRORS),
)
