"""What a machine has, and that install, plan and run ask the same place."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launch import head, jobs, machine
from launch.doctor import driver, faults, hub, old_gpus, torch_build
from launch.machine import Machine, device_of, free_of, this_machine, visible_gpus
from launch.plan import plan
from launch.slurm import Slurm
from launch.stages import starting_checkpoint
from launch.storage import local
from recipes.loader import load

ROOT = Path(__file__).parents[2]
SMI = """#!/bin/sh
case "$*" in *index*) echo "0, GPU-aaaa-bbbb, 24564"; echo "Unable to determine the device handle for GPU1"; exit 14;; *) exit 9;; esac
"""


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi tells of a GPU."""
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


TABLE = "0, GPU-aaa1, 81559, NVIDIA A100-SXM4-80GB\n1, GPU-bbb2, 24564\n"
NAMES = {81559: "NVIDIA A100-SXM4-80GB", 24564: ""}


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        (None, [81559, 24564]),
        ("", []),
        ("-1", []),
        ("1", [24564]),
        ("1,-1,0", [24564]),
        ("GPU-bb", [24564]),
        ("NoDevFiles", []),
        ("0,0", []),
        ("GPU-bb,GPU-bb", []),
        ("GPU-", []),
        ("GPU-bb,0", [24564]),
        ("0,GPU-bb", [81559]),
        ("0,,1", [81559]),
        (" 1, 0", [24564, 81559]),
        ("01", [24564]),
        ("1gpu,0", [24564, 81559]),
        ("MIG-1,MIG-2", [81559]),
    ],
)
def test_the_gpus_that_cuda_will_show_are_counted(visible: str | None, shown: list[int]):
    assert visible_gpus(TABLE, "", visible) == tuple((memory << 20, NAMES[memory]) for memory in shown)


SLICES = """GPU 0: A (UUID: GPU-aaa1)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-2222)
GPU 1: B (UUID: GPU-bbb2)
"""


@pytest.mark.parametrize(
    ("visible", "shown"), [(None, [40, 24]), ("MIG-2222", [10]), ("MIG-2222,MIG-1111", [10]), ("1", [24]), ("0", [40])]
)
def test_a_slice_of_a_gpu_has_its_own_memory(visible: str | None, shown: list[int]):
    assert [size // 10**9 for size, _ in visible_gpus(TABLE.replace("24564", "23000"), SLICES, visible)] == shown


def test_a_gpu_without_memory_of_its_own_is_told_from_one_that_does_not_answer():
    words = "0, GPU-x, [N/A]\n1, GPU-y, [Insufficient Permissions]\n2, GPU-z, [GPU is lost]\nNo devices were found\n"
    assert [size for size, _ in visible_gpus(words, "", None)] == [-1, 0, 0]


def invented(root: Path, files: dict[str, str]) -> Path:
    for name, text in ({"proc/meminfo": "MemTotal: 9999 kB\nMemAvailable: 4000 kB\n"} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


STAT = "anon 1\ninactive_file 300000\ntotal_inactive_file 300000\n"
V2 = {"memory.max": "1000000\n", "memory.current": "900000\n", "memory.stat": STAT, "cpu.max": "100000 100000\n"}
V1 = {"memory.limit_in_bytes": "1000000", "memory.usage_in_bytes": "900000", "memory.stat": STAT}
QUOTA = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}
NO_QUOTA = {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("cgroup", "groups", "cores", "memory"),
    [
        ("0::/\n", {}, None, 4_096_000),  # no limits
        ("0::/\n", {"": V2}, 1, 400_000),  # a container: its own group is the root; pages of files can be dropped
        ("0::/user/job/step\n", {"user/job": V2, "user/job/step": {"memory.max": "max", "cpu.max": "max 100000"}}, 1, 400_000),
        ("0::/user/job\n", {"user": V2, "user/job": {"cpu.max": "900000000 100000"}}, 1, 400_000),  # it may have what the one above has not
        ("0::/user/job\n", {"user": {"cpu.max": "900000000 100000"}, "user/job": V2}, 1, 400_000),
        ("0::/kubepods/gone\n", {"": V2}, 1, 400_000),  # the host's path, of which the container sees the last folder only
        ("4:memory:/slurm/job\n5:cpu,cpuacct:/slurm\n", {"memory/slurm": V1, "cpu,cpuacct/slurm": QUOTA}, 1, 400_000),
        ("4:memory:/a\n1:cpu:/\n", {"memory": V1 | {"memory.limit_in_bytes": "9223372036854771712"}, "cpu": NO_QUOTA}, None, 4_096_000),
    ],
)
def test_limits_of_a_container_or_a_scheduler_count(
    tmp_path: Path, cgroup: str, groups: dict[str, dict[str, str]], cores: int | None, memory: int
):
    files = {f"sys/fs/cgroup/{folder}/{name}": text for folder, named in groups.items() for name, text in named.items()}
    found = free_of(invented(tmp_path, {"proc/self/cgroup": cgroup} | files))
    assert found == (cores or len(os.sched_getaffinity(0)), memory)


def test_a_gpu_that_shares_the_machines_memory_gets_half_of_it(one_gpu: None, monkeypatch: pytest.MonkeyPatch):
    whole = this_machine()
    monkeypatch.setattr(machine, "nvidia_smi", lambda query: ("0, GPU-x, [N/A]\n", ""))
    half = this_machine()
    assert half.gpus == (half.memory,) and half.memory == pytest.approx(whole.memory / 2, rel=0.1)


@pytest.mark.parametrize(("mode", "exclusive"), [("Default", False), ("Exclusive_Process", True), ("[N/A]", False), ("", False)])
def test_a_gpu_that_takes_one_process_at_a_time_is_seen_and_not_shared(mode: str, exclusive: bool, monkeypatch: pytest.MonkeyPatch):
    lines = {machine.CARDS: "0, GPU-x, 81559, NVIDIA H100\n1, GPU-y, 81559, NVIDIA H100\n"}
    lines[machine.MODES] = f"0, GPU-x, 81559, {mode}\n1, GPU-y, 81559, Exclusive_Process\n"
    monkeypatch.setattr(machine, "nvidia_smi", lambda query: (lines.get(query, ""), ""))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    here = this_machine()
    assert (here.exclusive, len(here.gpus)) == (exclusive, 1)

    def said(found: machine.Machine, *words: str) -> list[str]:
        return [line for line in plan(load("dler", "gpu1-80", words), found).blockers if "Exclusive_Process" in line]

    roomy = replace(here, memory=800 << 30)
    assert len(said(roomy)) == exclusive and not any("cluster.kind=apart" in line for line in said(roomy))
    two = replace(roomy, gpus=here.gpus * 2)
    assert len(said(two)) == exclusive == any("cluster.kind=apart" in line for line in said(two)) and said(two, "cluster.kind=apart") == []
    driver, others = replace(here, exclusive=True, gpus=(), name="a"), [replace(two, exclusive=False, memory=800 << 30, name="b")]
    assert not [line for line in plan(load("dler", "gpu1-80"), driver, others).blockers if "Exclusive_Process" in line]


def test_install_and_plan_see_the_same_gpu(one_gpu: None, monkeypatch: pytest.MonkeyPatch):
    def asked_by_install() -> str:
        return subprocess.run([sys.executable, "launch/machine.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    assert (this_machine().gpus, asked_by_install()) == ((24564 << 20,), "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (this_machine().gpus, asked_by_install()) == ((), "cpu")


CARDS = """#!/bin/sh
case "$*" in
  *compute_cap*) {capabilities} ;;
  *driver_version*) echo {driver} ;;
  *index*) echo "0, GPU-a, 16384, Card A"; echo "1, GPU-b, 16384, Card B" ;;
  *) exit 9 ;;
esac
"""


@pytest.mark.parametrize(
    ("capabilities", "driver", "visible", "build", "said"),
    [
        (("9.0", "7.5"), "580.65.06", None, "cuda", ""),
        (("9.0", "7.0"), "580.65.06", None, "cuda", ""),  # one will do
        (("9.0", "7.0"), "580.65.06", "1", "cuda", ""),  # the slower one, which may be the other by nvidia-smi's numbers
        (
            ("9.0", "7.0"),
            "580.65.06",
            "GPU-b",
            "cpu",
            "no kernels for Card B (compute capability 7.0; 7.5 is the least). EXTRA=cuda overrides",
        ),
        (("7.0", "6.1"), "550.54.15", None, "cpu", "Card A (compute capability 7.0; 7.5 is the least) and Card B (compute capability 6.1"),
        (("[N/A]", "[N/A]"), "580.65.06", None, "cuda", ""),
        (("[N/A]", "7.0"), "580.65.06", None, "cuda", ""),
        ((), "580.65.06", None, "cuda", ""),  # an nvidia-smi without that field
        (("9.0", "9.0"), "550.54.15", None, "", "NVIDIA driver 550.54.15: update the driver to 580 or newer"),
        (("9.0", "9.0"), "", None, "cuda", ""),
    ],
)
def test_install_takes_no_build_that_the_gpus_or_their_driver_are_too_old_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: tuple[str, ...], driver: str, visible: str | None, build: str, said: str
):
    asked = "; ".join(f'echo "{index}, GPU-{"ab"[index]}, 16384, {one}"' for index, one in enumerate(capabilities))
    refused = "echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2"
    (tmp_path / "nvidia-smi").write_text(CARDS.format(capabilities=asked or refused, driver=driver))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    done = subprocess.run([sys.executable, "-S", "launch/machine.py"], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == (build, int(not build))
    assert said in done.stderr and bool(said) == bool(done.stderr)
    here = this_machine()
    assert len(here.gpus) == (2 if visible is None else 1) and here.unusable == (build == "cpu")


def test_gpus_that_are_too_old_for_the_cuda_build_or_for_bf16_are_refused_by_plan_and_doctor():
    def said(found: Machine, *words: str, others: tuple[Machine, ...] = ()) -> list[str]:
        lines = plan(load(*words[:2], words[2:]), found, others).blockers
        return [line for line in lines if line.startswith(("device:", "model.dtype:"))]

    v100, t4, a100, unknown = (
        Machine(16, 800 << 30, (80 << 30,), "cuda", cards=(card,), capabilities=known)
        for card, known in (("V100", (7.0,)), ("T4", (7.5,)), ("A100", (8.0,)), ("Card", ()))
    )
    for recipe in (("quickstart", "tiny"), ("dler", "gpu1-80"), ("dler", "gpu1-80", "model.dtype=fp32")):
        assert not said(a100, *recipe) and not said(unknown, *recipe)
        (line,) = said(v100, *recipe)
        assert line.startswith("device: the CUDA build has no kernels for V100 (compute capability 7.0; 7.5 is the least); run on the CPU")
    assert not said(t4, "quickstart", "tiny") and not said(t4, "dler", "gpu1-80", "model.dtype=fp32")
    assert said(t4, "dler", "gpu1-80") == [
        "model.dtype: vLLM takes no bf16 on T4 (compute capability 7.5; 8.0 is the least); set model.dtype=fp32, "
        "in which weights, keys and values take twice the memory (weights 7.1 GB for 3.6 GB)"
    ]
    assert not said(t4, "dler", "gpu1-80", "engine.kind=reference")
    both = replace(a100, gpus=a100.gpus * 2, cards=("A100", "V100"), capabilities=(8.0, 7.0))
    assert not said(both, "dler", "gpu1-80") and not both.unusable and not replace(both, gpus=a100.gpus).too_old
    assert [line.partition(";")[0] for line in said(both, "dler", "gpu1-80", "cluster.kind=apart")] == [
        "device: the CUDA build has no kernels for V100 (compute capability 7.0"
    ]
    named = {name: replace(one, name=name) for name, one in {"old": t4, "new": a100}.items()}  # the first gets the engine
    for first, other, words in (("old", "new", ["8.0 is the least) of old;"]), ("new", "old", [])):
        lines = said(named[first], "dler", "gpu1-80", "cluster.kind=apart", others=(named[other],))
        assert len(lines) == len(words) and all(word in line for word, line in zip(words, lines, strict=True))

    cpu = replace(v100, build="cpu")
    assert not said(cpu, "quickstart", "tiny") and not any("EXTRA=cuda" in line for line in plan(load("quickstart"), cpu).warnings)
    assert any("EXTRA=cuda" in line for line in plan(load("quickstart"), replace(a100, build="cpu")).warnings)
    assert [torch_build(1, "2.13.0+cpu", 0, one.unusable).state for one in (v100, a100)] == ["ok", "warn"]
    assert [[check.state for check in old_gpus(one, "13.0")] for one in (v100, both, t4, unknown)] == [["fail"], ["warn"], [], []]
    assert old_gpus(v100, None) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "Driver/library version mismatch"),
        ("printf '\\377 NVIDIA-SMI has failed' >&2; exit 9", "NVIDIA-SMI has failed"),
        ("kill -SEGV $$", "nvidia-smi ended with code -11"),
        ("exec sleep 60", "does not answer within 0.2 s"),
        ("echo No devices were found; exit 6", ""),
    ],
)
def test_a_driver_that_does_not_work_is_said_by_plan_and_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "_SMI_S", 0.2 if "sleep" in script else 30)
    found = this_machine()
    assert words in found.trouble and bool(words) == bool(found.trouble) and found.gpus == ()
    assert bool(words) == any("no GPU is seen" in warning for warning in plan(load("quickstart"), found).warnings)
    check = driver("", "13.0", found.trouble)
    assert (check.state, words in check.found) == ("fail" if words else "ok", True)


def test_a_driver_that_hangs_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "_SMI_S", 0.2)
    asked, ask = [], machine._asked

    def counted(program: str, query: str) -> tuple[str, str]:
        asked.append(query)
        return ask(program, query)

    monkeypatch.setattr(machine, "_asked", counted)
    assert "does not answer" in this_machine().trouble and len(asked) == 1


def test_a_gpu_that_a_variable_hides_is_said_by_doctor(one_gpu: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    found = torch_build(0, "2.13.0+cpu", len(visible_gpus(machine.nvidia_smi(machine.CARDS)[0], "", None)))
    assert (found.state, found.found) == ("warn", "2.13.0+cpu, no GPU: CUDA_VISIBLE_DEVICES=-1 hides 1")
    assert torch_build(0, "2.13.0+cpu").state == "ok"


@pytest.mark.parametrize(
    ("wanted", "gpus", "build", "device"),
    [
        ("auto", (1,), "cuda", "cuda"),
        ("auto", (1,), "unknown", "cuda"),
        ("auto", (1,), "cpu", "cpu"),
        ("auto", (), "cuda", "cpu"),
        ("cpu", (1,), "cuda", "cpu"),
        ("cuda", (), "cpu", "cuda"),
    ],
)
def test_auto_is_the_gpu_where_it_can_be_used(wanted: str, gpus: tuple[int, ...], build: str, device: str):
    assert device_of(wanted, Machine(2, 1, gpus, build)) == device  # type: ignore[arg-type]


@pytest.mark.parametrize(("word", "said"), [("cuda", "extra=cuda;"), ("cpu", "extra=cpu;")])
def test_extra_overrides_what_install_detects_and_is_remembered(tmp_path: Path, word: str, said: str):
    def make(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", "-n", "install", *words], cwd=tmp_path, capture_output=True, text=True)

    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert said in make(f"EXTRA={word}").stdout
    (tmp_path / ".venv" / ".installed").write_text(f"{word}\n")
    assert "Nothing to be done" in make().stdout and "Nothing to be done" in make(f"EXTRA={word}").stdout
    other = {"cuda": "cpu", "cpu": "cuda"}[word]
    assert f"replacing the {word} build" in make(f"EXTRA={other}").stdout
    assert "it must be cpu or cuda" in make("EXTRA=gpu").stderr


def test_this_machine_has_cores_and_memory():
    found = this_machine()
    assert found.cores >= 1 and found.memory > 0
    assert plan(load("quickstart")).machine.cores == found.cores


@pytest.mark.parametrize("has_home", [False, True])
def test_without_a_place_for_what_is_kept_commands_that_need_one_name_the_variable_and_others_go_on(
    has_home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def nobody(user: int) -> None:
        raise KeyError(user)

    for name in ("HOME", "LACONIC_CACHE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    why = "this user has no home folder"
    if has_home:
        monkeypatch.setenv("HOME", "/proc/nonexistent")
        why = "No such file or directory"
    for needs in (head.up, head.down, Slurm().jobs, lambda: local("memory://x/run"), lambda: starting_checkpoint(load("quickstart"))):
        with pytest.raises(
            machine.CacheError, match=rf"LACONIC_CACHE: .*\.cache/laconic.* cannot be made \({why}\); name a folder that can"
        ):
            needs()
    assert head.this_head() is None and jobs._token() == ""
    assert hub({}).state == "ok" and f"({why})" in faults()[-1].found
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "kept"))
    assert Slurm().jobs() == [] and not faults()
