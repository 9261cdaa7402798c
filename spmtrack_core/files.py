"""Paths and texts from users, and files that appear only when they are complete."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def user_path(text: str | Path) -> Path:
    """The path that a user wrote; a leading ``~`` is the home folder unless a file is named so."""
    path = Path(text)
    if str(path).startswith("~") and not os.path.lexists(path):
        return Path(os.path.expanduser(path))  # leaves a user that does not exist as it stands
    return path


def cache_folder() -> Path:
    """Folder for what can be made again: ``$XDG_CACHE_HOME/spmtrack`` or ``~/.cache/spmtrack``.

    Raises ``FileNotFoundError`` where the user has no home folder either.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "spmtrack")
    except RuntimeError:
        raise FileNotFoundError("no home folder: set HOME or XDG_CACHE_HOME") from None


def sha256_of(*paths: Path, start: str = "") -> str:
    """SHA-256, in hexadecimal, of a text and the content of files, one after the other."""
    digest = hashlib.sha256(start.encode())
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()


def one_line(error: Exception) -> str:
    """What an error says, without line breaks; the name of its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """A text that can be written as UTF-8: names of files are bytes, and need not be texts.

    >>> printable(b"caf\\xe9".decode(errors="surrogateescape"))
    'caf\\\\udce9'
    """
    return text.encode(errors="backslashreplace").decode()


def read_text(path: str | Path) -> str:
    """A text file of UTF-8, or of UTF-16 with its byte order mark; no mark is left in the text.

    Bytes that are no text come as U+FFFD. Raises ``OSError`` where the file cannot be read.
    """
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors="replace")


def check_output(
    path: str | Path, inputs: Iterable[str | Path] = (), outputs: Iterable[str | Path] = ()
) -> None:
    """Raise unless ``path`` can be written without harm to ``inputs`` and other ``outputs``.

    Nothing is made, so that several processes may check one path. Raises ``ValueError`` where
    ``path`` is one of them, by whatever link, ``IsADirectoryError`` for a folder and ``OSError``
    where no file can be made.
    """
    path = Path(path)
    for kind, paths in (("an input", inputs), ("another output", outputs)):
        for each in paths:
            if _same(path, Path(each)):
                raise ValueError(f"{path} is {kind} of this run ({each}); choose another name")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    if _descriptor(path) is not None or (os.path.exists(path) and not os.path.isfile(path)):
        return  # a device or a pipe
    target = Path(os.path.realpath(path))
    with _named(path):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(part_of(target))  # raises for a name that is too long, or below a file
        folder = next(each for each in target.parents if os.path.exists(each))
        tempfile.TemporaryFile(dir=folder).close()


def check_outputs(paths: Iterable[str | Path | None], inputs: Iterable[str | Path]) -> None:
    """``check_output`` for all files of a run, of which no two may be one; None is none."""
    inputs, outputs = list(inputs), [path for path in paths if path]
    for index, path in enumerate(outputs):
        check_output(path, inputs, outputs[:index])


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """An ``OSError`` says that ``path`` cannot be written, not the file that stands for it."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror or error}") from None


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them does not exist
        return os.path.realpath(a) == os.path.realpath(b)


def write_beside(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make the file under another name; it takes the place of ``path`` at the end.

    Makes the folders above. A link stays a link: the file that it points to is replaced. A device
    or a pipe is written to as it is, and an open file such as ``/dev/stdout`` where it stands. If
    ``write`` fails, an old ``path`` stays and nothing else is left. Raises ``OSError`` where
    ``path`` cannot be written.
    """
    path = Path(path)
    descriptor = _descriptor(path)
    if descriptor is not None or (path.exists() and not path.is_file()):
        _write_to(path, descriptor, write)
        return
    shown, path = path, Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = part_of(path)
    try:
        with _named(shown):
            write(beside)
        umask = os.umask(0o077)  # some writers make files that only their owner can read
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8; as ``write_beside`` does."""
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _descriptor(path: Path) -> int | None:
    """The open file that a name such as ``/dev/stdout`` stands for; None for any other name.

    Its target is the file behind it, which is the user's: ``spmtrack ... >> log`` goes on in it.
    """
    while os.path.exists(path) and path.is_symlink():
        if os.path.realpath(path.parent) == os.path.realpath("/proc/self/fd"):
            return int(path.name)
        path = path.parent / os.readlink(path)
    return None


def _write_to(path: Path, descriptor: int | None, write: Callable[[Path], object]) -> None:
    """Copy what ``write`` makes into a device, a pipe or an open file.

    ``write`` does not get ``path`` itself: some libraries write another file and rename it, which
    would replace the device.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, path.name)
        write(made)
        with _named(path), made.open("rb") as source:
            opened = path if descriptor is None else descriptor
            with open(opened, "wb", closefd=descriptor is None) as target:
                shutil.copyfileobj(source, target)


def lock_part(beside: Path, path: Path) -> int:
    """Open ``beside``, where ``path`` is written, and keep other runs out until it is closed.

    Raises ``OSError`` where another run writes ``path``.
    """
    descriptor = os.open(beside, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError(f"{path} is being written by another run; choose another name") from None
    except OSError:  # some network file systems have no locks
        pass
    return descriptor


def part_of(path: Path) -> Path:
    """Where the file is written until it is complete: hidden, in the same folder."""
    return path.with_name(f".{path.name}.part")
