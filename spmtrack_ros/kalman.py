"""A Kalman filter with constant velocity, in any number of dimensions. Free of ROS."""

from __future__ import annotations

import numpy as np

_GATE = 5.0  # standard deviations from which on a measurement counts as an outlier
_MAX_OUTLIERS = 5  # in a row; then the target has really moved, and the filter starts again
_START_SPEED = 1.0  # m/s or rad/s, standard deviation of an unknown velocity


class ConstantVelocity:
    """Position and velocity of a point by measurements of its position.

    The model of Bar-Shalom, Li and Kirubarajan, "Estimation with Applications to Tracking and
    Navigation" (2001), section 6.2.2: the acceleration is white noise.
    """

    def __init__(self, dimensions: int, acceleration: float, max_gap: float) -> None:
        """``acceleration`` in m/s² is the standard deviation of that noise over a second; after
        ``max_gap`` s without a measurement the filter starts again.
        """
        self._n, self._acceleration, self._max_gap = dimensions, acceleration, max_gap
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._time: float | None = None
        self._state = np.zeros(2 * self._n)
        self._covariance = np.eye(2 * self._n)
        self._taken = self._outliers = 0

    @property
    def started(self) -> bool:
        """Whether there was a measurement."""
        return self._time is not None

    def update(self, time: float, position: np.ndarray, covariance: np.ndarray) -> bool:
        """Take in a ``position`` (n,) at ``time`` s with its ``covariance`` (n, n).

        False for an outlier, which changes nothing. Time that runs backwards and a gap start the
        filter again, and so do outliers in a row, as many as there were measurements before them
        or 5. Raises ``ValueError`` for numbers that are not finite and for negative variances.
        """
        if not (np.isfinite(position).all() and np.isfinite(covariance).all()):
            raise ValueError(f"position {np.asarray(position).tolist()}: expected finite numbers")
        variances = np.diagonal(covariance)
        if (variances < 0).any():
            raise ValueError(f"variances are {variances.tolist()}: expected 0 or more")
        n = self._n
        if self._time is None or not 0 <= time - self._time <= self._max_gap:
            return self._start(time, position, covariance)
        state, predicted = self._predict(time - self._time)
        residual = position - state[:n]
        spread = predicted[:n, :n] + covariance
        if residual @ np.linalg.solve(spread, residual) > _GATE**2:
            self._outliers += 1
            if self._outliers < min(self._taken, _MAX_OUTLIERS):
                return False
            return self._start(time, position, covariance)
        gain = np.linalg.solve(spread, predicted[:n]).T
        self._state = state + gain @ residual
        keep = np.eye(2 * n)
        keep[:, :n] -= gain
        # Joseph's form stays symmetric and positive
        self._covariance = keep @ predicted @ keep.T + gain @ covariance @ gain.T
        self._time, self._taken, self._outliers = time, self._taken + 1, 0
        return True

    def predict(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """State (2 n,), position before velocity, and its covariance (2 n, 2 n) at ``time`` s.

        Raises ``ValueError`` before the first measurement.
        """
        if self._time is None:
            raise ValueError("there was no measurement yet")
        return self._predict(time - self._time)

    def _start(self, time: float, position: np.ndarray, covariance: np.ndarray) -> bool:
        self.reset()
        self._time, self._taken = time, 1
        self._state[: self._n] = position
        self._covariance *= _START_SPEED**2
        self._covariance[: self._n, : self._n] = covariance
        return True

    def _predict(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        one = np.eye(self._n)
        step = np.block([[one, seconds * one], [0 * one, one]])
        t = abs(seconds)
        noise = np.block([[t**3 / 3 * one, t**2 / 2 * one], [t**2 / 2 * one, t * one]])
        covariance = step @ self._covariance @ step.T + self._acceleration**2 * noise
        return step @ self._state, covariance
