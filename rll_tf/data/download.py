"""One file from the network: resumed where it was interrupted, its checksum verified."""

from __future__ import annotations

import dataclasses
import ftplib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pooch  # type: ignore[import-untyped]
import requests
import urllib3

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
# An address is tried again only as long as each attempt brought something new.
MOST_ATTEMPTS = 20

Progress = Callable[[int, "int | None"], None]

# What a mirror may fail with, a wrong checksum included (ValueError); a full disk is none of these.
_HTTP_ERRORS = requests.RequestException, urllib3.exceptions.HTTPError
_FTP_ERRORS = ftplib.Error, EOFError, ConnectionError, TimeoutError, socket.gaierror
_MIRROR_ERRORS = (*_HTTP_ERRORS, *_FTP_ERRORS, ValueError)


class DownloadError(OSError):
    """No address gave a file; the message says why, in one line."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file, the addresses that are known to have it, and its checksum.

    Args:
        name: of the file, as its mirrors call it.
        urls: tried in order.
        md5: of the whole file, where it is published.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None


def download(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch a file into `folder`, from the first of its addresses that gives it whole.

    What an interrupted download has brought is in `NAME.part`, and is continued the next time where the
    server can. A file that exists already is verified and not fetched again.

    Args:
        file: what to fetch.
        folder: where to, made if need be.
        progress: called with the bytes that have arrived and their total, None where that is unknown.

    Returns:
        The file's path.

    Raises:
        DownloadError: no address gave it; the message has a reason for each.
        OSError: the file can't be written.
    """
    pooch.get_logger().setLevel("WARNING")  # progress and errors are shown by the caller
    reasons = []
    for url in file.urls:
        try:
            return _fetch(url, file, folder, progress or (lambda done, total: None))
        except _MIRROR_ERRORS as error:
            reasons.append(f"{url}: {_reason(error)}")
    raise DownloadError("; ".join(reasons) or "no address is known")


def _fetch(url: str, file: RemoteFile, folder: Path, progress: Progress) -> Path:
    """Fetch the file from one address, with as many attempts as bring something new."""
    part = folder / f"{file.name}.part"

    def resume(url: str, output_file: str, _: object) -> None:
        _receive(url, part, progress)
        os.replace(part, output_file)

    downloader = resume if url.startswith("http") else None  # pooch has one for FTP
    checksum = file.md5 and f"md5:{file.md5}"
    attempts = 0
    while True:
        begun = _size(part)
        attempts += 1
        try:
            return Path(pooch.retrieve(url, checksum, file.name, folder, downloader=downloader))
        except _MIRROR_ERRORS:
            # Further than before; or from the start, since what was continued had a wrong checksum.
            if attempts == MOST_ATTEMPTS or _size(part) == begun:
                raise


def _receive(url: str, part: Path, progress: Progress) -> None:
    """Append to `part` what the server has beyond it."""
    begun = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if begun and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it had arrived
        if not response.ok:
            raise requests.RequestException(f"HTTP status {response.status_code}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise requests.RequestException("the address gives a web page instead of the file")
        if response.status_code != requests.codes.partial_content:
            begun = 0  # this server can't continue
        length = response.headers.get("Content-Length")
        total = begun + int(length) if length else None
        with part.open("ab" if begun else "wb") as stream:
            # Not `iter_content`, which throws away the last bytes before an interruption.
            while chunk := response.raw.read1(CHUNK_BYTES):
                stream.write(chunk)
                progress(stream.tell(), total)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: Exception) -> str:
    """The innermost reason: requests wraps urllib3's errors, which wrap the system's."""
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), Exception):
        error = inner
    return str(error) or type(error).__name__
