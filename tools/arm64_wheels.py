"""Which wheels a computer with an ARM64 processor, such as a Raspberry Pi 5, would install.

    python tools/arm64_wheels.py                       # what the package requires
    python tools/arm64_wheels.py --extra openvino --extra onnx --python 3.11

Resolves the dependencies for Linux on aarch64 by pip, which installs and downloads nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PLATFORMS = ["manylinux2014_aarch64", *(f"manylinux_2_{n}_aarch64" for n in range(35, 16, -1))]
"""glibc 2.35 and older: Ubuntu 22.04, JetPack 6; Debian 12 and Raspberry Pi OS have 2.36."""
PIP = "-m pip install --dry-run --quiet --ignore-installed --no-deps --only-binary :all:".split()


def arm64_wheels(
    python: Annotated[list[str] | None, typer.Option(help="Versions of Python.")] = None,
    extra: Annotated[list[str] | None, typer.Option(help="Extras of the package.")] = None,
) -> None:
    """Print the wheels for Linux on aarch64; exit code 1 if one does not exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in extra or () for each in optional[name])]
    for version in python or ("3.10", "3.11", "3.12"):
        wheels = resolve(wanted, version)
        typer.echo(f"Python {version}: {len(wheels)} wheels")
        for name, (number, file) in sorted(wheels.items()):
            kind = "any" if file.endswith("-none-any.whl") else file.rsplit("-", 1)[1][:-4]
            typer.echo(f"  {name} {number} ({kind})")


def resolve(requirements: list[str], python: str) -> dict[str, tuple[str, str]]:
    """Version and file of the wheel of every package that ``requirements`` need, by name."""
    environment = {
        "platform_machine": "aarch64",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_version": python,
        "python_full_version": f"{python}.0",
        "extra": "",
    }
    found: dict[str, tuple[str, str]] = {}
    asked = {str(Requirement(each)) for each in requirements}
    while asked:
        needed: dict[str, list[str]] = {}
        for item in report(sorted(asked), python):
            about = item["metadata"]
            name: str = canonicalize_name(about["name"])
            found[name] = about["version"], item["download_info"]["url"].rsplit("/", 1)[1]
            for text in about.get("requires_dist", ()):
                each = Requirement(text)
                if each.marker is None or each.marker.evaluate(environment):
                    each.marker = None
                    needed.setdefault(canonicalize_name(each.name), []).append(str(each))
        asked = set()
        for needing, texts in needed.items():
            chosen = Version(found[needing][0]) if needing in found else None
            fits = [chosen is not None and chosen in Requirement(t).specifier for t in texts]
            if not all(fits):
                asked.update(texts)
                found.pop(needing, None)
    return found


def report(requirements: list[str], python: str) -> list[dict[str, Any]]:
    """What pip would install, with metadata; exits with pip's error where it finds none."""
    digits = python.replace(".", "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.json")
        target = ["--target", folder, "--report", str(path), "--python-version", python]
        target += ["--implementation", "cp", "--abi", f"cp{digits}", "--abi", "abi3"]
        target += ["--abi", "none", *(part for each in PLATFORMS for part in ("--platform", each))]
        done = subprocess.run(
            [sys.executable, *PIP, *target, *requirements], capture_output=True, text=True
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            typer.echo(f"Python {python}: {(errors or ['pip failed'])[0]}", err=True)
            raise typer.Exit(1)
        return json.loads(path.read_text())["install"]


if __name__ == "__main__":
    typer.run(arm64_wheels)
