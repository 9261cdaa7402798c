"""What every node of the package does with a wrong parameter."""

from __future__ import annotations

from test.spmtrack_ros.peer import STARTUP, output_of


def assert_refused(name, process, words):
    """The node ends with exit code 2 and one line, in which ``words`` are."""
    assert process.wait(STARTUP) == 2, output_of(process)
    output = output_of(process)
    assert output.count("\n") == 1 and output.startswith(f"{name}: error: "), output
    assert words in output
