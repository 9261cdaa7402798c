"""What the server and the page say to each other.

To the page, binary: four bytes with the length of a JSON text, big-endian, the text of a ``View``,
and the JPEG image unless the page has it already. An answer to a request is a JSON text. From the
page, JSON texts: ``parse`` reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spmtrack_core.geometry.image import Image
from spmtrack_core.session.init_request import BoxXywh, Reply

LONGEST = 2048
"""Bytes of the longest message that a page may send."""


@dataclass(frozen=True)
class ShownTarget:
    """One target as the page draws it."""

    id: str
    state: str
    """``tracking``, ``uncertain`` or ``lost``."""
    confidence: float
    box_xywh: BoxXywh | None
    """Pixels of the image; the last one seen of a lost target; None: not known in this image."""
    label: str = ""
    primary: bool = False
    reason: str = ""
    """Why it is not tracking, in words."""


@dataclass(frozen=True)
class Playback:
    """Where a player stands in its source."""

    playing: bool
    position: float
    """Seconds from the first frame."""
    length: float | None = None
    """Seconds; None where unknown."""
    seekable: bool = False
    ended: bool = False


@dataclass(frozen=True)
class View:
    """One image and everything that the page shows with it."""

    number: int = 0
    """Counts images: a page that has an image is not sent it again."""
    stamp_ns: int = 0
    """Identifies the image in requests."""
    image: Callable[[], Image] | None = None
    """RGB uint8 (H, W, 3), made when a page asks for it; None: no image so far. Raises
    ``ValueError`` for an image that cannot be decoded."""
    arrived: float = 0.0
    """s of the monotonic clock."""
    targets: tuple[ShownTarget, ...] = ()
    seconds: float = 0.0
    """Time that decoding and tracking took."""
    hint: str = ""
    """What is wrong and what helps; empty if nothing is."""
    playback: Playback | None = None
    """None: nothing can be paused here."""
    recording: str = ""
    """Name of the file that is written; empty: none."""


@dataclass(frozen=True)
class StartTarget:
    """Follow a new target, given by its box in the image of this stamp."""

    stamp_ns: int
    box_xywh: BoxXywh
    id: str = ""


@dataclass(frozen=True)
class RemoveTarget:
    """Stop following the target of this id; all if it is empty."""

    id: str


@dataclass(frozen=True)
class MakePrimary:
    """Make the target of this id the primary one."""

    id: str


@dataclass(frozen=True)
class Play:
    """Go on, or stop at the present image."""

    playing: bool


@dataclass(frozen=True)
class Step:
    """Show the next image and stop."""


@dataclass(frozen=True)
class Seek:
    """Go to a place in the source."""

    position: float
    """Seconds from the first frame."""


@dataclass(frozen=True)
class Shown:
    """The page has drawn the image that was sent last, and is ready for the next."""


Request = StartTarget | RemoveTarget | MakePrimary | Play | Step | Seek
"""What is answered."""


def parse(text: str) -> tuple[int, Request | Shown]:
    """The number that the page gave a message, and the message.

    Raises ``ValueError`` for anything that a page does not send.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("a message is a JSON text") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a message is a JSON object; got {type(fields).__name__}")
    kind, request = fields.get("type"), fields.get("request", 0)
    if type(request) is not int:
        raise ValueError("request must be a whole number")
    if not isinstance(kind, str) or kind not in _READERS:
        raise ValueError(f"type must be one of {', '.join(_READERS)}")
    return request, _READERS[kind](fields)


def _number(fields: dict[str, Any], name: str) -> float:
    return _finite(fields.get(name), name)


def _finite(value: Any, name: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # of a very large whole number
        pass
    raise ValueError(f"{name} must be a finite number")


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text")
    return value


def _start(fields: dict[str, Any]) -> StartTarget:
    box, stamp = fields.get("box"), _text(fields, "stamp")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError("box must be a list of four numbers x, y, w, h")
    # a text, because JavaScript's numbers have 53 bits
    if not stamp.isascii() or not stamp.isdecimal() or len(stamp) > 19:
        raise ValueError("stamp must be the digits that came with the image")
    x, y, w, h = (_finite(value, "box") for value in box)
    return StartTarget(int(stamp), (x, y, w, h))


_READERS: dict[str, Callable[[dict[str, Any]], Request | Shown]] = {
    "shown": lambda fields: Shown(),
    "start": _start,
    "remove": lambda fields: RemoveTarget(_text(fields, "id")),
    "primary": lambda fields: MakePrimary(_text(fields, "id")),
    "play": lambda fields: Play(True),
    "pause": lambda fields: Play(False),
    "step": lambda fields: Step(),
    "seek": lambda fields: Seek(_number(fields, "position")),
}


def pack(view: View, size_hw: tuple[int, int], jpeg: bytes, latency: float | None) -> bytes:
    """The message of a view whose image has ``size_hw`` pixels; ``jpeg`` may be empty."""
    fields = {
        "stamp": str(view.stamp_ns),
        "width": size_hw[1],
        "height": size_hw[0],
        "targets": [
            {
                "id": target.id,
                "label": target.label,
                "state": target.state,
                "confidence": _or_none(target.confidence),
                "box": None if target.box_xywh is None else list(target.box_xywh),
                "primary": target.primary,
                "reason": target.reason,
            }
            for target in view.targets
        ],
        "seconds": view.seconds,
        "latency": latency,
        "hint": view.hint,
        "playback": None if view.playback is None else vars(view.playback),
        "recording": view.recording,
    }
    text = json.dumps(fields, allow_nan=False).encode()
    return len(text).to_bytes(4, "big") + text + jpeg


def answer(request: int, reply: Reply) -> str:
    """The answer to the message with the number ``request``."""
    fields = {"request": request, "code": reply.code.name, "message": reply.message}
    return json.dumps(fields | {"id": reply.id})


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None
