"""Asking a cluster for jobs: which cluster, with which token, and what its answers come to; which Ray a driver joins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from launch import cli, head
from launch.inventory import granted, ordered
from launch.jobs import Cluster, Job, JobsError, UnknownJob
from launch.machine import Machine
from launch.plan import plan
from launch.ray_start import RayStartError, _why, start_ray
from recipes.loader import load

OURS = version("ray")


class Dashboard(BaseHTTPRequestHandler):
    """Answers what it is told to, by path, and keeps what it heard."""

    answers: dict[str, tuple[int, str]] = {}
    heard: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        self.heard.append((self.path, self.headers["Authorization"]))
        status, text = self.answers.get(self.path, (404, "not found"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "https://sso.example/login?of=me")
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither head nor token of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "LACONIC_RAY"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def dashboard() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Dashboard.answers, Dashboard.heard = {"/api/version": (200, json.dumps({"ray_version": OURS}))}, []
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def refusal(address: str | None) -> str:
    with pytest.raises(JobsError) as refused:
        Cluster(address)
    return str(refused.value)


def test_a_dashboard_that_is_none_or_has_another_ray_is_refused_in_a_sentence(dashboard: str):
    for answer, said in [
        ((200, json.dumps({"ray_version": "2.9.0"})), f"has Ray 2.9.0 and here is Ray {OURS}; both must be the same"),
        ((200, '{"ray_version": null}'), "is no Ray dashboard: it names no version of Ray"),
        ((200, ""), "is no Ray dashboard: it names no version of Ray"),
        ((302, "found"), "leads on to https://sso.example/login: name the dashboard itself"),
        ((200, "<html>hello</html>"), "is no Ray dashboard: it answers with something else than JSON"),
        ((200, "[]"), "is no Ray dashboard: it answers with other JSON than one does"),
        ((404, "not found"), "refuses: not found"),
        ((404, "<!DOCTYPE html>\n<html>\n</html>"), "is no Ray dashboard: it answers with a page (status 404)"),
        (
            (500, "aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host"),
            "the node of this head does not answer, so it takes no jobs; end it",
        ),
        ((500, "Traceback ...\nValueError: out of order"), "refuses: ValueError: out of order"),
        ((401, "Unauthorized"), "wants a token: set RAY_AUTH_TOKEN_PATH"),
        ((403, "Forbidden"), "refuses the token: set RAY_AUTH_TOKEN_PATH"),
    ]:
        Dashboard.answers = {"/api/version": answer}
        assert said in refusal(dashboard)


@pytest.mark.parametrize("address", ["ftp://host", "http://", "host:port", "http://host:99999999", "ray://host:10001", ""])
def test_an_address_that_is_no_url_is_refused(address: str):
    said = refusal(address)
    assert ("no URL of a dashboard" if address else "--address: which cluster?") in said


def test_a_dry_run_refuses_where_it_is_known_what_the_cluster_cannot_take(monkeypatch: pytest.MonkeyPatch):
    def said(*words: str) -> str:
        done = CliRunner().invoke(cli.app, ["submit", "dler", "--scale", "tiny", "--dry-run", *words])
        return "" if done.exit_code == 0 else " ".join(done.output.split())

    assert said("--runs", "http://host/runs", "--address", "http://host:8265").endswith("by its own protocol (s3://, gs://)")
    assert "--runs: own is relative" in said("--runs", "own", "--address", "http://host:8265")
    assert "--runs: name a folder that all nodes of the cluster see" in said("--address", "http://host:8265")
    assert said("--runs", "own", "--address", "http://localhost:8265") == said() == said("--runs", "/own", "--address", "host") == ""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "host:8265")
    assert "--runs: own is relative" in said("--runs", "own")


@pytest.mark.parametrize(
    "command",
    [["submit", "--address", "http://host:8265"], ["submit", "--slurm", "--nodes", "1", "--folder", "jobs"], ["manifest", "slurm"]],
)
@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ("s3://me:secret@bucket/runs", "a password does not belong into a URL"),
        ("simplecache::s3://bucket/runs", "a chain of file systems is not written to"),
        ("memory://runs", "is gone with the process that writes it"),
        ("s3://", "names no place"),
        (" ", "names no place"),
    ],
)  # fmt: skip
def test_what_no_run_can_be_written_to_is_refused_before_anything_is_sent_or_shown(command: list[str], runs: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, [*command, "dler", "--scale", "node8", "--runs", runs])
    assert done.exit_code == 1 and words in " ".join(done.output.split()) and "secret" not in done.output
    assert "recipe.yaml" not in done.output and not (tmp_path / "jobs").exists()


def test_auto_is_the_head_of_this_machine(dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "--address: which cluster?" in refusal("auto")
    (tmp_path / "token").write_text("own")
    here = head.Head(1, 1.0, dashboard, "127.0.0.1:2", tmp_path / "token")
    monkeypatch.setattr("launch.jobs.this_head", lambda: here)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:8265")
    Cluster("auto")
    (tmp_path / "token").unlink()
    Cluster("auto")  # it wants none that nobody has
    assert Dashboard.heard == [("/api/version", "Bearer own"), ("/api/version", None)]


def test_runs_that_cannot_be_written_here_are_refused_for_the_head_here_and_asked_of_no_other(dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    (tmp_path / "token").write_text("own")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("launch.jobs.this_head", lambda: head.Head(1, 1.0, dashboard, "127.0.0.1:2", tmp_path / "token"))
    words = ["submit", "dler", "--scale", "tiny", "--dry-run", "--runs", str(tmp_path / "file")]
    refused, other = (CliRunner().invoke(cli.app, [*words, "--address", where]) for where in (f" {dashboard} ", "http://host:8265"))
    assert refused.exit_code == 1 and "choose another folder (--runs)" in " ".join(refused.output.split()), refused.output
    assert other.exit_code == 0 and Dashboard.heard == []


def test_a_password_in_an_address_is_refused_without_being_repeated():
    said = refusal("http://me:hunter2@host:8265")
    assert "a password does not belong there" in said and "hunter2" not in said


def test_the_token_comes_from_where_ray_looks(dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def sent() -> str | None:
        Cluster(dashboard)
        return Dashboard.heard[-1][1]

    assert sent() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("at home\n")
    assert sent() == "Bearer at home"
    (tmp_path / "named").write_text("named\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert sent() == "Bearer named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "said")
    assert sent() == "Bearer said"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    assert "RAY_AUTH_TOKEN_PATH: " in refusal(dashboard)
    (tmp_path / "named").write_bytes(b"\xff\xc3hush")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert refusal(dashboard) == f"{tmp_path}/named holds no token: one is a single line of ASCII characters"
    for token in ("hush\nhush", "hush\u00e4"):
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        assert refusal(dashboard) == "RAY_AUTH_TOKEN holds no token: one is a single line of ASCII characters"


def test_jobs_are_told_in_their_order_with_what_became_of_them(dashboard: str):
    done = {"submission_id": "b", "status": "SUCCEEDED", "start_time": 2000, "end_time": 5000, "message": "Job finished successfully."}
    said = {"metadata": {"laconic_recipe": "dler", "laconic_runs": "/runs"}}
    failed = {"submission_id": "a", "status": "FAILED", "start_time": 1000, "message": "exit code 1, last available logs (truncated):\nx"}
    driver = {"submission_id": None, "status": "RUNNING", "job_id": "02000000"}
    Dashboard.answers |= {
        "/api/jobs/": (200, json.dumps([done | said, driver, failed])),
        "/api/jobs/a%2Fb%20%3F": (200, json.dumps(failed)),
    }
    cluster = Cluster(dashboard)
    assert [(job.id, job.exit_code, job.words) for job in cluster.jobs()] == [
        ("a", 1, "a failed: exit code 1"),
        ("b", 0, "b succeeded; its run: /runs/dler"),
    ]
    assert cluster.jobs()[1].seconds == 3
    assert cluster.job("a/b ?").id == "a"
    for name in ("nobody", "", "../version"):
        with pytest.raises(UnknownJob, match="knows no such job"):
            cluster.job(name)
    for odd in ([1, "x"], [failed | {"start_time": "soon"}], [failed | {"metadata": "none"}]):
        Dashboard.answers |= {"/api/jobs/": (200, json.dumps(odd)), "/api/jobs/a": (200, json.dumps(odd[-1]))}
        for asked in (cluster.jobs, lambda: cluster.job("a")):
            with pytest.raises(JobsError, match="is no Ray dashboard: it answers with other JSON than one does"):
                asked()
    Dashboard.answers |= {"/api/jobs/a/logs": (200, '{"logs": "half \\ud83d\\n"}')}
    assert cluster.log("a") == "half ?\n"
    assert Job("red\x1b[31m", "FAILED", "\x1b[31mx").words == "red[31m failed: [31mx"
    assert [Job("x", state).exit_code for state in ("PENDING", "RUNNING", "STOPPED", "NEW STATE")] == [4, 4, 5, 4]


def test_a_log_is_followed_through_requests_that_fail_but_not_where_the_first_one_does(dashboard: str, monkeypatch: pytest.MonkeyPatch):
    def job(state: str) -> Job:
        return Job("a", state, "")

    def asked(*said: Job | JobsError) -> Cluster:
        cluster, left = Cluster(dashboard), [*said]

        def answer(name: str) -> Job:
            if isinstance(now := left.pop(0), JobsError):
                raise now
            return now

        monkeypatch.setattr(cluster, "job", answer)
        monkeypatch.setattr(cluster, "log", lambda name: "abc"[: 3 - len(left)])
        return cluster

    monkeypatch.setattr("launch.jobs._LOOK_S", (0.0, 0.0))
    away = JobsError("did not answer")
    assert "".join(asked(job("RUNNING"), away, job("SUCCEEDED")).follow("a")) == "abc"
    with pytest.raises(JobsError, match="did not answer"):
        next(asked(away, job("RUNNING")).follow("a"))
    with pytest.raises(UnknownJob):
        [*asked(job("RUNNING"), UnknownJob("a")).follow("a")]
    monkeypatch.setattr("launch.jobs._AWAY_S", 0.0)
    with pytest.raises(JobsError, match="did not answer"):
        [*asked(job("RUNNING"), away).follow("a")]


def test_a_driver_joins_where_it_is_told_or_whose_job_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert head.joined_address() is None  # somebody's shell
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert head.joined_address() == "10.0.0.1:6379"
    (raylet := tmp_path / "raylet").symlink_to("/bin/sh")  # another Ray was started here since
    command = f"{sys.executable} -c 'from launch.head import joined_address; print(joined_address())' && true"
    asked = subprocess.run([raylet, "-c", command, "--gcs-address=10.0.0.3:6379"], stdout=subprocess.PIPE, text=True, check=True)
    assert asked.stdout == "10.0.0.3:6379\n"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    head.join("10.0.0.2:6379")
    assert head.joined_address() == "10.0.0.2:6379"
    assert os.environ["RAY_AUTH_MODE"] == "token" and head.LOOPBACK not in os.environ
    head.join("localhost:6379")
    assert os.environ[head.LOOPBACK] == "0"
    head.join("10.0.0.2:6379")  # from a shell that has what is for loopback
    assert head.LOOPBACK not in os.environ
    for name in (head.ADDRESS, "RAY_AUTH_MODE"):
        del os.environ[name]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nohost.invalid:6379", "host", "host:x", "[::1]:1"])
def test_a_ray_that_is_not_there_is_refused_before_ray_is_asked(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(head.ADDRESS, address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests of this process may have one
    with pytest.raises(RayStartError, match=r"no Ray that drivers join answers at .*8265 is its dashboard"):
        start_ray(num_cpus=1, num_gpus=0)


def test_auto_is_refused_where_the_ray_that_was_here_is_gone(monkeypatch: pytest.MonkeyPatch):
    """A job of another's, or a machine that was started again, leaves the file in which Ray looks."""
    monkeypatch.setenv(head.ADDRESS, "auto")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("launch.ray_start.canonicalize_bootstrap_address", lambda address: "127.0.0.1:1")
    with pytest.raises(
        RayStartError, match=r"--address auto: the Ray that was last started or joined here, at 127.0.0.1:1, does not answer"
    ):
        start_ray(num_cpus=1, num_gpus=0)


def test_why_a_ray_cannot_be_joined_is_said_in_a_sentence():
    other = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\nThis process on node 10.0.0.1:6379 was started with:\n"
        f"    Ray: {OURS}\n    Python: 3.11.7\n"
    )
    assert (
        _why(RuntimeError(other)) == f"it has Ray 2.9.0 on Python 3.10.1, and here are Ray {OURS} and Python 3.11.7; both must be the same"
    )
    assert "wants another token" in _why(ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"))


def test_a_dashboard_is_no_ray_that_drivers_join(dashboard: str):
    assert not head.speaks_grpc(dashboard.removeprefix("http://"), 5)


def test_a_taken_port_is_said_before_a_head_starts(dashboard: str, tmp_path: Path):
    with pytest.raises(head.HeadError, match=r"--dashboard-port: \d+ is taken on 127.0.0.1; name a free one \(--dashboard-port \d+\)"):
        head.up(1, 0, int(dashboard.rpartition(":")[2]))
    with pytest.raises(head.HeadError, match="--dashboard-port: Ray gives 10002 to 19999 to its workers; name another"):
        head.up(1, 0, 18266)
    assert head.this_head() is None and head.down() is None


def test_a_head_that_is_gone_or_whose_file_is_torn_is_none(tmp_path: Path):
    file = tmp_path / "cluster/head.json"
    file.parent.mkdir()
    whole = {"pid": os.getpid(), "started": 1.0, "url": "http://127.0.0.1:1", "address": "127.0.0.1:2", "token": "token"}
    for text in ("", "{", "[]", "{}", json.dumps(whole), json.dumps(whole | {"pid": 2**22 + 1}), json.dumps(whole | {"more": 1})):
        file.write_text(text)  # this process's id, with another moment of its start, is another's
        assert head.this_head() is None and head.down() is None
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # whose parent has not asked yet
        file.write_text(json.dumps(whole | {"pid": ended.pid, "started": psutil.Process(ended.pid).create_time()}))
        assert head.this_head() is None


def test_a_head_and_its_jobs_see_no_others_address_token_or_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR", head.ADDRESS):
        monkeypatch.setenv(name, "another's")
    monkeypatch.setenv("no_proxy", "inside.example")
    seen = head._environment(tmp_path / "token")
    assert "another's" not in seen.values()
    assert (seen["RAY_AUTH_MODE"], seen["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "token"))
    assert seen["NO_PROXY"] == seen["no_proxy"] == "inside.example,127.0.0.1,localhost"


def test_a_node_gives_what_ray_may_hand_out_and_plan_looks_at_every_node():
    whole = Machine(64, 256 * 10**9, (80 * 10**9,) * 8, "cuda", cards=("H",) * 8)
    node = granted(whole, {"Resources": {"CPU": 16.0, "GPU": 4.0, "object_store_memory": 8e9}, "NodeManagerAddress": "10.0.0.7"})
    assert (node.cores, len(node.gpus), len(node.cards), node.name) == (16, 4, 4, "10.0.0.7")
    assert (node.lends, node.shared) == (16, 8 * 10**9)
    boasts = granted(whole, {"Resources": {"CPU": 128.0}, "NodeManagerAddress": "10.0.0.8"})  # ray start --num-cpus=128
    assert (boasts.cores, boasts.lends, boasts.shared) == (64, 128, None)
    front = granted(whole, {"Resources": {}, "NodeManagerAddress": "10.0.0.1"})  # a head that runs nothing
    assert (front.cores, front.lends, front.gpus) == (1, 0, ())
    recipe = load("dler", "node8")
    made = plan(recipe, front, [node, node])
    assert made.device == "cuda" and made.placement.faults == () and made.others == (node, node)
    assert {at for name in ("engine", "learner") for at in made.placement.at[name]} == {1, 2}


def test_the_drivers_node_is_first_whatever_its_address():
    nodes = [
        {"NodeID": name, "NodeManagerAddress": f"10.0.0.{index}", "Resources": {"CPU": index}}
        for index, name in ((3, "a"), (1, "b"), (2, "c"))
    ]
    machines = [Machine(cores, 10**9) for cores in (30, 10, 20)]
    assert [(node.name, node.cores, node.lends) for node in ordered(machines, nodes, "c")] == [
        ("10.0.0.2", 2, 2), ("10.0.0.1", 1, 1), ("10.0.0.3", 3, 3),
    ]  # fmt: skip
