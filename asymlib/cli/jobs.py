"""What a command has to do, from the files or folders that it is given: matched by name, resumed, reported."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from asymlib.pictures import UNREADABLE, is_picture_file, written_format

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """One result: the first of its files, by which it is named, argument -> file, and where it goes."""

    name: str
    inputs: dict[str, Path]
    out: Path


class Plan(NamedTuple):
    """Jobs to do, results that are there already, and files that lack a partner, with what is lacking."""

    jobs: list[Job]
    kept: list[Path]
    unmatched: dict[str, str]


def plan(inputs: dict[str, Path], out: Path | None, ending: str, overwrite: bool) -> Plan:
    """Match files by name.

    Args:
        inputs: Argument -> a file, or a folder for all pictures in it; the first decides whether there is one result or
            many. Of the others a single file serves all.
        out: A file, or a folder, which for one result has to be there; by default beside the first, its name with
            `ending`, a PNG: a JPEG would change every pixel.
        ending: Such as `_finished`.
        overwrite: Whether results that are there are made again.

    Raises:
        FileNotFoundError: No such file or folder.
        ValueError: Folders and a single first file, a folder without pictures, two files of one name, or a result that
            is there, would take an input's place, or is no picture.
    """
    for argument, path in inputs.items():
        if not path.exists():
            raise FileNotFoundError(f"{argument}: got {path}, expected an existing picture or a folder of pictures")
    inputs = {argument: path if path.name else path.resolve() for argument, path in inputs.items()}
    first, *others = inputs
    single = {path.resolve() for path in inputs.values() if not path.is_dir()}
    if not inputs[first].is_dir():
        folders = [argument for argument in others if inputs[argument].is_dir()]
        if folders:
            raise ValueError(f"{folders[0]}: got the folder {inputs[folders[0]]}, expected a file, as {first} is one")
        beside = inputs[first].with_name(f"{inputs[first].stem}{ending}.png")
        target = out / beside.name if out and out.is_dir() else out or beside
        if written_format(target) is None:
            raise ValueError(f"out: got {target}, expected a name that ends in .png, or in another suffix of a picture")
        _require_no_input(target, single)
        if target.exists() and not overwrite:
            raise ValueError(f"out: got {target}, which is there; expected another name, or --overwrite")
        return Plan([Job(str(inputs[first]), inputs, target)], [], {})
    target = out or inputs[first].with_name(f"{inputs[first].name}{ending}")
    if not target.is_dir() and (target.exists() or written_format(target)):
        raise ValueError(f"out: got the file {target}, expected a folder, as {first} is one")
    for path in inputs.values():
        if path.is_dir() and target.resolve().is_relative_to(path.resolve()):
            raise ValueError(
                f"out: got {target}, expected a folder that is not in {path}, of which nothing is overwritten"
            )
    named = {argument: _named(argument, path, single) for argument, path in inputs.items()}
    return _folder_plan(named, target, overwrite, single)


def _named(argument: str, path: Path, single: set[Path]) -> dict[str, Path] | Path:
    """Name without suffix -> file, but for those that were given alone; a single file as it is."""
    if not path.is_dir():
        return path
    found: dict[str, Path] = {}
    for file in (file for file in picture_files(argument, path) if file.resolve() not in single):
        name = file.relative_to(path).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{argument}: got {found[name].name} and {file.name}, expected one picture of each name")
        found[name] = file
    return found


def picture_files(argument: str, folder: Path) -> list[Path]:
    """Every picture in a folder and the folders in it, in the order of names; what else lies there is noted.

    Raises:
        ValueError: There is none; the sentence names the argument.
    """
    everything = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in everything if is_picture_file(path)]
    if not files:
        raise ValueError(f"{argument}: got {folder} without a picture, expected some")
    others = [path for path in {*everything}.difference(files) if not path.name.startswith(".")]
    if others:
        kinds = ", ".join(sorted({path.suffix or path.name for path in others}))
        print(f"note: {argument}: left out as no pictures: {len(others)} ({kinds})", file=sys.stderr)
    return files


def _require_no_input(target: Path, given: set[Path]) -> None:
    if target.resolve() in given:
        raise ValueError(f"out: got {target}, which is an input; expected another name, that nothing is lost")


def _folder_plan(named: dict[str, dict[str, Path] | Path], out: Path, overwrite: bool, single: set[Path]) -> Plan:
    first = next(iter(named))
    jobs, kept, unmatched = [], [], {}
    for argument, files in named.items():
        for name in files if isinstance(files, dict) else ():
            lacking = [other for other, of in named.items() if isinstance(of, dict) and name not in of]
            if argument != first:
                if first in lacking:  # else the first has told what is missing
                    unmatched[str(files[name])] = f"no {first} of the name {name!r}"
            elif lacking:
                unmatched[str(files[name])] = f"no {' and no '.join(lacking)} of the name {name!r}"
            else:
                target = out / f"{name}.png"
                _require_no_input(target, single)
                inputs = {other: of[name] if isinstance(of, dict) else of for other, of in named.items()}
                if target.is_file() and not overwrite:
                    kept.append(target)
                else:
                    jobs.append(Job(str(files[name]), inputs, target))
    return Plan(jobs, kept, unmatched)


def first_line(error: Exception) -> str:
    """One sentence; torch's own errors go on for many lines."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def carry_out(planned: Plan, work: Callable[[Job], None], dry_run: bool, as_json: bool) -> int:
    """Do the jobs, one after the other; what fails does not stop the others.

    Args:
        planned: From `plan`.
        work: Makes one result and writes it whole.
        dry_run: Only say what would be done.
        as_json: Say at the end what was done as one line of JSON, and nothing else on the standard output.

    Returns:
        The exit status: 0, or 1 where something failed or has no partner.
    """
    written, failed = [], {}
    for job in tqdm(planned.jobs, disable=dry_run or len(planned.jobs) < 2, unit="picture"):
        if dry_run:
            written.append(str(job.out))
            continue
        try:
            job.out.parent.mkdir(parents=True, exist_ok=True)
            work(job)
        except (*UNREADABLE, RuntimeError, MemoryError) as error:  # the last two of a picture that is too large
            failed[job.name] = first_line(error)
            logger.debug("%s", job.name, exc_info=True)
            continue
        written.append(str(job.out))
    kept = [str(path) for path in planned.kept]
    report = {"written": written, "kept": kept, "failed": failed, "unmatched": planned.unmatched}
    if as_json:
        print(json.dumps(report | {"dry_run": dry_run}))
    else:
        for path in written:
            print(f"{'would write ' if dry_run else ''}{path}")
        if kept:
            print(f"{len(kept)} were there already and were left as they are (--overwrite makes them again)")
    for name, why in (failed | planned.unmatched).items():
        print(f"error: {name}: {why}", file=sys.stderr)
    return 1 if failed or planned.unmatched else 0
