"""The page of a run: complete in itself, true to the run, and alive in a browser."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from spmtrack_core.data.video import open_frames
from spmtrack_core.evaluation import track_report
from spmtrack_core.evaluation.track_report import TrackReport, chart
from spmtrack_core.tracking.loop import TrackedFrame
from spmtrack_core.tracking.result import TrackResult, TrackState

T, U, L = TrackState.TRACKING, TrackState.UNCERTAIN, TrackState.LOST


def write(path, states, fps=25.0, length=None, title="clip", facts=None, times=None, picture=None):
    with TrackReport(path, fps, length) as page:
        for index, state in enumerate(states):
            frame = np.full((48, 64, 3), index % 255, np.uint8)
            frame = frame if picture is None else picture(index)
            confidence = math.nan if index == 0 else 0.1 if state is L else 0.9
            result = TrackResult((1, 2, 3, 4), confidence, state)
            page.add(TrackedFrame(frame, result, 0.01, times and times[index]), frame)
        page.close(title, "from a camera", facts or {}, 0.4)
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def test_the_page_needs_no_other_file(tmp_path):
    text = write(tmp_path / "r.html", [T, T, L, T])
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    for tag, attributes in Elements(text).found:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), tag
    assert "//" not in re.sub(r'"data:[^"]*"', "", text)


def clip_of(text, folder):
    (video,) = Elements(text).named("video")
    clip = folder / "clip.mp4"
    clip.write_bytes(base64.b64decode(video["src"].partition(",")[2]))
    return open_frames(clip)


def test_the_clip_holds_every_frame(tmp_path):
    sequence = clip_of(write(tmp_path / "r.html", [T] * 7), tmp_path)
    assert len(list(sequence)) == 7
    assert sequence.fps == pytest.approx(25)


@pytest.mark.parametrize(
    ("times", "real"),
    [
        ([0.0, 0.1, 0.4, 0.5, 0.9], [0.0, 0.1, 0.4, 0.5, 0.9]),  # a camera, tracked slowly
        ([0.0, 0.1, None, 0.5, 0.2], [0.0, 0.1, 0.14, 0.5, 0.54]),  # damaged
        (None, [0.0, 0.04, 0.08, 0.12, 0.16]),  # a folder of images
    ],
)
def test_everything_has_the_times_of_the_frames(tmp_path, times, real):
    text = write(tmp_path / "r.html", [T, T, L, L, T], times=times)
    assert [time for _, time in clip_of(text, tmp_path).timed()] == pytest.approx(real, abs=1e-4)
    buttons = Elements(text).named("button")
    assert [float(each["data-time"]) for each in buttons] == [real[2], real[4]]
    assert f"lost in frame 3, {real[2]:.1f} s" in text
    assert f"found again in frame 5, {real[4]:.1f} s" in text
    assert f">frame 5, {real[4]:.1f} s</text>" in text and f"last = {real[4]:.6g}," in text


def test_the_page_of_a_busy_video_stays_small_enough_for_browsers(tmp_path, monkeypatch):
    monkeypatch.setattr(track_report, "CLIP_BYTES", 200_000)
    noise = np.random.default_rng(0)

    def picture(index):
        return noise.integers(0, 255, (240, 320, 3), np.uint8)

    text = write(tmp_path / "r.html", [T] * 31, picture=picture)
    assert len(text) < 300_000
    (stride,) = re.findall(r"The clip shows one of (\d+) frames, made smaller\.", text)
    frames = list(clip_of(text, tmp_path).timed())
    assert len(frames) == math.ceil(31 / int(stride)) > 1
    times = [index / 25 for index in range(0, 31, int(stride))]
    assert [time for _, time in frames] == pytest.approx(times, abs=1e-4)


def test_a_name_that_is_no_text_is_written_with_marks(tmp_path):
    text = write(tmp_path / "r.html", [T], title="caf\udce9.mp4 tracked")
    assert "<title>caf?.mp4 tracked</title>" in text


@pytest.mark.parametrize(
    ("length", "stride", "said"),
    [(10, 3, "The clip shows one of 3 frames."), (None, 1, "The clip shows the first 4 frames.")],
)
def test_a_long_clip_is_thinned_or_ends(tmp_path, monkeypatch, length, stride, said):
    monkeypatch.setattr(track_report, "CLIP_FRAMES", 4)
    text = write(tmp_path / "r.html", [T] * 10, length=length)
    assert said in text
    clip = tmp_path / "clip.mp4"
    (video,) = Elements(text).named("video")
    clip.write_bytes(base64.b64decode(video["src"].partition(",")[2]))
    sequence = open_frames(clip)
    assert [int(frame.mean().round()) // stride for frame in sequence] == pytest.approx(
        [0, 1, 2, 3], abs=1
    )
    assert sequence.fps == pytest.approx(25 / stride)


@pytest.mark.parametrize(
    ("states", "moments"),
    [
        ([T, T, T], []),
        ([T, U, T], []),
        ([T, T, L, L, T], [("lost", 2), (None, 4)]),
        ([T, L, U], [("lost", 1), (None, 2)]),
        ([T, U, L], [("lost", 2)]),
    ],
)
def test_losses_and_returns_are_shown(tmp_path, states, moments):
    text = write(tmp_path / "r.html", states)
    buttons = Elements(text).named("button")
    shown = [(each.get("class"), round(float(each["data-time"]) * 25)) for each in buttons]
    assert shown == moments
    assert len(Elements(text).named("img")) == len(moments)
    assert ("The target was never lost." in text) == (not moments)
    assert f"<b>{states.count(L)}</b><span>frames lost</span>" in text
    for kind, frame in moments:
        what = "lost" if kind else "found again"
        assert f"{what} in frame {frame + 1}, {frame / 25:.1f} s" in text


def test_of_many_losses_the_first_are_shown(tmp_path):
    text = write(tmp_path / "r.html", [T, L] * 20)
    assert len(Elements(text).named("button")) == track_report.MOMENTS
    assert f"{39 - track_report.MOMENTS} more losses and returns are not shown." in text


def test_names_are_no_markup(tmp_path):
    text = write(tmp_path / "r.html", [T], title="<script>a</script>", facts={"<b>": "<i>"})
    assert len(Elements(text).named("script")) == 1
    assert not Elements(text).named("i") or "&lt;i&gt;" in text
    assert "&lt;script&gt;a&lt;/script&gt;" in text


def drawn(confidence, states, threshold=0.4, times=None):
    """The path's points and the bands of a chart, as they are drawn."""
    times = [index / 25 for index in range(len(states))] if times is None else times
    space = "http://www.w3.org/2000/svg"
    svg = ElementTree.fromstring(
        f'<svg xmlns="{space}">{chart(confidence, states, threshold, times)}</svg>'
    )
    path = svg.find(f"{{{space}}}path").get("d")
    bands = [
        (float(each.get("x")), float(each.get("width")), each.get("fill"))
        for each in svg.iter(f"{{{space}}}rect")
    ]
    return path, bands


def test_the_chart_shows_confidence_and_states():
    path, bands = drawn([math.nan, 1.0, 0.5, 0.0, 0.5], [T, T, U, L, L])
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[1:]]
    assert [y for _, y in points] == [10, 105, 200, 105]
    xs = [46, 281, 516, 751, 986]
    assert [x for x, _ in points] == xs[1:]
    (uncertain, lost) = bands
    assert uncertain[2] == "var(--unsure)" and lost[2] == "url(#hatch)"
    assert uncertain[0] == pytest.approx((xs[1] + xs[2]) / 2, abs=0.1)
    assert lost[0] == pytest.approx(uncertain[0] + uncertain[1], abs=0.1)
    assert lost[0] + lost[1] == pytest.approx(986, abs=0.1)


@pytest.mark.parametrize(
    ("count", "labels"),
    [
        (1, [(46, "frame 1, 0.0 s")]),
        (3, [(46, "frame 1, 0.0 s"), (516, "frame 2, 0.0 s"), (986, "frame 3, 0.1 s")]),
        (100_001, [(46 + 235 * k, f"frame {25_000 * k + 1}, {1000 * k}.0 s") for k in range(5)]),
    ],
)
def test_the_frames_below_the_chart_stand_at_their_places_and_apart(count, labels):
    text = chart([0.9] * count, [T] * count, 0.4, [index / 25 for index in range(count)])
    found = re.findall(r'<text x="([\d.]+)" y="220" text-anchor="(\w+)">(.*?)<', text)
    assert [(round(float(x)), label) for x, _, label in found] == labels
    assert all(anchor == "middle" for _, anchor, _ in found[1:-1])


def test_the_chart_is_one_over_time_also_where_frames_are_uneven():
    path, bands = drawn([0.5] * 4, [T, T, L, T], times=[0.0, 1.0, 3.0, 10.0])
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[1:]]
    assert [x for x, _ in points] == [46, 140, 328, 986]
    (lost,) = bands  # from the middle between two frames to the next middle
    assert (lost[0], lost[0] + lost[1]) == pytest.approx((46 + 94 * 2, 46 + 94 * 6.5))


def test_the_curve_of_a_long_run_keeps_its_peaks():
    confidence = np.full(100_000, 0.9)
    confidence[54_321] = 0.02
    path, _ = drawn(confidence.tolist(), [T] * len(confidence))
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[1:]]
    assert len(points) <= 801
    assert max(y for _, y in points) == pytest.approx(196.2)


def test_a_click_shows_the_moment_in_the_clip(tmp_path):
    from test.spmtrack_core.live.chromium import chromium  # skips where there is none

    write(tmp_path / "r.html", [T] * 10 + [L] * 5 + [T] * 10)
    with chromium() as browser:
        page = browser.new_page()
        page.goto((tmp_path / "r.html").as_uri())
        page.wait_for_function("video.readyState >= 2", timeout=60_000)
        page.locator("[data-time='0.4']").first.click()
        page.wait_for_function("!video.seeking && video.currentTime > 0", timeout=60_000)
        frame = page.evaluate("Math.round(video.currentTime * 25 - 0.02)")
        cursor = page.evaluate("cursor.getAttribute('x1')")
    assert frame == 10
    assert float(cursor) == pytest.approx(46 + 940 * 10 / 24, abs=2)
