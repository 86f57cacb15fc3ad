"""Two Ray nodes, each in a network namespace, with a token: a run over both, whose link is cut and of which a node is killed and brought back.

Both see one file system, the machine's own, but for one folder that the second node has for itself. Skipped for whoever is not root, and where namespaces or
bridges cannot be made. All that was made is removed however the tests end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "10.77.0.1", "10.77.0.2"
HEAD = f"{FIRST}:6379"
OURS, SPACES = "laconic-two-", ("hub", "a", "b")
STEPS = 12
pytestmark = pytest.mark.timeout(900)
TOY = [
    "device=cpu", "engine.count=2", "learner.ranks=2", "judge.workers=1", "stages=[rl]", "sampler.prompts=4", "sampler.group_size=4", "sampler.keep_groups=all",
    f"train.steps={STEPS}", "train.checkpoint_every=1", "train.samples_per_step=100", "publish.check_every=2",
    "reward=[{kind: verdict}, {kind: function, name: 'tests.faults.by_length:by_length', weight: 0.1, low: -3, high: 1}]",
]  # fmt: skip
QUICKLY = {  # Ray notices a node that is gone after 9 s, in place of a minute
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


ENVIRONMENTS = f"""
import json, os
from launch.head import join
join("{HEAD}")
from launch.inventory import asked
from launch.ray_start import start_ray, stop_ray
import ray
def environment():
    return dict(os.environ)
found = asked(["{FIRST}", "{SECOND}"], "does not say", environment)
print(json.dumps([ray.util.get_node_ip_address(), environment(), *found]))
stop_ray()
"""


def ip(*words: str) -> bool:
    return shutil.which("ip") is not None and subprocess.run(["ip", *words], capture_output=True, timeout=20).returncode == 0


@dataclass
class Nodes:
    """Two namespaces at a bridge in a third, with a node of Ray in each of the two."""

    folder: Path
    name: str

    def inside(self, node: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.name}-{node}"]

    def processes(self, node: str, title: str = "") -> list[psutil.Process]:
        """Those in a namespace whose command line holds a word."""
        if not (Path("/run/netns") / f"{self.name}-{node}").exists():
            return []
        found = subprocess.run(["ip", "netns", "pids", f"{self.name}-{node}"], capture_output=True, text=True).stdout.split()
        made = []
        for pid in map(int, found):
            try:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE and title in " ".join(process.cmdline()):
                    made.append(process)
            except psutil.Error:
                continue
        return made

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LACONIC_")) and "proxy" not in name.lower()
        }
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "token")}
        return (
            kept
            | QUICKLY
            | token
            | {"PYTHONPATH": str(ROOT), "LACONIC_CACHE": str(self.folder / "cache"), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        )

    def up(self, node: str) -> None:
        """Start Ray on a node, and wait until it is one of the cluster."""
        head = ["--head", "--port=6379", f"--node-ip-address={FIRST}", "--include-dashboard=false"]
        at = head if node == "a" else [f"--address={HEAD}", f"--node-ip-address={SECOND}"]
        options = ["--block", "--disable-usage-stats", "--include-log-monitor=false", "--object-store-memory=200000000"]
        options.append(
            "--num-cpus=2" if node == "a" else "--num-cpus=1"
        )  # driver and judge take more than one, so that engines and ranks spread
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *at, *options]
        alone = f'mount -t tmpfs none {self.folder}/alone && exec "$@"' if node == "b" else 'exec "$@"'  # of a namespace of mounts
        file, command = self.folder / f"{node}.log", [*self.inside(node), "sh", "-c", alone, "sh", *ray]
        with open(file, "w") as log:
            started = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        until(lambda: started.poll() is not None or "Ray runtime started" in file.read_text(), 120)
        assert started.poll() is None, file.read_text()

    def down(self, node: str) -> None:
        """End all that runs on a node, at once, as a loss of power does."""
        while left := self.processes(node):
            for process in left:
                process.kill()
            time.sleep(0.2)

    def cut(self) -> None:
        """Packets between the nodes are lost from now on; neither of them is told."""
        assert ip("-n", f"{self.name}-hub", "link", "set", "to-b", "nomaster")

    def mend(self) -> None:
        assert ip("-n", f"{self.name}-hub", "link", "set", "to-b", "master", "bridge")

    def train(self, name: str, *words: str) -> subprocess.Popen[str]:
        """A driver on the first node."""
        command = [sys.executable, "-m", "launch", "train", "quickstart", *TOY, f"name={name}", *words]
        if not any(word.startswith("--runs") for word in words):
            command.append(f"--runs={self.folder}/runs")
        command += ["--address", HEAD]
        return subprocess.Popen(
            [*self.inside("a"), *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def until(holds: Callable[[], Any], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], within_s: float) -> tuple[int, str]:
    """Exit code and output of a driver."""
    try:
        return process.wait(within_s), process.communicate()[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        process.kill()
        raise AssertionError(f"the driver did not end within {within_s} s:\n{process.communicate()[0]}") from None


def network(name: str) -> bool:
    """Make two namespaces at a bridge in a third; whether that is possible here."""
    hub = ["-n", f"{name}-hub", "link"]
    made = all(ip("netns", "add", f"{name}-{one}") and ip("-n", f"{name}-{one}", "link", "set", "lo", "up") for one in SPACES)
    made = made and ip(*hub, "add", "bridge", "type", "bridge") and ip(*hub, "set", "bridge", "up")
    for node, address in (("a", FIRST), ("b", SECOND)):
        own = ["-n", f"{name}-{node}"]
        made = made and ip(*hub, "add", f"to-{node}", "type", "veth", "peer", "name", "eth0", "netns", f"{name}-{node}")
        made = made and ip(*hub, "set", f"to-{node}", "master", "bridge", "up")
        made = made and ip(*own, "addr", "add", f"{address}/24", "dev", "eth0") and ip(*own, "link", "set", "eth0", "up")
    return made


def remove(name: str) -> None:
    """End what is in the namespaces, and remove them."""
    for one in SPACES:
        Nodes(Path(), name).down(one)
        ip("netns", "del", f"{name}-{one}")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    for left in Path("/run/netns").glob(f"{OURS}*-hub"):  # of a test that was killed
        if not psutil.pid_exists(int(left.name.removeprefix(OURS).removesuffix("-hub"))):
            remove(left.name.removesuffix("-hub"))
    made = Nodes(tmp_path_factory.mktemp("two"), f"{OURS}{os.getpid()}")
    try:
        if os.geteuid() != 0 or not network(made.name):
            pytest.skip("no network namespaces with a bridge here, or not root")
        (made.folder / "token").write_text(os.urandom(32).hex())
        (made.folder / "alone").mkdir()
        rows = ({"problem": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(16))
        (made.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        made.up("a")
        made.up("b")
        yield made
    finally:
        remove(made.name)


@pytest.fixture(scope="module")
def words(checkpoints: Callable[[str], Path]) -> list[str]:
    """What reference engines are asked for, so that a run is the same however often it was ended."""
    return ["engine.kind=reference", "budget.limit=24", f"model.path={checkpoints('qwen3')}", "data.train=rows.jsonl"]


@pytest.fixture(scope="module")
def alone(nodes: Nodes, words: list[str]) -> Path:
    """A run that nobody disturbs; while it runs, engines and ranks are on both nodes, and the ranks speak to each other between them."""
    run = nodes.train("alone", *words)
    seen, met = set(), False
    while run.poll() is None:
        seen |= {
            (node, title) for node in ("a", "b") for title in ("ReferenceEngine", "LearnerRank") if nodes.processes(node, f"ray::{title}")
        }
        met = met or bool(between(nodes.processes("a", "ray::LearnerRank"), nodes.processes("b", "ray::LearnerRank")))
        time.sleep(0.2)
    code, output = ended(run, 10)
    assert code == 0, output
    assert len(seen) == 4 and met, seen
    return nodes.folder / "runs/alone"


def between(ones: list[psutil.Process], others: list[psutil.Process]) -> set[Any]:
    """Connections from the first processes to the second ones."""
    return ends(ones) & {(there, here) for here, there in ends(others)}


def ends(processes: list[psutil.Process]) -> set[tuple[str, str]]:
    """Both addresses of each connection of processes, as their own namespace has them (psutil looks into this process' own)."""
    found = set()
    for process in processes:
        try:
            place = Path(f"/proc/{process.pid}")
            sockets = {os.readlink(file) for file in (place / "fd").iterdir()}
            rows = [line.split() for line in (place / "net/tcp").read_text().splitlines()[1:]]
        except OSError:
            continue
        found |= {(row[1], row[2]) for row in rows if f"socket:[{row[9]}]" in sockets}
    return found


def record(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without clocks, and without what a resumed run checks once more at its first step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    left_out = ("seconds/", "time", "tokens_per_s", "publish/check", "gate/", "engine")
    return [{key: value for key, value in line.items() if not key.startswith(left_out)} for line in lines]


def is_as(folder: Path, other: Path) -> bool:
    """Whether two runs have the same record, and made the same weights."""
    last = f"checkpoints/step-{STEPS}/model.safetensors"
    return record(folder) == record(other) and (folder / last).read_bytes() == (other / last).read_bytes()


def steps(folder: Path) -> int:
    try:
        return len((folder / "metrics.jsonl").read_text().splitlines())
    except OSError:
        return 0


def test_a_run_over_two_nodes_learns_and_leaves_its_record(alone: Path):
    assert json.loads((alone / "status.json").read_text())["state"] == "finished"
    lines = record(alone)
    assert len(lines) == STEPS and all(line["mismatch/mean"] < 1e-4 and line["grad_norm"] > 0 for line in lines)


def test_a_driver_that_joins_and_the_nodes_have_nothing_in_their_environment_that_is_for_loopback(nodes: Nodes):
    leaky = nodes.environment | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # a shell of someone who had a head of his own
    done = subprocess.run([*nodes.inside("a"), sys.executable, "-c", ENVIRONMENTS], env=leaky, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    address, *environments = json.loads(done.stdout.splitlines()[-1])
    assert address == FIRST and len(environments) == 3
    for environment in environments:
        assert environment["RAY_AUTH_TOKEN_PATH"] == str(nodes.folder / "token")
        assert not {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "RAY_AUTH_TOKEN"} & environment.keys()


def test_what_only_one_node_has_is_refused_with_the_name_of_the_other(nodes: Nodes, words: list[str], checkpoints: Callable[[str], Path]):
    own = nodes.folder / "alone"
    cases = {
        (
            "unseen",
            f"--runs={own}/runs",
        ): rf"{own}/runs: node {SECOND} does not see it: name a folder on storage that all nodes share \(--runs\)",
        ("unread", f"model.path={own}/qwen3"): rf"model.path: node {SECOND} has no {own}/qwen3; put it on storage that all nodes share",
    }
    subprocess.run(["cp", "-r", checkpoints("qwen3"), own / "qwen3"], check=True)
    for (name, word), said in cases.items():
        code, output = ended(nodes.train(name, *words, word), 120)
        assert code == 1 and re.search(said, " ".join(output.split())), output
        assert not (nodes.folder / "runs" / name).exists()
        assert not [path for path in own.iterdir() if path.name != "qwen3"]


def test_a_cut_that_ends_soon_costs_nothing_but_time(nodes: Nodes, words: list[str], alone: Path):
    run = nodes.train("short-cut", *words)
    for title in ("ray::ReferenceEngine.advance", "ray::LearnerRank.go_on"):  # mid-rollout, mid-update
        until(lambda title=title: run.poll() is not None or nodes.processes("b", title), 240)
        nodes.cut()
        time.sleep(2)
        nodes.mend()
    code, output = ended(run, 300)
    assert code == 0, output
    assert is_as(nodes.folder / "runs/short-cut", alone)


@pytest.mark.parametrize(("name", "title"), [("in-rollout", "ray::ReferenceEngine.advance"), ("in-update", "ray::LearnerRank.go_on")])
def test_a_cut_that_stays_ends_the_run_with_the_name_of_the_node_and_a_resumed_one_is_as_if_nothing_had_been(
    nodes: Nodes, words: list[str], alone: Path, name: str, title: str
):
    run, folder = nodes.train(name, *words), nodes.folder / "runs" / name
    until(lambda: run.poll() is not None or (steps(folder) and nodes.processes("b", title)), 240)
    nodes.cut()
    code, output = ended(run, 400)
    assert code == 1 and SECOND in output, output
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"
    nodes.mend()
    nodes.down("b")
    nodes.up("b")
    code, output = ended(nodes.train(name, *words, "--resume"), 300)
    assert code == 0, output
    assert is_as(folder, alone)


def test_a_node_that_is_killed_and_comes_back_leaves_the_record_of_an_undisturbed_run(nodes: Nodes, words: list[str], alone: Path):
    run, folder = nodes.train("killed", *words), nodes.folder / "runs/killed"
    until(lambda: run.poll() is not None or steps(folder) >= 2, 240)
    nodes.down("b")
    code, output = ended(run, 400)
    assert code == 1 and SECOND in output, output
    nodes.up("b")
    code, output = ended(nodes.train("killed", *words, "--resume"), 300)
    assert code == 0, output
    assert is_as(folder, alone)


def test_vllm_engines_of_two_nodes_get_their_weights(nodes: Nodes, checkpoints: Callable[[str], Path], vllm_on_cpu: None):
    words = ["train.steps=2", "budget.limit=24", f"model.path={checkpoints('qwen3')}", "data.train=rows.jsonl"]
    code, output = ended(nodes.train("vllm", *words), 600)
    assert code == 0, output
    assert all(line["mismatch/mean"] < 1e-4 for line in record(nodes.folder / "runs/vllm"))
