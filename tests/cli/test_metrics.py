# SPDX-License-Identifier: GPL-2.0-or-later
"""metrics: valid text, hostile names, with and without a daemon, and the exporter."""

import http.client
import json
import os
import re
import socket
import stat
import threading
import time

import pytest

from cli import exporter, exposition
from cli.errors import CliError
from cli.exposition import Family, render
from crashdump.store import IncidentStore
from watchdog.eventlog import EventLog
from watchdog.observe import take

SAMPLE = re.compile(
    r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\["\\n])*"(,|(?=\})))+\})? -?[0-9.e+-]+(inf|nan)?'
)


def check(text):
    """Every line is a sample of a family announced before it, no sample twice."""
    known, seen = set(), set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            known.add(line.split()[2])
            assert line.split()[3] in ("gauge", "counter")
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            name = line.rpartition(" ")[0]
            assert name not in seen, line
            seen.add(name)
            assert re.split("[{ ]", line)[0] in known
    return seen


@pytest.fixture
def stored(places):
    with IncidentStore(places / "state", warn=print) as store:
        one = store.create(vnode=2, name='b"e\\ta\n', incarnation=1, reason="irqhang", crash=True)
        store.finish(one.id, stamps={"fault": 0, "seen": 500_000_000})
    made = EventLog(places / "state")
    made.start()
    for at, was, state in (
        (0, "booting", "running"),
        (9, "running", "suspect"),
        (10, "suspect", "running"),
    ):
        made.put({"time": at, "vnode": 2, "name": "beta", "was": was, "event": state})
    made.stop()


def test_the_figures_are_there(call, world, stored):
    result = call("metrics", world=world)
    assert result.code == 0
    check(result.out)
    for line in (
        "vnode_debug_up 1",
        'vnode_debug_state{vnode="2",name="beta",state="running"} 1',
        'vnode_debug_restarts_total{vnode="2",name="beta"} 3',
        'vnode_debug_incidents_total{vnode="2",name="b\\"e\\\\ta\\\\n",reason="irqhang"} 1',
        'vnode_debug_detection_seconds{reason="irqhang",quantile="0.99"} 0.5',
        'vnode_debug_mistakes_total{vnode="2",name="beta"} 1',
        'vnode_debug_query_accuracy{vnode="2",name="beta"} 0.9',
        "vnode_debug_dumps 0",
    ):
        assert line in result.out.splitlines(), line
    assert 'vnode_debug_beats_total{vnode="1",name="alpha",cpu="0",layer="irq"}' in result.out
    found = json.loads(call("metrics", "--json", world=world).out)
    assert {"name": "vnode_debug_up", "value": 1} in found


def test_an_in_kernel_fire_is_told_of(world):
    now = take(world.machine)
    alpha, beta = now.samples
    now = now._replace(samples=(alpha._replace(fire="armed"), beta._replace(fire="fired")))
    lines = render(exposition.machine(now)).splitlines()
    assert 'vnode_debug_fire_armed{vnode="1",name="alpha"} 1' in lines
    assert 'vnode_debug_fire_armed{vnode="2",name="beta"} 0' in lines


def test_a_dead_daemon_is_seen(call, world):
    world.clock.advance(60)
    result = call("metrics", world=world)
    assert result.code == 0 and "vnode_debug_up 0" in result.out.splitlines()
    check(result.out)


def test_hostile_labels_are_escaped():
    names = ['"', "\\", "\n", "\x1b[2J", "\u202e", "}", '{a="b"} 1\nx 2']
    text = render([Family("x", "gauge", "Words.", [({"name": name}, 1) for name in names])])
    assert len(check(text)) == len(names)


def ask(address, path="/metrics", method="GET"):
    if isinstance(address, str):
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(address)
    else:
        connection = http.client.HTTPConnection(*address, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


class Served:
    """An exporter in a thread."""

    def __init__(self, address, text):
        self.said = []
        run = threading.Thread(
            target=exporter.serve, args=(address, text, self.said.append), daemon=True
        )
        run.start()
        end = time.monotonic() + 5
        while not self.said:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.fixture(params=["unix", "tcp"])
def address(request, tmp_path):
    if request.param == "unix":
        return str(tmp_path / "m.sock")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()


def test_the_exporter_answers_and_survives_its_clients(address, monkeypatch):
    monkeypatch.setattr(exporter, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(exporter._Handler, "timeout", 0.5)
    texts = iter(["a 1\n", "b 2\n"])
    Served(address, lambda: next(texts))
    assert ask(address) == (200, "a 1\n")
    assert ask(address, "/etc/passwd")[0] == 404
    assert ask(address, method="POST")[0] == 501
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    idle = [socket.socket(family) for _ in range(exporter.CLIENTS_MAX + 4)]
    for one in idle:
        one.connect(address)
        one.sendall(b"GET /met")
    time.sleep(1.0)
    idle[0].close()
    assert ask(address) == (200, "b 2\n")
    status, text = ask(address)
    assert status == 503 and "StopIteration" in text
    for one in idle:
        one.close()


def test_a_unix_socket_is_ours_alone_and_a_live_one_is_not_taken(tmp_path):
    path = tmp_path / "m.sock"
    Served(str(path), lambda: "x 1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(CliError, match="somebody listens"):
        exporter.serve(str(path), lambda: "", print)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CliError, match="no socket"):
        exporter.serve(str(tmp_path / "file"), lambda: "", print)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_socket_left_by_a_killed_exporter_is_replaced(tmp_path):
    path = tmp_path / "m.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(os.fspath(path))
    left.close()
    Served(str(path), lambda: "x 1\n")
    assert ask(str(path)) == (200, "x 1\n")


def test_a_port_in_use_is_one_line(call, world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = call("metrics", "--listen", f"127.0.0.1:{port}", world=world)
    assert result.code == 1 and "cannot listen" in result.err and result.err.count("\n") == 1
