"""The values of /diagnostics: rates, latency, and why no image arrives. Free of ROS."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from spmtrack_core.session.snapshot import Counters, Snapshot
from spmtrack_ros.fast_dds import PROFILE, PROFILES_VARIABLE

OK, WARN, ERROR = 0, 1, 2  # the levels of diagnostic_msgs/DiagnosticStatus

_COMPRESSED = "sensor_msgs/msg/CompressedImage"
SHARED_MEMORY = 72 * 2**20  # bytes: the segment of config/fastdds_large_images.xml and a little
_MAX_INTERVALS, _MAX_SILENCE = 3.0, 5.0  # s for the latter; after more, a camera is silent
_MAX_SAMPLES = 1000  # kept between two messages; bounds the memory
# For the share of the images that arrive. At 10 images per s, of which half are lost, one window
# of 1 s is too short for it: the newest images count, also those of earlier windows.
_MIN_IMAGES, _MAX_IMAGES = 10, 60
_PAUSE = 10  # periods; a longer gap is no loss: the camera was off or its clock was set
_MAX_UNEVENNESS = 0.2  # of the period; a camera without a steady rate says nothing about losses
_MIN_SHARE = 0.9  # of the images that arrive; below is a warning


@dataclass(frozen=True)
class Publisher:
    """A publisher of the image topic."""

    node: str
    """Name of its node, with namespace."""
    type: str
    reliable: bool


@dataclass(frozen=True)
class Transport:
    """How the images come to this process."""

    reliable: bool = False
    """The reliability of the subscription."""
    shared_memory: float = math.inf
    """Size of /dev/shm in bytes; infinite if unknown."""
    fast_dds: bool = True
    profile: bool = False
    """Whether this process was started with a profile for Fast DDS."""


def why_no_image(
    topic: str,
    expected_type: str,
    publishers: Sequence[Publisher],
    transport: Transport,
    image_topics: Collection[str] = (),
) -> str:
    """What is known of a silent topic, and the cure, in one sentence.

    ``expected_type`` is the type of the subscription, for instance ``sensor_msgs/msg/Image``.
    ``image_topics`` are all topics with raw or compressed images.
    """
    if not publishers:
        return f"no node publishes {topic}: {_other_topic(topic, image_topics)}"
    others = [each for each in publishers if each.type != expected_type]
    if len(others) == len(publishers):
        text = f"{topic} has the type {others[0].type}, expected {expected_type}"
        cure = others[0].type == _COMPRESSED and _compressed(topic)
        return f"{text}: {cure or 'set image_transport or image_topic'}"
    node = publishers[0].node
    if transport.reliable and not any(each.reliable for each in publishers):
        return (
            f"{node} publishes {topic} best effort, which a reliable subscription "
            "does not receive: set image_reliability to best_effort"
        )
    text = f"{node} publishes {topic} but no image arrives: check whether the camera sends any"
    cause = _loss_by_fast_dds(transport)
    return f"{text}; if it does: {cause}" if cause else text


def why_lost(transport: Transport) -> str:
    """Why a part of the images gets lost on the way, and the cure."""
    if transport.reliable:
        return "the network or this machine is too slow for them: send fewer or smaller images"
    if cause := _loss_by_fast_dds(transport):
        return cause
    other = f"or point {PROFILES_VARIABLE} to config/{PROFILE} in the camera's process too"
    text = "the network loses them: set image_reliability to reliable"
    return f"{text}, {other}" if transport.fast_dds else text


def _loss_by_fast_dds(transport: Transport) -> str:
    """Why Fast DDS cannot transport large images here, and the cure; empty if it can."""
    if transport.reliable or not transport.fast_dds:
        return ""
    if transport.shared_memory < SHARED_MEMORY:
        return (
            f"/dev/shm has {transport.shared_memory / 1e6:.0f} MB, too little for large images; "
            "start a container with --shm-size 200m"
        )
    if transport.profile:
        return ""
    return (
        "Fast DDS loses large best-effort images unless its shared memory is enlarged; point "
        f"{PROFILES_VARIABLE} to config/{PROFILE} in both processes, or set image_reliability "
        "to reliable"
    )


def share_arrived(stamps_ns: Sequence[int]) -> float | None:
    """Part of a camera's images that arrived, 0 to 1, by the gaps between their stamps.

    A gap of three periods means two lost images; the period is that of the shortest gaps. None if
    there are too few images, or if the gaps are no multiples of one period. Pauses do not count.
    """
    gaps = np.diff(np.sort(np.asarray(stamps_ns)))
    if len(gaps) < _MIN_IMAGES or not (period := np.percentile(gaps, 10)) > 0:
        return None
    gaps = gaps[gaps <= _PAUSE * period]
    periods = np.maximum(np.round(gaps / period), 1)
    period = gaps.sum() / periods.sum()
    if np.abs(gaps / period - periods).mean() > _MAX_UNEVENNESS:
        return None
    return float(len(gaps) / periods.sum())


def _compressed(topic: str) -> str:
    """The cure for the name of a topic of compressed images; empty for another name."""
    image = topic.removesuffix("/compressed")
    if image == topic:
        return ""
    return f"set image_topic to {image}, without /compressed, and image_transport to compressed"


def _other_topic(topic: str, image_topics: Collection[str]) -> str:
    """What to do when nothing is published on a topic."""
    if f"{topic}/compressed" in image_topics:
        return f"{topic}/compressed is there, so set image_transport to compressed"
    raw = topic.removesuffix("/compressed")
    if raw != topic and raw in image_topics:
        return f"{raw} is there, so {_compressed(raw) or 'set image_transport to raw'}"
    if others := sorted(each for each in image_topics if each != topic):
        return f"set image_topic to one of {', '.join(others[:5])}"
    return "start the camera or set image_topic"


class RateWindow:
    """Rates and times of the images between two messages.

    One thread may call :meth:`add` and another one :meth:`report`.
    """

    def __init__(
        self,
        now: float,
        busy_timeout: float = 5.0,
        latency_warning: float = 0.0,
        latency_error: float = 0.0,
    ) -> None:
        """All in s. Processing one image for ``busy_timeout`` is an error; the limits of the p95
        of the latency count unless they are 0.
        """
        self._busy_timeout = busy_timeout
        self._latency_limits = ((ERROR, latency_error), (WARN, latency_warning))
        self._start(now, Counters())

    def restart(self, session: Snapshot) -> None:
        """Forget the images so far: the subscription is a new one."""
        self._start(session.time, session.counters)

    def _start(self, now: float, counters: Counters) -> None:
        self._samples: dict[str, deque[float]] = {}
        self._last_arrival = -math.inf
        self._interval = math.inf  # s between the last two images
        self._frame_ids: set[str] = set()
        self._sizes: set[str] = set()
        self._stamps: deque[int] = deque(maxlen=_MAX_IMAGES)
        self._last, self._last_time = counters, now

    def add(self, **seconds: float) -> None:
        """Add durations in s by name, such as the latency of an image."""
        for name, value in seconds.items():
            samples = self._samples.setdefault(name, deque(maxlen=_MAX_SAMPLES))
            samples.append(max(0.0, value))  # negative after a jump of the clock

    def see(
        self, now: float, stamp_ns: int, frame_id: str, size_wh: tuple[int, int] | None = None
    ) -> None:
        """Note the arrival of an image in s, its stamp, its frame_id, and its size if known."""
        self._interval = now - self._last_arrival
        self._last_arrival = now
        self._frame_ids.add(frame_id)
        self._stamps.append(stamp_ns)
        if size_wh is not None:
            self._sizes.add("{} x {}".format(*size_wh))

    def report(
        self,
        session: Snapshot,
        hint: str,
        publishers: Sequence[Publisher] = (),
        loss_hint: str = "",
    ) -> tuple[int, str, dict[str, str]]:
        """Level, message and values since the last report.

        ``hint`` is the message if no image arrived and ``loss_hint`` the cause if some did not;
        ``publishers`` are those of the images.
        """
        mixed = self._mixed_stream(publishers)
        samples, self._samples = self._samples, {}
        counters, last, self._last = session.counters, self._last, session.counters
        elapsed, self._last_time = session.time - self._last_time, session.time
        received = counters.received - last.received
        processed = counters.processed - last.processed
        errors = counters.errors - last.errors
        primary = session.primary
        state = primary.state.name if primary else "IDLE"
        values = {
            "state": state if session.enabled else "DISABLED",
            "target": primary.id if primary else "",
            "targets": str(len(session.targets)),
            "images received": str(counters.received),
            "images processed": str(counters.processed),
            "images dropped": str(counters.dropped),
            "errors": str(counters.errors),
            "images received per s": f"{received / elapsed:.1f}",
            "images processed per s": f"{processed / elapsed:.1f}",
        }
        share = share_arrived(self._stamps) if received and not mixed else None
        if share is not None:
            values["images arrived %"] = f"{100 * share:.0f}"
        for name, seconds in samples.items():
            times = 1000 * np.array(seconds)
            values[f"{name} mean ms"] = f"{times.mean():.1f}"
            values[f"{name} p50 ms"] = f"{np.percentile(times, 50):.1f}"
            values[f"{name} p95 ms"] = f"{np.percentile(times, 95):.1f}"
            values[f"{name} max ms"] = f"{times.max():.1f}"
        for target in session.targets:
            values[f"target '{target.id}'"] = f"{target.state.name} {target.score:.2f}"
        if session.busy > self._busy_timeout:
            return (
                ERROR,
                f"the tracker has been busy with one image for {session.busy:.0f} s",
                values,
            )
        if errors:
            return ERROR, f"{errors} failures, see the log", values
        if not session.enabled:
            return OK, "switched off", values
        latency = np.percentile(samples["latency"], 95) if samples.get("latency") else 0.0
        for level, limit in self._latency_limits:
            if 0 < limit <= latency:
                return (
                    level,
                    f"the p95 of the latency is {latency:.3f} s, limit {limit:g} s",
                    values,
                )
        # a camera with less than one image in this time may be slow instead of silent
        silence = session.time - self._last_arrival
        if not received and silence > min(_MAX_INTERVALS * self._interval, _MAX_SILENCE):
            return WARN, hint, values
        if mixed:
            return WARN, mixed, values
        if share is not None and share < _MIN_SHARE:
            return WARN, f"{100 * share:.0f} % of the images arrive: {loss_hint}", values
        return OK, state.lower() if primary else "no target", values

    def _mixed_stream(self, publishers: Sequence[Publisher]) -> str:
        """Why the images may not come from one camera; empty if they seem to."""
        # a camera that has crashed and was started again is listed twice for a while
        nodes = sorted({each.node for each in publishers})
        frame_ids, sizes = sorted(self._frame_ids), sorted(self._sizes)
        self._frame_ids, self._sizes = set(), set()
        for name, found in (("publishers", nodes), ("frame_ids", frame_ids), ("sizes", sizes)):
            if len(found) > 1:
                return f"the images have {len(found)} {name}: {', '.join(found)}; expected one"
        return ""
