"""The command before it does anything: help without waiting."""

from __future__ import annotations

import subprocess
import sys


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from spmtrack_core.cli import app; "
        "app(['--help'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
