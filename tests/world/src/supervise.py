"""Runs one program and ends it, with everything below it, when the pipe on stdin closes.

A kernel closes a dead process's pipes however it died, so this works where a signal handler or a destructor in the parent would
not: after SIGKILL. Being a subreaper, the supervisor also inherits whatever the program left behind by forking twice.

stdin:  one line of JSON (argv, env, cwd), then commands: "stop <seconds>", "kill".
stdout: "started <pid>" or "failed <why>", then "exited <wait status>" once nothing is left below.
stderr: the program's log.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time

ORPHANED_GRACE = 3.0
LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option, value):
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def say(line):
    try:
        os.write(1, (line + "\n").encode())
    except OSError:
        pass  # The parent is gone; stdin tells the same.


class Commands:
    """Lines from stdin; None once it has closed."""

    def __init__(self):
        self.pending = b""

    def read(self):
        data = os.read(0, 65536)
        if not data:
            return None
        self.pending += data
        *lines, self.pending = self.pending.split(b"\n")
        return lines


def launch(spec):
    """Forks and execs; returns the pid, or raises what exec raised."""
    why_read, why_write = os.pipe()  # Closed by a successful exec.
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            # The second line of defence: somebody kills the supervisor itself.
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(127)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            if spec["cwd"] is not None:
                os.chdir(spec["cwd"])
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
        except BaseException as error:
            os.write(why_write, str(error).encode())
        os._exit(127)
    os.close(why_write)
    why = os.read(why_read, 4096)
    os.close(why_read)
    if why:
        os.waitpid(pid, 0)
        raise OSError(why.decode())
    return pid


def below():
    """Every process below this one. Only Linux can tell; elsewhere the process group has to do."""
    children = {}
    for name in os.listdir("/proc") if LINUX else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue  # It ended meanwhile.
            children.setdefault(parent, []).append(int(name))
    found, unseen = [], [os.getpid()]
    while unseen:
        for child in children.get(unseen.pop(), ()):
            found.append(child)
            unseen.append(child)
    return found


def signal_quietly(send, target, number):
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_everything(main):
    signal_quietly(os.killpg, main, signal.SIGKILL)
    for pid in below():
        signal_quietly(os.kill, pid, signal.SIGKILL)


def sweep(main):
    """Kills until nothing is left: what was killed hands its own children to us, and these may fork meanwhile."""
    while True:
        kill_everything(main)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def supervise():
    for leaked in [int(name) for name in os.listdir("/dev/fd")]:
        if leaked > 2:
            try:
                os.close(leaked)
            except OSError:
                pass  # The listing's own.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    asked_to_end = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.append(True))
    for number in (signal.SIGINT, signal.SIGHUP):  # A terminal's: the parent decides.
        signal.signal(number, signal.SIG_IGN)

    commands = Commands()
    lines = []
    while not lines:
        received = commands.read()
        if received is None:
            return
        lines += received
    spec = json.loads(lines.pop(0))
    try:
        main = launch(spec)
    except OSError as error:
        say(f"failed {error}")
        return
    say(f"started {main}")

    watched = [0, wake_read]
    kill_at = None

    def stop(grace):
        nonlocal kill_at
        deadline = time.monotonic() + grace
        kill_at = deadline if kill_at is None else min(kill_at, deadline)
        signal_quietly(os.kill, main, signal.SIGTERM)

    while True:
        # `main` is ours to wait for, so its number cannot be another process's before this loop has ended.
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "stop":
                stop(float(rest))
            elif word == "kill":
                kill_everything(main)
        lines = []
        if asked_to_end:
            asked_to_end.clear()
            stop(ORPHANED_GRACE)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            if pid == main:
                sweep(main)
                say(f"exited {status}")
                return
        timeout = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(watched, [], [], timeout)
        if kill_at is not None and time.monotonic() >= kill_at:
            kill_everything(main)
            kill_at = time.monotonic() + 0.1
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready:
            received = commands.read()
            if received is None:
                watched.remove(0)
                stop(ORPHANED_GRACE)
            else:
                lines = received


supervise()
