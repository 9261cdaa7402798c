"""The values of /diagnostics: rates, latency, and why no image arrives. Free of ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from spmtrack_ros.session import Counters, State, Target

OK, WARN, ERROR = 0, 1, 2  # the levels of diagnostic_msgs/DiagnosticStatus


@dataclass(frozen=True)
class Publisher:
    """A publisher of the image topic."""

    node: str
    type: str
    reliable: bool


def why_no_image(
    topic: str, expected_type: str, reliable: bool, publishers: Sequence[Publisher]
) -> str:
    """The most likely cause of a silent topic and the cure, in one sentence.

    ``reliable`` is the reliability of the subscription; ``expected_type`` is for instance
    ``sensor_msgs/msg/Image``.
    """
    if not publishers:
        return f"no node publishes {topic}: start the camera or set image_topic"
    others = [each for each in publishers if each.type != expected_type]
    if len(others) == len(publishers):
        text = f"{topic} has the type {others[0].type}, expected {expected_type}"
        return f"{text}: set image_transport or image_topic"
    if reliable and not any(each.reliable for each in publishers):
        return (
            f"{publishers[0].node} publishes {topic} best effort, which a reliable subscription "
            "does not receive: set image_reliability to best_effort"
        )
    return (
        f"{publishers[0].node} publishes {topic} but no image arrives: Fast DDS loses large "
        "best-effort images unless its shared memory is enlarged; point "
        "FASTRTPS_DEFAULT_PROFILES_FILE to config/fastdds_large_images.xml in both processes, "
        "or set image_reliability to reliable"
    )


_MAX_SAMPLES = 1000  # kept between two messages; bounds the memory


class RateWindow:
    """Rates and times of the images processed between two messages.

    One thread may call :meth:`add` and another one :meth:`report`.
    """

    def __init__(self, now: float) -> None:
        self._times: deque[tuple[float, float]] = deque(maxlen=_MAX_SAMPLES)
        self._last = Counters()
        self._last_time = now

    def add(self, latency: float, processing: float) -> None:
        """Add an image: s from its stamp to the publication, and s of processing in that."""
        self._times.append((latency, processing))

    def report(
        self, now: float, counters: Counters, enabled: bool, target: Target | None, hint: str
    ) -> tuple[int, str, dict[str, str]]:
        """Level, message and values since the last report; ``now`` is in s.

        ``hint`` is the message if no image arrived.
        """
        times, self._times = self._times, deque(maxlen=_MAX_SAMPLES)
        last, self._last = self._last, counters
        elapsed, self._last_time = now - self._last_time, now
        received = counters.received - last.received
        errors = counters.errors - last.errors
        state = target.state if target else State.IDLE
        values = {
            "state": state.name if enabled else "DISABLED",
            "target": target.id if target else "",
            "images received": str(counters.received),
            "images processed": str(counters.processed),
            "images dropped": str(counters.dropped),
            "errors": str(counters.errors),
        }
        processed = counters.processed - last.processed
        values["images received per s"] = f"{received / elapsed:.1f}"
        values["images processed per s"] = f"{processed / elapsed:.1f}"
        if times:
            for name, column in (("latency", 0), ("processing", 1)):
                seconds = [row[column] for row in times]
                values[f"{name} mean ms"] = f"{1000 * sum(seconds) / len(seconds):.1f}"
                values[f"{name} max ms"] = f"{1000 * max(seconds):.1f}"
        if errors:
            return ERROR, f"{errors} failures, see the log", values
        if not enabled:
            return OK, "switched off", values
        if not received:
            return WARN, hint, values
        return OK, {State.IDLE: "no target"}.get(state, state.name.lower()), values
