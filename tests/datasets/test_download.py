import errno
import functools
import hashlib
import http.server
import os
import ssl
import threading
import urllib.request
import zipfile
from pathlib import Path

import pytest

from pyg_stmamba.datasets import DATASETS, LargeST
from pyg_stmamba.datasets.download import DownloadError, Mirror, RawFile, fetch, git_blob, sha256

CONTENT = bytes(range(256)) * 3000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/gone":
            self.send_error(404)
            return
        content = server.content.get(self.path, CONTENT)
        start = 0
        if server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        # Breaks off, as often as it was asked to.
        stop = len(content)
        if server.breaks > 0:
            server.breaks -= 1
            stop = start + (stop - start) // 2
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.content, server.ranges, server.breaks = [], {}, True, 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def raw_file(*mirrors, **known):
    known = known or {"sha256": SHA}
    return RawFile("data.bin", "ask the librarian", tuple(Mirror(m) for m in mirrors), **known)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_digests_are_those_of_the_tools(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    # What `git hash-object` and `sha256sum` print.
    assert git_blob(path) == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert sha256(path) == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


@pytest.mark.parametrize("kind", ["sha256", "git_blob"])
def test_fetches_and_verifies(server, tmp_path, kind):
    known = SHA if kind == "sha256" else hashlib.sha1(b"blob 768000\0" + CONTENT).hexdigest()
    fetch([raw_file(server.url + "/a", **{kind: known})], tmp_path, progress=False)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert listing(tmp_path) == ["data.bin"]


def test_leaves_alone_what_is_there(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"placed by hand")
    fetch([raw_file(server.url + "/a")], tmp_path, progress=False)
    assert (tmp_path / "data.bin").read_bytes() == b"placed by hand"
    assert server.requests == []


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_after_an_interruption(server, tmp_path, ranges):
    server.ranges = ranges
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    fetch([raw_file(server.url + "/a")], tmp_path, progress=False)
    assert server.requests == [("/a", "bytes=1000-")]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert listing(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_recovers_from_a_connection_that_breaks(server, tmp_path, ranges):
    server.ranges, server.breaks = ranges, 2
    fetch([raw_file(server.url + "/a")], tmp_path, progress=False)
    half = len(CONTENT) // 2
    second = half + half // 2 if ranges else half
    assert server.requests == [("/a", None), ("/a", f"bytes={half}-"), ("/a", f"bytes={second}-")]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_broken_connection_leaves_no_file_but_can_be_continued(server, tmp_path):
    server.breaks = 100
    with pytest.raises(DownloadError, match=r"closed after .* of 768000 bytes"):
        fetch([raw_file(server.url + "/a")], tmp_path, progress=False)
    assert listing(tmp_path) == ["data.bin.part"]
    server.breaks = 0
    fetch([raw_file(server.url + "/a")], tmp_path, progress=False)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.requests[-1][1] is not None


@pytest.mark.parametrize("part", [b"x" * 1000, CONTENT, CONTENT + b"more"])
def test_starts_anew_where_the_part_is_of_something_else(server, tmp_path, part):
    (tmp_path / "data.bin.part").write_bytes(part)
    fetch([raw_file(server.url + "/a")], tmp_path, progress=False)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.requests[-1] == ("/a", None)


def test_takes_the_next_mirror(server, tmp_path):
    server.content["/bad"] = b"<html>please log in</html>"
    mirrors = [server.url + "/gone", server.url + "/bad", server.url + "/good"]
    fetch([raw_file(*mirrors)], tmp_path, progress=False)
    assert [path for path, _ in server.requests] == ["/gone", "/bad", "/good"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_the_error_lists_mirrors_reasons_and_the_way_by_hand(server, tmp_path):
    server.content["/bad"] = b"corrupted"
    mirrors = [server.url + "/gone", server.url + "/bad", "http://127.0.0.1:9/closed"]
    with pytest.raises(DownloadError) as caught:
        fetch([raw_file(*mirrors)], tmp_path, progress=False)
    lines = str(caught.value).splitlines()
    assert "data.bin" in lines[0]
    assert "/gone: HTTP Error 404" in lines[1]
    found = hashlib.sha256(b"corrupted").hexdigest()
    assert f"/bad: the file there has SHA-256 {found}" in lines[2]
    assert SHA in lines[2]
    assert "closed: " in lines[3]
    assert "refused" in lines[3]
    assert "ask the librarian" in lines[4]
    assert str(tmp_path.resolve()) in lines[4]
    assert listing(tmp_path) == []


def test_a_file_without_mirrors_is_asked_of_the_person(tmp_path):
    with pytest.raises(DownloadError, match=r"not offered without a login(.|\n)*kaggle"):
        LargeST(tmp_path)


def test_reads_file_addresses(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "data.bin.part").write_bytes(CONTENT[:10])
    missing = (tmp_path / "nothing").as_uri()
    fetch([raw_file(missing, source.as_uri())], folder, progress=False)
    assert (folder / "data.bin").read_bytes() == CONTENT


def archive(path: Path, **members: bytes) -> str:
    with zipfile.ZipFile(path, "w") as content:
        for name, value in members.items():
            content.writestr(f"folder/{name}.bin", value)
    return path.as_uri()


def test_takes_several_files_from_one_archive(server, tmp_path):
    archive(tmp_path / "all.zip", DATA=CONTENT, other=b"2")
    server.content["/all.zip"] = (tmp_path / "all.zip").read_bytes()
    url = server.url + "/all.zip"
    blob = git_blob(tmp_path / "all.zip")
    files = [
        RawFile("one.bin", "", (Mirror(url, "data.bin"),), sha256=SHA),
        RawFile("two.bin", "", (Mirror(url, "other.bin", git_blob=blob),)),
    ]
    fetch(files, tmp_path / "raw", progress=False)
    assert (tmp_path / "raw/one.bin").read_bytes() == CONTENT
    assert (tmp_path / "raw/two.bin").read_bytes() == b"2"
    assert len(server.requests) == 1
    assert listing(tmp_path / "raw") == ["one.bin", "two.bin"]


def test_refuses_what_an_archive_should_not_hold(tmp_path):
    url = archive(tmp_path / "all.zip", data=b"wrong", other=b"2")
    for mirror, reason in [
        (Mirror(url, "data.bin"), "data.bin in the archive has SHA-256"),
        (Mirror(url, "third.bin"), "0 files like third.bin .*folder/data.bin"),
        (Mirror(url, "*.bin"), "2 files like"),
        (Mirror(url, "data.bin", git_blob="0" * 40), "the file there has git blob id"),
    ]:
        with pytest.raises(DownloadError, match=reason):
            fetch([RawFile("data.bin", "", (mirror,), sha256=SHA)], tmp_path / "raw", False)
        assert not (tmp_path / "raw/data.bin").exists()
        assert not (tmp_path / "raw/data.bin.part").exists()


def test_a_damaged_archive_is_fetched_anew_the_next_time(tmp_path):
    bad = tmp_path / "all.zip"
    bad.write_bytes(b"no archive")
    file = RawFile("data.bin", "", (Mirror(bad.as_uri(), "data.bin"),), sha256=SHA)
    with pytest.raises(DownloadError, match="not a zip file"):
        fetch([file], tmp_path / "raw", progress=False)
    archive(bad, data=CONTENT)
    fetch([file], tmp_path / "raw", progress=False)
    assert listing(tmp_path / "raw") == ["data.bin"]


def test_a_full_disk_is_no_fault_of_the_mirror(server, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fetch([raw_file(server.url + "/a", server.url + "/b")], tmp_path, progress=False)
    assert not (tmp_path / "data.bin").exists()
    assert len(server.requests) == 1


def test_the_file_appears_only_when_it_is_on_the_disk(server, tmp_path, monkeypatch):
    seen = []
    synced, replace = os.fsync, os.replace

    def fsync(number):
        seen.append(("fsync", (tmp_path / "data.bin").exists()))
        synced(number)

    def rename(source, target):
        seen.append(("replace", Path(source).read_bytes() == CONTENT))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    fetch([raw_file(server.url + "/a")], tmp_path, progress=False)
    assert seen == [("fsync", False), ("replace", True)]


def test_certificates_are_checked_whatever_the_default_is(tmp_path, monkeypatch):
    contexts = []

    def urlopen(request, timeout, context):
        contexts.append(context)
        raise OSError("no network here")

    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(DownloadError, match="no network here"):
        fetch([raw_file("https://example.org/a")], tmp_path, progress=False)
    assert contexts[0].verify_mode == ssl.CERT_REQUIRED
    assert contexts[0].check_hostname


def test_progress_goes_to_the_bar_and_can_be_silent(server, tmp_path, capsys):
    fetch([raw_file(server.url + "/a")], tmp_path / "loud")
    fetch([raw_file(server.url + "/a")], tmp_path / "silent", progress=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("data.bin") > 0
    assert "768k" in captured.err


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "freeway"])
def test_nothing_is_downloaded_that_cannot_be_verified(name, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pyg_stmamba.datasets.series_dataset.fetch", lambda files, folder: asked.extend(files)
    )
    with pytest.raises(FileNotFoundError):
        DATASETS[name](tmp_path)
    assert asked
    for file in asked:
        assert file.by_hand
        for mirror in file.mirrors:
            assert mirror.url.startswith("https://")
            assert file.sha256 or file.git_blob or (mirror.member and mirror.git_blob)
