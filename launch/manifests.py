"""A recipe as a job of other schedulers: a RayJob for KubeRay, a batch script for Slurm.

Claim: how many nodes there are and what each asks for is read off the plan's placement on nodes of the size that was named, so a recipe that does not fit
them is refused here; the recipe, and with Kubernetes what it names, is in the file; both clusters want a token. What may be preempted is started again and
goes on: by Slurm without end, by KubeRay, which cannot tell a node that was taken from an error, a few times. Simplification: the project is
installed in the image, or on storage that all nodes see, with the Ray that plan runs with; every node asks for what the largest needs.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from launch.bundle import RECIPE, BundleError, user_files
from launch.machine import Machine
from launch.memory import many, size, sizes_apart
from launch.placement import Placement
from launch.plan import Plan, PlanError, plan
from recipes.loader import dump
from recipes.schema import Recipe

GRACE_S = 120  # that a job has to save a checkpoint before it is ended

_CONFIG_MAP = 1_000_000  # bytes; Kubernetes takes 1 MiB
_RETRIES = 6  # of a RayJob that may be preempted; as many as of a Job of Kubernetes, by its own default
_HERE = ("model.", "data.", "eval.data", "eval.benchmarks", "reward:", "wandb:", "engine.kind: vllm on", "device:", "stages[")
_JOB, _RUNS = "/laconic/job", "/laconic/runs"


class _Blocks(yaml.SafeDumper):
    """Writes texts of several lines as such."""


_Blocks.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


@dataclass(frozen=True)
class Nodes:
    """Nodes that a job asks for: how many, and what of each."""

    count: int
    gpus: int
    cpus: int
    gigabytes: int

    @property
    def words(self) -> str:
        return f"{self.count} x ({many(self.gpus, 'GPU')}, {many(self.cpus, 'core')}, {self.gigabytes} GB)"


def nodes_for(recipe: Recipe, count: int | None, gpus: int | None, gpu_gb: int, cpus: int, gigabytes: int) -> Nodes:
    """What a recipe takes of nodes of a size.

    Args:
        count: nodes that there are; None: what the recipe's cluster says, else one.
        gpus: of each; None: what the recipe's cluster says, else 8, none where its device is cpu.

    Raises:
        PlanError: it does not fit them.
    """
    wanted, wanted_gpus = _wanted(recipe)
    there = count or wanted or 1
    each = (0 if recipe.device == "cpu" else wanted_gpus or 8) if gpus is None else gpus
    machines = [Machine(cpus, gigabytes * 10**9, (gpu_gb * 10**9,) * each, name=f"node-{index}") for index in range(there)]
    made = plan(recipe, machines[0], machines[1:])
    parts = [part.placement for part in made.stages] or [made.placement]
    if faults := [*(fault for placed in parts for fault in placed.faults), *anywhere(made)]:
        told = [f"{fault} (--memory-gb says what a node has)" if " of main memory" in fault else fault for fault in faults]
        raise PlanError("\n".join(dict.fromkeys(told)))
    taken = [_taken(placed) for placed in parts]
    used = max(wanted or 1, *(len(gpus_of) for gpus_of in taken))
    most = max((gpus for gpus_of in taken for gpus in gpus_of.values()), default=0)
    return Nodes(used, max(most, wanted_gpus or 0) if each else most, cpus, gigabytes)


def _wanted(recipe: Recipe) -> tuple[int | None, int | None]:
    """Nodes and GPUs of each that a recipe's cluster names."""
    return getattr(recipe.cluster, "nodes", None), getattr(recipe.cluster, "gpus_per_node", None)


def refuse_hopeless(recipe: Recipe) -> None:
    """Refuse what no machine can run, before it waits for one. Raises PlanError."""
    count, each = _wanted(recipe)
    large, *others = (Machine(1024, 10**13, (10**12,) * (each or 64), name=f"node-{index}") for index in range(count or 1))
    if faults := anywhere(plan(recipe, large, others)):
        raise PlanError("\n".join(faults))


def anywhere(made: Plan) -> list[str]:
    """Those of a plan's blockers that hold on every machine of the size planned for, not on this one alone: files, packages and builds may be others there."""
    stages = tuple(f"{part.step.stage.called}: " for part in made.stages)
    keys = {line: line.partition(": ")[2] if line.startswith(stages) else line for line in made.blockers}
    return [line for line, key in keys.items() if not key.startswith(_HERE)]


def _taken(placed: Placement) -> dict[int, int]:
    """GPUs taken of each node that has a process, the driver's among them."""
    found = dict.fromkeys([0, *(node for at in placed.at.values() for node in at if node >= 0)], 0.0)
    for name, at in placed.at.items():
        for node in at:
            found[max(node, 0)] += placed.gpus.get(name, 0)
    return {node: ceil(gpus - 1e-3) for node, gpus in found.items()}  # shares of one are rounded down, to ten-thousandths


def kuberay(recipe: Recipe, nodes: Nodes, image: str, claim: str, include: Sequence[Path] = ()) -> str:
    """A ConfigMap with the recipe and what it names, and the RayJob that runs it, as YAML.

    Args:
        image: with the project, and with Ray.
        claim: the PersistentVolumeClaim that run folders go to, which all nodes can write to.
        include: as of `launch.bundle.bundle`.

    Raises:
        BundleError: files that do not fit a ConfigMap, or as `user_files`.
    """
    if len(claim) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", claim):
        raise BundleError(f"--claim: {claim!r:.80} is no name of a PersistentVolumeClaim: small letters, digits, hyphens and dots")
    if not re.fullmatch(r"(?:[\w.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?", image):
        raise BundleError(f"--image: {image!r:.100} is no container image: REGISTRY/NAME:TAG, the name in small letters")
    name = _dns(recipe.name)
    files = {RECIPE: dump(recipe).encode()} | {place: path.read_bytes() for place, path in user_files(recipe, include).items()}
    if (total := sum(map(len, files.values()))) > _CONFIG_MAP:
        largest = max(files, key=lambda place: len(files[place]))
        whole, most = sizes_apart(total, _CONFIG_MAP)
        raise BundleError(
            f"manifest: {whole} do not fit a ConfigMap, which holds {most} ({largest}: {size(len(files[largest]))}); put it on the claim "
            f"{claim} and name it by its path below {_RUNS}"
        )
    keys = {place: f"{index:03}-{re.sub(r'[^A-Za-z0-9._-]', '-', Path(place).name)[-200:]}" for index, place in enumerate(files)}
    config: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}, "binaryData": {}}
    for place, content in files.items():
        try:
            config["data"][keys[place]] = content.decode()
        except UnicodeDecodeError:
            config["binaryData"][keys[place]] = base64.b64encode(content).decode()
    items = [{"key": key, "path": place} for place, key in keys.items()]
    more = nodes.count - 1
    workers = {"groupName": "workers", "replicas": more, "minReplicas": more, "maxReplicas": more, "rayStartParams": {}}
    cluster = {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {}, "template": _pod("ray-head", nodes, image, name, claim, items)},
        "workerGroupSpecs": [workers | {"template": _pod("ray-worker", nodes, image, name, claim, items)}] * bool(more),
    }
    again = recipe.cluster.preemptible
    train = ["python", "-m", "launch", "train", RECIPE, "--runs", _RUNS, *(["--resume"] if again else [])]
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": f'bash -c "cd {_JOB} && exec {shlex.join(train)}"',  # KubeRay pastes it into a line of its submitter's shell, Ray into one of its own
            "backoffLimit": _RETRIES if again else 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": cluster,
        },
    }
    return yaml.dump_all([config, job], Dumper=_Blocks, sort_keys=False, width=140)


def _pod(container: str, nodes: Nodes, image: str, name: str, claim: str, items: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A pod that is a node."""
    asks = {"cpu": str(nodes.cpus), "memory": f"{nodes.gigabytes}G"} | ({"nvidia.com/gpu": str(nodes.gpus)} if nodes.gpus else {})
    variables = {"PYTHONPATH": _JOB, "RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_S)}
    return {
        "spec": {
            "terminationGracePeriodSeconds": GRACE_S,
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "env": [{"name": key, "value": value} for key, value in variables.items()],
                    "resources": {"requests": asks, "limits": dict(asks)},
                    "volumeMounts": [
                        {"name": "job", "mountPath": _JOB, "readOnly": True},
                        {"name": "runs", "mountPath": _RUNS},
                        {"name": "shared-memory", "mountPath": "/dev/shm"},
                    ],
                }
            ],
            "volumes": [
                {"name": "job", "configMap": {"name": name, "items": [dict(item) for item in items]}},
                {"name": "runs", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},  # Ray's object store; the default of 64 MB holds no weights
            ],
        }
    }


def slurm(recipe: Recipe, nodes: Nodes, runs: str, time: str, options: Sequence[str] = ()) -> str:
    """A batch script: a Ray over the nodes of the job, with a token of its own, and the driver on the first of them.

    Args:
        runs: folder of run folders, which all nodes see, relative to where it is submitted; or a URL.
        time: that the job may take, as Slurm writes it.
        options: of `laconic train`, further ones.

    Raises:
        ValueError: the time is none, or a job that may be started again would overwrite its own run.
    """
    if (again := recipe.cluster.preemptible) and "--overwrite" in options:
        raise ValueError(
            "--overwrite: with cluster.preemptible the job may be started again, and would replace its own run; remove the former run, or choose another name (name=...)"
        )
    if (seconds := _seconds(time)) <= 2 * GRACE_S:
        raise ValueError(
            f"--time: {time}: a job is told to stop and save {GRACE_S} s before its time is over, so {seconds} s leave nothing to train in; ask for more"
        )
    gpus = f"#SBATCH --gpus-per-node={nodes.gpus}\n" * bool(nodes.gpus)
    return _SLURM.format(
        name=_dns(recipe.name),
        count=nodes.count,
        more=nodes.count - 1,
        gpus=gpus,
        each=nodes.gpus,
        cpus=nodes.cpus,
        mebibytes=nodes.gigabytes * 10**9 // 2**20,  # Slurm's G is 2^30 bytes, and KubeRay's 10^9
        time=time,
        grace=GRACE_S,
        recipe=dump(recipe),
        runs=shlex.join([runs, *options]) + " ${SLURM_RESTART_COUNT:+--resume}" * (again and "--resume" not in options),
        queue="requeue\n#SBATCH --open-mode=append" if again else "no-requeue",
        again="may" if again else "no",
    )


def _seconds(time: str) -> int:
    """Of a time as Slurm writes it. Raises ValueError."""
    found = re.fullmatch(r"(?:(?P<days>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?", time)
    if not found:
        raise ValueError(f"--time: {time}: write minutes, hours:minutes:seconds or days-hours, as Slurm does")
    days, a, b, c = (int(one or 0) for one in found.groups())
    return days * 86400 + a * 3600 + b * 60 + c if found["days"] or found["c"] else a * 60 + b


def _dns(name: str) -> str:
    """A run's name as Kubernetes and Slurm take it: of letters, digits and hyphens, a letter first."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (words if words[:1].isalpha() else f"run-{words}" if words else "laconic")[:40].strip("-")


_SLURM = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={count}
#SBATCH --ntasks-per-node=1
{gpus}#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={mebibytes}M
#SBATCH --time={time}
#SBATCH --signal=B:TERM@{grace}
#SBATCH --output=%x-%j.log
#SBATCH --{queue}
# Submit from a folder that all nodes see: `sbatch FILE`. LACONIC_PYTHON names the interpreter that has laconic, on all nodes.
set -euo pipefail
: "${{SLURM_SUBMIT_DIR:?submit this with sbatch}}"
job= driver= asked=
again={again} # whether it goes back into the queue: no, may (cluster.preemptible), now
ended() {{
  local code=$?
  trap - EXIT
  trap "" TERM INT
  rm -rf "$job"
  local steps=$(jobs -p)
  kill -USR1 $steps 2>/dev/null || true # srun hands it on to Ray's steps, once they have begun
  for _ in $(seq 20); do kill -0 $steps 2>/dev/null || break; sleep 1; done
  kill $steps 2>/dev/null || true
  wait || true
  local taken=
  case "$again $code" in "now 130" | "now 143") taken=yes ;; esac
  [ $again != no ] && [ $code != 0 ] && [[ $(scontrol show job "$SLURM_JOB_ID") =~ PreemptTime=[0-9] ]] && taken=yes # Ray went before the driver had saved
  if [ -n "$taken" ]; then # of a job that is cancelled or preempted already Slurm says so itself
    [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T || echo RUNNING)" = RUNNING ] || exit "$code"
    scontrol requeue "$SLURM_JOB_ID" && exit "$code"
  fi
  echo "$code" > "$SLURM_JOB_NAME-$SLURM_JOB_ID.exit"
}}
trap ended EXIT
told() {{
  echo "told to stop: the time is nearly over (--time {time}), its nodes are wanted, or somebody stopped the job" >&2
  [ "$again $1" = "may TERM" ] && again=now
  [ "$1" = INT ] && again=no
  [ -n "$driver" ] || exit 143
  [ -n "$asked" ] || kill -TERM "$driver" || true # once: a second one would not let it save
  asked=yes
}}
trap "told TERM" TERM
trap "told INT" INT # of `laconic stop`, for good
cd "$SLURM_SUBMIT_DIR"
rm -f "$SLURM_JOB_NAME-$SLURM_JOB_ID.exit"
python=${{LACONIC_PYTHON:-python}}
job=$(mktemp -d "$PWD/.laconic-$SLURM_JOB_ID-XXXXXX")
command -v "$python" > /dev/null || {{ echo "LACONIC_PYTHON: no $python on $HOSTNAME; name an interpreter that has laconic on all nodes" >&2; exit 1; }}
(umask 077 && "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' > "$job/token")
cat > "$job/recipe.yaml" <<'RECIPE_ENDS_HERE'
{recipe}RECIPE_ENDS_HERE
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$job/token" RAY_USAGE_STATS_ENABLED=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 PYTHONPATH="$PWD${{PYTHONPATH:+:$PYTHONPATH}}"
unset RAY_AUTH_TOKEN RAY_ADDRESS

hosts=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${{hosts[0]}}
address=$(srun --overlap --nodes=1 --ntasks=1 -w "$head" hostname -I | awk '{{print $1}}')
port=$((20000 + SLURM_JOB_ID % 20000))
# Of nodes that are wanted with a time of grace Slurm tells the steps alone, and all processes of their group. So Ray has a group of its own, goes on while the driver saves,
# and ends with this script, or with the step: the head's step tells the script, the others nobody.
own='import ctypes, os, runpy; ctypes.CDLL(None).prctl(1, 9); os.setpgid(0, 0); runpy.run_module("ray.scripts.scripts", run_name="__main__", alter_sys=True)'
ray=("$python" -c "$own" start --block --disable-usage-stats --num-cpus={cpus} --num-gpus={each})
step='"$@" & trap "$0" TERM; trap "told=0; kill $!" USR1; while wait $!; code=$?; kill -0 $! 2>/dev/null; do :; done; exit ${{told:-$code}}'
srun --overlap --nodes=1 --ntasks=1 -w "$head" bash -c "$step" "kill -TERM $$" "${{ray[@]}}" --head --node-ip-address="$address" --port="$port" --include-dashboard=false &
for _ in $(seq 180); do
  (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null && break
  sleep 1
done
if [ {more} -gt 0 ]; then
  srun --overlap --nodes={more} --ntasks={more} --ntasks-per-node=1 --exclude="$head" bash -c "$step" true "${{ray[@]}}" --address="$address:$port" &
fi
"$python" - "$address:$port" {count} <<'PYTHON_ENDS_HERE'
import sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
until = time.monotonic() + 300
while (alive := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[2]):
    if time.monotonic() > until:
        sys.exit(f"{{alive}} of {{sys.argv[2]}} nodes joined Ray within 300 s; the lines above say why")
    time.sleep(1)
PYTHON_ENDS_HERE
"$python" -m launch train "$job/recipe.yaml" --runs {runs} --address "$address:$port" &
driver=$!
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do # a signal came: the driver saves
  code=0
  wait "$driver" || code=$?
done
exit "$code"
"""
