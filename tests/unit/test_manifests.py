"""Recipes as jobs of Kubernetes and Slurm: what they ask for is what the plan places, and the files are well formed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from launch import cli, manifests
from launch.bundle import BundleError
from launch.machine import Machine
from launch.manifests import Nodes, anywhere, kuberay, nodes_for, refuse_hopeless, slurm
from launch.plan import PlanError, plan
from recipes.loader import dump, load

CRD = Path(__file__).parents[3] / "shared/data/kuberay/ray.io_rayjobs.yaml"
SIZES = {"gpu_gb": 80, "cpus": 16, "gigabytes": 256}


@pytest.mark.parametrize(
    "scale, words, count, gpus, expected",
    [
        ("node8", [], None, None, (1, 8)),
        ("node8", [], 4, None, (2, 4)),  # engines on one, ranks on another
        ("node8", ["cluster={kind: apart, nodes: 2, gpus_per_node: 4}"], None, None, (2, 4)),
        ("node8", [], 4, 2, (4, 2)),
        ("node8", ["engine.count=12"], 2, 8, (2, 8)),
        ("node8-colocated", [], None, None, (1, 8)),
        ("gpu1-80", [], None, 1, (1, 1)),
        ("gpu1-80", [], None, None, (1, 1)),
        ("tiny", ["device=cpu"], None, None, (1, 0)),
    ],
)
def test_a_job_asks_for_the_nodes_and_gpus_that_the_plan_places(scale, words, count, gpus, expected):
    nodes = nodes_for(load("dler", scale, words), count, gpus, **SIZES)
    assert (nodes.count, nodes.gpus) == expected


def test_what_does_not_fit_the_nodes_is_refused_with_the_arithmetic():
    with pytest.raises(PlanError, match=r"device: cuda needs 8 GPUs .* and 2 nodes have 2 \+ 2 = 4"):
        nodes_for(load("dler", "node8"), 2, 2, **SIZES)
    with pytest.raises(PlanError, match=r"and the one node has 2; lower"):  # not this machine, which is not meant
        nodes_for(load("dler", "node8"), 1, 2, **SIZES)
    with pytest.raises(PlanError, match="memory: the processes"):
        nodes_for(load("dler", "node8"), 1, 8, **SIZES | {"gigabytes": 2})


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}\n')
    (tmp_path / "table.parquet").write_bytes(b"PAR1\xff\xfe")
    recipe = load("dler", "node8", ["data.train=rows.jsonl", "name=My run_2"])
    return list(yaml.safe_load_all(kuberay(recipe, Nodes(3, 8, 16, 128), "registry/laconic:1", "claim", [Path("table.parquet")])))


def test_a_rayjob_runs_the_recipe_on_all_nodes_with_a_token(made: list[dict[str, Any]]):
    config, job = made
    assert (config["kind"], job["kind"], job["apiVersion"]) == ("ConfigMap", "RayJob", "ray.io/v1")
    assert config["metadata"]["name"] == job["metadata"]["name"] == "my-run-2"
    cluster = job["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert cluster["authOptions"] == {"mode": "token"} and workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 2
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "registry/laconic:1"
        assert (
            container["resources"]["limits"] == {"cpu": "16", "memory": "128G", "nvidia.com/gpu": "8"} == container["resources"]["requests"]
        )
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        placed = {item["path"]: item["key"] for volume in pod["volumes"] for item in volume.get("configMap", {}).get("items", [])}
        assert set(placed) == {"recipe.yaml", "rows.jsonl", "table.parquet"}
        assert set(placed.values()) == set(config["data"]) | set(config["binaryData"])
    assert config["data"][placed["recipe.yaml"]] == dump(load("dler", "node8", ["data.train=rows.jsonl", "name=My run_2"]))
    assert job["spec"]["entrypoint"].endswith('python -m launch train recipe.yaml --runs /laconic/runs"')


def test_the_entrypoint_of_a_rayjob_runs_whole_where_ray_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """KubeRay's submitter is a pod without the job's files, whose shell reads `ray job submit ... -- ENTRYPOINT ;`; Ray's command joins the words that
    it gets, and a shell of the head reads them again."""
    monkeypatch.setattr(manifests, "_JOB", str(tmp_path / "job"))
    _, job = yaml.safe_load_all(kuberay(load("dler", "node8"), Nodes(2, 8, 16, 128), "registry/laconic:1", "claim"))
    programs, head, submitter = (tmp_path / name for name in ("programs", "job", "submitter"))
    for folder in (programs, head, submitter):
        folder.mkdir()
    stubs = {
        "ray": f"#!{sys.executable}\nimport subprocess, sys\nwords = sys.argv[sys.argv.index('--') + 1 :]\nsubprocess.run(subprocess.list2cmdline(words), shell=True)\n",
        "python": '#!/bin/sh\necho "$PWD: $*"\n',
    }
    for name, text in stubs.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    line = f"if ! ray job status x >/dev/null 2>&1 ; then ray job submit --address http://head:8265 -- {job['spec']['entrypoint']} ; fi"
    variables = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ce", "--", line], capture_output=True, text=True, env=variables, cwd=submitter)
    assert done.stdout == f"{head}: -m launch train recipe.yaml --runs /laconic/runs\n"


@pytest.mark.skipif(not CRD.is_file(), reason="the published schema of RayJob is not here")
def test_a_rayjob_is_one_by_the_published_schema(made: list[dict[str, Any]]):
    jsonschema = pytest.importorskip("jsonschema")
    definition = yaml.load(CRD.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # 2 MB; the plain loader takes half a minute
    version = next(one for one in definition["spec"]["versions"] if one["name"] == "v1")
    schema = jsonschema.Draft7Validator(strict(version["schema"]["openAPIV3Schema"]))
    assert [error.message for error in schema.iter_errors(made[1])] == []
    made[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("groupName")
    assert not schema.is_valid(made[1])
    assert not schema.is_valid({"spec": {"entrypiont": "x"}})


def strict(schema: Any) -> Any:
    """As Kubernetes reads a schema: what is not named is refused, but for objects that say otherwise or name nothing; int-or-string is either."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
        found.pop("pattern", None)
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        named = {key: strict(value) for key, value in schema["properties"].items()}
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        found |= {"properties": named} | ({} if open_ended else {"additionalProperties": False})
    return found


def test_files_that_a_config_map_cannot_hold_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("big.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}\n' * 40_000)
    with pytest.raises(BundleError, match=r"manifest: .* do not fit a ConfigMap.*\(big.jsonl: .*\); put it on the claim laconic-runs"):
        kuberay(load("dler", "node8", ["data.train=big.jsonl"]), Nodes(1, 8, 16, 128), "x", "laconic-runs")


@pytest.mark.parametrize(
    ("cluster", "words", "nodes"),
    [
        ("{kind: apart, nodes: 2, gpus_per_node: 8}", [], (2, 8)),
        ("{kind: apart, nodes: 3, gpus_per_node: 4}", [], (3, 4)),
        ("{kind: apart, nodes: 1, gpus_per_node: 8}", ["engine.count=2", "learner.ranks=2"], (1, 8)),
        ("{kind: colocated, nodes: 2, gpus_per_node: 8}", ["engine.count=8", "learner.ranks=8"], (2, 8)),
        ("{kind: apart}", ["engine.count=2", "learner.ranks=2"], (1, 4)),
    ],
)
def test_a_job_asks_for_what_its_recipe_insists_on(cluster: str, words: list[str], nodes: tuple[int, int]):
    recipe = load("dler", "node8", [f"cluster={cluster}", *words])
    asked = nodes_for(recipe, None, None, 80, 16, 256)
    assert (asked.count, asked.gpus) == nodes
    first, *others = (Machine(16, 256 * 10**9, (80 * 10**9,) * asked.gpus, name=str(index)) for index in range(asked.count))
    assert not anywhere(plan(recipe, first, others))


def test_what_may_be_preempted_is_started_again_and_goes_on():
    for words, retries, resume in [([], 0, ""), (["cluster={kind: apart, preemptible: true}"], 6, " --resume")]:
        _, job = yaml.safe_load_all(kuberay(load("dler", "node8", words), Nodes(2, 8, 16, 128), "registry/laconic:1", "claim"))
        assert job["spec"]["backoffLimit"] == retries and job["spec"]["entrypoint"].endswith(
            f'train recipe.yaml --runs /laconic/runs{resume}"'
        )
        script = slurm(load("dler", "node8", words), Nodes(2, 8, 16, 128), "runs", "1-0")
        assert ("#SBATCH --no-requeue\n" in script, "#SBATCH --requeue\n" in script) == (not words, bool(words))


def test_nodes_are_said_with_how_many_of_each():
    assert Nodes(2, 1, 1, 128).words == "2 x (1 GPU, 1 core, 128 GB)" and Nodes(1, 0, 2, 8).words == "1 x (0 GPUs, 2 cores, 8 GB)"


@pytest.mark.parametrize("nodes", [Nodes(1, 8, 16, 128), Nodes(4, 2, 8, 64), Nodes(1, 0, 2, 4)])
def test_a_batch_script_is_one_and_carries_the_recipe(nodes: Nodes, tmp_path: Path):
    recipe = load("dler", "tiny", ["name=it's $(touch here) `x`", 'data.instruction="say $HOME\\nRECIPE"'])
    script = slurm(recipe, nodes, "/shared/runs of us", "1-12")
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    asked = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in script.splitlines() if line.startswith("#SBATCH"))
    assert asked["nodes"] == str(nodes.count) and asked["cpus-per-task"] == str(nodes.cpus)
    assert asked["mem"] == {128: "122070M", 64: "61035M", 4: "3814M"}[nodes.gigabytes]  # of 2^20 bytes, as Slurm counts
    assert asked.get("gpus-per-node") == (str(nodes.gpus) if nodes.gpus else None) and asked["time"] == "1-12"
    begin, end = "cat > \"$job/recipe.yaml\" <<'RECIPE_ENDS_HERE'\n", "\nRECIPE_ENDS_HERE\n"
    assert script.partition(begin)[2].partition(end)[0] + "\n" == dump(recipe)
    assert "--runs '/shared/runs of us'" in script and f"[ {nodes.count - 1} -gt 0 ]" in script
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1 and "submit this with sbatch" in done.stderr and list(tmp_path.iterdir()) == []


def test_ray_on_slurm_lives_through_a_signal_to_its_step_and_ends_with_the_script_or_the_step(tmp_path: Path):
    (tmp_path / "ray_here.py").write_text(
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('told').touch(), os._exit(1)))\n"
        "pathlib.Path('pid').write_text(str(os.getpid())); pathlib.Path('pid').rename('ray')\n"
        "time.sleep(60)\n"
    )
    script = [line.strip() for line in slurm(load("dler", "tiny"), Nodes(2, 0, 2, 8), "runs", "10").splitlines()]
    own, step = (next(line for line in script if line.startswith(start)) for start in ("own=", "step="))
    line = f'''{own.replace("ray.scripts.scripts", "ray_here")}\n{step}\nexec bash -c "$step" "touch wanted" {sys.executable} -c "$own"'''

    def there(name: str, seconds: float = 10.0) -> bool:
        until = time.monotonic() + seconds
        while not (tmp_path / name).exists() and time.monotonic() < until:
            time.sleep(0.02)
        return (tmp_path / name).exists()

    def begun() -> tuple[subprocess.Popen[bytes], psutil.Process]:
        (tmp_path / "ray").unlink(missing_ok=True)
        task = subprocess.Popen(["bash", "-c", line], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, start_new_session=True)
        assert there("ray")
        return task, psutil.Process(int((tmp_path / "ray").read_text()))

    task, ray = begun()
    os.killpg(task.pid, signal.SIGTERM)  # as Slurm tells a step
    assert there("wanted") and not there("told", 0.2) and task.poll() is None and ray.is_running()
    task.send_signal(signal.SIGUSR1)  # as srun hands it on
    assert there("told") and task.wait(10) == 0 and not ray.is_running()
    task, ray = begun()
    task.kill()
    until = time.monotonic() + 10
    while ray.is_running() and ray.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:  # for whom nobody may wait
        time.sleep(0.02)
    assert not ray.is_running() or ray.status() == psutil.STATUS_ZOMBIE
    for ends, code in (("exit 3", 3), ("exit 0", 0)):  # one that ends by itself
        done = subprocess.run(["bash", "-c", f'{step}\nbash -c "$step" true bash -c "{ends}"'], timeout=30)
        assert done.returncode == code
    assert not [line for line in script if line.startswith("srun") and " : " in line], "srun begins another job's part there"


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("5", 300), ("4:30", 270), ("1:00:00", 3600), ("2-0", 172_800), ("1-12", 129_600), ("0-1:30", 5400), ("1-0:0:9", 86_409)],
)
def test_a_time_is_read_as_slurm_reads_it_and_one_that_leaves_nothing_is_refused(time: str, seconds: int):
    nodes = Nodes(1, 0, 2, 4)
    assert f"--time={time}\n" in slurm(load("dler", "tiny"), nodes, "/runs", time) and manifests._seconds(time) == seconds
    for short in ("1", "4", "0:30", "0:4:0", "0-0"):
        with pytest.raises(ValueError, match="told to stop and save 120 s before its time is over"):
            slurm(load("dler", "tiny"), nodes, "/runs", short)


@pytest.mark.parametrize(
    "words",
    [["engine.vllm={tensor_parallel_size: two}"], ["engine.vllm={gpu_memory_utilisation: 0.5}"], ["engine.vllm={tensor_parallel_size: 5}"]],
)
def test_what_no_machine_can_run_is_refused_before_it_waits_for_one(words: list[str], tmp_path: Path):
    recipe = load("dler", "node8", words)
    with pytest.raises(PlanError, match=r"engine\.vllm"):
        nodes_for(recipe, None, None, 80, 16, 128)
    with pytest.raises(PlanError, match=r"engine\.vllm"):
        refuse_hopeless(recipe)
    refuse_hopeless(load("dler", "node8", ["cluster={kind: apart, nodes: 4, gpus_per_node: 2}"]))
    refuse_hopeless(load("dler", "node8", ["cluster={kind: apart, nodes: 2, gpus_per_node: 128}", "engine.count=200"]))
    refuse_hopeless(load("dler", "node8", ["model.path=/only/there", "data.train=/only/there.jsonl", "wandb=x"]))


def test_manifests_are_printed_and_bad_numbers_refused():
    runner = CliRunner()
    done = runner.invoke(cli.app, ["manifest", "slurm", "dler", "--scale", "node8"])
    assert done.exit_code == 0 and done.stdout.startswith("#!/bin/bash\n")
    assert runner.invoke(cli.app, ["manifest", "slurm", "dler", "--scale", "node8", "--time", "x; rm -r /"]).exit_code == 1
    assert runner.invoke(cli.app, ["manifest", "slurm", "dler", "--scale", "node8", "--runs", "https://x/runs"]).exit_code == 1
    assert runner.invoke(cli.app, ["manifest", "kuberay", "dler", "--scale", "node8", "--gpus", "4", "--image", "x"]).exit_code == 1
    for words in (
        ["--image", ""],
        ["--image", "a b"],
        ["--image", "UPPER/Case:x"],
        ["--image", "x", "--claim", "We ird"],
        ["--image", "x", "--claim", "a..b"],
    ):
        refused = runner.invoke(cli.app, ["manifest", "kuberay", "dler", "--scale", "node8", *words])
        assert refused.exit_code == 1 and f"{words[-2]}: {words[-1]!r} is no" in refused.output
    named = runner.invoke(cli.app, ["manifest", "kuberay", "dler", "--scale", "node8", "--image", "x", "name=2026-run"])
    assert "name: run-2026-run" in named.stdout  # Kubernetes wants a letter first
