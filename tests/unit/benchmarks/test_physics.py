"""The limit that round trips set: simple cases that one can do in one's head."""

from __future__ import annotations

import pytest

from benchmarks.physics import wall


def test_without_distance_only_the_images_take_time() -> None:
    assert wall([5.0] * 300, in_flight=100) == 15


def test_a_place_is_free_again_a_round_trip_after_its_image_has_ended() -> None:
    download = 0.3
    assert wall([5.0] * 300, in_flight=100, round_trip=0.3) == pytest.approx(3 * 5.3 + download)


def test_a_response_has_to_come_before_more_is_sent_than_may_be_unanswered() -> None:
    assert wall([5.0] * 3, in_flight=100, round_trip=0.5, unanswered=1) == pytest.approx(2 * 0.5 + 5.5 + 0.5)


def test_a_store_that_is_far_away_delays_the_first_post_and_the_last_receipt() -> None:
    assert wall([5.0], in_flight=1, operation=0.03) == pytest.approx(5 + 3 * 0.03)
    assert wall([5.0] * 2, in_flight=2, operation=0.03) == pytest.approx(5 + 3 * 0.03)
