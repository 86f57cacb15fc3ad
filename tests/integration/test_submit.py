"""A Ray head on loopback takes jobs: submitted, followed, stopped, and nothing of it is left (P33, P34)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from launch.head import free_ports

ROOT = Path(__file__).parents[2]
Laconic = Callable[..., subprocess.CompletedProcess[str]]
TOY = [
    "engine.kind=reference", "engine.count=1", "learner.ranks=1", "stages=[rl]", "sampler.prompts=4", "sampler.group_size=4", "sampler.keep_groups=all",
    "budget.limit=16", "reward=[{kind: verdict}, {kind: function, name: 'by_length:by_length', weight: 0.1, low: -3, high: 1}]",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user's, with a reward function and data."""
    folder = tmp_path_factory.mktemp("submit")
    (folder / "by_length.py").write_text((ROOT / "tests/faults/by_length.py").read_text())
    (folder / "rows.jsonl").write_text("".join(json.dumps({"problem": f"{n} + 1 = ?", "answer": str(n + 1)}) + "\n" for n in range(16)))
    return folder


@pytest.fixture(scope="module")
def laconic(place: Path) -> Laconic:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"LACONIC_CACHE": str(place / "cache"), "PYTHONPATH": f"{ROOT}{os.pathsep}{place}", "COLUMNS": "200"} | more
        command = [sys.executable, "-m", "launch", *words]
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=240)

    return run


HOLDS_AND_LEAVES = """
import time
from launch.head import join
join("auto")
import ray
from launch.groups import reserve
from launch.machine import Machine
from launch.placement import Group, Placement
from launch.ray_start import start_ray, stop_ray
def free(amount):  # CPUs that Ray says are free, once it says so: it hears late of what was just reserved
    until = time.monotonic() + 60
    while (said := ray.available_resources().get("CPU", 0)) != amount and time.monotonic() < until:
        time.sleep(0.2)
    return said

start_ray(0, 0)
group = Group("PACK", ({"CPU": 1.0},))
options = reserve(Placement((Machine(2, 1),), {"engine": 0.0}, {"engine": [0]}, (group,), {"engine": [(0, 0)]}))
actor = ray.remote(type("A", (), {"answer": lambda self: 1})).options(**options("engine", 0)).remote()
print(ray.get(actor.answer.remote()), free(1))
stop_ray()
start_ray(0, 0)
print(free(2))
"""  # of its two CPUs, as Ray counts them


def soon(holds: Callable[[], bool]) -> bool:
    """Whether something that comes by and by is so in the end."""
    until = time.monotonic() + 90
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.2)
    return held


def of_the_head(place: Path) -> list[psutil.Process]:
    """Processes that the head's token is handed to."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_AUTH_TOKEN_PATH", "").startswith(str(place)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def said(process: psutil.Process) -> list[str]:
    """The command of a process; none of one that ended since."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def head(laconic: Laconic, place: Path) -> Iterator[str]:
    """The dashboard of a head, which is ended by the command for that; then no process is left and a second `down` finds nothing."""
    port = free_ports(1)[0]
    started = laconic("cluster", "up", "--cpus", "2", "--gpus", "0", "--dashboard-port", str(port))
    assert started.returncode == 0, started.stderr
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        ended = laconic("cluster", "down")
    assert ended.returncode == 0 and ended.stdout.startswith("ended: "), ended.stdout + ended.stderr
    assert soon(lambda: not of_the_head(place))
    assert sorted(path.name for path in (place / "cache/cluster").iterdir()) == ["head.log", "lock"]
    assert "no head of `laconic cluster up` runs here" in laconic("cluster", "down").stdout


def test_a_head_is_one_listens_on_loopback_alone_and_keeps_its_token(head: str, laconic: Laconic, place: Path):
    token = place / "cache/cluster/token"
    again = laconic("cluster", "up")
    assert again.returncode == 0 and again.stdout.startswith(f"it runs: {head} takes jobs") and str(token) in again.stdout
    assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() not in again.stdout
    assert soon(lambda: len(of_the_head(place)) > 5)  # some of which come when it answers already
    listening = set()
    for process in of_the_head(place):
        with suppress(psutil.NoSuchProcess):
            listening |= {one.laddr.ip for one in process.net_connections("inet") if one.status == "LISTEN"}
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_job_runs_with_what_was_listed_and_its_end_is_told(head: str, laconic: Laconic, place: Path, checkpoints: Callable[[str], Path]):
    words = ["quickstart", *TOY, "name=toy", f"model.path={checkpoints('qwen3')}", "data.train=rows.jsonl", "train.steps=2"]
    done = laconic("submit", *words, "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"B  (\S+\.\w+)$", done.stdout, re.MULTILINE) == ["recipe.yaml", "by_length.py", "rows.jsonl"]
    name = re.findall(r"^submitted: (toy-\w+)\.", done.stdout, re.MULTILINE)[0]
    assert "toy step 2/2" in done.stdout and f"{name} succeeded; its run: {place}/runs/toy" in done.stdout
    assert json.loads((place / "runs/toy/status.json").read_text())["state"] == "finished"
    status = laconic("status", name)
    assert (status.returncode, status.stdout.strip()) == (0, f"{name} succeeded; its run: {place}/runs/toy")
    assert "toy step 2/2" in laconic("logs", name).stdout

    failed = laconic("submit", *words, "model.path=/gone", "--follow")
    assert failed.returncode == 1 and "failed: Job entrypoint command failed with exit code 1" in failed.stdout
    assert "error: model.path: no folder /gone" in failed.stdout

    long = laconic("submit", *words, "name=long", "train.steps=9999")
    name = re.findall(r"^submitted: (long-\w+)\.", long.stdout, re.MULTILINE)[0]
    file = place / "runs/long/metrics.jsonl"
    assert soon(lambda: file.is_file() and len(file.read_text().splitlines()) >= 3)
    assert laconic("status", name).returncode == 4
    stopped = laconic("stop", name)
    assert "long step" in laconic("logs", name).stdout
    assert (stopped.returncode, laconic("status", name).returncode) == (0, 5), stopped.stdout
    assert json.loads((place / "runs/long/status.json").read_text())["state"] == "stopped"
    assert [line.split("\t")[1] for line in laconic("jobs").stdout.splitlines()] == ["succeeded", "failed", "stopped"]
    of_a_run = ("train", "ray::ReferenceEngine", "ray::LearnerRank")
    assert soon(lambda: not [word for one in of_the_head(place) for word in said(one) if word.startswith(of_a_run)])


def test_what_the_cluster_does_not_take_is_one_sentence(head: str, laconic: Laconic):
    port = head.rpartition(":")[2]
    for words, more, code, said in [
        (["status", "nobody"], {}, 3, "nobody: .* knows no such job"),
        (["logs", "a/b?c"], {}, 3, "knows no such job"),
        (["stop", "nobody"], {}, 3, "knows no such job"),
        (["jobs", "--address", f"127.1:{port}"], {}, 1, "wants a token: set RAY_AUTH_TOKEN_PATH"),
        (["jobs", "--address", f"127.1:{port}"], {"RAY_AUTH_TOKEN": "wrong"}, 1, "refuses the token"),
        (["jobs", "--address", f"localhost:{free_ports(1)[0]}"], {}, 1, "nothing answers at .*is the head up"),
        (["plan", "quickstart", "--address", f"127.0.0.1:{port}"], {}, 1, "no Ray that drivers join answers at .*8265 is its dashboard"),
    ]:
        done = laconic(*words, **more)
        assert done.returncode == code and re.search(said, done.stdout + done.stderr), (words, done.stdout, done.stderr)
        assert len((done.stdout + done.stderr).strip().splitlines()) == 1


def test_a_driver_joins_the_head_and_plans_for_its_nodes(head: str, laconic: Laconic):
    done = laconic("plan", "quickstart", *TOY[:-1], "cluster={kind: apart, nodes: 2}", "--address", "auto")
    assert "cluster.nodes: 2 are wanted and 1 there" in done.stdout + done.stderr


def test_a_driver_that_leaves_frees_its_actors_and_groups_and_the_head_stays(head: str, laconic: Laconic, place: Path):
    environment = os.environ | {"LACONIC_CACHE": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", HOLDS_AND_LEAVES], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "1.0", "2.0"], done.stdout + done.stderr
    assert laconic("jobs").returncode == 0
