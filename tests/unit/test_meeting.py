"""Learner ranks meet at a store of rank 0's, at one address, and who does not come is named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from torch.distributed import TCPStore

from rl.meeting import LOOPBACK, MeetingError, Member, interface

ROOT = Path(__file__).parents[2]
SUM = """
import sys, torch
from rl.meeting import Member
rank, port = map(int, sys.argv[1:])
member = Member(rank)
if not port:
    host, port = member.listen("127.0.0.1", "127.0.0.1")
    print(port, flush=True)
member.meet(("127.0.0.1", port), 2, "gloo", 240.0)
one = torch.tensor([10.0 ** rank])
torch.distributed.all_reduce(one)
print(one.item(), flush=True)
sys.stdin.read()
"""


def rank(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SUM, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_ranks_of_one_machine_meet_and_listen_on_loopback_alone():
    ranks = [rank(0, 0)]
    try:
        assert ranks[0].stdout
        ranks.append(rank(1, int(ranks[0].stdout.readline())))
        assert [one.stdout.readline().strip() for one in ranks if one.stdout] == ["11.0", "11.0"]  # 1 + 10
        sockets = [one for process in ranks for one in psutil.Process(process.pid).net_connections("inet") if one.status == "LISTEN"]
        assert len(sockets) >= 2 and {one.laddr.ip for one in sockets} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    finally:
        for one in ranks:
            one.kill()
            one.communicate()


def test_the_rank_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "rl.meeting.TCPStore", lambda *where, **how: TCPStore(*where[:4], timedelta(minutes=1), **how)
    )  # it itself comes late
    first = Member(0)
    at = first.listen("10.9.9.1", "10.9.9.1", "10.9.9.1")
    assert at[0] == LOOPBACK  # one node, whatever it is called
    with pytest.raises(MeetingError, match=rf"^rank 1 of 3 did not come to 127.0.0.1:{at[1]} within 1 s$"):
        first.meet(at, 3, "gloo", 1.0)


def test_a_rank_that_cannot_reach_the_first_says_so_with_the_remedy():
    with socket.socket() as kept:  # nobody listens there, and nobody else is given it
        kept.bind((LOOPBACK, 0))
        at = kept.getsockname()
        with pytest.raises(
            MeetingError, match=rf"^rank 1 on \S+ does not reach rank 0 at 127.0.0.1:{at[1]} within 1 s; .*every port must be open"
        ):
            Member(1).meet(at, 2, "gloo", 1.0)


def test_a_port_is_never_one_that_is_taken():
    members = [Member(0) for _ in range(50)]
    assert len({member.listen(LOOPBACK) for member in members}) == 50


def test_ranks_of_several_nodes_meet_at_the_first_one_and_speak_through_the_interface_of_their_address(monkeypatch: pytest.MonkeyPatch):
    assert interface(LOOPBACK) == "lo" and interface("10.255.255.254") == ""
    mine = next(
        (one.address for name, has in psutil.net_if_addrs().items() if name != "lo" for one in has if one.family == socket.AF_INET), None
    )
    if mine is None:
        pytest.skip("this machine has no network")
    first, name = Member(0), interface(mine)
    at = first.listen(mine, "10.255.255.254")
    assert at[0] == mine
    monkeypatch.setattr(Member, "address", lambda _: mine)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **__: None)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")  # said by someone who knows the machine
    first.meet(at, 1, "gloo", 60.0)
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == (name, "ib0")


def test_ranks_of_one_node_speak_on_loopback_and_nccl_reaches_engines_on_other_nodes(monkeypatch: pytest.MonkeyPatch):
    names = {LOOPBACK: "lo", "10.9.9.1": "eth7"}
    monkeypatch.setattr("rl.meeting.interface", lambda address: names[address])
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **__: None)
    for own, expected in ((LOOPBACK, "=lo"), ("10.9.9.1", "=eth7")):
        first = Member(0)
        at = first.listen(own, own)
        monkeypatch.setattr(Member, "address", lambda _, own=own: own)
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            monkeypatch.setenv(variable, "")
            monkeypatch.delenv(variable)
        first.meet(at, 1, "gloo", 60.0)
        assert (at[0], os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == (LOOPBACK, "lo", expected)
