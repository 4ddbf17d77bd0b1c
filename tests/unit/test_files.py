"""Files are written completely or not at all, and only if they change."""

from utils.files import write_if_changed


def test_a_file_is_rewritten_only_when_its_content_changes(tmp_path):
    path = tmp_path / "new folder/x.yaml"
    write_if_changed(path, "a: 1\n")
    inode, stamp = path.stat().st_ino, path.stat().st_mtime_ns
    write_if_changed(path, "a: 1\n")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (inode, stamp)
    write_if_changed(path, "a: 2\n")
    assert path.read_text() == "a: 2\n"
    assert [other.name for other in path.parent.iterdir()] == ["x.yaml"]
