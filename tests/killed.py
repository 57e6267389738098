"""Kills a process with signal 9, at a moment that the test chooses."""

import signal
import subprocess
import sys


def kill_when(code, arguments, *, wait):
    """Runs Python `code` until it prints 'ready' and `wait()` returns; whether it was still at work then."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    wait()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return child.returncode == -signal.SIGKILL


def tree(folder):
    """Name -> bytes of every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
