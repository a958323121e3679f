"""Jupyter kernels that need not import torch and diffusers: each is forked from a process that has.

A pipeline starts a kernel for every notebook, and on two cores half of a test's time went into the same imports. Here a
kernel specification in the place of `python3` asks a server for a fork, which then is an ordinary ipykernel with the
caller's folder, environment, arguments and files. Nothing of this project is imported before the fork.

    python warm_kernels.py serve SOCKET          # started by the fixture `warm_kernels`
    python warm_kernels.py SOCKET -f CONNECTION  # what the kernel specification runs
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

# matplotlib is none of them: ipykernel chooses its backend in the environment, which is read when it is imported
IMPORTED = ("torch", "torchvision", "pandas", "scipy.stats", "accelerate", "IPython", "ipykernel.kernelapp")
DIFFUSERS = "AsymmetricAutoencoderKL AutoencoderKL AutoencoderTiny VQModel UNet2DModel DDIMScheduler".split()


@contextmanager
def warm_kernels(folder: Path):
    """While it is open, `python3` kernels of this process's children are forks; `folder` holds their specification."""
    short = Path(tempfile.mkdtemp())  # a socket's path has at most 107 characters
    address, spec = short / "socket", folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    command = [sys.executable, "-I", __file__, str(address), "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment |= {"GOMP_SPINCOUNT": "2000", "HF_HUB_OFFLINE": "1"}  # read when their libraries are loaded
    server = subprocess.Popen([sys.executable, "-I", __file__, "serve", str(address)], env=environment)
    before = os.environ.get("JUPYTER_PATH")
    try:
        while not address.exists():
            if server.poll() is not None:
                raise RuntimeError("the server of kernels has ended")
            time.sleep(0.05)
        os.environ["JUPYTER_PATH"] = str(folder)
        yield
    finally:
        os.environ.pop("JUPYTER_PATH", None) if before is None else os.environ.update(JUPYTER_PATH=before)
        server.kill()
        server.wait()
        shutil.rmtree(short)


def serve(address: str) -> None:
    """Fork a kernel for every connection; returns in the forks alone, as what they are to be."""
    import importlib

    for name in IMPORTED:
        importlib.import_module(name)
    diffusers = importlib.import_module("diffusers")
    for name in DIFFUSERS:
        getattr(diffusers, name)
    assert "matplotlib" not in sys.modules and "asymlib" not in sys.modules
    server, waiting = socket.socket(socket.AF_UNIX), {}
    server.bind(address)
    server.listen()
    while True:
        for connection in select.select([server, *waiting], [], [], 0.05)[0]:
            if connection is server:
                connection, _ = server.accept()
                request, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
                child = os.fork()
                if child == 0:
                    server.close()
                    return become(json.loads(request), files)
                waiting[connection] = child
                for file in files:
                    os.close(file)
            else:  # who asked is gone
                os.kill(waiting[connection], signal.SIGKILL)
        for connection, child in list(waiting.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                try:
                    connection.send(bytes([os.waitstatus_to_exitcode(status) % 256]))
                except OSError:
                    pass
                connection.close()
                del waiting[connection]


def become(request: dict, files: list[int]) -> None:
    """Turn a fork into the kernel that was asked for."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["ipykernel_launcher", *request["arguments"]]
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if "COVERAGE_PROCESS_CONFIG" in os.environ or "COVERAGE_PROCESS_START" in os.environ:
        import coverage

        coverage.process_startup()
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


def ask(address: str, arguments: list[str]) -> int:
    """Have a kernel forked, and be there as long as it is."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    request = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
    socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = connection.recv(1)
    return status[0] if status else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
