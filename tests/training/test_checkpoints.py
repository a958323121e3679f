"""Checkpoints are whole or absent, and a missing one is named; a resume state is this run's, or passed over."""

import errno

import pytest
import torch
from torch import nn

from asymlib.training import checkpoints
from asymlib.training.checkpoints import ResumeState, code_hash, forget, load_tensors, save_tensors, weights_hash


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


class Run:
    """A small model that learns, and its resume state."""

    def __init__(self, folder, every: int = 1, **identity) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimiser = torch.optim.Adam(self.model.parameters())
        self.path, self.history = folder / "resume.pt", []
        facts = {"seed": 0, "settings": {"rate": 1.0, "widths": (1, 2)}} | identity
        modules = {"model": self.model, "optimiser": self.optimiser}
        self.state = ResumeState(self.path, facts, modules, every)

    def train(self, start: int, stop: int) -> "Run":
        for step in range(start, stop):
            loss = self.model(torch.full((1, 3), float(step))).square().sum()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.history.append({"step": step + 1, "loss": loss.item(), "nothing": float("nan")})
            self.state.keep(step + 1, self.history)
        return self

    def restore(self) -> int:
        start, self.history = self.state.restore()
        return start

    def weights(self) -> list:
        return [p.tolist() for p in self.model.parameters()]


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def step_of(path) -> int:
    return torch.load(path, weights_only=True)["step"]


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_the_last_two_states_are_kept_and_nothing_else(tmp_path):
    """Breaks when older states pile up, or the only one is replaced by one that may be torn."""
    Run(tmp_path, every=2).train(0, 1)
    assert not files(tmp_path)
    Run(tmp_path, every=2).train(0, 3)
    assert files(tmp_path) == ["resume.pt"]
    Run(tmp_path, every=2).train(0, 9)
    assert files(tmp_path) == ["resume.pt", "resume.pt.previous"]
    assert [step_of(tmp_path / name) for name in files(tmp_path)] == [8, 6]


def test_a_restored_run_ends_as_one_that_was_never_killed(tmp_path, caplog):
    """Breaks when weights, the optimiser's moments or the curve are not restored to the bit."""
    whole = Run(tmp_path / "whole").train(0, 6)
    Run(tmp_path / "killed").train(0, 4)
    resumed = Run(tmp_path / "killed")
    assert resumed.restore() == 4
    resumed.train(4, 6)
    assert resumed.weights() == whole.weights() and str(resumed.history) == str(whole.history)
    assert str(resumed.optimiser.state_dict()) == str(whole.optimiser.state_dict()) and not lines(caplog)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.999])
def test_a_torn_state_is_passed_over_with_one_line_and_the_one_before_it_continued(tmp_path, caplog, share):
    """Breaks when a state that was cut short, wherever, ends the run or loses all of it."""
    Run(tmp_path).train(0, 4)
    whole = (tmp_path / "resume.pt").read_bytes()
    (tmp_path / "resume.pt").write_bytes(whole[: int(share * len(whole))])
    resumed = Run(tmp_path)
    assert resumed.restore() == 3
    assert resumed.weights() == Run(tmp_path / "other").train(0, 3).weights()
    (line,) = lines(caplog)
    assert line.startswith(f"{tmp_path / 'resume.pt'}: not a whole state (") and "\n" not in line
    assert line.endswith("), passed over")


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, "text"])
def test_a_file_that_is_no_state_is_passed_over_with_one_line(tmp_path, caplog, content):
    torch.save(content, tmp_path / "resume.pt")
    assert Run(tmp_path).restore() == 0
    assert len(lines(caplog)) == 1 and "not a whole state" in lines(caplog)[0]


def test_where_both_are_torn_it_starts_from_nothing(tmp_path, caplog):
    Run(tmp_path).train(0, 4)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    resumed = Run(tmp_path)
    assert resumed.restore() == 0 and resumed.history == []
    assert resumed.weights() == Run(tmp_path / "new").weights() and len(lines(caplog)) == 2


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"settings": {"rate": 1.0, "widths": (1, 3)}}, {"data": "other"}],
    ids=["another value", "a value inside", "one more fact"],
)
def test_a_state_of_another_identity_is_passed_over_with_one_line_that_names_the_fact(tmp_path, caplog, change):
    """Breaks when a run continues what it did not begin, or says nothing about why it starts anew."""
    Run(tmp_path).train(0, 1)
    other = Run(tmp_path, **change)
    assert other.restore() == 0 and other.weights() == Run(tmp_path / "new").weights()
    assert lines(caplog) == [f"{tmp_path / 'resume.pt'}: a state of another run ({list(change)[0]}), passed over"]
    assert Run(tmp_path).restore() == 1  # it is left where it is


def test_a_state_of_another_torch_is_passed_over(tmp_path, caplog, monkeypatch):
    """Breaks when a run is called bit for bit the same across versions that round differently."""
    Run(tmp_path).train(0, 1)
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert Run(tmp_path).restore() == 0 and "a state of another run (torch)" in lines(caplog)[0]


def test_a_full_disk_leaves_both_states(tmp_path, monkeypatch):
    """Breaks when the newest state is moved aside before the next one is whole."""
    run = Run(tmp_path).train(0, 2)

    def fail(state, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="resume.pt: got a full disk"):
        patch.setattr(torch, "save", fail)
        run.train(2, 3)
    assert files(tmp_path) == ["resume.pt", "resume.pt.previous"]
    assert [step_of(tmp_path / name) for name in files(tmp_path)] == [2, 1]


def test_forgetting_removes_both_states_and_nothing_else(tmp_path):
    Run(tmp_path).train(0, 3)
    (tmp_path / "other.pt").touch()
    forget(tmp_path / "resume.pt")
    forget(tmp_path / "resume.pt")
    forget(None)
    assert files(tmp_path) == ["other.pt"]


def test_without_a_path_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = ResumeState(None, {}, {"model": nn.Linear(1, 1)}, every=1)
    state.keep(1, [])
    assert state.restore() == (0, []) and not files(tmp_path)


def test_the_hash_of_weights_follows_every_value_name_and_type():
    """Breaks when two starts that differ somewhere are taken for the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first = weights_hash(model)
    assert weights_hash(model) == first
    model[1].running_mean[1] += 1e-6
    assert len({first, weights_hash(model), weights_hash(model.bfloat16()), weights_hash(nn.Sequential(model))}) == 4


def test_the_hash_of_code_follows_the_library_and_what_is_named_but_not_the_study(tmp_path, monkeypatch):
    """Breaks when a run goes on with other code, or a change of a report's wording discards a training."""
    monkeypatch.setattr(checkpoints, "PACKAGE", tmp_path)
    for name in ("models/a.py", "study/b.py", "study/training/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    named = tmp_path / "study" / "training" / "c.py"
    first, with_named = code_hash(), code_hash(named)
    (tmp_path / "study" / "b.py").write_text("2")
    assert (code_hash(), code_hash(named)) == (first, with_named)
    named.write_text("2")
    assert code_hash() == first and code_hash(named) != with_named
    (tmp_path / "models" / "a.py").write_text("2")
    assert code_hash() != first
