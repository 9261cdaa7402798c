"""What a page may say, and what it is told."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.live.messages import (
    MakePrimary,
    Play,
    Playback,
    RemoveTarget,
    Seek,
    Shown,
    ShownTarget,
    StartTarget,
    Step,
    View,
    answer,
    pack,
    parse,
)
from spmtrack_core.session.init_request import Code, Reply

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
NAMES = ("type", "request", "stamp", "box", "id", "position")
KINDS = ("shown", "start", "remove", "primary", "play", "pause", "step", "seek")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "shown"}, Shown()),
        (
            {"type": "start", "stamp": "1700000000123456789", "box": [1, 2.5, 3, 4]},
            StartTarget(1_700_000_000_123_456_789, (1.0, 2.5, 3.0, 4.0)),
        ),
        ({"type": "remove", "id": "a"}, RemoveTarget("a")),
        ({"type": "primary", "id": "a"}, MakePrimary("a")),
        ({"type": "play"}, Play(True)),
        ({"type": "pause"}, Play(False)),
        ({"type": "step"}, Step()),
        ({"type": "seek", "position": 2}, Seek(2.0)),
    ],
)
def test_messages_of_the_page(fields, message):
    assert parse(json.dumps(fields | {"request": 7})) == (7, message)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[" * 1000, "JSON"),
        ("[]", "JSON object"),
        ("{}", "type must be one of"),
        ('{"type": ["start"]}', "type must be one of"),
        ('{"type": "shutdown"}', "type must be one of"),
        ('{"type": "play", "request": "1"}', "request must be a whole number"),
        ('{"type": "play", "request": true}', "request must be a whole number"),
        ('{"type": "start", "stamp": "1"}', "box must be a list"),
        ('{"type": "start", "stamp": "1", "box": [1, 2, 3]}', "box must be a list"),
        ('{"type": "start", "stamp": "1", "box": [1, 2, 3, NaN]}', "finite number"),
        ('{"type": "start", "stamp": "1", "box": [1, 2, 3, true]}', "finite number"),
        ('{"type": "start", "stamp": "1", "box": [1, 2, 3, 1%s]}' % ("0" * 400), "finite"),
        ('{"type": "start", "stamp": 1, "box": [1, 2, 3, 4]}', "stamp must be a text"),
        ('{"type": "start", "stamp": "-1", "box": [1, 2, 3, 4]}', "digits"),
        ('{"type": "start", "stamp": "٣", "box": [1, 2, 3, 4]}', "digits"),
        ('{"type": "start", "stamp": "%s", "box": [1, 2, 3, 4]}' % ("9" * 20), "digits"),
        ('{"type": "remove", "id": 3}', "id must be a text"),
        ('{"type": "seek"}', "position must be a finite number"),
        ('{"type": "seek", "position": Infinity}', "position must be a finite number"),
    ],
)
def test_what_no_page_sends(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


@given(
    st.text(max_size=40)
    | ANY_JSON.map(json.dumps)
    | st.builds(
        lambda kind, fields: json.dumps(fields | {"type": kind}),
        st.sampled_from(KINDS),
        st.dictionaries(st.sampled_from(NAMES), ANY_JSON),
    )
)
def test_any_text_is_a_message_or_an_error(text):
    try:
        number, message = parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(number, int)
        if isinstance(message, StartTarget):
            assert all(map(math.isfinite, message.box_xywh))


def test_a_view_and_its_image_are_one_message():
    target = ShownTarget("a", "lost", math.nan, None, "cup", True, "left image")
    playback = Playback(True, 1.5, 8.0, True)
    view = View(3, 10**18 + 1, None, 0.0, (target,), 0.02, "no camera", playback, "walk.mp4")
    message = pack(view, (360, 640), b"JPEG", None)
    length = int.from_bytes(message[:4], "big")
    fields = json.loads(message[4 : 4 + length])
    assert message[4 + length :] == b"JPEG"
    assert fields["stamp"] == "1000000000000000001"  # more digits than a number of JavaScript has
    assert (fields["width"], fields["height"]) == (640, 360)
    (sent,) = fields["targets"]
    assert sent["confidence"] is None and sent["box"] is None and sent["primary"]
    assert fields["playback"]["length"] == 8.0 and fields["recording"] == "walk.mp4"


def test_an_answer_has_the_code_of_the_services():
    sent = json.loads(answer(4, Reply(Code.BOX_TOO_SMALL, "too small", "a")))
    assert sent == {"request": 4, "code": "BOX_TOO_SMALL", "message": "too small", "id": "a"}
