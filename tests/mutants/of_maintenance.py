"""Mutations of maintenance: what reconcile collects, what it leaves alone, and what it says of money."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

RECONCILE = mutations_of(
    "maintenance/reconcile.py",
    "unit/maintenance/test_reconcile.py",
    (
        "datetime.fromtimestamp(Clock().time(), UTC) - KEPT_BY_WAVESPEED",
        "datetime.fromtimestamp(Clock().time(), UTC)",
        "nothing is compared",
    ),
    ("BitDanceHook(conn_id)", "BitDanceHook()", "another account's key is used"),
    ("open_records(records_path,", 'open_records("",', "other records are reconciled"),
    ("        dry_run=dry_run,\n", "", "a dry run stores and claims"),
    ("        include_running=include_running,\n", "", "what may still run is never collected"),
    ("policy=Policy(nsfw=nsfw, ", "policy=Policy(", "flagged pictures are never stored"),
    ("since if since.tzinfo else since.replace(tzinfo=UTC)", "since.astimezone(UTC)", "the wrong hours"),
    ("include_running=self.include_running)", "include_running=True)", "a running task is stopped"),
    (
        "models = {BITDANCE_14B, *(plan.request.model for plan in plans)}",
        "models = {BITDANCE_14B}",
        "a lost purchase of another model is taken for not created",
    ),
    ("        if self.dry_run:\n            return job, None\n", "", "a dry run stores and claims"),
    ("try_number=record.last_try", "try_number=1", "the try in which an image failed buys it again"),
    (
        "                self.since,\n",
        "                self.since - KEPT_BY_WAVESPEED,\n",
        "what was made before the period is called untracked",
    ),
    (
        "for item in account.predictions if item.id not in known]",
        "for item in account.predictions]",
        "our own predictions are called untracked",
    ),
    (
        "if events and (is_over or self.include_running):",
        "if events:",
        "a running task is stopped for its books",
    ),
    (
        "for record in records.jobs if not self.dry_run else ():",
        "for record in records.jobs:",
        "a dry run writes",
    ),
    (
        "loss.job == record.job and loss.verdict is Verdict.NOT_CREATED",
        "loss.job == record.job",
        "what is possibly paid is forgotten",
    ),
    ("if loss.intended_at >= start and is_of", "if is_of", "old losses"),
    (
        "if loss.intended_at >= start and is_of(host, loss.plan)]",
        "if loss.intended_at >= start]",
        "another API's history settles a loss",
    ),
    (
        "if journal.load().number == record.state.number:",
        "if journal.load():",
        "a task that has come back is stopped",
    ),
    ("oldest=now - KEPT_SECONDS", "oldest=0.0", "a loss older than the history is taken for not created"),
    (
        "findings=(*records.findings, *account.findings)",
        "findings=records.findings",
        "a missing bill is hidden",
    ),
    (
        "records if self.dry_run else read_records(self.records)",
        "records",
        "what was collected is called untracked",
    ),
)

COLLECT = mutations_of(
    "maintenance/collect.py",
    "unit/maintenance/test_reconcile.py",
    (
        "journal.claim, deadline, now)",
        "journal.claim, 0.0, now)",
        "a retry that waits is out of time",
    ),
    (
        "        await resolve_intents(context, journal, may_arrive=now < deadline + ARRIVES_WITHIN)\n",
        "",
        "open intents stay open",
    ),
    (
        'prediction.status == "deleted" and age < KEPT_BY_WAVESPEED.total_seconds()',
        'prediction.status == "deleted"',
        "a prediction that nobody has any more is told for ever",
    ),
    (
        'if prediction.status == "deleted" and age < KEPT_BY_WAVESPEED.total_seconds():',
        "if False:",
        "an image bought with another key is written off",
    ),
    (
        "if receipt is None or receipt.prediction_id == image.prediction_id:",
        "if receipt is None:",
        "an image whose receipt is written is not recorded",
    ),
    (
        "is_newer = receipt.stored_at.timestamp() > image.submitted_at",
        "is_newer = True",
        "an older image keeps the one out that was to replace it",
    ),
    (
        "    except FencedError:\n        raise\n",
        "",
        "a job that its own task goes on with is said to be left",
    ),
    (
        "CollectStatus.FAILED if failed else CollectStatus.LEFT, error.what",
        "CollectStatus.LEFT, error.what",
        "a failed image is said to be collectable",
    ),
    (
        "CollectStatus.FAILED if failed else CollectStatus.LEFT, error.what",
        "CollectStatus.FAILED, error.what",
        "an image that can be had later is said to have failed",
    ),
    (
        "if image.status is Status.PLANNED:",
        "if False:",
        "what is possibly paid is said to be left",
    ),
    ("stopped = CollectStatus.RUNNING,", "stopped = CollectStatus.LEFT,", "a running job is said to be left"),
)

BILL = mutations_of(
    "engine/account_history.py",
    "unit/maintenance/test_costs.py unit/maintenance/test_reconcile.py unit/engine/test_account_history.py "
    "unit/engine/test_lost_responses.py",
    (
        "timedelta(seconds=skew) - BILLING_MARGIN",
        "timedelta(seconds=skew)",
        "a clock that is behind hides a charge",
    ),
    ("since + timedelta(seconds=skew)", "since", "an API's clock that is hours behind hides a charge"),
    (
        "found.setdefault(record.uuid or record, record)",
        "found.setdefault(record.uuid, record)",
        "charges without an id are one",
    ),
    (
        "for record in found.values() if record.prediction_id)",
        "for record in found.values())",
        "a top-up is a charge",
    ),
    ("not unreadable and not nameless", "not nameless", "a charge that cannot be read is taken for nothing"),
    ("not unreadable and not nameless", "not unreadable", "a charge of nobody is taken for nothing"),
    ("is_end = len(found) == known", "is_end = True", "a long bill is not read to its end"),
    (
        "if row.prediction_id not in shown and",
        "if False and",
        "a charge that the history does not show is taken for nothing",
    ),
    (
        "if found.model in names:",
        "if True:",
        "what another model made keeps a loss possibly paid",
    ),
    (
        "if item.id in known and (charged",
        "if (charged",
        "what others buy shows that the history is up with us",
    ),
    (
        "(charged is None or item.id in charged)",
        "True",
        "a bill that is behind is believed",
    ),
    (
        "if history.is_whole and (bill is None or bill.is_whole) else ()",
        "if bill is None or bill.is_whole else ()",
        "a row that cannot be read is taken for nothing",
    ),
    (
        "(item.model for item in history.items if item.id in known)",
        "()",
        "a charge under another spelling of our model is taken for nothing",
        "unit/engine/test_account_history.py",
    ),
    (
        "is_whole = history.is_whole and asked == len(charges)",
        "is_whole=history.is_whole",
        "of very many charges the last ones are taken for nothing",
    ),
)

BILL = mutations_of(
    "wavespeed/responses.py",
    "unit/maintenance/test_costs.py unit/maintenance/test_reconcile.py",
    ("-abs(self.price) if is_refund", "self.price if is_refund", "a refund is a charge"),
    ("else abs(self.price)", "else self.price", "a charge written as negative is a refund"),
    (
        '"refund" in self.billing_type.lower()',
        '"refund" == self.billing_type',
        "a refund by another name is a charge",
    ),
)

ACCOUNT = mutations_of(
    "maintenance/account.py",
    "unit/maintenance/test_costs.py unit/maintenance/test_reconcile.py",
    ("        if error.retry_helps:\n            raise\n", "", "a moment's failure hides the bill"),
    (
        "        if error.retry_helps:\n            raise\n",
        "        raise\n",
        "without the bill nothing is told",
    ),
)

COSTS = mutations_of(
    "maintenance/costs.py",
    "unit/maintenance/test_costs.py unit/maintenance/test_reconcile.py",
    ("        known.add(purchase.prediction_id)\n", "", "our own charges are called unattributed"),
    (
        "known = records.predictions - saved.keys()",
        "known = records.predictions",
        "a lost purchase that a person has saved was never made",
    ),
    (
        "if proofs[name] is Proof.NONE:",
        "if True:",
        "what a person has saved is any lost purchase of its prompt",
    ),
    (
        "if purchase.bought_at >= since.timestamp():",
        "if True:",
        "purchases of before the period are in its costs",
    ),
    (
        "if record.prediction_id not in known and (",
        "if (",
        "a charge is in a Dag's costs and unattributed, too",
    ),
    ("record.created_at is None or record.created_at >= since", "True", "old charges are unattributed"),
    (
        "record.created_at is None or record.created_at >= since",
        "record.created_at is not None and record.created_at >= since",
        "a charge without a time is in no figure",
    ),
    (
        "prediction.created_at is None or prediction.created_at <= latest",
        "True",
        "a purchase whose answer is on its way is called untracked",
    ),
    (
        "prediction.created_at is None or prediction.created_at <= latest",
        "prediction.created_at is not None and prediction.created_at <= latest",
        "a prediction without a time is never untracked, and cannot explain a loss",
    ),
    (
        "history.since(loss.intended_at - BILLING_MARGIN.total_seconds())",
        "history.since(loss.intended_at)",
        "a clock that is behind hides the lost purchase: taken for not created",
    ),
    (
        "if loss.intended_at >= oldest and not loss.prediction_id",
        "if loss.intended_at >= oldest",
        "a purchase that is known explains another one",
    ),
    (
        "    if loss.prediction_id:\n        return",
        "    if False:\n        return",
        "a noted purchase is taken for unknown",
    ),
    (
        "in (loss.request.prompt, loss.plan.prompt_asked)",
        "== loss.request.prompt",
        "a charged purchase that a person has saved is called not created",
    ),
    (
        "return _possibly_paid(loss, Verdict.NOT_CREATED, NOT_SHOWN)",
        "return _possibly_paid(loss, Verdict.NOT_CREATED, loss.reason)",
        "what is proven is said to be unproven",
    ),
    (
        "if loss.intended_at >= oldest and not loss.prediction_id",
        "if not loss.prediction_id",
        "a loss older than the history is taken for not created",
    ),
    (
        "sorted(losses, key=lambda loss: loss.intended_at)",
        "list(losses)",
        "the wrong one of two losses is called bought",
    ),
    ("records.bought_in_run(loss.job)", "known", "another account's purchase settles a loss"),
)

COST_TABLE = mutations_of(
    "maintenance/cost_table.py",
    "unit/maintenance/test_cost_table.py",
    (
        "return loss.given_up_at <= receipt.stored_at.timestamp()",
        "return True",
        "what a later generation possibly paid is in no sum",
    ),
)

TRIAGE = mutations_of(
    "maintenance/triage.py",
    "unit/maintenance/test_reconcile.py",
    (
        "record.destination_of(image).identity in planned",
        "planned",
        "an image whose row was removed at a clear is never stored",
    ),
    (
        "plan.asked.fingerprint(api_host, enhance_prompt=style)",
        "plan.asked.fingerprint(api_host)",
        "an image of an enhanced prompt is never stored",
        "unit/maintenance/test_prompts.py",
    ),
    (
        "if image.prediction_id in adopted or record",
        "if record",
        "an image that a later job has adopted is stored twice",
    ),
    (
        "image for image in record.open_images if image.plan.key not in replaced",
        "image for image in record.open_images",
        "an old image replaces the newer one",
    ),
)

OUTPUTS = mutations_of(
    "maintenance/outputs.py",
    "unit/maintenance/test_verify.py",
    ("is_root = not folder.partition", "is_root = folder.partition", "records at the root open every folder"),
    ("(output for output in outputs if lies_below(folder, output))", "outputs", "a receipt opens any folder"),
    ("key=len", "key=lambda _: 0", "a link that the user names is not followed"),
)

PRUNE = mutations_of(
    "maintenance/prune.py",
    "unit/maintenance/test_prune.py",
    (
        "if not is_old or now < state.lease_end(now):",
        "if not is_old:",
        "the journal of a task that is at work is removed",
    ),
    (
        "if record.losses or any(image.unconfirmed for image in state.images.values()):",
        "if record.losses:",
        "what is possibly paid is forgotten",
    ),
    (
        "                journal.claim(until, self.clock.time())\n",
        "                pass\n",
        "the journal of a task that has begun since is removed",
    ),
    (
        "(state.is_removed or is_old) and state.lease_end(now) <= now",
        "state.is_removed or is_old",
        "two prunes remove one journal, and the second that of a new task",
    ),
    (
        "is_claimed_only and now - state.time > self.older_than.total_seconds()",
        "is_claimed_only",
        "a process of a cleared generation that wakes up is not stopped",
    ),
    (
        "self.folder.replace(f",
        "print(f",
        "a task goes on from a part of its journal",
    ),
    (
        "if not is_same or _is_there(receipt, places[receipt.folder]):",
        "if not is_same:",
        "the receipt of an image that was stored meanwhile is removed, and the image bought again",
    ),
    (
        "            and name not in unmounted\n",
        "",
        "all receipts are removed where a disk is not mounted",
    ),
    (
        "nearest_folder(root, receipts[name].folder)",
        "root",
        "one image elsewhere stands for those of a disk that is not mounted",
    ),
    ("            and name not in in_use\n", "", "a receipt is removed that a task is about to need"),
)

MUTATIONS = (*PRUNE, *RECONCILE, *COST_TABLE, *TRIAGE, *COLLECT, *BILL, *ACCOUNT, *COSTS, *OUTPUTS)
