"""Names that a file can have on every disk: known before the work, not after it."""

from __future__ import annotations

import os
import re

from ..errors import FileError

__all__ = ["check_name", "name_fault", "shortened"]

LONGEST = 255
"""Bytes of a name on ext4, Btrfs, XFS, APFS; on NTFS and exFAT units of UTF-16. A disk may say less (eCryptfs: 143)."""

_REFUSED = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)


def check_name(name: str, folder: str = "") -> None:
    """Raise `FileError` unless a file can have this name in `folder`, and on whatever disk it is brought to."""
    if fault := name_fault(name, folder):
        raise FileError(f"its name {fault}; choose another")


def name_fault(name: str, folder: str = "") -> str | None:
    """What is wrong with the name of a file, to be read after `its name`; None if nothing is."""
    if not name:
        return "is empty"
    if found := _REFUSED.search(name):
        return f"has {found[0]!r}, which Windows and its disks refuse"
    if name[-1] in ". ":
        return "ends with a dot or a space, which Windows drops"
    if _DEVICES.fullmatch(name):
        return "is that of a device on Windows"
    try:
        size, longest = _size(name), _longest(folder)
    except UnicodeEncodeError:
        return "has characters that no disk stores"
    return f"takes {size} bytes, the disk has {longest} for one" if size > longest else None


def shortened(stem: str, longest: int = 150) -> str:
    """The beginning of a name that is made up from others, of at most so many bytes."""
    return stem.encode("utf-8", "surrogateescape")[:longest].decode("utf-8", "ignore")


def _size(name: str) -> int:
    if os.name == "nt":
        return len(name.encode("utf-16-le")) // 2
    return len(os.fsencode(name))


def _longest(folder: str) -> int:
    try:
        return min(LONGEST, os.pathconf(folder or ".", "PC_NAME_MAX"))
    except (AttributeError, OSError, ValueError):  # Windows; no such folder; a disk that does not say
        return LONGEST
