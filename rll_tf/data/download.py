"""One file from the network, taken up again where it broke off, and checked before it counts."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
# An address is asked again only as long as each answer brought something new.
MOST_ATTEMPTS = 20

Progress = Callable[[int, "int | None"], None]


class DownloadError(OSError):
    """A file could not be had from an address; the message says why, in one line."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file, the addresses that are known to have it, and how it is recognised.

    Args:
        name: of the file, as its mirrors call it.
        urls: tried in order.
        md5: of the whole file, where it is published.
        size_bytes: of the whole file, where it is known.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    size_bytes: int | None = None


def download(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch a file into `folder`, from the first of its addresses that gives it whole.

    What has arrived lies in `NAME.part` until size and checksum agree, and is continued from there the next
    time. A file that is there already is checked and not fetched again.

    Args:
        file: what to fetch.
        folder: where to, made if need be.
        progress: called with the bytes that are there and their total, None where that is unknown.

    Returns:
        The file's path.

    Raises:
        DownloadError: no address gave it; the message has a reason for each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole, part = folder / file.name, folder / f"{file.name}.part"
    if whole.is_file():
        problem = _problem(file, whole)
        if problem is None:
            return whole
        whole.unlink()
    reasons = []
    for url in file.urls:
        try:
            _fetch(url, file, part, progress or (lambda done, total: None))
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
            continue
        os.replace(part, whole)
        return whole
    raise DownloadError("; ".join(reasons) or "no address is known")


def _fetch(url: str, file: RemoteFile, part: Path, progress: Progress) -> None:
    """Complete `part` from one address, and check it."""
    for _ in range(MOST_ATTEMPTS):
        begun = part.stat().st_size if part.is_file() else 0
        complete = _receive(url, file, part, begun, progress)
        if complete:
            problem = _problem(file, part)
            if problem is None:
                return
            part.unlink()  # nothing can be built on it
            if begun == 0:
                raise DownloadError(problem)
        elif part.stat().st_size <= begun:
            break
    raise DownloadError(f"broke off after {part.stat().st_size if part.is_file() else 0:,} bytes")


def _receive(url: str, file: RemoteFile, part: Path, begun: int, progress: Progress) -> bool:
    """Append what the address gives beyond `begun` bytes; whether that is all of it."""
    headers = {"User-Agent": "rll_tf", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S
        ) as answer:
            if not begun or getattr(answer, "status", None) != http.client.PARTIAL_CONTENT:
                begun = 0  # this address can't continue: from the start
            length = answer.headers.get("Content-Length")
            total = begun + int(length) if length else file.size_bytes
            if file.size_bytes is not None and total != file.size_bytes:
                raise DownloadError(f"expected {file.size_bytes:,} bytes; the address offers {total:,}")
            done = begun
            with part.open("ab" if begun else "wb") as stream:
                while chunk := answer.read(CHUNK_BYTES):
                    if done == 0 and _is_page(chunk):
                        raise DownloadError("the address answers with a web page instead of the file")
                    stream.write(chunk)
                    done += len(chunk)
                    progress(done, total)
            return total is None or done >= total
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # everything had arrived before; the check decides
        raise DownloadError(f"HTTP status {error.code}") from error
    except DownloadError:
        raise
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        if part.is_file() and part.stat().st_size > begun:
            return False
        raise DownloadError(str(error) or type(error).__name__) from error
    except urllib.error.URLError as error:
        raise DownloadError(str(error.reason)) from error
    except ValueError as error:  # an address of no known kind, a length that is no number
        raise DownloadError(str(error)) from error


def _is_page(start: bytes) -> bool:
    return start[:512].lstrip().lower().startswith((b"<!doctype", b"<html"))


def _problem(file: RemoteFile, path: Path) -> str | None:
    """Why a complete file is not the one that was meant, or None."""
    size = path.stat().st_size
    if file.size_bytes is not None and size != file.size_bytes:
        return f"expected {file.size_bytes:,} bytes; got {size:,}"
    if file.md5 is not None:
        found = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                found.update(chunk)
        if found.hexdigest() != file.md5:
            return f"expected the MD5 checksum {file.md5}; got {found.hexdigest()}"
    return None
