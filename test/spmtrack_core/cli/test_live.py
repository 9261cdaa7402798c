"""``spmtrack live`` as its user runs it: the printed address, the end, the files, mistakes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys

import av
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from spmtrack_core.data.recording import write_image
from spmtrack_core.data.sequence import read_boxes
from test.spmtrack_core.live.squares import frame, red


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "walk"
    images.mkdir()
    for index in range(6):
        write_image(images / f"{index}.png", frame(index))
    return images


async def follow(address):
    """Name the red square in the first image, play to the end, and return the last view."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{address}live", headers={"Origin": address.rstrip("/")}) as page,
    ):
        asked = []
        while True:
            message = await page.receive(60)
            if message.type is aiohttp.WSMsgType.TEXT:
                assert json.loads(message.data)["code"] == "OK", message.data
                if not asked[1:]:  # before, the next image might come and be recorded first
                    asked.append("play")
                    await page.send_str('{"type": "play"}')
                continue
            length = int.from_bytes(message.data[:4], "big")
            view = json.loads(message.data[4 : 4 + length])
            if view["width"] and not asked:
                asked.append("start")
                start = {"type": "start", "stamp": view["stamp"], "box": list(red(0))}
                await page.send_str(json.dumps(start))
            elif view["playback"]["ended"]:
                return view
            await page.send_str('{"type": "shown"}')


IMPATIENT = """
import signal
from spmtrack_core.cli import main
from spmtrack_core.live.tracking import LiveTracking

def close_slowly(live, close=LiveTracking.close):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
    return close(live)

LiveTracking.close = close_slowly
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
main()
"""
"""The command, of somebody who presses Ctrl-C again and closes the terminal."""


def test_name_a_target_follow_it_and_end(folder, tmp_path, tiny_checkpoint):
    record = tmp_path / "out.mp4"
    command = [
        *(sys.executable, "-c", IMPATIENT, "live"),
        *(folder, "--port", "0", "--weights", tiny_checkpoint, "--device", "cpu"),
        *("--record", record),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(list(map(str, command)), env=environment, **pipes)
    try:
        line = process.stdout.readline()
        address = re.search(r"walk on cpu: open (http://127\.0\.0\.1:\d+/) ", line).group(1)
        view = asyncio.run(follow(address))
        assert [each["id"] for each in view["targets"]] == ["target-1"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert out == f"wrote {record}\nwrote {tmp_path / 'out.target-1.txt'}\n"
    with av.open(str(record)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 6
    boxes = read_boxes(tmp_path / "out.target-1.txt")
    assert boxes.shape == (6, 4) and boxes[0].tolist() == list(red(0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.mp4"], "no video, folder of images or camera at no.mp4"),
        (["broken"], "is not an image"),
        (["--port", "70000"], "port must be 0 to 65535; got 70000"),
        (["--port", "in use"], "choose another port"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--record", "out.avi"], "a video is written as .mp4"),
        (["--weights", "none"], "no weights 'none'"),
        (["--device", "tpu"], "device must be auto, cpu"),
    ],
)
def test_mistakes_are_one_line(spmtrack, folder, tiny_checkpoint, arguments, words):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [port if word == "in use" else word for word in arguments]
        (folder.parent / "broken").mkdir()
        (folder.parent / "broken" / "1.png").write_bytes(b"no image")
        if arguments == ["broken"]:
            arguments = [folder.parent / "broken"]
        source = [folder] if str(arguments[0]).startswith("--") else []
        weights = [] if "--weights" in arguments else ["--weights", tiny_checkpoint]
        code, out, err = spmtrack("live", *source, *arguments, *weights)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_a_source_is_never_recorded_over(spmtrack, tmp_path, tiny_checkpoint):
    video = tmp_path / "walk.mp4"
    video.write_bytes(b"mine")
    code, _, err = spmtrack("live", video, "--record", video, "--weights", tiny_checkpoint)
    assert code == 2 and "is an input of this run" in err
    assert video.read_bytes() == b"mine"
