"""Atomic safetensors checkpoints, and the resume state of a run that was killed.

A resume state holds every tensor of the modules and optimisers plus the step. Batches are drawn from (seed, step),
so nothing else has to be stored for a resumed run to continue bit for bit.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from asymlib.project import written


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file."""
    with written(path) as temporary:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary, metadata)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file and its metadata.

    Raises:
        FileNotFoundError: The checkpoint is missing; the message says which stage makes it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path} is missing; expected a .safetensors file, `make repro` makes it")
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}


class ResumeState:
    """Where one run keeps what it needs to go on after it was killed.

    Args:
        path: The file; None keeps nothing.
        identity: Whatever decides the run's result (settings, hash of the data); a state of another one is ignored.
        modules: Modules and optimisers by name; anything with `state_dict` and `load_state_dict`.
        every: Steps between two writes.
    """

    def __init__(self, path: Path | None, identity: dict, modules: dict, every: int = 200) -> None:
        self.path, self.modules, self.every = path, modules, every
        self.identity = json.dumps(identity, sort_keys=True, default=str)

    def restore(self) -> tuple[int, list[dict]]:
        """Load the state if it belongs to this run; return the step to continue with and the history until there."""
        if self.path is None or not self.path.is_file():
            return 0, []
        tensors, metadata = load_tensors(self.path)
        if metadata["identity"] != self.identity:
            return 0, []
        for name, module in self.modules.items():
            module.load_state_dict(_unflatten(json.loads(metadata[name]), name, tensors))
        return int(metadata["step"]), json.loads(metadata["history"])

    def keep(self, step: int, history: list[dict]) -> None:
        """Write the state after `step` steps, every `every` steps."""
        if self.path is None or step % self.every:
            return
        tensors: dict[str, torch.Tensor] = {}
        layout = {name: json.dumps(_flatten(m.state_dict(), name, tensors)) for name, m in self.modules.items()}
        metadata = {"identity": self.identity, "step": str(step), "history": json.dumps(history)} | layout
        save_tensors(self.path, tensors, metadata)

    def clear(self) -> None:
        """Remove the state of a run that has ended."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _flatten(value, name: str, tensors: dict[str, torch.Tensor]):
    """Move every tensor of a nested state dict into `tensors`; return the JSON layout that is left."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _flatten(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_flatten(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _unflatten(layout: dict, name: str, tensors: dict[str, torch.Tensor]):
    if "tensor" in layout:
        return tensors[layout["tensor"]]
    if "items" in layout:
        return {key: _unflatten(item, name, tensors) for key, item in layout["items"]}
    if "list" in layout:
        return [_unflatten(item, name, tensors) for item in layout["list"]]
    return layout["value"]
