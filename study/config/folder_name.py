"""The name of a sweep, which is that of its folder in `runs/`."""

import re

NAME_RULE = "a sweep's name is that of a folder: printable, without / \\ : %, at most 100 bytes, first a letter or digit"


def is_folder_name(name: str) -> bool:
    """Whether a sweep may have this name: no path, nothing that Slurm, Python's path or a shell's options would split."""
    return bool(re.fullmatch(r"\w[^/\\:%]*", name)) and name.isprintable() and len(name.encode()) <= 100
