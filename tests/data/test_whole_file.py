import errno
from pathlib import Path

import pytest

from pyg_stmamba.data.whole_file import written_whole


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path: Path):
    target = tmp_path / "file"
    target.write_text("old")

    def write() -> None:
        with written_whole(target) as temporary:
            temporary.write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path):
    target = tmp_path / "file"
    target.write_text("old")
    killed = written_whole(target)
    killed.__enter__().write_text("ne")
    # Nothing after this line runs in a process that is killed.
    assert target.read_text() == "old"
    with written_whole(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
