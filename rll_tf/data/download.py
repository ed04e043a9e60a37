"""One file from the network, taken up again where it broke off, and checked before it counts."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
        OSError: the file can't be written here; the error names it.
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
    reason = ""
    for _ in range(MOST_ATTEMPTS):
        begun = part.stat().st_size if part.is_file() else 0
        try:
            _receive(url, file, part, begun, progress)
        except _BrokenOffError as error:
            reason = str(error)
            if part.stat().st_size <= begun:
                break
            continue
        problem = _problem(file, part)
        if problem is None:
            return
        part.unlink()  # nothing can be built on it
        if begun == 0:
            raise DownloadError(problem)
    raise DownloadError(f"broke off after {part.stat().st_size if part.is_file() else 0:,} bytes: {reason}")


class _BrokenOffError(Exception):
    """The address stopped answering in the middle; asked again, it may go on."""


def _receive(url: str, file: RemoteFile, part: Path, begun: int, progress: Progress) -> None:
    """Append what the address gives beyond `begun` bytes, until that is all of it."""
    answer = _ask(url, begun)
    if answer is None:
        return  # everything had arrived before; the check decides
    with answer:
        if not begun or getattr(answer, "status", None) != http.client.PARTIAL_CONTENT:
            begun = 0  # this address can't continue: from the start
        total = _total(answer, file, begun)
        done = begun
        with _naming(part), part.open("ab" if begun else "wb") as stream:
            while chunk := _read(answer):
                if done == 0 and _is_page(chunk):
                    raise DownloadError("the address answers with a web page instead of the file")
                stream.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise _BrokenOffError("the connection was closed")


def _ask(url: str, begun: int) -> Any:
    """The answer to a request for what follows `begun` bytes; None where nothing does."""
    headers = {"User-Agent": "rll_tf", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        raise DownloadError(f"HTTP status {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # the last: an address of no known kind
        raise DownloadError(_reason(error)) from error


def _total(answer: Any, file: RemoteFile, begun: int) -> int | None:
    """How many bytes there will be in the end, as the address says."""
    length = answer.headers.get("Content-Length")
    try:
        total = begun + int(length) if length else file.size_bytes
    except ValueError as error:
        raise DownloadError(f"the address gives {length!r} as its length") from error
    if file.size_bytes is not None and total != file.size_bytes:
        raise DownloadError(f"expected {file.size_bytes:,} bytes; the address offers {total:,}")
    return total


def _read(answer: Any) -> bytes:
    """The next bytes; whatever goes wrong here is the network's fault."""
    try:
        return answer.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_reason(error)) from error


@contextlib.contextmanager
def _naming(part: Path) -> Iterator[None]:
    """An error of this machine's disk names the file and is no `DownloadError`: no other address helps."""
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(part)
        raise


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__


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
