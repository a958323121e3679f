"""The project's root, and the folders that a user names."""

import pytest

from asymlib.study.project import project_root, user_path


def test_the_root_is_found_from_below_and_its_absence_is_named(tmp_path):
    assert project_root(project_root() / "notebooks") == project_root()
    with pytest.raises(FileNotFoundError, match="start: got .*, expected a folder inside the project"):
        project_root(tmp_path)


def test_a_user_s_folder_is_relative_to_the_project_also_from_a_profile_s_copy(tmp_path, monkeypatch):
    copy = tmp_path / ".profiles" / "photos"
    (copy / "asymlib").mkdir(parents=True)
    (copy / "params.yaml").touch()
    monkeypatch.chdir(copy)
    assert user_path("photos") == tmp_path / "photos"
