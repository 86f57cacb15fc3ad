"""Jobs of Slurm, known as `slurm:123`: submit with sbatch, list, follow, stop, as those of Ray.

Claim: a job is a folder that the nodes see, with its bundle, the batch script that `laconic manifest slurm` prints, its log and in the end its exit code, so what became of it is told as long
as the folder is there; before, squeue tells (and what it waits for), else sacct. A record in the cache folder says which folder is whose.
Simplification: the records of one user on one login node, of one Slurm; of a job from elsewhere its state is told, not its log.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from launch.jobs import DONE, Job, Jobs, JobsError, UnknownJob
from launch.machine import CacheError, cache_folder

PREFIX = "slurm:"
_ASK_S = 60.0
_STOPPED = (130, 143)  # exit codes of a driver that was told to stop, and of a script that was before it had one
_STATES = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"), "PENDING"),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"), "RUNNING"),
    "COMPLETED": "SUCCEEDED",
    "CANCELLED": "STOPPED",
}  # all others are ways to fail
_PARTITION = "name another"
_SIZES = "--nodes, --gpus, --cpus, --memory-gb and --time say other sizes"
_ASK = "who runs this Slurm knows what it wants"
_REMEDIES = (  # by words of what sbatch says, the first that are found; of SBATCH_ variables sbatch reads what we have no options for
    ("invalid partition", _PARTITION),  # whose name may be cpu
    ("contact|timed out|not answer", "does this machine's Slurm run (`sinfo`)?"),
    ("policy", "ask for less, or in another's name (SBATCH_ACCOUNT, SBATCH_QOS)"),
    ("account", "name an account that may run here (SBATCH_ACCOUNT=...; `sacctmgr show associations user=$USER` lists yours)"),
    ("qos", "name a quality of service that your account has (SBATCH_QOS=...)"),
    ("reservation", "name another, or none (SBATCH_RESERVATION)"),
    ("feature", "name features that nodes have, or none (SBATCH_CONSTRAINT)"),
    ("configuration|node|cpu|processor|memory|resource|time limit", _SIZES),
    ("partition", _PARTITION),
)
_NEVER = (  # reasons to wait that waiting does not mend
    "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints",
    "InvalidAccount", "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed", "DependencyNeverSatisfied",
)  # fmt: skip
_HELD = ("JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "launch failed requeued held")
# Of what sbatch says, among a site's own lines.
_TAKEN = re.compile(r"^\s*(?:.*Submitted batch job )?(\d+)(?:;.*| on cluster .*)?\s*$", re.MULTILINE)


class Slurm(Jobs):
    """The Slurm of this machine."""

    def submit(self, files: Mapping[str, bytes], script: str, folder: Path, partition: str | None, about: Mapping[str, str]) -> str:
        """Put a job's files and its batch script into a new folder, which the nodes see, and have sbatch take it; its name.

        Args:
            about: recipe, runs and asks: the name of its run, where that goes, and the nodes that it wants, in words.

        Raises:
            JobsError: no Slurm here, or it refuses; nothing of the job is left. Or it does not say which job it took, whose files stay.
            CacheError: there is no place to keep which folder is its.
        """
        _refuse_absent("sbatch")
        records = _records()
        folder.mkdir(parents=True, mode=0o700)
        try:
            for name, content in {**files, "job.sh": script.encode()}.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            said = _called(sbatch(partition), folder)
        except _Refused as error:
            shutil.rmtree(folder)
            raise JobsError(_why(str(error), partition, about["asks"])) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if not (taken := _TAKEN.findall(said)):
            raise JobsError(
                f"sbatch says {said.strip()!r:.300}, which names no job: it may run all the same (`squeue --me`), and its files are in {folder}"
            )
        number = taken[-1]
        (records / f"{number}.json").write_text(json.dumps({**about, "folder": str(folder)}), encoding="utf-8")
        return f"{PREFIX}{number}"

    def jobs(self) -> list[Job]:
        records = {file.stem: record for file in _records().glob("*.json") if file.stem.isdecimal() and (record := _read(file))}
        told = _told(list(records))
        return [_job(number, told.get(number), records[number]) for number in sorted(records, key=int)]

    def job(self, name: str) -> Job:
        number = _number(name)
        told, record = _told([number]).get(number), _record(number)
        if not told and not record:
            raise UnknownJob(f"{name}: Slurm knows no such job; `laconic jobs --slurm` lists those that were submitted from here")
        return _job(number, told, record)

    def log(self, name: str) -> str:
        number = _number(name)
        if not (record := _record(number)):
            raise UnknownJob(
                f"{name}: was not submitted from here, so where its log lies is not known: look into the folder that it was submitted from"
            )
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in Path(record["folder"]).glob(f"*-{number}.log"))

    def stop(self, name: str, within_s: float) -> Job:
        job, number = self.job(name), _number(name)
        if job.state == "RUNNING":  # the batch script alone, which tells the driver and waits for it
            _asked("scancel", "--batch", "--signal=INT", number)  # TERM would put one that is preemptible back into the queue
            job = self.waited(name, within_s)
        if not job.is_done:
            _asked("scancel", number)
            job = self.waited(name, within_s)
        return job


def sbatch(partition: str | None) -> list[str]:
    """The command that submits a job, in its folder."""
    return ["sbatch", "--parsable", *(["--partition", partition] if partition else []), "job.sh"]


class _Refused(JobsError):
    """A command of Slurm failed; with the errors that it names, else its last words."""


def _called(command: Sequence[str], folder: Path | None = None) -> str:
    """What a command of Slurm prints. Raises _Refused."""
    environment = os.environ | {"LACONIC_PYTHON": os.environ.get("LACONIC_PYTHON", sys.executable), "SLURM_TIME_FORMAT": "standard"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=_ASK_S)
    except subprocess.TimeoutExpired as error:
        raise _Refused(f"{command[0]} did not answer within {_ASK_S:g} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise _Refused("; ".join(filter(None, (line.partition("rror: ")[2] for line in lines))) or lines[-1])
    return done.stdout


def _asked(*command: str) -> str:
    """As `_called`, in a sentence of its own where it fails."""
    _refuse_absent(command[0])
    try:
        return _called(command)
    except _Refused as error:
        raise JobsError(f"{command[0]} fails: {error}; does this machine's Slurm run (`sinfo`)?") from error


def _refuse_absent(command: str) -> None:
    if shutil.which(command) is None:
        raise JobsError(
            f"--slurm: no {command} here; run this on a login node of the cluster, or write a batch script with `laconic manifest slurm`"
        )


def _why(said: str, partition: str | None, asks: str) -> str:
    """What sbatch refuses, and what to do."""
    remedy = next((remedy for words, remedy in _REMEDIES if re.search(words, said, re.IGNORECASE)), _ASK)
    if remedy == _PARTITION:
        there = ", ".join(dict.fromkeys(_asked("sinfo", "-h", "-o", "%R").split()))
        return f"--partition: {f'sbatch refuses {partition}' if partition else 'name one'} ({said}); there are {there}"
    return f"sbatch refuses: {said}. The job asks for {asks}: {_SIZES}" if remedy == _SIZES else f"sbatch refuses: {said}; {remedy}"


def _told(numbers: Sequence[str]) -> dict[str, list[str]]:
    """What Slurm says of jobs, by number: state, reason, start, end; those that it still knows."""
    if not numbers:
        return {}
    try:
        lines = _asked("squeue", "-h", "-t", "all", "-j", ",".join(numbers), "-o", "%A|%T|%r|%S|%e")
    except JobsError as error:
        if "Invalid job id" not in str(error):
            raise
        lines = ""
    found = _by_number(lines)
    if (older := [number for number in numbers if number not in found]) and shutil.which("sacct"):
        try:
            lines = _called(["sacct", "-X", "-n", "-P", "-j", ",".join(older), "-o", "JobIDRaw,State,Reason,Start,End"])
        except _Refused:
            lines = ""  # a Slurm that keeps no accounts
        found |= _by_number(lines)
    return found


def _by_number(lines: str) -> dict[str, list[str]]:
    """See `_told`; a reason may hold whatever stands between the others, and a site's own lines are none."""
    found = re.findall(r"^(\d+)\|(\w[^|\n]*)\|(.*)\|([^|\n]*)\|([^|\n]*)$", lines, re.MULTILINE)
    return {number: told for number, *told in found}


def _job(number: str, told: Sequence[str] | None, record: Mapping[str, Any]) -> Job:
    """A job from what Slurm says, if it does, and from what its script left."""
    told = told or record.get("told")
    word, reason, start, end = told or ("FORGOTTEN", "Slurm knows it no more, and it left no exit code", "", "")
    state, message = _STATES.get(word.split()[0], "FAILED"), reason if reason != "None" else ""
    if state == "PENDING":
        message = f"{message}; it asks for {record.get('asks', 'what it asks for')}" if message else ""
        message += f", which waiting does not mend: `laconic stop {PREFIX}{number}` takes it out" * (reason in _NEVER)
        message += f", until it is let go: `scontrol release {number}`" * (reason in _HELD)
        message += " by who runs this Slurm" * (reason == "JobHeldAdmin")
    elif state == "FAILED" and word != "FORGOTTEN":
        message = f"{word.lower()} {message}".strip()
    ended = _seconds(end) if state in DONE else None
    if record and told and state in DONE:
        _remember(number, told, record)
    # One that waits may have been started before, and have left a code then.
    for left in Path(record["folder"]).glob(f"*-{number}.exit") if record and state != "PENDING" else ():
        try:
            code = int(left.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # just being written, or damaged
        state = "SUCCEEDED" if code == 0 else "STOPPED" if code in _STOPPED else "FAILED"
        message, ended = f"exit code {code}; `laconic logs {PREFIX}{number}` says more" if code else "", left.stat().st_mtime
    return Job(f"{PREFIX}{number}", state, message, record.get("recipe", ""), record.get("runs", ""), _seconds(start), ended)


def _remember(number: str, told: Sequence[str], record: Mapping[str, Any]) -> None:
    """Keep what Slurm says of a job that has ended, before it forgets it; and take the token of one away whose script was killed with it."""
    with suppress(OSError):
        if record.get("told") != list(told):
            (_records() / f"{number}.json").write_text(json.dumps({**record, "told": list(told)}), encoding="utf-8")
        for left in Path(record["folder"]).glob(f".laconic-{number}-*"):
            shutil.rmtree(left, ignore_errors=True)


def _seconds(moment: str) -> float | None:
    """Seconds since 1970 of a moment as Slurm writes it; None: it knows none, or it lies ahead."""
    try:
        found = datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
    return found if found <= datetime.now().timestamp() else None


def _number(name: str) -> str:
    number = name.removeprefix(PREFIX)
    if not number.isdecimal():
        raise UnknownJob(f"{name}: jobs of Slurm are called {PREFIX} and their number, {PREFIX}123")
    return number


def _records() -> Path:
    return cache_folder("slurm")


def _record(number: str) -> dict[str, Any]:
    with suppress(CacheError):
        return _read(_records() / f"{number}.json")
    return {}


def _read(file: Path) -> dict[str, Any]:
    """A record whose folder is still there; else empty."""
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return record if Path(record["folder"]).is_dir() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
