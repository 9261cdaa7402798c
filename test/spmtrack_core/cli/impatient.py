"""``spmtrack`` with somebody at the terminal who ends it.

    python impatient.py AT READER SIGNALS ARGUMENTS...

Before item number AT of the frames (``track``) or results (``bag``) the first of SIGNALS comes, if
there are so many; the others, as in "SIGINT,SIGTERM", come while a file is written. READER is the
descriptor of the other end of stdout and stderr, closed before the first signal; -1: none.

A process of its own: a signal that goes astray would end the tests.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from spmtrack_core.cli import bag, main, track


def send(names):
    for name in names:
        signal.raise_signal(signal.Signals[name])


def interrupted(items):
    def replaced(*arguments):
        for index, item in enumerate(items(*arguments)):
            if index == at:
                if reader >= 0:
                    os.close(reader)
                send(names[:1])
            yield item

    return replaced


def written_slowly(write):
    def replaced(*arguments):
        send(names[1:])
        write(*arguments)

    return replaced


def open_frames(*arguments, opened=track.open_frames, **settings):
    sequence = opened(*arguments, **settings)
    return replace(sequence, open=interrupted(sequence.open))


if __name__ == "__main__":
    at, reader = map(int, sys.argv[1:3])
    names = sys.argv[3].split(",")
    track.open_frames, track.write_boxes = open_frames, written_slowly(track.write_boxes)
    bag.replay, bag.write_image = interrupted(bag.replay), written_slowly(bag.write_image)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it,
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and one of nohup this
    sys.argv[1:] = sys.argv[4:]
    main()
