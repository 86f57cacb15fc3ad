"""Jobs run on a real Slurm of one machine, started here and ended with the test: by the batch script alone, and from `laconic submit --slurm` to their end.

Skipped without Slurm and munge (Debian: slurm-wlm, munge), and for whoever is not root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launch.head import free_ports
from launch.jobs import JobsError, UnknownJob
from launch.manifests import Nodes, slurm
from launch.slurm import Slurm
from recipes.loader import load

ROOT = Path(__file__).parents[2]
_LOADED_S = 500.0  # for a Ray to start on two cores that others use, too
TOY = [
    "device=cpu", "engine.kind=reference", "engine.count=1", "learner.ranks=1", "stages=[rl]", "sampler.prompts=4", "sampler.group_size=4", "sampler.keep_groups=all",
    "budget.limit=16", "reward=[{kind: verdict}, {kind: function, name: 'tests.faults.by_length:by_length', weight: 0.1, low: -3, high: 1}]",
]  # fmt: skip


def program(name: str) -> str:
    """A daemon, which Debian also calls `-wlm`."""
    return next(filter(None, (shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin") for one in (f"{name}-wlm", name))), "")


pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(program, ("munged", "slurmctld", "slurmd", "slurmstepd", "sbatch"))),
        reason="no Slurm, or not root",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Slurm of one node, and the environment in which its commands find it."""
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for name in ("munge", "spool", "state"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    prefix, host, (control, node) = Path(program("slurmd")).resolve().parents[1], socket.gethostname().partition(".")[0], free_ports(2)
    lines = [
        f"ClusterName=one\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nAuthType=auth/munge\nAuthInfo=socket={folder}/munge/socket,cred_expire=5\nCredType=cred/munge",
        f"PluginDir={next(prefix.glob('lib/*/slurm-wlm'))}\nProctrackType=proctrack/pgid\nTaskPlugin=task/none\nSelectType=select/cons_tres",
        f"ReturnToService=2\nKillWait=5\nSlurmctldPort={control}\nSlurmdPort={node}\nStateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool",
        f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid",
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4096\nPartitionName=all Nodes=ALL Default=YES State=UP PriorityTier=5 PreemptMode=OFF",
        "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\nPartitionName=spot Nodes=ALL State=UP PriorityTier=1 GraceTime=90\n",
    ]
    (folder / "slurm.conf").write_text("\n".join(lines))
    seen = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    seen |= {"SLURM_CONF": f"{folder}/slurm.conf", "PYTHONPATH": str(ROOT), "LACONIC_PYTHON": sys.executable}
    munge = [f"--{name}={folder}/munge/{name.partition('-')[0]}" for name in ("key-file", "socket", "pid-file", "log-file", "seed-file")]
    daemons = [
        subprocess.Popen([*command], env=seen, stdout=output, stderr=output, cwd=folder)
        for command, output in [
            ((program("munged"), "--foreground", "--force", *munge), (folder / "munged.log").open("wb")),
            ((program("slurmctld"), "-D"), (folder / "slurmctld.log").open("wb")),
            ((program("slurmd"), "-D", "-d", program("slurmstepd")), (folder / "slurmd.log").open("wb")),
        ]
    ]
    try:
        until(lambda: "idle" in asked(seen, "sinfo", "-h", "-o", "%T"), 60)
        yield seen
    finally:
        for one in reversed(daemons):
            one.terminate()
            one.wait(20)


@pytest.fixture
def slurm_here(cluster: dict[str, str]) -> Iterator[dict[str, str]]:
    """The Slurm without jobs, and again when the test is over, however it ends."""
    yield cluster
    asked(cluster, "scancel", "-u", "root")
    until(lambda: not asked(cluster, "squeue", "-h"), 60)


def asked(seen: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=seen, capture_output=True, text=True, timeout=60).stdout.strip()


def until(holds: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(1)


def submitted_to(seen: dict[str, str], folder: Path, model: Path, name: str, steps: int, *more: str) -> tuple[str, Path]:
    """The number and the log of a job by the batch script alone."""
    (folder / "rows.jsonl").write_text("".join(json.dumps({"problem": f"{n} + 1 = ?", "answer": str(n + 1)}) + "\n" for n in range(16)))
    words = [*TOY, *more, f"name={name}", f"train.steps={steps}", f"model.path={model}", "data.train=rows.jsonl"]
    (folder / f"{name}.sh").write_text(slurm(load("quickstart", None, words), Nodes(1, 0, 2, 3), "runs", "10"))
    partition = "spot" if more else "all"
    done = subprocess.run(
        ["sbatch", "--parsable", "-p", partition, f"{name}.sh"], env=seen, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), folder / f"{name}-{done.stdout.strip()}.log"


def state_of(seen: dict[str, str], job: str) -> str:
    return asked(seen, "squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def test_the_batch_script_trains_on_slurm_and_a_signal_has_it_stop_politely(
    slurm_here: dict[str, str], checkpoints: Callable[[str], Path], tmp_path: Path
):
    def submitted(name: str, steps: int) -> tuple[str, Path]:
        return submitted_to(slurm_here, tmp_path, checkpoints("qwen3"), name, steps)

    def state(job: str) -> str:
        return state_of(slurm_here, job)

    short, log = submitted("short", 2)
    until(lambda: state(short) in ("COMPLETED", "FAILED"), _LOADED_S)
    assert state(short) == "COMPLETED" and "short step 2/2" in log.read_text(), log.read_text()
    assert json.loads((tmp_path / "runs/short/status.json").read_text())["state"] == "finished"

    long, log = submitted("long", 9999)
    until(lambda: log.is_file() and "long step" in log.read_text(), _LOADED_S)
    asked(slurm_here, "scancel", "--batch", "--signal=TERM", long)
    until(lambda: state(long) == "FAILED", _LOADED_S)
    status = json.loads((tmp_path / "runs/long/status.json").read_text())
    assert status["state"] == "stopped" and status["reason"].startswith("SIGTERM"), log.read_text()
    assert (tmp_path / f"long-{long}.exit").is_file()
    assert not list(tmp_path.glob(".laconic-*")), "the token's folder is left"
    token = str(tmp_path / ".laconic-")
    until(lambda: not [one for one in psutil.process_iter() if token in environment_of(one)], 60)


def test_a_job_that_may_be_preempted_goes_on_until_a_person_stops_it(
    slurm_here: dict[str, str], checkpoints: Callable[[str], Path], tmp_path: Path
):
    name = "again"
    job, log = submitted_to(
        slurm_here, tmp_path, checkpoints("qwen3"), name, 9999, "cluster={kind: apart, preemptible: true}", "train.checkpoint_every=5000"
    )
    left, run = tmp_path / f"{name}-{job}.exit", tmp_path / "runs" / name

    def goes_on(times: int) -> bool:
        parts = log.read_text().split("resumed") if log.is_file() else [""]
        return len(parts) == times + 1 and f"{name} step" in parts[-1]

    until(lambda: goes_on(0), _LOADED_S)
    asked(slurm_here, "scancel", "--batch", "--signal=TERM", job)  # its time is nearly over
    until(lambda: state_of(slurm_here, job) == "PENDING", _LOADED_S)
    assert json.loads((run / "status.json").read_text())["state"] == "stopped" and not left.exists()
    until(lambda: goes_on(1), _LOADED_S)

    saved = {path.name for path in (run / "checkpoints").iterdir()}
    other = asked(slurm_here, "sbatch", "--parsable", "-p", "all", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 1")
    until(lambda: state_of(slurm_here, other) == "COMPLETED", _LOADED_S)  # in its place: a time of grace, of which the steps alone are told
    until(lambda: goes_on(2), _LOADED_S)
    assert "PreemptTime=None" in asked(slurm_here, "scontrol", "show", "job", job), "an error would now be taken for a preemption"
    assert {path.name for path in (run / "checkpoints").iterdir()} - saved, "nothing was saved in the time of grace"
    assert json.loads((run / "status.json").read_text())["state"] == "running" and not left.exists()

    asked(slurm_here, "scancel", "--batch", "--signal=TERM", job)
    asked(slurm_here, "scancel", "--batch", "--signal=INT", job)  # as `laconic stop`, which is for good
    until(lambda: state_of(slurm_here, job) == "FAILED", _LOADED_S)
    assert left.read_text().strip() == "130", log.read_text()
    assert not list(tmp_path.glob(".laconic-*")), "the token's folder is left"
    left.write_text("1")
    asked(slurm_here, "scontrol", "requeue", job)  # a person starts it once more
    until(lambda: goes_on(3), _LOADED_S)
    assert not left.exists()


def test_what_slurm_says_of_jobs_is_told_in_our_words(slurm_here: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("SLURM_CONF", "LACONIC_PYTHON"):
        monkeypatch.setenv(name, slurm_here[name])
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    here, about = Slurm(), {"recipe": "toy", "runs": "/runs", "asks": "1 x (0 GPUs, 2 cores, 1 GB)"}

    def submitted(name: str, lines: str, asks: str = "--cpus-per-task=2", partition: str | None = None) -> str:
        head = f"#!/bin/bash\n#SBATCH --job-name={name}\n#SBATCH --output=%x-%j.log\n#SBATCH --nodes=1\n#SBATCH --ntasks-per-node=1\n#SBATCH {asks}\n"
        return here.submit({"a/b.txt": b"sent"}, f"{head}cat a/b.txt\n{lines}\n", tmp_path / "jobs" / name, partition, about)

    with pytest.raises(JobsError, match=r"--partition: sbatch refuses nope \(.*nvalid partition.*\); there are all, spot$"):
        submitted("none", "", partition="nope")
    with pytest.raises(
        JobsError, match=r"sbatch refuses: .*configuration is not available.*asks for 1 x \(0 GPUs, 2 cores, 1 GB\): --nodes"
    ):
        submitted("none", "", "--mem=64G")
    assert not (tmp_path / "jobs/none").exists()
    never = submitted("never", "", "--cpus-per-task=64")
    until(lambda: "; it asks for 1 x (0 GPUs, 2 cores, 1 GB), which waiting does not mend" in here.job(never).words, 30)
    assert here.stop(never, 30).state == "STOPPED"

    leaves = 'echo 130 > "$SLURM_JOB_NAME-$SLURM_JOB_ID.exit"; exit 130'  # as the batch script does
    runs = submitted("runs", f"trap '{leaves}' INT; sleep 100 & wait")
    until(lambda: here.log(runs) == "sent", 30)
    waits = submitted("waits", "")
    until(lambda: here.job(waits).message.startswith(("Resources", "Priority")), 30)
    assert here.job(waits).words == f"{waits} waits to start: {here.job(waits).message}" and "; it asks for 1 x" in here.job(waits).message
    assert [(job.id, job.state) for job in here.jobs()] == [(never, "STOPPED"), (runs, "RUNNING"), (waits, "PENDING")]
    assert here.stop(waits, 30).state == "STOPPED" and here.stop(runs, 30).words.endswith(
        f"was stopped: exit code 130; `laconic logs {runs}` says more"
    )
    fails = submitted("fails", "exit 3")
    assert "".join(here.follow(fails)) == "sent" and here.job(fails).words.startswith(f"{fails} failed: failed NonZeroExitCode")
    with pytest.raises(UnknownJob):
        here.job("slurm:999999")


def test_jobs_are_submitted_followed_listed_and_stopped(slurm_here: dict[str, str], checkpoints: Callable[[str], Path], tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"problem": f"{n} + 1 = ?", "answer": str(n + 1)}) + "\n" for n in range(16)))
    (tmp_path / "by_length.py").write_text((ROOT / "tests/faults/by_length.py").read_text())
    seen = slurm_here | {"LACONIC_CACHE": str(tmp_path / "cache"), "PYTHONPATH": f"{ROOT}:{tmp_path}", "COLUMNS": "200"}

    def laconic(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launch", *words], env=seen, cwd=tmp_path, capture_output=True, text=True, timeout=_LOADED_S
        )

    def submitted(name: str, steps: int, *more: str) -> subprocess.CompletedProcess[str]:
        words = [word.replace("tests.faults.by_length:", "by_length:") for word in TOY]
        words += [f"name={name}", f"train.steps={steps}", f"model.path={checkpoints('qwen3')}", "data.train=rows.jsonl"]
        sizes = ["--time", "10", "--cpus", "2", "--memory-gb", "3"]
        place = ["--folder", str(tmp_path / "jobs"), "--runs", str(tmp_path / "runs")]
        return laconic("submit", "quickstart", *words, "--slurm", *sizes, *place, *more)

    def job(done: subprocess.CompletedProcess[str]) -> str:
        return re.findall(r"^submitted: (slurm:\d+)\.", done.stdout, re.MULTILINE)[0]

    long = job(submitted("long", 9999))
    until(lambda: "long step" in laconic("logs", long).stdout, _LOADED_S)
    (token,) = tmp_path.glob("jobs/long-*/.laconic-*/token")
    assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() not in laconic("logs", long).stdout
    assert laconic("status", long).returncode == 4
    stopped = laconic("stop", long)
    assert (stopped.returncode, laconic("status", long).returncode) == (0, 5), stopped.stdout + stopped.stderr
    assert json.loads((tmp_path / "runs/long/status.json").read_text())["state"] == "stopped" and not token.parent.exists()

    done = submitted("short", 2, "--follow")
    assert done.returncode == 0 and "short step 2/2" in done.stdout, done.stdout + done.stderr
    assert done.stdout.strip().endswith(f"{job(done)} succeeded; its run: {tmp_path}/runs/short")
    failed = submitted("short", 2, "--follow")
    assert failed.returncode == 1 and "short exists already" in failed.stdout and "failed: exit code 1" in failed.stdout
    listed = [line.split("\t") for line in laconic("jobs", "--slurm").stdout.splitlines()]
    assert [(row[1], row[3]) for row in listed] == [("stopped", "long"), ("succeeded", "short"), ("failed", "short")]


def environment_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("RAY_AUTH_TOKEN_PATH", "")
    except psutil.Error:
        return ""
