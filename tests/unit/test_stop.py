"""A polite stop that waits, and a guard that does not: real signals and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from launch import guard
from rl.stop import Stop


def test_p28_a_stop_waits_until_it_is_released_and_a_second_one_does_not():
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        stop.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            stop.release()
        assert signal.getsignal(signal.SIGTERM) == before
        stop.hold()
        stop.release()  # it came once
        stop.hold()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), Stop() as stop:
        stop.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("what is lost meanwhile is no reason to go on")
    assert signal.getsignal(signal.SIGTERM) == before
    with Stop() as stop:
        stop.hold()
        stop.hold()  # once more, which does not take its own handlers for the former ones
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_of_the_main_thread_where_no_signal_arrives_nothing_is_held():
    with ThreadPoolExecutor() as elsewhere, Stop() as stop:
        elsewhere.submit(stop.hold).result()
        assert not stop.holds


DRIVER = """
import os, signal, subprocess, sys, time
folder = f"{sys.argv[1]}/session_2026-01-01_{os.getpid()}"
os.makedirs(folder)
with open(folder + "/frozen.out", "w") as out:
    frozen = subprocess.Popen(["sleep", "100"], stdout=out, stderr=out, start_new_session=True)
subprocess.Popen([sys.executable, "-I", sys.argv[2], str(os.getpid())], stdin=subprocess.PIPE, start_new_session=True)
os.kill(frozen.pid, signal.SIGSTOP)
print(frozen.pid, flush=True)
time.sleep(100)
"""


def test_p27_what_a_killed_driver_leaves_behind_frozen_is_gone_within_ten_seconds(tmp_path: Path):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), guard.__file__], stdout=subprocess.PIPE, text=True)
    assert driver.stdout
    frozen = int(driver.stdout.readline())
    assert guard.members(driver.pid) == [frozen]
    driver.kill()
    driver.wait()
    until = time.monotonic() + 10
    while guard.members(driver.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert guard.members(driver.pid) == []


RAY = """
import time
from launch.ray_start import start_ray, stop_ray
start_ray(num_cpus=1, num_gpus=0)
stop_ray()  # what is let go does not take the driver with it, nor the next Ray
start_ray(num_cpus=1, num_gpus=0)
print("ready", flush=True)
time.sleep(100)
"""


def test_p27_nothing_of_ray_is_there_ten_seconds_after_its_driver_was_killed():
    environment = os.environ | {"PYTHONPATH": str(Path(guard.__file__).parents[1])}
    driver = subprocess.Popen([sys.executable, "-c", RAY], stdout=subprocess.PIPE, text=True, env=environment)
    assert driver.stdout and "ready" in driver.stdout.readline()
    started = psutil.Process(driver.pid).children(recursive=True)
    assert len(started) >= 5  # its head and node, two agents of that, whose output goes to pipes, and the guard
    driver.kill()
    driver.wait()
    _, left = psutil.wait_procs(started, timeout=10)
    assert left == []
