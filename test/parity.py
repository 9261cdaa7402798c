"""How far this implementation is from the published one, measured by the golden tests.

    make parity        # runs the golden tests and writes docs/parity.md

The tests pass every comparison with a fixture to the ``parity`` fixture, which fails beyond the
tolerance and otherwise keeps the largest deviation. A failed run writes no report, and neither
does one that left a fixture out. A narrower choice of tests is not detected.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from spmtrack_core.files import write_text

MANIFEST = Path(__file__).parent / "golden" / "manifest.json"
INPUTS = {"README", "crop_image", "e2e_frames", "e2e_params"}
"""Files that hold nothing to compare with."""
INTRODUCTION = """\
# Parity with the published tracker

This implementation, compared with numbers that the published one wrote to `test/golden`
([what the files hold](../test/golden/README.md)). `make parity` wrote this page; it fails if a
deviation exceeds its tolerance. A deviation is absolute, or relative to the expected value where
the tolerance is only relative.

"""
HALF_PRECISION = """\

## Half precision

The published evaluation uses autocast. The fixtures are in float32, so there is no tolerance for
it. Given the inputs of the float32 run in each frame, half precision stays close. Tracking on its
own, it soon chooses other boxes, because the weights of the fixture are random and do not return
to a target. So does float32 when its boxes are moved by 0.01 px, because crops have whole pixels.
Trained weights do return: the last lines.

| subject | quantity | deviation from float32 |
|---|---|---|
"""


@dataclass
class Row:
    """One line of the report: the worst of all comparisons of one quantity of one fixture."""

    tolerance: str
    values: int = 0
    deviation: float = 0.0
    share: float = 0.0


@dataclass
class Parity:
    """Comparisons of a test run, by fixture and quantity."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)

    def close(self, fixture, quantity, actual, expected, *, atol=0.0, rtol=0.0, about=""):
        """Fail unless ``|actual - expected| <= atol + rtol * |expected|``, NaN where NaN."""
        actual, expected = (_array(value) for value in (actual, expected))
        assert actual.shape == expected.shape, f"{fixture}, {quantity} {about}: shapes differ"
        with np.errstate(invalid="ignore"):
            off = np.array(np.abs(actual - expected))
        off[(actual == expected) | (np.isnan(actual) & np.isnan(expected))] = 0.0
        allowed = atol + rtol * np.abs(expected)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(off == 0, 0.0, off / allowed)
            shown = off if atol else np.where(off == 0, 0.0, off / np.abs(expected))
        text = " + ".join([_short(atol)] * bool(atol) + [f"{_short(rtol)} relative"] * bool(rtol))
        worst = float(np.max(share, initial=0.0))
        assert worst <= 1.0, (  # false for NaN too
            f"{fixture}, {quantity} {about}: {float(np.max(shown)):.3g} off, allowed {text}"
        )
        row = self._row(fixture, quantity, text, actual.size)
        row.deviation = max(row.deviation, float(np.max(shown, initial=0.0)))
        row.share = max(row.share, worst)

    def equal(self, fixture, quantity, actual, expected, about=""):
        """Fail unless the two are the same, element by element."""
        actual, expected = (np.asarray(value) for value in (actual, expected))
        assert actual.shape == expected.shape, f"{fixture}, {quantity} {about}: shapes differ"
        np.testing.assert_array_equal(actual, expected, f"{fixture}, {quantity} {about}")
        self._row(fixture, quantity, "exact", actual.size)

    def note(self, subject: str, quantity: str, text: str) -> None:
        """Something measured that has no tolerance, for the second table of the report."""
        self.notes[subject, quantity] = text

    def left_out(self) -> list[str]:
        """Fixtures of the manifest that nothing was compared with."""
        stems = {name.partition(".")[0] for name in json.loads(MANIFEST.read_text())["files"]}
        seen = {fixture for fixture, _ in self.rows}
        seen |= {f"{fixture}_{part}" for fixture in seen for part in ("params", "io")}
        return sorted(stems - INPUTS - seen)

    def _row(self, fixture: str, quantity: str, tolerance: str, values: int) -> Row:
        row = self.rows.setdefault((fixture, quantity), Row(tolerance))
        assert row.tolerance == tolerance, f"{fixture}, {quantity} has two tolerances"
        row.values += values
        return row


def _short(number: float) -> str:
    """Two digits: 0.012, 1.2e-5, 2e-5."""
    small = 0 < number < 1e-3
    return re.sub(r"(\.0)?e-0*", "e-", f"{number:.1e}") if small else f"{number:.2g}"


def _array(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    return np.array(value, dtype=np.float64)


def pytest_addoption(parser: pytest.Parser) -> None:
    # Give it with =: pytest parses the command line once before it has this option, and would take
    # an existing FILE for tests to run.
    parser.addoption("--parity", metavar="FILE", help="write the parity report (Markdown)")


@pytest.fixture(scope="session")
def parity(request: pytest.FixtureRequest) -> Iterator[Parity]:
    """Collects the comparisons; writes the report at the end if all tests passed."""
    seen = Parity()
    yield seen
    target = request.config.getoption("--parity")
    if target and not request.session.testsfailed:
        assert not seen.left_out(), f"no report: no test compared {seen.left_out()}"
        text = report(seen)
        write_text(target, text)


def report(seen: Parity) -> str:
    """docs/parity.md."""
    lines = [
        *INTRODUCTION.splitlines(),
        f"PyTorch {torch.__version__}, timm {timm.__version__}, Python "
        f"{platform.python_version()}, CPU ({torch.backends.cpu.get_cpu_capability()}), float32.",
        "",
        "| fixture | quantity | values | tolerance | largest deviation | of the tolerance |",
        "|---|---|---|---|---|---|",
    ]
    in_order = sorted(seen.rows.items(), key=lambda item: [word.lower() for word in item[0]])
    for (fixture, quantity), row in in_order:
        off = _short(row.deviation)
        share = "<1%" if 0 < row.share < 0.01 else f"{row.share:.0%}"
        if row.tolerance == "exact":
            off, share = "none", ""
        lines.append(
            f"| `{fixture}` | {quantity} | {row.values:,} | {row.tolerance} | {off} | {share} |"
        )
    lines += HALF_PRECISION.splitlines()
    lines += [f"| {s} | {q} | {text} |" for (s, q), text in sorted(seen.notes.items())]
    return "\n".join(lines) + "\n"
