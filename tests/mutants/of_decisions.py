"""Mutations of the five decisions: each comparison, and each operand of each ``and`` and ``or``."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

WANTED = mutations_of(
    "engine/decisions.py",
    "unit/engine/test_decisions.py",
    (
        'if policy.if_exists == "fail" and facts.exists:',
        'if policy.if_exists == "fail":',
        'if_exists="fail" refuses a first image',
    ),
    (
        'if policy.if_exists == "reuse" and receipt is not None and receipt',
        "if receipt is not None and receipt",
        'if_exists="regenerate" buys nothing',
    ),
    (
        "receipt is not None and receipt.fingerprint == facts.fingerprint:\n        return",
        "receipt is not None:\n        return",
        "the image of another request is the result",
    ),
    (
        "Reuse(receipt) if policy.allows(receipt) else Refuse(Refusal.NOT_ALLOWED)",
        "Reuse(receipt)",
        "an image that is not allowed is the result",
    ),
    (
        "return next(same, self.earlier[0] if self.earlier else None)",
        "return self.earlier[0] if self.earlier else None",
        "a row that is back after two clears is bought again",
    ),
    (
        "if image.prediction_id and image.plan",
        "if image.plan",
        "a clear that bought nothing hides what was bought before it",
    ),
    (
        "if earlier is None or not _is_collectable(earlier, policy):",
        "if earlier is None:",
        "an image that failed before the clear is adopted",
    ),
    (
        'policy.if_exists != "regenerate" and earlier.plan.fingerprint',
        "earlier.plan.fingerprint",
        'if_exists="regenerate" adopts the image of before the clear',
    ),
    (
        'policy.if_exists != "regenerate" and earlier.plan.fingerprint == facts.fingerprint',
        'policy.if_exists != "regenerate"',
        "a purchase of another request is adopted after a clear",
    ),
    ("Buy(leaves=bought.prediction_id)", "Buy()", "nobody says that a purchase is left behind"),
    (
        "return earlier.status is Status.SUBMITTED or policy.allows_by_now(earlier)",
        "return policy.allows_by_now(earlier)",
        "what was in flight at a clear is bought again",
    ),
    (
        "return earlier.status is Status.SUBMITTED or policy.allows_by_now(earlier)",
        "return earlier.status is Status.SUBMITTED",
        "what is allowed by now is bought again",
    ),
)

ALLOWED = mutations_of(
    "engine/policy.py",
    "unit/engine/test_decisions.py",
    (
        'image.failure is Failure.NSFW and self.nsfw == "allow"',
        "image.failure is Failure.NSFW",
        "a flagged picture is adopted though it is not allowed",
    ),
    ("return is_flagged or is_of_other_size", "return is_of_other_size", "a flagged one is bought again"),
    (
        "return is_flagged or is_of_other_size",
        "return is_flagged",
        "a picture of another size that is allowed by now is bought again",
    ),
    (
        'image.failure is Failure.SIZE and self.on_size_mismatch == "warn"',
        "image.failure is Failure.SIZE",
        "a picture of another size is adopted though it is not allowed",
    ),
    (
        "return self.allows_nsfw(receipt) and self.allows_size(receipt)",
        "return self.allows_size(receipt)",
        "a flagged image is the result",
    ),
    (
        "return self.allows_nsfw(receipt) and self.allows_size(receipt)",
        "return self.allows_nsfw(receipt)",
        'on_size_mismatch="fail" lets what is stored through',
    ),
    (
        'not receipt.nsfw or self.nsfw == "allow"',
        "not receipt.nsfw",
        "a flagged image that is allowed is refused",
    ),
    (
        'not receipt.is_other_size or self.on_size_mismatch == "warn"',
        "not receipt.is_other_size",
        'on_size_mismatch="warn" fails',
    ),
)

DESTINATION = mutations_of(
    "engine/decisions.py",
    "unit/engine/test_decisions.py",
    (
        "self.held is not None and self.held.fingerprint == self.fingerprint",
        "self.held is not None",
        "the holder's image of another request is taken",
    ),
    (
        'return of_same and self.policy.if_exists == "reuse"',
        "return of_same",
        'if_exists="regenerate" takes the image of another task',
    ),
    (
        "if held is None or held.writer.job.same_task(facts.job):",
        "if held is None:",
        "a task waits for its own earlier generation",
    ),
    (
        'receipt.fingerprint == facts.fingerprint and facts.policy.if_exists == "reuse":',
        "receipt.fingerprint == facts.fingerprint:",
        'if_exists="regenerate" takes what another task has stored',
    ),
    (
        "receipt is not None and receipt.fingerprint == facts.fingerprint and facts",
        "receipt is not None and facts",
        "the picture of another request is the result",
    ),
    (
        "if holder is None or held.key not in holder.images:",
        "if holder is None:",
        "a holder that died before its plan stops the task",
    ),
    (
        "Refuse(Refusal.JUST_MADE) if _is_just_made(facts, held) else Buy()",
        "Buy()",
        "mapped tasks with one file name each buy an image, and one is kept",
    ),
    (
        "return _adopted_or_left(theirs, is_same=facts.is_same) if is_bought else Buy()",
        "return Buy()",
        "what a dead task had bought is bought again",
    ),
    (
        "if facts.now >= lease_end or not holder.has_work or facts",
        "if facts.now >= lease_end or facts",
        "a task whose holder has ended waits for nothing",
    ),
    (
        "if facts.now >= lease_end or not holder.has_work or facts",
        "if not holder.has_work or facts",
        "a dead task holds its destination for ever",
    ),
    (
        "or not holder.has_work or facts.job.replaces(held.writer.job):",
        "or not holder.has_work:",
        "an iteration of a loop that a clear began again waits for the process that it replaces",
    ),
    (
        "if held.writer.job.replaces(facts.job):",
        "if False:",
        "a replaced iteration of a loop takes the destination back",
    ),
    (
        "facts.run_started_at or ours.replaces(other)",
        "facts.run_started_at",
        "an iteration of a loop that a clear began again with another prompt is refused",
    ),
    (
        "facts.now >= lease_end or",
        "facts.now > lease_end or",
        "at the very end of a lease the task waits for a time that is over",
    ),
    (
        "WaitUntil(lease_end) if facts.is_same else Refuse(Refusal.IN_USE, until=lease_end)",
        "WaitUntil(lease_end)",
        "a task waits for an image that it cannot use",
    ),
    (
        "Refuse(Refusal.IN_USE, until=lease_end)",
        "Refuse(Refusal.IN_USE)",
        "nobody says when the destination is free",
    ),
    (
        "is_bought = theirs.status is Status.SUBMITTED",
        "is_bought = theirs.status is not Status.PLANNED",
        "a failed prediction of a dead task is adopted",
    ),
    (
        "_adopted_or_left(theirs, is_same=facts.is_same)",
        "_adopted_or_left(theirs, is_same=True)",
        "the picture of another request is adopted",
    ),
    (
        "_adopted_or_left(theirs, is_same=facts.is_same)",
        "_adopted_or_left(theirs, is_same=False)",
        "the same request is bought twice",
    ),
    (
        "(other.dag_id, other.run_id) == (ours.dag_id, ours.run_id)",
        "other.run_id == ours.run_id",
        "two Dags whose runs have one name disturb each other",
    ),
    (
        "(other.dag_id, other.run_id) == (ours.dag_id, ours.run_id)",
        "other.dag_id == ours.dag_id",
        "yesterday's run refuses today's",
    ),
    (
        "is_of_this_run and not is_old and held",
        "is_of_this_run and held",
        "a cleared run is refused for what it made before the clear",
    ),
    (
        "not is_old and held.fingerprint != facts.fingerprint",
        "not is_old",
        "the same image is refused instead of bought anew when its file is gone",
    ),
)

SUBMISSION = mutations_of(
    "engine/decisions.py",
    "unit/engine/test_decisions.py",
    (
        "is SubmissionOutcome.UNKNOWN:\n        return Resolve()",
        "is SubmissionOutcome.UNKNOWN:\n        return SendAgain(0.0)",
        "a POST is repeated though its prediction may exist",
    ),
    (
        "if facts.outcome is SubmissionOutcome.REFUSED or facts.not_sent",
        "if facts.not_sent",
        "what the API refuses is sent again and again",
    ),
    (
        "SubmissionOutcome.REFUSED or facts.not_sent >= CONNECTION_TRIES:",
        "SubmissionOutcome.REFUSED:",
        "an API that cannot be reached holds the worker until the deadline",
    ),
    (
        "facts.not_sent >= CONNECTION_TRIES",
        "facts.not_sent > CONNECTION_TRIES",
        "one try more than documented",
    ),
    (
        "2.0 ** (facts.not_sent - 1)",
        "2.0 ** facts.not_sent",
        "the first pause is twice as long as documented",
    ),
    (
        "pause = max(pause, min(",
        "pause = max(0.0, min(",
        "what the API asked for with a 429 is not waited for after a connection error",
    ),
    ("if facts.now + pause >= facts.deadline:", "if facts.now >= facts.deadline:", "it is sent too late"),
    (
        "return Postpone(pause) if facts.blocked >= facts.break_even else SendAgain(pause)",
        "return SendAgain(pause)",
        "a worker slot is held through an hour of a 429",
    ),
    (
        "Postpone(pause) if facts.blocked >= facts.break_even",
        "Postpone(pause) if pause >= facts.break_even",
        "a connection error postpones the image, and five of them end no try",
    ),
)

LOST_RESPONSES = mutations_of(
    "engine/lost_response_decisions.py",
    "unit/engine/test_lost_response_decisions.py",
    (
        "(len(SEARCH_PAUSES) if facts.may_arrive else SHORT_SEARCHES)",
        "(SHORT_SEARCHES)",
        "the history is given less time than documented",
    ),
    (
        "(len(SEARCH_PAUSES) if facts.may_arrive else SHORT_SEARCHES)",
        "(len(SEARCH_PAUSES))",
        "a request that arrives no more is searched for as long as one that may",
    ),
    (
        "if proof is Proof.OURS)",
        "if proof is not Proof.ANOTHER)",
        "a prediction is adopted on its time alone: a wrong picture",
    ),
    (
        "if proof in unclear and name not in doubted)",
        "if proof in unclear)",
        "one prediction stands for two lost purchases",
    ),
    (
        "unclear = {Proof.NONE, Proof.SIMILAR}",
        "unclear = {Proof.NONE, Proof.SIMILAR, Proof.ANOTHER}",
        "another program's image makes ours possibly paid",
    ),
    (
        "unclear = {Proof.NONE, Proof.SIMILAR}",
        "unclear = {Proof.NONE}",
        "a changed echo is taken for nothing bought",
    ),
    (
        "if ours and (is_last or not facts.same_underway):",
        "if ours:",
        "the prediction of a purchase under way is taken for the lost one",
    ),
    (
        "if ours and (is_last or not facts.same_underway):",
        "if ours and not facts.same_underway:",
        "a proven purchase is written off because another is under way to the end",
    ),
    (
        "if ours and (is_last or not facts.same_underway):",
        "if ours and is_last:",
        "a proven purchase is adopted 10 s late",
    ),
    (
        "or is_awaited or facts.underway or is_shown",
        "or is_awaited or is_shown",
        "the prediction of a purchase under way makes a lost one possibly paid",
    ),
    (
        "facts.underway or is_shown",
        "facts.underway",
        "another image of the same prompt hides ours, which shows a second late",
    ),
    (
        "_ours_and_doubtful(loss.proofs, proven)",
        "_ours_and_doubtful(loss.proofs, ())",
        "what is proven to be one loss accounts for another, and the first was never made",
    ),
    (
        "facts.may_be_noted and facts.searches < SHORT_SEARCHES",
        "facts.may_be_noted",
        "a take-over waits a minute for a note that nobody will leave",
    ),
    (
        "if not is_last and (ours or may_clear_up):",
        "if ours and not is_last:",
        "what the history shows a second late is bought twice",
    ),
    (
        "return NotCreated() if is_controlled else Lost(())",
        "return NotCreated()",
        "an empty history is proof",
    ),
    (
        "Lost((accounted[number],)) if number in accounted else _decide_unaccounted(loss)",
        "_decide_unaccounted(loss)",
        "what may be a lost purchase is taken for nothing",
    ),
    (
        "if name not in taken or gets_one(taken[name], tried):",
        "if name not in taken:",
        "two losses whose predictions are told apart are settled as one",
    ),
    (
        "if name not in taken or gets_one(taken[name], tried):",
        "if True:",
        "one prediction keeps every lost purchase of its time possibly paid",
    ),
    (
        "loss.given_up_at + ARRIVES_WITHIN\n    is_controlled",
        "loss.given_up_at\n    is_controlled",
        "a request that arrives late is taken for not made",
    ),
    (
        "<= loss.now - SHOWN_WITHIN for made",
        "<= loss.now for made",
        "a history that shows in another order hides a purchase",
    ),
    (
        "return now >= given_up_at + ARRIVES_WITHIN + SHOWN_WITHIN",
        "return now >= given_up_at + 2 * (ARRIVES_WITHIN + SHOWN_WITHIN)",
        "what could be settled stays possibly paid",
        "unit/engine/test_lost_responses.py",
    ),
)

INPUTS = mutations_of(
    "batch/template.py",
    "unit/batch/test_inputs.py",
    (
        "**{name: _filled(value, values) for name, value in used.items()}, **own}",
        "**own}",
        "columns fill in nothing",
    ),
    ("if name not in own}", "}", "a row that gives an input itself needs the column, too"),
    (
        "if column := unfilled_in(own, row):",
        "if column := False:",
        "braces in a row's own inputs are bought as they are",
    ),
    (
        "if row.get(name) is None)",
        "if False)",
        "a row without the column ends the batch with a KeyError",
    ),
)

MUTATIONS = (*INPUTS, *WANTED, *ALLOWED, *DESTINATION, *SUBMISSION, *LOST_RESPONSES)
