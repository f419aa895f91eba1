"""Mutations of the check: what it may buy, what it deletes, and what it publishes."""

from __future__ import annotations

from tests.mutants.mutations import mutations_of

SPENDING = mutations_of(
    "check/spending.py",
    "unit/check/test_spending.py",
    ("if figures.balance is None:", "if False:", "it buys without having seen the balance"),
    (
        "any(size not in figures.quotes for size in SIZES)",
        "not figures.quotes",
        "it buys what has no price",
    ),
    ("if cost > amount + ROUNDING:", "if cost > 2 * amount:", "it spends more than was allowed"),
    ("if cost > figures.balance + ROUNDING", "if cost < 0", "it buys on credit"),
    ("        return Refusal.FIRST_FAILED\n", "        pass\n", "it goes on after a failure"),
    (
        "return Refusal.CHARGED_MORE if is_more else None",
        "return None",
        "it goes on after it was charged too much",
    ),
    (
        "if each.is_stored and each.prediction_id in",
        "if each.prediction_id in",
        "it deletes an image that is not stored",
    ),
    (
        "protocol.delete_predictions(ours[-1:])",
        "protocol.delete_predictions(ours)",
        "it deletes more than one",
    ),
)

PURCHASES = mutations_of(
    "check/purchases.py",
    "unit/check/test_spending.py",
    ('on_lost_response="fail"', 'on_lost_response="buy_again"', "a lost response is bought again"),
    ("max_cost_usd=limit_usd", "max_cost_usd=None", "the engine knows no limit"),
)

ACCOUNT = mutations_of(
    "check/account.py",
    "unit/check/test_spending.py",
    (
        "max(quote.price, quote.charged, DOCUMENTED_PRICE)",
        "quote.charged",
        "a discount that may not be given has to fit",
    ),
)

SHAPES = mutations_of(
    "check/shapes.py",
    "unit/check/test_shapes.py unit/check/test_report.py",
    (
        "_NAME.fullmatch(name) and not _is_secret(name, secrets)",
        "_NAME.fullmatch(name)",
        "a key that is a word of a prompt is published",
    ),
    (
        "return declared if not declared or declared in MEDIA_TYPES else OTHER",
        "return declared",
        "a header's value is published",
    ),
    (
        "_HOST.fullmatch(host) and not _is_secret(host, secrets)",
        "_HOST.fullmatch(host)",
        "a host that holds the key is published",
    ),
)

REQUESTS = mutations_of(
    "check/requests.py",
    "unit/check/test_report.py",
    (
        "            self.secrets.update(values_of(item))\n",
        "            pass\n",
        "an id as a key is published",
    ),
)

MUTATIONS = [*SPENDING, *PURCHASES, *ACCOUNT, *SHAPES, *REQUESTS]
