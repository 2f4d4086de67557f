"""Where a writer's log was at which moments, and what follows for a follower's age and distance."""

from __future__ import annotations

import math

from replstore.replication.native.samples import KEPT, Sample, Samples


def moving(seconds: int, *, each: float = 0.1, term: str = "one") -> Samples:
    """A log that has moved on by one byte with each sample."""
    samples = Samples()
    for n in range(round(seconds / each)):
        samples.add(Sample(round(n * each, 3), n, term))
    return samples


def test_a_follower_has_what_was_committed_when_the_log_was_where_it_is_now() -> None:
    samples = moving(4)
    assert samples.had_all_at(25, "one") == 2.5
    assert samples.had_all_at(1000, "one") == 3.9
    assert samples.had_all_at(-1, "one") == -math.inf


def test_a_place_of_another_history_says_nothing() -> None:
    samples = moving(4)
    samples.add(Sample(5.0, 10, "two"))
    assert samples.had_all_at(1000, "two") == 5.0
    assert samples.had_all_at(1000, "three") == -math.inf
    assert samples.behind(1000, "one", since=0.0) == math.inf


def test_a_lag_of_an_hour_is_still_known() -> None:
    samples = moving(7200)
    for lag in (1, 10, 60, 600, 3600):
        known = 7200 - samples.had_all_at((7200 - lag) * 10, "one")
        assert lag <= known <= 2 * lag + 1


def test_proofs_by_the_thousand_leave_the_older_moments_where_they_are() -> None:
    samples = moving(4)
    for n in range(10_000):
        samples.add(Sample(4.0 + n / 10_000, 40 + n, "one"))
    assert samples.had_all_at(20, "one") == 2.0
    assert samples.had_all_at(100_000, "one") == 4.0 + 9_999 / 10_000


def test_memory_is_bounded() -> None:
    assert len(moving(3600)._kept) <= KEPT


def test_a_distance_is_counted_from_where_the_writer_was_seen_last() -> None:
    samples = moving(4)
    assert samples.behind(30, "one", since=3.0) == 9
    assert samples.behind(100, "one", since=3.0) == 0
    assert samples.behind(30, "one", since=3.95) == math.inf  # it was seen before that only


def test_a_late_answer_takes_nothing_back() -> None:
    samples = moving(4)
    samples.add(Sample(1.05, 1000, "one"))
    assert samples.behind(39, "one", since=0.0) == 0
