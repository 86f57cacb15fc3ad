"""Weights on their way: digests, buckets, and what hands them over between processes that are not Ray's."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.cuda._utils import _get_device_index

from rollout import weights
from rollout.broadcast import Bucket, Group, Seat, Spec, buckets, host_meeting, leave, send, specs
from rollout.parcels import DeviceHandle, _handle, digesting, gpu_environment, share
from rollout.vllm_engine import engine_environment
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
    odd = torch.arange(40, dtype=torch.uint8)[3:35].view(2, 16).T
    assert int(digest(odd)) == int(digest(odd.contiguous()))
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


def test_buckets_are_bounded_keep_the_order_and_begin_tensors_where_they_can_be_read():
    a, b, big, c = specs(TENSORS)
    assert list(buckets([a, b, big, c], 64)) == [Bucket(42, ((a, 0), (b, 32))), Bucket(200, ((big, 0),)), Bucket(12, ((c, 0),))]
    assert list(buckets([], 64)) == []
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


def test_a_handle_whose_owner_is_gone_says_so():
    def full(storage: torch.UntypedStorage) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(RuntimeError, match=r"of 8 bytes: give /dev/shm more .* cluster\.carrier=store"),
    ):
        patch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
        share({"one": torch.ones(2)}, {})
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
    group.leave()
    leave()


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
    assert gpu_environment().items() <= engine_environment(1, "cuda").items()


def test_memory_that_cuda_does_not_share_names_the_carrier_that_works(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: operation not supported\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("rollout.parcels._gpu", lambda index: "GPU-1")
    monkeypatch.setattr("torch.multiprocessing.reductions.rebuild_cuda_tensor", refuse)
    with pytest.raises(Undelivered, match=r"not supported Compile with .*\); cluster\.carrier=store works everywhere"):
        DeviceHandle("GPU-1", tuple(range(8))).open(torch.device("cuda"))
    monkeypatch.setattr("torch.multiprocessing.reductions.reduce_tensor", refuse)
    on_gpu = SimpleNamespace(device=torch.device("cuda:0"), detach=lambda: None)
    with pytest.raises(RuntimeError, match=r"CUDA does not share memory of this GPU .*; cluster\.carrier=store works everywhere"):
        _handle(on_gpu)  # type: ignore[arg-type]
