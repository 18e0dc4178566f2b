# SPDX-License-Identifier: GPL-2.0-or-later
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from debugger import server
from debugger.errors import DebuggerError, SocketInUse
from debugger.packet import frame
from debugger.server import Server, converse
from debugger.session import Phase, Session
from debugger.target import Change
from tests.debugger.conftest import PlainTarget


@pytest.fixture
def running(tmp_path: Path, target: PlainTarget) -> Iterator[Server]:
    made = Server(lambda: target, tmp_path / "run" / "rsp.sock")
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.close()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.settimeout(20)
    return client


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def test_the_socket_is_private(running: Server) -> None:
    assert running.path.stat().st_mode & 0o777 == 0o600
    assert running.path.parent.stat().st_mode & 0o777 == 0o700


def test_many_watch_at_once(running: Server) -> None:
    clients = [connect(running.path) for _ in range(5)]
    for client in clients:
        client.sendall(b"$qC#b4")
    for client in clients:
        assert receive(client, 8) == b"+$QC1#c5"
        client.close()


def test_a_client_that_asks_nothing_costs_nothing(running: Server) -> None:
    client = connect(running.path)
    client.sendall(b"$qC#b4")
    assert receive(client, 8) == b"+$QC1#c5"
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25


def test_a_client_that_vanishes_in_the_middle_harms_nobody(running: Server) -> None:
    for wire in (b"", b"$", b"$m1234", b"$vCont;c#a8", b"\x03"):
        client = connect(running.path)
        client.sendall(wire)
        client.close()
    client = connect(running.path)
    client.sendall(b"$qC#b4")
    assert receive(client, 8) == b"+$QC1#c5"


def test_a_detached_client_is_disconnected(running: Server) -> None:
    client = connect(running.path)
    client.sendall(b"$D#44")
    assert receive(client, 100) == b"+" + frame(b"OK")


def test_a_waiting_client_hears_of_a_crash(running: Server, target: PlainTarget) -> None:
    client = connect(running.path)
    client.sendall(b"$vCont;c#a8")
    assert receive(client, 1) == b"+"
    target.next_change = Change("panic", gone=False)
    reply = frame(b"O" + b"web: panic\n".hex().encode()) + frame(b"T05thread:1;core:0;")
    assert receive(client, len(reply)) == reply


def test_a_second_server_is_refused(running: Server) -> None:
    with pytest.raises(SocketInUse, match="another server listens"):
        server.listen(running.path)
    connect(running.path).close()


def test_the_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rsp.sock"
    code = (
        "import sys, debugger.server as s; L = s.listen(s.Path(sys.argv[1])); print(1, flush=True)"
    )
    code += "; sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(server.__file__).parents[1],
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(SocketInUse):
        server.listen(path)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert path.exists()
    server.listen(path).close()


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(DebuggerError, match="is no socket"):
        server.listen(path)
    assert path.read_text() == "data"


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DebuggerError, match="cannot listen"):
        server.listen(tmp_path / ("x" * 120))


def test_closing_leaves_another_servers_socket(tmp_path: Path, target: PlainTarget) -> None:
    path = tmp_path / "rsp.sock"
    old = Server(lambda: target, path)
    path.unlink()
    new = Server(lambda: target, path)
    old.close()
    assert path.exists()
    new.close()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_other_users_are_refused(running: Server) -> None:
    running.path.chmod(0o777)
    code = "import os,socket,sys; os.setuid(65534); c=socket.socket(socket.AF_UNIX);"
    code += "c.connect('rsp.sock'); c.sendall(b'$qC#b4'); sys.exit(len(c.recv(9)))"
    running.path.parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=running.path.parent, timeout=30)
    assert done.returncode in (0, 1)  # end of file, or a broken connection: no answer


class Pipe:
    """A Stream of fixed input."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.always, end = os.pipe()  # readable: its other end is closed
        os.close(end)
        self.sent = b""

    def recv(self, size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def fileno(self) -> int:
        return self.always


def test_a_conversation_ends_with_its_stream(target: PlainTarget) -> None:
    pipe = Pipe([b"$qC", b"#b4", b"$vCont;c#a8"])
    session = Session(target)
    converse(pipe, session)
    assert pipe.sent == b"+$QC1#c5+"
    assert session.phase is Phase.CLOSED


def test_stdio(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from tests.debugger.conftest import PlainTarget\n"
        "from debugger.server import serve_stdio\nserve_stdio(PlainTarget)"
    )
    root = str(Path(server.__file__).parents[1])
    wire = b"$vCont;c#a8" + b"$qC#b4" + b"\x03" + b"$D#44"
    child = subprocess.Popen(
        [sys.executable, "-c", code, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.write(wire)
    child.stdin.flush()
    started = time.monotonic()
    assert child.stdout is not None
    out = child.stdout.read()
    assert child.wait() == 0
    assert out.endswith(frame(b"T02thread:1;core:0;") + b"+" + frame(b"OK"))
    assert time.monotonic() - started < 30
