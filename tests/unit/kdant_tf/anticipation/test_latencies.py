"""What computing costs of the anticipation time, in memory that does not grow."""

import numpy as np
import pytest

from kdant_tf.anticipation.anticipate import Latencies


def test_percentiles_are_right_to_one_per_cent() -> None:
    latencies = Latencies(ahead_s=0.25)
    drawn = np.random.default_rng(0).lognormal(-3, 1, 5000)
    for value in drawn:
        latencies.add(float(value), dropped=2)
    for percent in (1, 50, 90, 99, 100):
        expected = np.percentile(drawn, percent, method="inverted_cdf")
        assert latencies.percentile_s(percent) == pytest.approx(expected, rel=0.006)
    assert latencies.share(50) == pytest.approx(np.median(drawn) / 0.25, rel=0.01)
    summary = latencies.summary()
    assert (summary["answers"], summary["dropped"]) == (5000, 10000)
    assert summary["late"] == int((drawn > 0.25).sum())
    assert len(latencies._counts) < 1000


def test_a_clip_that_reaches_into_the_action_has_no_time_to_lose() -> None:
    latencies = Latencies(ahead_s=-0.1)
    assert latencies.percentile_s(50) == 0
    latencies.add(0.0)
    assert latencies.share() is None
    assert latencies.summary()["share"] is None
