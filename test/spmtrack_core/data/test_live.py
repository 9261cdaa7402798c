"""Sources at an address: a server and a sender on this computer stand for cameras."""

from __future__ import annotations

import contextlib
import http.server
import io
import itertools
import socket
import threading
import time

import av
import numpy as np
import pytest

from spmtrack_core.data import live, video
from spmtrack_core.data.video import open_frames


def clip(count, first=0, form="mpegts"):
    """A clip whose grey levels tell the index of each frame."""
    memory = io.BytesIO()
    with av.open(memory, "w", format=form) as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(first, first + count):
            image = np.full((48, 64, 3), 10 * index + 5, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return memory.getvalue()


def clip_with_sound(frames, seconds):
    """A clip whose sound goes on after its last frame."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mpegts") as container:
        video_stream = container.add_stream("mpeg2video", rate=25)
        video_stream.width, video_stream.height, video_stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("mp2", rate=32000, layout="mono")
        for _ in range(frames):
            image = np.zeros((48, 64, 3), np.uint8)
            container.mux(video_stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video_stream.encode())
        for number in range(seconds * 25):
            silence = np.zeros((1, 1280), np.int16)
            piece = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            piece.sample_rate, piece.pts = 32000, 1280 * number
            container.mux(sound.encode(piece))
    return memory.getvalue()


def level(frame):
    return round(float(frame.mean()) / 10 - 0.5)


@pytest.fixture
def serve(monkeypatch):
    """Starts a server that answers with ``answer(request)``; its address."""
    servers = []

    def serve(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/camera"

    # long enough that a computer that stands still for a moment does not decide a test
    monkeypatch.setattr(video, "TIMEOUT", 30.0)
    monkeypatch.setattr(live, "PAUSE", 0.05)
    monkeypatch.setattr(live, "GIVE_UP", 2.0)
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_video_on_a_server_is_read_in_order_to_its_end(serve):
    content = clip(12, form="matroska")

    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    sequence = open_frames(serve(answer))
    for _ in range(2):
        assert [level(frame) for frame in sequence] == list(range(12))


def test_a_stream_that_breaks_is_connected_again_and_told(serve, caplog):
    parts = [clip(4, 0), clip(4, 10)]

    def answer(request):
        if not parts:
            request.send_error(503)
            return
        request.send_response(200)
        request.end_headers()  # no length: this has no end
        request.wfile.write(parts.pop(0))

    address = serve(answer)
    seen, times = [], []
    with pytest.raises(ValueError, match=rf"no frame from {address} for 2 s: "):
        for frame, when in open_frames(address).timed():
            seen.append(level(frame))
            times.append(when)
    assert seen[-1] >= 10
    assert seen == sorted(seen)
    assert times[0] == 0
    assert times == sorted(times)
    texts = [record.message for record in caplog.records]
    assert texts[:2] == [
        f"{address}: Input/output error; connecting again",
        f"{address}: connected again",
    ]


def error_of(frames):
    """What ends an iteration; fails instead of waiting without an end."""
    errors = []

    def consume():
        try:
            list(frames)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    thread.join(20)
    assert errors, "the iteration did not end"
    return errors[0]


def test_sound_that_goes_on_does_not_keep_a_stream_without_frames(serve):
    content = clip_with_sound(4, 60)

    def answer(request):
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):  # until the other side has gone
            for at in range(0, len(content), 1316):
                request.wfile.write(content[at : at + 1316])
                time.sleep(0.005)

    address = serve(answer)
    error = error_of(open_frames(address).timed())
    assert isinstance(error, ValueError)
    why = "what comes holds no frame that can be decoded"
    assert str(error) == f"no frame from {address} for 2 s: {why}"


def test_an_error_of_any_kind_ends_the_wait_for_frames(serve):
    def connect():
        raise RuntimeError("out of\nhandles")

    content = clip(3, form="matroska")
    source = live.NewestFrame("camera", av.open(io.BytesIO(content)), connect)
    error = error_of(source)
    assert isinstance(error, ValueError) and str(error) == "camera: out of handles"
    assert isinstance(error.__cause__, RuntimeError)


def test_the_newest_frame_comes_first(serve):
    """A camera of 50 frames per second, and a tracker that takes 0.2 s for one."""
    frames = [clip(1, index % 25) for index in range(25)]
    started = time.monotonic()

    def answer(request):
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):  # until the other side has gone
            for index in itertools.count():
                request.wfile.write(frames[index % 25])
                time.sleep(max(0, started + index / 50 - time.monotonic()))

    source = open_frames(serve(answer)).timed()
    times = []
    for _ in range(5):
        times.append(next(source)[1])
        time.sleep(0.2)
    source.close()
    # had all frames been kept, the fifth were 0.08 s after the first
    assert times[4] - times[0] > 0.6
    assert np.diff(times).min() > 0.1


def test_a_broadcast_is_received(monkeypatch):
    monkeypatch.setattr(video, "TIMEOUT", 5.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = threading.Event()

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            content = clip(20)
            while not stop.is_set():
                for at in range(0, len(content), 1316):  # seven packets of a transport stream
                    sender.sendto(content[at : at + 1316], ("127.0.0.1", port))
                    time.sleep(0.002)

    threading.Thread(target=send, daemon=True).start()
    frames = iter(open_frames(f"udp://127.0.0.1:{port}"))
    try:
        assert next(frames).shape == (48, 64, 3)
    finally:
        frames.close()
        stop.set()


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("rtsp://user:secret@127.0.0.1:1/cam", "cannot open rtsp://127.0.0.1:1/cam: Connection"),
        ("http://127.0.0.1:1/cam", "cannot open http://127.0.0.1:1/cam: Connection refused"),
        ("udp://127.0.0.1:9", "cannot open udp://127.0.0.1:9: no answer in time"),
        ("gopher://127.0.0.1/cam", "gopher:// is not one of http, https, .* rtsp"),
    ],
)
def test_an_address_without_an_answer_is_named(monkeypatch, capfd, address, match):
    monkeypatch.setattr(video, "TIMEOUT", 0.3)
    with pytest.raises(ValueError, match=match) as error:
        open_frames(address)
    assert "secret" not in str(error.value)
    assert capfd.readouterr() == ("", "")
