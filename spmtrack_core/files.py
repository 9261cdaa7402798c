"""Files that appear only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_beside(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make the file under another name; it takes the place of ``path`` at the end.

    Makes the folders above. If ``write`` fails, an old ``path`` stays and nothing else is left.
    Raises ``OSError`` where ``path`` cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        write(beside)
        umask = os.umask(0o077)  # some writers make files that only their owner can read
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
