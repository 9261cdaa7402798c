"""``python -m spmtrack_core.cli``: the command ``spmtrack`` of this environment."""

from spmtrack_core.cli import main

main()
