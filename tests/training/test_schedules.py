"""Learning rates by step."""

import pytest

from asymlib.training.schedules import cosine_with_warmup, warmup_then_cosine


def test_the_schedule_is_warm_up_then_cosine_to_the_floor():
    rates = [warmup_then_cosine(i, 100, 10, 0.01) for i in range(100)]
    assert rates[0] == pytest.approx(0.01) and rates[10] == pytest.approx(1) and max(rates) == rates[10]
    assert rates[55] == pytest.approx(0.01 + 0.99 * 0.5) and rates[-1] == pytest.approx(0.01, abs=1e-3)


def test_a_schedule_without_warm_up_starts_at_the_rate_and_one_of_warm_up_alone_divides_by_nothing():
    assert warmup_then_cosine(0, 100, 0, 0.1) == 1
    assert warmup_then_cosine(10, 10, 10, 0.1) == 1


def test_the_study_s_cosine_warms_up_on_top_of_it_and_ends_at_nothing():
    """Breaks when the warm-up delays the cosine, as it does in `warmup_then_cosine`, or starts at a rate of 0."""
    rates = [cosine_with_warmup(2.0, i, 200) for i in range(201)]
    assert rates[0] == pytest.approx(2 / 50) and rates[24] == pytest.approx(25 / 50 * (1 + 0.929776), rel=1e-5)
    assert rates[100] == pytest.approx(1) and rates[200] == pytest.approx(0)
