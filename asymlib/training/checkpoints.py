"""Atomic safetensors checkpoints, and the resume state of a run that was killed.

A resume state holds the state of modules and optimisers plus the step. Batches are drawn from (seed, step), so nothing
else has to be stored for a resumed run to continue bit for bit.
"""

import hashlib
import json
import logging
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from asymlib.files import content_hash, written

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]


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


def weights_hash(module: nn.Module) -> str:
    """First 12 digits of the sha256 over a module's tensors, with their names and types."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def code_hash(*more: Path) -> str:
    """The hash of the library's code, without the study's, and of `more` files or folders."""
    library = [path for path in PACKAGE.rglob("*.py") if "study" not in path.relative_to(PACKAGE).parts]
    return content_hash(*sorted(library), *more)


class ResumeState:
    """Where one run keeps what it needs to go on after it was killed: the last two states, NAME and NAME.previous.

    Args:
        path: The file; None keeps nothing.
        identity: Whatever decides the run's result: settings, seed, data, code, the weights that it starts from. A
            state of another one is passed over.
        modules: Modules and optimisers by name; anything with `state_dict` and `load_state_dict`.
        every: Steps between two writes.
    """

    def __init__(self, path: Path | None, identity: dict, modules: dict, every: int = 200) -> None:
        self.path, self.modules, self.every = path, modules, every
        self.identity = json.dumps(identity | {"torch": torch.__version__}, sort_keys=True, default=str)

    def restore(self) -> tuple[int, list[dict]]:
        """Load the newest whole state of this run; return the step to continue with and the history until there.

        A torn state, or one of another run, is passed over with one line in the log.
        """
        for path in (self.path, _previous(self.path)) if self.path else ():
            if path.is_file() and (state := self._read(path)) is not None:
                for name, module in self.modules.items():
                    module.load_state_dict(state["modules"][name])
                return state["step"], state["history"]
        return 0, []

    def keep(self, step: int, history: list[dict], last: bool = False) -> None:
        """Write the state after `step` steps, every `every` steps and at the last; the one before stays."""
        if self.path is None or (step % self.every and not last):
            return
        modules = {name: module.state_dict() for name, module in self.modules.items()}
        with written(self.path) as temporary:
            torch.save({"identity": self.identity, "step": step, "history": history, "modules": modules}, temporary)
            if self.path.is_file():
                os.replace(self.path, _previous(self.path))

    def _read(self, path: Path) -> dict | None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            identity = state["identity"]
        except Exception as error:  # torch raises several kinds for a torn file
            reason = (str(error) or type(error).__name__).splitlines()[0]  # an empty file's has no words
            logger.warning("%s: not a whole state (%s), passed over", path, reason)
            return None
        if identity != self.identity:
            logger.warning("%s: a state of another run (%s), passed over", path, self._difference(identity))
            return None
        return state

    def _difference(self, identity: str) -> str:
        """Which facts of the identity differ."""
        ours, theirs = json.loads(self.identity), json.loads(identity)
        return ", ".join(sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)))


def forget(path: Path | None) -> None:
    """Remove the states of a run whose result is safely written."""
    if path is not None:
        path.unlink(missing_ok=True)
        _previous(path).unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    """Where the state before the last one lies."""
    return path.with_name(path.name + ".previous")
