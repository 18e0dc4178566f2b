# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is at the other end of a Unix socket: only root and our own user are served."""

import os
import socket
import struct
from typing import Final

_UCRED: Final = struct.Struct("3i")  # struct ucred of include/linux/socket.h: pid, uid, gid


def permitted(peer: socket.socket) -> bool:
    """Whether the peer of a connected Unix socket may be served."""
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(data)
    return uid in (0, os.geteuid())
