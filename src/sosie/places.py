"""Folders that may lie on a disk or in an object store, with the methods of `pathlib.Path` on either."""

import os
import tempfile
from pathlib import Path
from typing import cast


def place(uri: str) -> Path:
    """The folder at a path, absolute, or at a URI such as `s3://bucket/reports`.

    A URI gives a `upath.UPath`, which has `Path`'s methods without being one. Credentials and endpoint come from the
    store's own settings (`AWS_…`).
    """
    if "://" not in uri or uri.startswith("file://"):
        return Path(uri.removeprefix("file://")).expanduser().resolve()
    from upath import UPath

    return cast(Path, UPath(uri.rstrip("/")))


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644, synced: bool = True) -> None:
    """Write a file whole or not at all, also where the power fails, with the folders that it needs.

    `synced` False: without waiting for the disk, for what can be made again; after a power cut it may be empty.
    """
    if not is_local(path):  # an object appears whole, and its folders are only part of its name
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            if synced:
                stream.flush()
                os.fsync(handle)  # else the name may reach the disk before what it names
        Path(partial).chmod(mode)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
