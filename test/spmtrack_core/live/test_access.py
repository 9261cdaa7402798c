"""Whose requests are answered, by their headers."""

from __future__ import annotations

import socket

import pytest

from spmtrack_core.live.access import Access

OWN = socket.gethostname()


@pytest.mark.parametrize(
    ("listens_on", "host", "origin", "is_websocket", "words"),
    [
        ("127.0.0.1", "127.0.0.1:8642", None, False, None),
        ("127.0.0.1", "127.0.0.1:8642", "http://127.0.0.1:8642", True, None),
        ("127.0.0.1", "localhost:9000", "http://localhost:9000", True, None),  # ssh -L
        ("127.0.0.1", "[::1]:8642", "http://[::1]:8642", True, None),
        ("::1", "[::1]:8642", None, False, None),
        ("127.0.0.1", "LOCALHOST:8642", "http://localhost:8642", True, None),
        # a name of another site that leads here: DNS rebinding
        ("127.0.0.1", "evil.example:8642", None, False, "unknown Host 'evil.example"),
        ("127.0.0.1", "evil.example:8642", "http://evil.example:8642", True, "unknown Host"),
        ("127.0.0.1", "127.0.0.1.evil.example", None, False, "unknown Host"),
        ("127.0.0.1", "192.168.0.5:8642", None, False, "unknown Host"),  # not served there
        ("127.0.0.1", "", None, False, "unknown Host"),
        ("127.0.0.1", "[::1", None, False, "unknown Host"),
        ("127.0.0.1", "127.0.0.1@evil.example", None, False, "unknown Host"),
        # a page of another site that calls this server
        ("127.0.0.1", "127.0.0.1:8642", "http://evil.example", True, "is not this server"),
        ("127.0.0.1", "127.0.0.1:8642", "http://evil.example", False, "is not this server"),
        ("127.0.0.1", "127.0.0.1:8642", "http://127.0.0.1:3000", True, "is not this server"),
        ("127.0.0.1", "127.0.0.1:8642", "null", True, "is not this server"),  # a sandboxed frame
        ("127.0.0.1", "127.0.0.1:8642", "", True, "is not this server"),
        ("127.0.0.1", "127.0.0.1:8642", "http://[", True, "is not this server"),  # no URL
        ("127.0.0.1", "127.0.0.1:8642", None, True, "needs the header Origin"),
        # other computers: a plain address or this computer's name
        ("0.0.0.0", "192.168.0.5:8642", "http://192.168.0.5:8642", True, None),
        ("0.0.0.0", f"{OWN}.local:8642", f"http://{OWN}.local:8642", True, None),
        ("robot.lan", "robot.lan:8642", None, False, None),
        ("Robot.lan", "robot.lan:8642", "http://robot.lan:8642", True, None),
        ("Robot.lan", "Robot.lan:8642", "http://robot.lan:8642", True, None),  # not of a browser
        ("0.0.0.0", "evil.example:8642", None, False, "unknown Host"),
    ],
)
def test_host_and_origin(listens_on, host, origin, is_websocket, words):
    access = Access(listens_on)
    reason = access.reject_reason(host, origin, access.token, is_websocket)
    assert reason is None if words is None else words in reason


def test_no_token_is_needed_on_this_computer_and_one_everywhere_else():
    local, remote, other = Access("127.0.0.1"), Access("0.0.0.0"), Access("0.0.0.0")
    assert local.token == "" and local.url(80) == "http://127.0.0.1:80/"
    assert len(remote.token) >= 20 and remote.token != other.token
    assert remote.url(80, "10.0.0.2") == f"http://10.0.0.2:80/?token={remote.token}"
    assert Access("LocalHost").token == ""
    assert Access("::1").url(80) == "http://[::1]:80/"
    assert "//0.0.0.0" not in remote.url(80)  # of no use to another computer
    for token in ("", "x", other.token, remote.token + "x", "ü"):
        assert "token" in remote.reject_reason("10.0.0.2", None, token, False)
