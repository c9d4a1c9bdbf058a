import os

from pyg_stmamba.data.mesh_files.file_stamp import file_stamp


def test_changes_with_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 7))
    assert file_stamp(path) == file_stamp(str(path)) == (5, 7)
    os.utime(path, ns=(0, 8))
    assert file_stamp(path) == (5, 8)
    path.write_bytes(b"123456")
    os.utime(path, ns=(0, 7))
    assert file_stamp(path) == (6, 7)
