"""The filter on tracks whose velocity is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_ros.kalman import ConstantVelocity

SPREAD = np.eye(2) * 0.02**2
NUMBERS = st.floats(-3.0, 3.0)


@given(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS), st.floats(0.02, 0.3))
def test_velocity_by_stamps_whatever_their_period(start, velocity, period):
    tracker = ConstantVelocity(2, 1.0, 1.0)
    for index in range(40):
        # every third image is lost: the stamps count, not the number of measurements
        if index % 3 != 1:
            time = 100.0 + period * index
            place = np.array(start) + period * index * np.array(velocity)
            assert tracker.update(time, place, SPREAD)
    state, covariance = tracker.predict(time + 0.5)
    assert state[2:] == pytest.approx(velocity, abs=0.05)
    assert state[:2] == pytest.approx(place + 0.5 * np.array(velocity), abs=0.05)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_the_covariance_is_honest():
    """The normalized error of position and velocity is that of chi-square with 4 degrees."""
    random, period, acceleration = np.random.default_rng(0), 0.1, 0.5
    errors = []
    for _ in range(60):
        tracker = ConstantVelocity(2, acceleration, 1.0)
        place, velocity = np.zeros(2), np.array((1.0, -0.5))
        for index in range(40):
            push = random.normal(0, acceleration * np.sqrt(period), 2)
            place, velocity = place + period * (velocity + push / 2), velocity + push
            tracker.update(index * period, place + random.normal(0, 0.02, 2), SPREAD)
        state, covariance = tracker.predict(39 * period)
        error = state - (*place, *velocity)
        errors.append(error @ np.linalg.solve(covariance, error))
    assert np.mean(errors) == pytest.approx(4.0, abs=1.0)


@pytest.mark.parametrize(("before", "outliers"), [(1, 0), (3, 2), (10, 4)])
def test_outliers_start_again_once_they_are_as_many_as_the_measurements(before, outliers):
    tracker = ConstantVelocity(1, 1.0, 1.0)
    for index in range(before):
        assert tracker.update(0.1 * index, np.array([0.0]), np.eye(1) * 1e-4)
    times = 0.1 * (before + np.arange(outliers + 1))
    taken = [tracker.update(time, np.array([9.0]), np.eye(1) * 1e-4) for time in times]
    assert taken == [False] * outliers + [True]
    assert tracker.predict(times[-1])[0] == pytest.approx((9.0, 0.0))


def test_an_outlier_changes_nothing_and_several_start_again():
    tracker = ConstantVelocity(2, 1.0, 1.0)
    for index in range(10):
        tracker.update(0.1 * index, np.array((index * 0.1, 0.0)), SPREAD)
    before = tracker.predict(1.0)[0]
    far = np.array((9.0, 9.0))
    assert not tracker.update(1.0, far, SPREAD)
    assert tracker.predict(1.0)[0] == pytest.approx(before)
    taken = [tracker.update(1.0 + 0.1 * index, far, SPREAD) for index in range(1, 5)]
    assert taken == [False, False, False, True]
    assert tracker.predict(1.4)[0] == pytest.approx((9, 9, 0, 0))


@pytest.mark.parametrize("time", [0.5, 5.0])  # backwards, and after a gap
def test_a_jump_of_time_starts_again(time):
    tracker = ConstantVelocity(1, 1.0, 1.0)
    for index in range(10):
        tracker.update(1 + 0.1 * index, np.array([index * 0.1]), np.eye(1) * 1e-4)
    assert tracker.update(time, np.array([7.0]), np.eye(1) * 1e-4)
    assert tracker.predict(time)[0] == pytest.approx((7.0, 0.0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    tracker = ConstantVelocity(1, 1.0, 1.0)
    with pytest.raises(ValueError, match="finite"):
        tracker.update(0.0, np.array([value]), np.eye(1))
    with pytest.raises(ValueError, match="finite"):
        tracker.update(0.0, np.array([1.0]), np.array([[value]]))
    with pytest.raises(ValueError, match=r"variances are \[-0\.5\]: expected 0 or more"):
        tracker.update(0.0, np.array([1.0]), np.array([[-0.5]]))
    with pytest.raises(ValueError, match="no measurement"):
        tracker.predict(0.0)
