"""Mutations of the Prompt Enhancer: what is decided for one text, what it cost, what may be sent."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

DECISIONS = mutations_of(
    "enhancer/decisions.py",
    "unit/enhancer/test_decisions.py",
    (
        "if attempt.prediction_id and attempt.prediction_id not in facts.ended:",
        "if attempt.prediction_id:",
        "a prediction that gave no text is polled for ever",
    ),
    (
        "return Poll(attempt)",
        "return Buy(attempt.number + 1)",
        "a text that is bought is bought again",
    ),
    (
        "for attempt in lost if not attempt.is_of(facts.job))",
        "for attempt in lost)",
        "a retry waits three minutes for itself",
    ),
    (
        "if (until := max(leases, default=0.0)) > facts.now:",
        "if (until := max(leases, default=0.0)) >= facts.now + 1e9:",
        "two tasks at once each buy the text",
    ),
    (
        "ours = sum(attempt.is_of(facts.job) for attempt in lost)",
        "ours = len(lost)",
        "what another task lost stops this one for good",
    ),
    ("facts.bought >= MOST_PURCHASES or ", "", "a text is bought for ever while responses are lost"),
    ("(ours and not facts.buys_again)", "False", 'on_lost_response="fail" buys again'),
    ("attempt.is_of(job) and attempt.is_charged", "attempt.is_charged", "another task's purchase is counted"),
    ("attempt.is_of(job) and attempt.is_charged", "attempt.is_of(job)", "a refused submission is counted"),
    (
        "max(attempt.intent.estimated_cost_usd, price_usd)",
        "attempt.intent.estimated_cost_usd",
        "a forged intent raises the budget",
    ),
    (
        "attempt.prediction_id and text_of in",
        "text_of in",
        "a lost response is taken for certainly paid",
    ),
)

PURCHASE = mutations_of(
    "enhancer/purchase.py",
    "unit/enhancer/test_stage.py",
    (
        "await asyncio.to_thread(self._context.journal.check_unchanged)",
        "pass",
        "a replaced process buys a text",
        "unit/enhancer/test_crashes.py",
    ),
    (
        "if now - intent.time.timestamp() > SENT_WITHIN:",
        "if False:",
        "a process that slept sends what others take for lost",
    ),
    (
        'return "the rate limit" if self._limiter.turn(now=now) else ""',
        'return ""',
        "no turn is taken before a POST",
    ),
    ("self.budget_left -= self._price", "pass", "prompts that are bought again take the images' money"),
    ("            tried.bought += 1\n", "", "a text is bought for ever while responses are lost"),
    ("                take(context, prediction)\n", "", "two texts share one prediction"),
    (
        "                check_echo(prediction, requested=key.text, style=key.style)\n                take",
        "                take",
        "a purchase that is another text's is recorded as this one's",
    ),
    (
        """                check_echo(prediction, requested=key.text, style=key.style)
                take(context, prediction)
""",
        """                take(context, prediction)
                check_echo(prediction, requested=key.text, style=key.style)
""",
        "a response astray loses the purchase that it is of",
    ),
    (
        "        check_echo(prediction, requested=key.text, style=key.style)\n        text =",
        "        text =",
        "another text's prompt is recorded as this one's, and sent",
    ),
    (
        "context.coordination.submitted.append(context.clock.time())",
        "pass",
        "images begin as if no prompt had been submitted in this minute",
    ),
    (
        "if is_retried and not buyer.is_of_same_try(ours):",
        "if is_retried:",
        "one try buys a text again and again that fails",
    ),
    ("        self._limiter.in_flight += 1\n", "", "more prompts are in flight than the user allows"),
)

STAGE = mutations_of(
    "enhancer/stage.py",
    "unit/enhancer/test_stage.py",
    (
        "                await self._check_budget(missing)\n",
        "                pass\n",
        "prompts are bought for images that max_cost_usd refuses",
    ),
    (
        "limit - so_far - images.cost_usd + ROUNDING",
        "limit - so_far + ROUNDING",
        "prompts take the money of the images",
    ),
    ("limit - so_far - images", "limit - images", "what earlier tries lost is not counted"),
    (
        "_Spent() if is_counted else self._spent[key]",
        "self._spent[key]",
        "each image of a text counts its cost",
    ),
    ("    _check_size(enhanced)\n", "", "a plan is written that nobody can read"),
    (
        "            check_enhanced(found.enhanced, requested=key.text, longest=self._longest)\n",
        "",
        "a forged text is sent",
    ),
)

RECORDS = mutations_of(
    "records/enhanced_prompts.py",
    "unit/enhancer/test_stage.py unit/records/test_enhanced_prompts.py",
    (
        "return self.until if self.until <= now + LONGEST_LEASE else 0.0",
        "return self.until",
        "a forged lease holds a worker for ever",
        "unit/enhancer/test_decisions.py",
    ),
    ("if found is not None and found.key != key:", "if False:", "the text of another prompt is sent"),
    (
        "return read_record(PromptIntent, self._folder, name) == intent",
        "return False",
        "a folder in the place of an intent keeps a task for ever",
    ),
    (
        "return read_record(PromptIntent, self._folder, name) == intent",
        "return bool(read_record(PromptIntent, self._folder, name)) and False",
        "an intent that was written, and seemed not to be, is a lost response",
    ),
    (
        "        self._check_number(name, number)\n        if self._create(name, intent):",
        "        if self._create(name, intent):",
        "a text is bought under a number that nobody reads",
    ),
    ("if number > MOST_ATTEMPTS:", "if False:", "a forged number makes a worker spin"),
    ("if intent.key.folder != folder:", "if False:", "an intent of another text counts"),
)

MUTATIONS = [*DECISIONS, *PURCHASE, *STAGE, *RECORDS]
