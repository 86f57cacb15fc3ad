"""Weights on their way: digests, buckets, and what hands them over between processes that are not Ray's."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.cuda._utils import _get_device_index

from rollout import weights
from rollout.broadcast import Bucket, Group, Meeting, Seat, Spec, _wait_on_gpu, buckets, host_meeting, leave, send, specs
from rollout.parcels import DeviceHandle, Shared, Stored, _handle, digesting, last, share
from rollout.sleep import Wakefulness
from rollout.variables import engine_environment, gpu_environment
from rollout.vllm_engine import VllmEngine
from rollout.weights import Undelivered, as_numbers, check_load, digest, pack

CPU = torch.device("cpu")


def by_hand(raw: bytes) -> int:
    """The digest's formula in Python's own numbers."""
    column, row = ([int(key) for key in weights._keys(stream)] for stream in (0, 1))
    words = np.frombuffer(raw + b"\0" * (-len(raw) % 8), np.uint64)
    total = sum(int(word) * column[at % (1 << 16)] * row[at // (1 << 16)] for at, word in enumerate(words))
    return (total + len(raw) * column[-1] + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4096, 8 * (1 << 16), 8 * (1 << 16) + 5, 8 * 3 * (1 << 16) + 24])
def test_a_digest_is_its_formula_whatever_the_size_and_the_way_it_is_summed(size: int, monkeypatch: pytest.MonkeyPatch):
    raw = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    tensor = torch.from_numpy(raw)
    assert int(digest(tensor)) == by_hand(raw.tobytes())
    keys = torch.from_numpy(weights._keys(0).view(np.int64))
    monkeypatch.setattr(weights, "_dots", lambda words_RC: [(words_RC * keys[: words_RC.shape[1]]).sum(1)])  # as on a GPU
    assert int(digest(tensor)) == by_hand(raw.tobytes())


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(0, 299), st.integers(1, 255), st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
def test_one_changed_byte_or_one_byte_more_is_another_digest(count: int, at: int, flip: int, dtype: torch.dtype):
    tensor = torch.arange(count).to(dtype)
    changed = tensor.clone()
    raw = changed.view(torch.uint8)
    raw[at % len(raw)] ^= flip
    assert int(digest(changed)) != int(digest(tensor)) == pack(tensor).digest == int(digest(tensor.view(count, 1)))
    assert int(digest(torch.cat([tensor, torch.zeros(1, dtype=dtype)]))) != int(digest(tensor))


def test_words_that_change_places_and_views_that_begin_anywhere():
    words = torch.randint(-(2**62), 2**62, (3 * (1 << 16),))
    moved = words.clone()
    moved[[5, 70_000]] = words[[70_000, 5]]
    assert int(digest(moved)) != int(digest(words))
    odd = torch.arange(40, dtype=torch.uint8)[3:35]
    assert int(digest(odd)) == int(digest(odd.clone())) and int(digest(odd.view(2, 16).T)) == int(digest(odd.view(2, 16).T.contiguous()))
    assert all((weights._keys(stream) % 2 == 1).all() for stream in (0, 1))  # no bit of a word is multiplied away
    assert as_numbers({}) == {}


TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(5).to(torch.bfloat16), "big": torch.arange(50.0), "c": torch.ones(3)}


@pytest.mark.parametrize(
    ("arrived", "version", "sampling", "said"),
    [
        ("ab", 4, 1, "version 4 came while 1 groups are being sampled"),
        ("ab", 2, 0, "version 2 is older than version 3"),
        ("ac", 4, 0, r"missing \['b'\] \(1\), unexpected \['c'\] \(1\)"),
        ("abc", 4, 0, r"missing \[\] \(0\), unexpected \['c'\] \(1\)"),
    ],
)
def test_an_engine_takes_whole_weights_that_are_no_older_while_nothing_is_sampled(arrived: str, version: int, sampling: int, said: str):
    check_load({"a", "b"}, "ab", 3, held=3, sampling=0)
    with pytest.raises(RuntimeError, match=said):
        check_load({"a", "b"}, arrived, version, 3, sampling)


GOT: dict[str, int] = {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("answers", "kept", "kind", "words"),
    [
        ([(GOT, ""), (GOT, "")], False, None, ""),
        ([(GOT, ""), (GOT | {"b": 3}, "")], False, RuntimeError, r"worker 1 of the engine got other bytes of b than worker 0 \(1 tensors"),
        ([(GOT, ""), (GOT, ""), ({"a": 1}, "")], False, RuntimeError, "worker 2 of the engine got other bytes of b than worker 0"),
        ([(GOT, ""), ({}, "the learner is gone")], False, Undelivered, "^the learner is gone"),
        ([({}, "the learner is gone"), (GOT, "")], False, Undelivered, "^the learner is gone"),
        ([(GOT, "")], True, RuntimeError, "vLLM kept its prefix cache after weights version 4 were loaded"),
    ],
)
def test_p10_vllm_has_new_weights_when_all_its_workers_got_the_same_and_nothing_old_is_cached(
    answers: list[tuple[dict[str, int], str]], kept: bool, kind: type[Exception] | None, words: str
):
    engine: Any = object.__new__(VllmEngine)
    engine._names, engine._version, engine._open, engine._chains = {"a", "b"}, 3, {}, {}
    engine._workers, engine._wakefulness = len(answers), Wakefulness()
    asked: list[object] = []

    def collective_rpc(method: str, args: tuple[object, ...]) -> object:
        asked.extend((method, *args))
        return answers

    engine._engine = SimpleNamespace(collective_rpc=collective_rpc, reset_prefix_cache=lambda: not kept)
    parcel = Stored(a=pack(torch.ones(2)), b=pack(torch.ones(3)))
    if kind is None:
        assert engine.load(parcel, 4) == GOT and engine._version == 4
        engine._wakefulness.needed("sample")
        engine._open["r"] = None
        with pytest.raises(RuntimeError, match="sent to sleep while 1 groups are being sampled"):
            engine.sleep()
    else:
        with pytest.raises(kind, match=words):
            engine.load(parcel, 4)
        with pytest.raises(RuntimeError, match="asked to sample that has no weights"):
            engine._wakefulness.needed("sample")
        assert engine._version == 3
    assert asked[0] == "take_weights" and isinstance(
        asked[1], Shared if len(answers) > 1 else Stored
    )  # vLLM's own workers do not speak to Ray


def test_buckets_are_bounded_keep_the_order_and_begin_tensors_where_they_can_be_read():
    a, b, big, c = specs(TENSORS)
    assert list(buckets([a, b, big, c], 64)) == [Bucket(42, ((a, 0), (b, 32))), Bucket(200, ((big, 0),)), Bucket(12, ((c, 0),))]
    assert list(buckets([], 64)) == [] and list(buckets([big, c], 64)) == [Bucket(200, ((big, 0),)), Bucket(12, ((c, 0),))]
    many = [Spec(str(index), "float32", (index,)) for index in range(40)]
    made = list(buckets(many, 100))
    assert [spec for bucket in made for spec, _ in bucket.parts] == many
    assert all(bucket.size <= 100 or len(bucket.parts) == 1 for bucket in made)
    assert all(start % 8 == 0 and start + spec.bytes <= bucket.size for bucket in made for spec, start in bucket.parts)


def named() -> list[str]:
    """Files of shared memory of torch's in this process; other processes of the machine have theirs."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"torch_{os.getpid()}_")]


def test_shared_memory_moves_to_where_others_see_it_and_its_owner_goes_on_with_it():
    flat = torch.arange(40.0)
    one, two = flat[4:16].view(3, 4), torch.arange(9).to(torch.bfloat16)
    shared = share({"one": one, "two": two}, {})
    assert list(shared.names) == ["one", "two"]
    files = named()
    found: dict[str, torch.Tensor] = {}
    got = dict(digesting(shared.tensors(0, CPU), found))
    assert torch.equal(got["one"], one) and torch.equal(got["two"], two)
    assert as_numbers(found) == {"one": int(digest(one)), "two": int(digest(two))}
    flat += 1
    assert torch.equal(got["one"], one) and torch.equal(dict(share({"one": one}, {}).tensors(0, CPU))["one"], one)
    assert flat[4] == 5 and got["one"].data_ptr() != one.data_ptr() and named() == files  # nothing has a name
    opened = os.listdir("/proc/self/fd")
    dict(shared.tensors(0, CPU))
    assert len(os.listdir("/proc/self/fd")) == len(opened)


def test_memory_that_lasts_has_one_handle_by_the_address_that_it_moved_to_and_is_read_anew():
    one, two, merged = torch.arange(3.0), torch.arange(4), torch.ones(3)
    handles = last([one, two])
    assert handles.keys() == {one.data_ptr(), two.data_ptr()} and len({handle.key for handle in handles.values()}) == 2
    for _ in range(2):
        shared = share({"one": one, "two": two, "merged": merged}, handles)
        assert [shared.handles[name] for name in ("one", "two")] == [*handles.values()]
        got = dict(shared.tensors(0, CPU))
        assert torch.equal(got["one"], one) and torch.equal(got["two"], two) and torch.equal(got["merged"], merged)
        one.mul_(3)


def test_a_handle_whose_owner_is_gone_says_so():
    others = Path(f"/dev/shm/torch_0_{os.getpid()}")
    others.touch()
    before = named()

    def full(storage: torch.UntypedStorage) -> None:
        Path(f"/dev/shm/torch_{os.getpid()}_1").touch()
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(RuntimeError, match=r"of 8 bytes: give /dev/shm more .* cluster\.carrier=store"),
    ):
        patch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
        share({"one": torch.ones(2)}, {})
    assert named() == before and others.exists()  # what torch began is gone, and nobody else's
    others.unlink()
    gone = share({"one": torch.ones(2)}, {})  # nobody holds the tensor
    with pytest.raises(Undelivered, match="the memory that the learner shares is gone"):
        next(gone.tensors(0, CPU))


def seated(count: int, seconds: float, come: int | None = None):
    """Rank 0's group, and what the others got, by rank; `come`: how many of them do."""
    meeting, store = host_meeting("127.0.0.1", 1 + count, seconds, "gloo", bucket=64)
    got: dict[int, object] = {}

    def take(rank: int) -> None:
        try:
            group = Group(meeting, rank, CPU)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("rollout.broadcast.joined", lambda *_: group)
                got[rank] = dict(Seat(meeting, rank, specs(TENSORS)).tensors(0, CPU))
        except Undelivered as error:
            got[rank] = error

    threads = [threading.Thread(target=take, args=(rank,)) for rank in range(1, 1 + (count if come is None else come))]
    for thread in threads:
        thread.start()
    return meeting, store, got, threads


def test_a_broadcast_brings_all_tensors_to_the_bit():
    meeting, store, got, threads = seated(1, 20.0)
    group = Group(meeting, 0, CPU, store)
    made = as_numbers(dict(send(TENSORS, specs(TENSORS), group)))
    threads[0].join()
    assert made == {name: int(digest(tensor)) for name, tensor in TENSORS.items()}
    assert all(torch.equal(got[1][name], tensor) and got[1][name].dtype == tensor.dtype for name, tensor in TENSORS.items())  # type: ignore[index]


def test_who_does_not_come_or_falls_silent_is_waited_for_no_longer_than_the_deadline():
    start = time.monotonic()
    meeting, store, got, threads = seated(2, 2.0, come=1)
    with pytest.raises(Undelivered, match="rank 0 of 3 did not meet the others within 2 s"):
        Group(meeting, 0, CPU, store)
    threads[0].join()
    assert isinstance(got[1], Undelivered)
    meeting, store, got, threads = seated(1, 6.0)  # in which both come, also where a busy machine stands still
    group = Group(meeting, 0, CPU, store)  # and sends nothing
    threads[0].join()
    assert "sent or took nothing for 6 s, or is gone" in str(got[1]) and time.monotonic() - start < 60
    with pytest.raises(Undelivered, match=r"^an engine sent or took nothing"):  # that other has left
        list(send(TENSORS, specs(TENSORS), group))
    group.leave()
    leave()


def test_each_worker_has_its_place_in_the_group_of_the_last_meeting_and_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch):
    said: list[object] = []

    class Joined:
        def __init__(self, meeting: object, rank: int, device: torch.device):
            self.meeting = meeting
            said.append((meeting, rank))

        def broadcast(self, flat: torch.Tensor) -> None:
            flat.zero_()

        def leave(self) -> None:
            said.append("left")

    monkeypatch.setattr("rollout.broadcast.Group", Joined)
    first, second = (Meeting("127.0.0.1", port, "key", 5, 1.0, "gloo", 64) for port in (1, 2))
    for meeting in (first, first, second):
        assert dict(Seat(meeting, 3, specs(TENSORS)).tensors(1, CPU)).keys() == TENSORS.keys()
    leave()
    assert said == [(first, 4), "left", (second, 4), "left"]


def test_a_gpu_that_waits_for_others_waits_no_longer_than_the_deadline():
    looks = iter([False] * 1000)
    late = SimpleNamespace(is_completed=lambda: next(looks), wait=lambda: None)
    with pytest.raises(RuntimeError, match="NCCL has not finished"):
        _wait_on_gpu(late, 0.0)
    _wait_on_gpu(SimpleNamespace(is_completed=lambda: True, wait=lambda: None), 0.0)


def test_the_store_of_a_meeting_listens_on_the_address_it_was_given_alone():
    meeting, store = host_meeting("127.0.0.1", 2, 60.0, "gloo")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {fields[1] for fields in lines if fields[3] == "0A" and fields[1].endswith(f":{meeting.port:04X}")}
    assert listening == {f"0100007F:{meeting.port:04X}"} and store is not None


def test_a_rank_joins_by_nccl_on_the_gpu_that_it_has_and_no_watchdog_ends_it(monkeypatch: pytest.MonkeyPatch):
    """A rank's device is "cuda", whichever GPU that is; torch sets none without a number."""
    handling, set_to, seen = "TORCH_NCCL_ASYNC_ERROR_HANDLING", [], []

    class ProcessGroupNCCL:
        Options = object

        def __init__(self, *_: object):
            seen.append(os.environ[handling])

    monkeypatch.setattr(torch.distributed, "ProcessGroupNCCL", ProcessGroupNCCL, raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: set_to.append(_get_device_index(device)))
    monkeypatch.delenv(handling, raising=False)
    for before, device, index in ((None, "cuda", []), ("3", "cuda:1", [1])):
        if before is not None:
            monkeypatch.setenv(handling, before)
        meeting, store = host_meeting("127.0.0.1", 1, 5.0, "nccl")
        Group(meeting, 0, torch.device(device), store)
        assert (set_to, seen.pop(), os.environ.get(handling)) == (index, "0", before)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, "expandable_segments:False"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "expandable_segments:False"),
        (
            {
                "PYTORCH_CUDA_ALLOC_CONF": "garbage_collection_threshold:0.8, expandable_segments:True,roundup_power2_divisions:[256:1,512:2]"
            },
            "garbage_collection_threshold:0.8,roundup_power2_divisions:[256:1,512:2],expandable_segments:False",
        ),
        (
            {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64", "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:9"},
            "max_split_size_mb:64,expandable_segments:False",
        ),
    ],
)
def test_memory_that_others_map_is_not_of_segments_that_grow(told: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert {value for name, value in gpu_environment().items() if name.startswith("PYTORCH")} == {expected}
    assert {name for name, value in gpu_environment().items() if value == "0"} == {
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_NCCL_ENABLE_MONITORING"
    }  # fmt: skip
    assert gpu_environment().items() <= engine_environment(1, "cuda").items()


def test_memory_that_cuda_does_not_share_names_the_carrier_that_works(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: operation not supported\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("rollout.parcels._gpu", lambda index: f"GPU-{index + 1}")
    monkeypatch.setattr("torch.multiprocessing.reductions.rebuild_cuda_tensor", lambda *given: given)
    assert DeviceHandle("GPU-3", tuple("abcdefgh")).open(torch.device("cuda:2")) == (*"abcdef", 2, "h")  # by the number that it has here
    with pytest.raises(Undelivered, match=r"shares memory of GPU GPU-3, and this engine is on GPU-2; cluster\.carrier=store"):
        DeviceHandle("GPU-3", tuple("abcdefgh")).open(torch.device("cuda:1"))
    monkeypatch.setattr("torch.multiprocessing.reductions.rebuild_cuda_tensor", refuse)
    with pytest.raises(Undelivered, match=r"not supported Compile with .*\); cluster\.carrier=store works everywhere"):
        DeviceHandle("GPU-1", tuple(range(8))).open(torch.device("cuda"))
    monkeypatch.setattr("torch.multiprocessing.reductions.reduce_tensor", refuse)
    on_gpu = SimpleNamespace(device=torch.device("cuda:0"), detach=lambda: None)
    with pytest.raises(RuntimeError, match=r"CUDA does not share memory of this GPU .*; cluster\.carrier=store works everywhere"):
        _handle(on_gpu)  # type: ignore[arg-type]
