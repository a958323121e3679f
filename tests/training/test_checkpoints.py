"""Checkpoints are whole or absent, and a missing one is named."""

import pytest
import torch

from asymlib.training import checkpoints
from asymlib.training.checkpoints import load_tensors, save_tensors


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {"a": torch.arange(6).reshape(2, 3), "b": torch.rand(4)[::2]}
    save_tensors(tmp_path / "sub" / "x.safetensors", tensors, {"step": "3"})
    loaded, metadata = load_tensors(tmp_path / "sub" / "x.safetensors")
    assert metadata == {"step": "3"} and all(torch.equal(loaded[k], v) for k, v in tensors.items())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.zeros(2)})
    before = path.read_bytes()

    def fail(tensors, name, metadata):
        name.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(path, {"a": torch.ones(2)})
    assert path.read_bytes() == before


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint .*none.safetensors is missing; expected .* `make repro`"):
        load_tensors(tmp_path / "none.safetensors")
