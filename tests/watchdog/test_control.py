# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket against clients that are wrong, slow or hostile."""

from __future__ import annotations

import json
import random
import socket
import stat

import pytest

from watchdog.client import Client, CommandError
from watchdog.errors import NoDaemonError


@pytest.fixture
def raw(rig):
    """Sends bytes on a connection of its own and returns what comes back until it closes."""

    def send(data: bytes, wait: float = 2.0) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(wait)
            peer.connect(str(rig.client.path))
            got = b""
            try:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while chunk := peer.recv(65536):
                    got += chunk
            except (TimeoutError, ConnectionError):
                pass
            return got

    return send


def test_the_socket_is_private(rig) -> None:
    assert stat.S_IMODE(rig.client.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(rig.client.path.parent.stat().st_mode) == 0o700


WRONG = [
    (b"\n", "no JSON"),
    (b"hello\n", "no JSON"),
    (b"[1]\n", "verb"),
    (b'{"verb": 3}\n', "verb"),
    (b'{"verb": "explode"}\n', "no verb"),
    (b'{"verb": "start"}\n', "no vnode None"),
    (b'{"verb": "start", "vnode": {"a": 1}}\n', "no vnode"),
    (b'{"verb": "start", "vnode": 1, "force": "yes"}\n', "force is true or false"),
    (b'{"verb": "wait", "vnode": 1, "timeout_ms": -1}\n', "timeout_ms is a number"),
    (b'{"verb": "wait", "vnode": 1, "timeout_ms": true}\n', "timeout_ms is a number"),
    (b'{"verb": "wait", "vnode": 1, "state": "happy"}\n', "no state"),
    (b'{"verb": "wait", "vnode": 1, "state": [[]]}\n', "no state"),
    (b'{"verb": "inject", "vnode": 1, "kind": "boom"}\n', "no fault"),
    (b'{"verb": "inject", "vnode": 1, "kind": "panic", "cpu": 9}\n', "cpu is a number"),
    (b'{"verb": "console-input", "vnode": 1, "data": "!"}\n', "base64"),
    (b'{"verb": "command", "vnode": 1, "command": "sysrq", "key": "; rm"}\n', "sysrq wants"),
    (b'{"verb": "command", "vnode": 1, "command": "freeze"}\n', "no command 'freeze'; known: ping"),
    (b'{"verb": "shutdown", "vnodes": "maybe"}\n', '"stop" or "leave"'),
    (b"[" * 60000 + b"\n", "no JSON"),
    (b'{"verb": "' + b"x" * 70000 + b'"}\n', "longer than"),
    (b"\xff\xfe\x00\n", "no JSON"),
]


def test_wrong_requests_get_one_line_and_the_daemon_lives(rig, raw) -> None:
    for request, words in WRONG:
        reply = json.loads(raw(request))
        assert reply["ok"] is False and words in reply["error"], (request[:60], reply)
        assert reply["code"] in (1, 2, 3, 4, 6) and "\n" not in reply["error"]
    assert rig.client.call("ping")["ok"]


def test_random_bytes(rig, raw) -> None:
    rng = random.Random(5)
    for _ in range(60):
        raw(rng.randbytes(rng.randrange(400)) + rng.choice([b"", b"\n"]))
    assert rig.client.call("ping")["ok"]
    assert all(v["state"] == "running" for v in rig.client.call("status")["vnodes"])


def test_slow_and_deaf_clients_stop_nothing(rig) -> None:
    peers = []
    try:
        for number in range(70):  # more than are served
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            peer.settimeout(1)
            peers.append(peer)
            try:
                peer.connect(str(rig.client.path))
                # half a request, or requests without ever reading the replies
                peer.sendall(b'{"verb": "sta' if number % 2 else b'{"verb": "status"}\n' * 50)
            except OSError:
                break
        rig.machine.vnodes[2].crash()
        rig.until(lambda: len(rig.incidents()) == 1, "the incident")
    finally:
        for peer in peers:
            peer.close()
    rig.wait(2, "running", incarnation=2)


def test_events_follow_the_states(rig) -> None:
    stream = rig.client.stream("events")
    assert next(stream)["following"]
    rig.client.call("stop", vnode=1)
    record = next(stream)
    assert (record["vnode"], record["state"], record["reason"]) == (1, "stopped", "operator")
    stream.close()


def test_console_input_reaches_the_vnode(rig) -> None:
    import base64

    data = base64.b64encode(b"ls\n").decode()
    assert rig.client.call("console-input", vnode=1, data=data)["taken"] == 3
    assert rig.machine.vnodes[1].keys() == b"ls\n"


def test_registers_and_commands(rig) -> None:
    assert rig.client.call("registers", vnode=2)["cpus"] == [0, 1]
    assert rig.client.call("command", vnode=1, command="ping") == {"ok": True, "taken": True}
    rig.client.call("command", vnode=1, command="halt")
    rig.wait(1, "halted")


def test_wait_times_out_with_its_code(rig) -> None:
    with pytest.raises(CommandError, match="is running, not halted, after") as caught:
        rig.client.call("wait", vnode=1, state="halted", timeout_ms=30)
    assert caught.value.exit_code == 7


def test_injection_needs_the_configs_word(make_rig, rig_tools) -> None:
    text = rig_tools.vnode_text(1, "one", [1]).replace("inject = true", "inject = false")
    rig = make_rig(text).start()
    rig.wait(1)
    with pytest.raises(CommandError, match="inject = true"):
        rig.client.call("inject", vnode=1, kind="panic")


def test_dry_run_prints_the_steps(rig) -> None:
    steps = rig.client.call("restart", vnode=2, dry_run=True)["steps"]
    assert [step["step"] for step in steps] == [
        "fenced",
        "captured",
        "loaded",
        "started",
        "running",
    ]
    assert rig.client.call("status")["vnodes"][1]["incarnation"] == 1


def test_dry_run_goes_by_the_configs_hold(rig) -> None:
    assert rig.client.call("restart", vnode=2, dry_run=True)["strategy"] == "spare"
    rig.config.write_text(rig.config.read_text().replace("[watch]\n", "[watch]\nhold = false\n"))
    assert rig.client.call("reload")["applied"] == ["[watch]"]
    assert rig.client.call("restart", vnode=2, dry_run=True)["strategy"] == "kmb"
    assert rig.client.call("restart", vnode=2, dry_run=True, strategy="cold")["strategy"] == "kmb"
    steps = rig.client.call("restart", vnode=2, dry_run=True, strategy="fire")["steps"]
    assert [one["does"] for one in steps if one["step"] == "captured"] == [
        "keep bridge and registers alone"  # in place
    ]


def test_nobody_there(tmp_path) -> None:
    with pytest.raises(NoDaemonError, match="vnode-debug up") as caught:
        Client(tmp_path / "none.sock").call("ping")
    assert caught.value.exit_code == 6
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.bind(str(dead))
    with pytest.raises(NoDaemonError):
        Client(dead).call("ping")
