"""What is done to a dataset before it is read."""

from __future__ import annotations

from dataset_trees import text


def unlink(path):
    return lambda root: (root / path).unlink()


def write(path, *lines):
    return lambda root: text(root / path, *lines)


def moved(path, to):
    return lambda root: (root / path).rename(root / to)


def swap(path):
    def swap(root):
        (root / path).unlink()  # the folder's time tells; a file written over would not be seen
        (root / path).write_bytes(b"no image")

    return swap
