"""Ray gives a plan's actors the GPUs that its placement says: those of one bundle the same one, all others their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, logging, ray, sys, threading, time
import launch.groups as groups
from launch.groups import reserve
from launch.machine import Machine
from launch.placement import Wish, place
from launch.ray_start import start_ray, stop_ray
from recipes.cluster import ApartCluster, AutoCluster, ColocatedCluster

class Process:
    def gpus(self):
        return sorted(ray.get_gpu_ids())

def free(resource, amount):  # what Ray says is free, once it says this amount: it hears late of what was just reserved
    until = time.monotonic() + 30
    while (said := ray.available_resources().get(resource, 0)) != amount and time.monotonic() < until:
        time.sleep(0.05)
    return said

node = Machine(8, 64 << 30, (80 << 30,) * 4)
start_ray(num_cpus=2, num_gpus=10)
for cluster, engines, ranks, wide in ((ColocatedCluster(kind="colocated"), 4, 4, 1), (ApartCluster(kind="apart"), 1, 2, 2)):
    placed = place(cluster, [node], "cuda", [Wish("engine", engines, 1, wide), Wish("learner", ranks, 1, 1)])
    options = reserve(placed)
    started = {name: [ray.remote(Process).options(**options(name, i)).remote() for i in range(n)] for name, n in (("engine", engines), ("learner", ranks))}
    print(json.dumps({name: ray.get([actor.gpus.remote() for actor in actors]) for name, actors in started.items()}))
joined = Machine(2, 64 << 30, name="127.0.0.1", lends=2)
options = reserve(place(AutoCluster(), [joined], "cpu", [Wish("engine", 1), Wish("judge", 1)]))
print(json.dumps([free("CPU", 1), ray.get(ray.remote(Process).options(**options("engine", 0)).remote().gpus.remote())]))
said = []
handler = logging.Handler(); handler.emit = lambda record: said.append(record.getMessage())
groups.log.addHandler(handler)
held = reserve(place(ApartCluster(kind="apart"), [node], "cuda", [Wish("engine", 1, 1, 1)]))
free("GPU", 1)
groups._SAY_S = 0.5
wish = place(ApartCluster(kind="apart"), [node], "cuda", [Wish("engine", 2, 1, 1)])
threading.Thread(target=lambda: reserve(wish), daemon=True).start()
until = time.monotonic() + 60
while not said and time.monotonic() < until:
    time.sleep(0.1)
print(json.dumps(said[:1]), flush=True)
stop_ray()
"""


def test_actors_get_the_gpus_of_their_bundles_judges_their_cores_and_what_is_missing_is_said():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7,8,9"},
    )
    assert done.returncode == 0, done.stderr
    colocated, apart, judged, said = (json.loads(line) for line in done.stdout.splitlines()[-4:])
    assert colocated["engine"] == colocated["learner"] and len({gpu for [gpu] in colocated["engine"]}) == 4
    [engine], ranks = apart["engine"], apart["learner"]
    assert len(engine) == 2 and len({*engine, *(gpu for [gpu] in ranks), *(gpu for [gpu] in colocated["engine"])}) == 8
    assert judged == [1, []]  # of two CPUs one is left beside a judge, and an engine takes none of them
    assert said == ["waiting for room in Ray: 2 GPU, 10 there, 1 free (`ray status` says who holds it)"]
