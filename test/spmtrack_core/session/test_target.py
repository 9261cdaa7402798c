"""Requests of any content: a box or a coded rejection, never an exception."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.session.init_request import (
    Code,
    InitRequest,
    Limits,
    Reply,
    box_in_image,
    normalized_to_pixels,
    point_in_image,
)
from spmtrack_core.session.target import TargetList
from spmtrack_core.tracking.followed import State, Target

ANY_BOX = st.tuples(*[st.floats() | st.floats(-1000, 1000)] * 4)
FRAME = Frame(1, 0, SimpleNamespace(header=None))


def target(name, box=(10.0, 10.0, 30.0, 20.0), state=State.TRACKING):
    return Target(name, "", state, 1.0, box, FRAME, 0, handle=object())


@given(
    box=ANY_BOX,
    name=st.text(max_size=80),
    label=st.text(max_size=300),
    normalized=st.booleans(),
    known=st.lists(ANY_BOX, max_size=2),
    followed=st.integers(0, 2),
)
def test_any_request_gives_a_box_or_a_code(box, name, label, normalized, known, followed):
    targets = TargetList()
    for number in range(followed):
        targets.add(target(f"{number}"))
    request = InitRequest(box, 0, name, label, normalized, unless_followed=tuple(known))
    limits = Limits(max_targets=2)
    rejection = targets.reject_reason(request, limits)
    if rejection is not None:
        assert isinstance(rejection, Reply) and rejection.message
        return
    found = box_in_image(request, (120, 160), limits)
    if isinstance(found, Reply):
        assert found.code is not Code.OK and found.message
        return
    x, y, w, h = found
    assert all(map(math.isfinite, found)) and min(w, h) >= limits.init_min_side
    assert x < 160 and y < 120 and x + w > 0 and y + h > 0


@given(box=ANY_BOX, normalized=st.booleans())
def test_any_point_is_in_the_image_or_gives_a_code(box, normalized):
    request = InitRequest(box, normalized=normalized, point=True)
    rejection = TargetList().reject_reason(request, Limits())
    if not (math.isfinite(box[0]) and math.isfinite(box[1])):
        assert rejection.code is Code.INVALID_BOX and rejection.message
        return
    assert rejection is None  # the sizes are ignored
    found = point_in_image(request, (120, 160))
    if isinstance(found, Reply):
        assert found.code is Code.BOX_OUTSIDE_IMAGE and "160 x 120 px" in found.message
    else:
        assert 0 <= found[0] < 160 and 0 <= found[1] < 120


@given(st.lists(st.tuples(st.sampled_from(["add", "primary", "remove"]), st.sampled_from("abc"))))
def test_there_is_a_primary_target_exactly_if_there_is_a_target(changes):
    targets = TargetList()
    for change, name in changes:
        if change == "add":
            targets.add(target(name), targets.replaced_by(name))
        elif change == "primary":
            assert (targets.set_primary(name).code is Code.OK) is (name in targets)
        else:
            targets.remove(name)
        assert (targets.primary is None) is (len(targets) == 0)
        assert targets.primary in list(targets) or targets.primary is None
        assert len({each.id for each in targets}) == len(targets)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("\u2603 cup 1", None),  # any letters
        ("a" * 64, None),
        ("a" * 65, Code.INVALID_ID),
        ("a\0", Code.INVALID_ID),
        ("\x7f", Code.INVALID_ID),
        ("a\u0085", Code.INVALID_ID),  # next line
    ],
)
def test_ids(text, code):
    reply = TargetList().reject_reason(InitRequest((0, 0, 9, 9), id=text), Limits())
    assert (reply.code if reply else None) is code


def test_normalized_box():
    assert normalized_to_pixels((0.0, 0.0, 1.0, 1.0), (480, 640)) == (0.0, 0.0, 640.0, 480.0)
