"""Makes the moving picture of README from an annotated video.

python tools/animate.py tracked.mp4 docs/demo.webp
"""

from __future__ import annotations

import sys
from fractions import Fraction

import av

WIDTH = 360  # px
EVERY = 4  # frames of the video for one of the picture
QUALITY = "30"


def animate(source: str, target: str) -> None:
    """Write every fourth frame of a video as an animated WebP picture that repeats for ever."""
    with av.open(source) as video, av.open(target, "w", options={"loop": "0"}) as picture:
        stream = video.streams.video[0]
        height = round(WIDTH * stream.height / stream.width)
        rate = Fraction(stream.average_rate, EVERY)
        out = picture.add_stream("libwebp_anim", rate=rate)
        out.width, out.height, out.pix_fmt = WIDTH, height, "yuv420p"
        out.options = {"quality": QUALITY, "compression_level": "4"}
        frames = (frame for index, frame in enumerate(video.decode(stream)) if index % EVERY == 0)
        for index, frame in enumerate(frames):
            small = frame.reformat(WIDTH, height, "yuv420p", interpolation="AREA")
            small.pts, small.time_base = index, 1 / rate
            picture.mux(out.encode(small))
        picture.mux(out.encode())


if __name__ == "__main__":
    animate(*sys.argv[1:])
