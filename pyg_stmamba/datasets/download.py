import contextlib
import errno
import fnmatch
import hashlib
import http.client
import os
import shutil
import ssl
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

CHUNK = 1 << 18
ATTEMPTS = 3
TIMEOUT_SECONDS = 60
BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError)


class DownloadError(RuntimeError):
    r"""No mirror gave the file; the message lists each of them with its reason."""


class Mirror(NamedTuple):
    r"""One place a raw file can be read from without a login.

    Args:
        url: Address (:obj:`https`, :obj:`http` or :obj:`file`).
        member: If the address holds a zip archive, the pattern of the file's
            name inside it, upper and lower case alike (default: :obj:`None`).
        git_blob: Git blob id of the archive (default: :obj:`None`).
    """

    url: str
    member: str | None = None
    git_blob: str | None = None


class RawFile(NamedTuple):
    r"""One upstream file: its name, how to know it, where it comes from.

    Args:
        name: File name in the raw folder.
        by_hand: Where a person finds the file when no mirror answers.
        mirrors: Addresses, tried in this order (default: :obj:`()`).
        sha256: SHA-256 of the full upstream file (default: :obj:`None`).
        git_blob: Git blob id of the full upstream file (default: :obj:`None`).
        size: Bytes of the full upstream file (default: :obj:`None`).
    """

    name: str
    by_hand: str
    mirrors: tuple[Mirror, ...] = ()
    sha256: str | None = None
    git_blob: str | None = None
    size: int | None = None


def sha256(path: str | Path) -> str:
    r"""SHA-256 of a file, in hexadecimal digits."""
    return _digest(Path(path), hashlib.sha256())


def git_blob(path: str | Path) -> str:
    r"""Git blob id of a file, as ``git hash-object`` prints it."""
    header = b"blob %d\0" % Path(path).stat().st_size
    return _digest(Path(path), hashlib.sha1(header, usedforsecurity=False))


def mismatch(path: str | Path, file: RawFile) -> str | None:
    r"""How a file differs from the full upstream one, or :obj:`None` if it does not."""
    for kind, expected, digest in (
        ("SHA-256", file.sha256, sha256),
        ("git blob id", file.git_blob, git_blob),
    ):
        if expected is not None and (found := digest(path)) != expected:
            size = Path(path).stat().st_size
            return f"{kind} {found} instead of {expected} ({size} bytes)"
    return None


def fetch(files: Sequence[RawFile], folder: str | Path, progress: bool = True) -> None:
    r"""Brings the missing ones of some raw files into a folder.

    A file is written as ``NAME.part``, verified, and only then renamed, so
    that its own name never shows a part of it. An interrupted download goes on
    where it stopped if the server can do that, and starts anew if not.

    Args:
        files: The files; those that are there already are left alone.
        folder: Where they go.
        progress: Whether to show a progress bar (default: :obj:`True`).

    Raises:
        DownloadError: If a file could not be had from any mirror.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    archives: set[Path] = set()
    try:
        for file in files:
            if not (folder / file.name).exists():
                _fetch_one(file, folder, archives, progress)
    finally:
        for archive in archives:
            archive.unlink(missing_ok=True)


def _fetch_one(file: RawFile, folder: Path, archives: set[Path], progress: bool) -> None:
    reasons = []
    for mirror in file.mirrors:
        try:
            part = folder / f"{file.name}.part"
            if mirror.member is None:
                _verified_transfer(mirror.url, part, file, progress)
            else:
                archive = folder / (Path(mirror.url).name + ".archive")
                expected = RawFile(archive.name, "", git_blob=mirror.git_blob)
                if not archive.exists():
                    archive_part = archive.with_name(f"{archive.name}.part")
                    _verified_transfer(mirror.url, archive_part, expected, progress)
                    os.replace(archive_part, archive)
                archives.add(archive)
                _extract(archive, mirror.member, part)
                if difference := mismatch(part, file):
                    part.unlink()
                    raise ValueError(f"{mirror.member} in the archive has {difference}")
            os.replace(part, folder / file.name)
            return
        except (OSError, ValueError, http.client.HTTPException, *BAD_ARCHIVE) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            reasons.append(f"  {mirror.url}: {error}")
    tried = "\n".join(reasons) if reasons else "  (none: this file is not offered without a login)"
    raise DownloadError(
        f"{file.name} could not be downloaded. Mirrors tried:\n{tried}\n"
        f"Fetch it by hand: {file.by_hand}, and put it as {file.name} into {folder.resolve()}"
    )


def _verified_transfer(url: str, part: Path, expected: RawFile, progress: bool) -> None:
    for attempt in range(ATTEMPTS):
        start = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, progress)
        except urllib.error.HTTPError as error:
            error.close()
            # A part longer than the file, or one the server cannot continue: start anew.
            if error.code == 416 and start:
                part.unlink()
                continue
            raise
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            if attempt + 1 == ATTEMPTS:
                raise
            continue
        difference = mismatch(part, expected)
        if difference is None:
            return
        part.unlink()
        # The part may have come from elsewhere; a mirror is judged on a whole file only.
        if not start:
            raise ValueError(f"the file there has {difference}")
    raise ValueError(f"the file there was still not whole after {ATTEMPTS} attempts")


def _transfer(url: str, part: Path, progress: bool) -> None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "pyg-stmamba"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    context = ssl.create_default_context()
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as response:
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        done = start
        with (
            open(part, "ab" if start else "wb") as out,
            tqdm(
                desc=part.name.removesuffix(".part"),
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=not progress,
            ) as bar,
        ):
            while block := response.read(CHUNK):
                out.write(block)
                done += len(block)
                bar.update(len(block))
            out.flush()
            os.fsync(out.fileno())
    if total is not None and done < total:
        raise ConnectionError(f"the connection closed after {done} of {total} bytes")


def _extract(archive: Path, pattern: str, part: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        names = [n for n in content.namelist() if _matches(n, pattern)]
        if len(names) != 1:
            inside = ", ".join(content.namelist()[:10])
            raise ValueError(f"{len(names)} files like {pattern} in the archive ({inside})")
        with contextlib.closing(content.open(names[0])) as source, open(part, "wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
            out.flush()
            os.fsync(out.fileno())


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name.rsplit("/", 1)[-1].lower(), pattern.lower())


def _digest(path: Path, state: "hashlib._Hash") -> str:
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            state.update(block)
    return state.hexdigest()
