# SPDX-License-Identifier: GPL-2.0-or-later
"""How the dashboard starts: lazily, on a terminal, and in a browser on loopback alone."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tui import keys, web
from tui.errors import NoWebServer

ROOT = Path(__file__).resolve().parents[2]


def test_other_verbs_do_not_import_it():
    program = (
        "import sys; from cli.main import run; run(['status', '--help']); run(['tui', '--help']);"
        "sys.exit(any(name.split('.')[0] in ('textual', 'rich') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_web_server_listens_on_loopback(monkeypatch):
    made = []

    class Server:
        def __init__(self, command, **settings):
            made.append((command, settings["host"], settings["port"]))

        def serve(self):
            made.append("served")

    monkeypatch.setattr("textual_serve.server.Server", Server)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    web.serve(["vnode-debug", "tui", "--readonly"], port)
    assert made == [("vnode-debug tui --readonly", "127.0.0.1", port), "served"]


def test_a_port_that_is_taken_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NoWebServer, match=r"port \d+: .*--port"):
            web.serve(["vnode-debug"], taken.getsockname()[1])


def test_keys_have_ids_of_their_own_and_do_not_clash_in_a_place():
    ids = [key.id for key in keys.KEYS]
    assert len(set(ids)) == len(ids)
    for place in keys.PLACES:
        spelled = [key.key for key in keys.KEYS if key.place == place]
        assert len(set(spelled)) == len(spelled)
