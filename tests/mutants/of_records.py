"""Mutations of the records: the fold and its sums, the journal's fence, notes, receipts, reservations."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

GROUP_COMMIT = mutations_of(
    "records/group_commit.py",
    "unit/records/test_group_commit.py",
    (
        "and not mine.is_urgent",
        "",
        "what is bought stays unrecorded for a moment more",
    ),
    (
        "self._journal.state.number >= LONG_JOURNAL and ",
        "",
        "the only image of a task is noted a tenth of a second later",
    ),
    (
        "await self._clock.wait_for(mine.is_over, STORED_LINGERS)",
        "pass",
        "each stored image makes an entry of its own",
    ),
    (
        "waiting.error = error",
        "pass",
        "an image whose event another one's entry lost passes for recorded",
    ),
    (
        "await self._clock.sleep(ALL_LINGER)",
        "pass",
        "ten thousand images make an entry each for intent and prediction",
    ),
    (
        "waiting.is_over.set()",
        "pass",
        "what was written along waits on all the same",
    ),
    (
        "await asyncio.wait({writing})",
        "await writing",
        "an image learns that its event is not written where another image was cancelled",
    ),
    (
        "        await mine.is_over.wait()\n",
        "",
        "an event passes for recorded while it is being written",
    ),
)

STATE = mutations_of(
    "records/state.py",
    "unit/records/test_state.py",
    (
        "{note.intent for note in self.notes if self.bought.get(note.intent) != note.prediction_id}",
        "{note.intent for note in self.notes}",
        "a purchase that was proven and noted is counted as possibly paid, too",
    ),
    (
        "return frozenset(self.lost) | noted",
        "return frozenset(self.lost)",
        "what a replaced process bought is not counted",
    ),
    (
        "return self.plan.possibly_paid + len(self.unanswered)",
        "return len(self.unanswered)",
        "what was possibly paid before a clear is forgotten",
    ),
    (
        "{self.intent} if self.status is Status.INTENDED else set()",
        "set()",
        "a purchase that is under way costs nothing of the budget",
    ),
    (
        "len(self.unanswered | open_intent)",
        "len(self.unanswered) + len(open_intent)",
        "an open intent and its note are counted as two purchases",
    ),
    (
        "purchases = self.purchases + self.unconfirmed",
        "purchases = self.purchases",
        "what is possibly paid is free",
    ),
    (
        "purchases = self.purchases + self.unconfirmed",
        "purchases = self.unconfirmed",
        "what is bought is free",
    ),
    (
        "+ round(prompt * MILLION)",
        "",
        "an enhanced prompt is free",
        "unit/enhancer/test_stage.py",
    ),
    (
        "return bool(self.images) and all(",
        "return all(",
        "a generation before its plan is not stopped after a clear",
        "unit/records/test_state.py unit/engine/test_destination_lock.py unit/engine/test_run.py",
    ),
    (
        "image.status not in (Status.STORED, Status.FAILED)",
        "image.status is not Status.STORED",
        "a task waits until the lease of one ends whose prediction has failed",
        "unit/records/test_state.py unit/engine/test_destination_lock.py",
    ),
    (
        "if state.key_of.setdefault(id_, key) != key:",
        "if False:",
        "one prediction is the picture of two images",
    ),
    ("if entry.number != state.number + 1:", "if entry.number <= state.number:", "a gap is read over"),
    (
        "replace(state, spent=state.spent + more)",
        "replace(state, spent=more)",
        "each process counts the budget anew",
    ),
    (
        "return _put(state, replace(image, notes=(*image.notes, note)))",
        "return replace(_put(state, replace(image, notes=(*image.notes, note))), spent=state.spent)",
        "notes cost nothing of the budget",
    ),
    (
        "state = _add_note(replace(state, number=entry.number), note)",
        "state = replace(_add_note(replace(state, number=entry.number), note), spent=state.spent)",
        "notes of format 1 cost nothing of the budget",
        "unit/records/test_state.py unit/records/test_journal.py",
    ),
    (
        "replace(state, spent=state.spent + more)",
        "state",
        "no purchase costs anything of the budget",
    ),
    (
        "if is_new and not isinstance(entry.events[0], Claimed):",
        "if False:",
        "a writer that has not claimed the journal is believed",
    ),
    (
        "may_have_notes = state.may_have_notes or (",
        "may_have_notes = (",
        "a note is overlooked after a second take-over",
    ),
    (
        "is_new and bool(state.having(Status.INTENDED))",
        "False",
        "no note is ever read",
    ),
    (
        "return replace(state, deadline=event.deadline)",
        "return state",
        "a lease never ends, or has ended at once",
    ),
    (
        '        if state.images:\n            raise _broken(entry, "plans a second time")\n',
        "",
        "a second plan changes the first",
    ),
    (
        "is_batch=is_batch, planned_at=state.time,",
        "is_batch=is_batch,",
        "nobody knows which plan is the last",
    ),
    ("intent=image.intent + 1", "intent=image.intent", "two lost purchases are counted as one"),
    (
        "bought_by=None,\n",
        "\n",
        "an image bought here after it was another's is called reused, and free",
    ),
    (
        "bought={**image.bought, intent: event.prediction_id}",
        "bought={intent: event.prediction_id}",
        "what failed and was bought again is counted once",
    ),
    (
        'plan=image.plan.model_copy(update={"request": event.request})',
        "plan=image.plan",
        "the receipt of an adopted image has a seed that was not sent",
    ),
    (
        "submitted_at=event.submitted_at.timestamp()",
        "submitted_at=entry.time.timestamp()",
        "the age of an adopted prediction is wrong: 7 days begin anew",
    ),
    ("bought_by=event.bought_by", "bought_by=None", "an adopted image is counted as bought here"),
    (
        "bought_by=event.bought_by,\n            failure=None,",
        "bought_by=event.bought_by,",
        "an adopted image keeps the failure of the one before",
    ),
    ("lost={**image.lost, image.intent: loss}", "lost={image.intent: loss}", "only the last loss is counted"),
    ("if number != intent}", "if number > intent}", "what is settled takes earlier losses with it"),
    (
        "_bought(left, entry, event, intent) if",
        "_bought(left, entry, event, image.intent) if",
        "what is recovered is counted as the last purchase, and once more by its note",
    ),
    (
        "if intent not in image.lost or is_in_the_way:",
        "if intent not in image.lost:",
        "an earlier purchase takes the place of one that is under way",
    ),
    (
        "time if event.given_up_at is None else event.given_up_at\n",
        "time\n",
        "a purchase is settled later than it could be",
        "unit/engine/test_lost_responses.py",
    ),
    ("reused=event.reused)", "reused=False)", "a reused image is said to cost money"),
    (
        "failed_in_try=entry.writer.try_number",
        "failed_in_try=0",
        "the try in which an image failed buys it again",
        "unit/engine/test_dispatcher.py unit/engine/test_download.py unit/engine/test_run.py",
    ),
    (
        "window=event.window, blocked_until=event.until",
        "window=event.window",
        "a resumed task sends into a 429",
        "unit/engine/test_handoff.py",
    ),
)

JOURNAL = mutations_of(
    "records/journal.py",
    "unit/records/test_journal.py",
    ("if last and last.token != self.owner.token:", "if False:", "a replaced process writes on"),
    (
        "if found is None or found.writer.token != self.owner.token:",
        "if found is None:",
        "a process takes another's entry for its own",
    ),
    (
        "left = tuple(event for event in left if event not in entry.events)",
        "left = () if entry.writer is self.owner else left",
        "an entry that the store wrote in spite of its error is written twice",
    ),
    (
        "left = tuple(event for event in left if event not in entry.events)",
        "left = ()",
        "an event is lost: the number was taken by an earlier entry of ours",
    ),
    (
        "entry, after = found, fold(self.state, found)",
        "entry = found",
        "a process does not know what it has written",
    ),
    ("if entry.writer.token != self.owner.token:", "if False:", "a replaced process buys"),
    (
        "number += 1  # an entry of ours is written",
        "return  # an entry of ours is written",
        "a replaced process buys if one of its own entries hides the newer claim",
    ),
    (
        "if found is None or found.writer.token != self.owner.token:",
        "if found is None:\n"
        "                    return self.state\n"
        "                if found.writer.token != self.owner.token:",
        "an entry that the store refused is taken for written",
    ),
    (
        "            self.state = after\n",
        "            pass\n",
        "a process does not know what it has written itself",
    ),
    ("if self.state.may_have_notes:  #", "if False:  #", "notes are never read"),
    ("ahead.popleft().result()", "ahead.pop().result()", "entries are read out of order"),
    (
        "contextlib.suppress(FileExistsError)",
        "contextlib.nullcontext()",
        "a note that the store's client wrote twice is an error",
    ),
    ("safe_name(prediction_id)", "prediction_id", "an id chooses where its note lies"),
    (
        "        left, time = self._not_recovered(events), datetime",
        "        left, time = events, datetime",
        "a purchase that is written twice over is a damaged journal",
    ),
    (
        "if id(event) not in written",
        "if event not in self._recovered",
        "what happens twice is written once",
    ),
)

NOTES = mutations_of(
    "records/notes.py",
    "unit/records/test_journal.py",
    (' and not file.startswith(".")', "", "what a crash left stops the reader"),
)

RECEIPTS = mutations_of(
    "records/receipts.py",
    "unit/records/test_receipts.py",
    ("0.0 if reused else self.estimated_cost_usd", "self.estimated_cost_usd", "a reused image costs money"),
    (
        '"possibly_paid": possibly_paid,',
        '"possibly_paid": self.possibly_paid,',
        "another task's doubt is ours",
    ),
    ('"seed": self.request.seed', '"seed": self.seed_asked', "the result does not say the real seed"),
    (
        "if (name, value) not in usual.items()",
        "if name not in usual",
        "the prompt as asked is forgotten",
    ),
    (
        "self._folder.remove(self._name(destination))",
        "pass",
        "a receipt is not withdrawn before its image goes",
    ),
)

RESERVATIONS = mutations_of(
    "records/reservations.py",
    "unit/records/test_reservations.py",
    (
        "            return self._read(destination, reservation.number)\n",
        "            return reservation\n",
        "two tasks hold one destination",
    ),
    (
        "            return self._read(destination, reservation.number)\n",
        "            return None\n",
        "a task refuses its own reservation, written twice by the store's client",
    ),
    (
        "elif known and self._folder.size(self._name(destination, known)) is not None:",
        "elif known:",
        "a reservation that is gone frees a destination that is held",
    ),
    (
        "while found := self._read(destination, number):",
        "if found := self._read(destination, number):",
        "the first holder holds it for ever",
    ),
)

EVENTS = mutations_of(
    "records/events.py",
    "unit/records/test_state.py unit/records/test_journal.py",
    (
        'return without(without(whole(self), "prompt_asked"), "enhancement")',
        'return {k: v for k, v in without(whole(self), "enhancement").items() if k != "prompt_asked"}',
        "the prompt as asked is not in the journal",
    ),
    (
        'if info.data.get("format") == 1 and isinstance(events, list):',
        "if isinstance(events, list):",
        "a snapshot in format 2 is skipped, and with it what it may say",
    ),
)

OWNER = mutations_of(
    "records/owner.py",
    "unit/records/test_state.py unit/records/test_journal.py",
    (
        "return self.try_number <= self.job.generation",
        "return self.try_number < self.job.generation",
        "a task with one try left is taken for given up",
        "unit/records/test_state.py unit/engine/test_run.py unit/engine/test_dispatcher.py",
    ),
    (
        'self.model_copy(update={"generation": other.generation}) == other',
        "(self.dag_id, self.task_id, self.map_index) == (other.dag_id, other.task_id, other.map_index)",
        "two runs of one Dag at one destination both buy",
        "unit/engine/test_destination_lock.py",
    ),
    (
        'self.model_copy(update={"generation": other.generation}) == other',
        "(self.dag_id, self.run_id, self.task_id) == (other.dag_id, other.run_id, other.task_id)",
        "mapped tasks at one destination each buy",
        "unit/engine/test_destination_lock.py",
    ),
    (
        "[safe_name(part) for part in (self.dag_id, self.run_id, self.task_id)]",
        "[self.dag_id, self.run_id, self.task_id]",
        "a run id with a slash leads into another task's journal",
    ),
)

CODEC = mutations_of(
    "records/codec.py",
    "unit/records/test_state.py unit/records/test_journal.py",
    ("allow_inf_nan=False)", "allow_inf_nan=True)", "a deadline is written that no reader understands"),
    (
        'ConfigDict(frozen=True, extra="forbid"',
        'ConfigDict(frozen=True, extra="ignore"',
        "what a record says is dropped without a word",
    ),
)

MUTATIONS = (*GROUP_COMMIT, *STATE, *JOURNAL, *NOTES, *RECEIPTS, *RESERVATIONS, *EVENTS, *OWNER, *CODEC)
