"""Files are written whole or not at all."""

import errno

import pytest

from asymlib.project import written


@pytest.mark.parametrize(
    "code, message", [(errno.ENOSPC, "kept.txt: got a full disk, expected room"), (errno.EIO, "5")]
)
def test_a_write_that_fails_leaves_what_was_there(tmp_path, code, message):
    """Breaks when the file itself is opened, or the part that was written stays behind."""
    (tmp_path / "kept.txt").write_text("before")
    with pytest.raises(OSError, match=message), written(tmp_path / "kept.txt") as path:
        path.write_text("half")
        raise OSError(code, "stopped")
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"] and (tmp_path / "kept.txt").read_text() == "before"
