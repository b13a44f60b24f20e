"""Running an image as `docker-compose.yml` does: its user, a read-only root, no capability, one volume.

All containers of a check share one network of their own, with nothing but a loopback device: no port of this
machine is taken, and none can be reached.
"""

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.image.build import Image
from tests.image.roots import copy_root
from tests.support.workspace import wait_until

STOP_SECONDS = 30.0
_READY_SECONDS = 60.0


class Network:
    """A network namespace that lasts as long as this."""

    def __enter__(self) -> Self:
        script = "ip link set lo up && exec sleep infinity"
        self._holder = subprocess.Popen(["unshare", "--net", "--kill-child", "sh", "-c", script])
        wait_until(self._is_up, within=10, what="the network")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.wait()

    def command(self, *words: str) -> list[str]:
        """A command that runs in it."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *words]

    def _is_up(self) -> bool:
        own = os.readlink("/proc/self/ns/net")
        try:
            if os.readlink(f"/proc/{self._holder.pid}/ns/net") == own:
                return False
        except OSError:
            return False
        shown = subprocess.run(self.command("ip", "link"), capture_output=True, text=True, check=False)
        return "LOOPBACK,UP" in shown.stdout


class Container:
    """One container, with a volume that outlives its processes."""

    def __init__(
        self, image: Image, network: Network, volume: Path, arguments: list[str], **environment: str
    ) -> None:
        self._image = image
        self._network = network
        self._volume = volume
        self._arguments = arguments
        self._environment = {**image.environment, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.log = volume.with_suffix(".log")
        self._hosts = volume.with_suffix(".hosts")
        self._hosts.write_text("127.0.0.1 localhost\n")
        if not volume.exists():  # a fresh named volume gets what the image has there
            volume.mkdir(parents=True)
            copy_root(image.root / "data", volume)

    def start(self, until: list[str] | None = None) -> None:
        """Start it and wait until a command in it, by default the image's own health check, ends well."""
        check = until or self._image.stage.last("HEALTHCHECK").exec_form
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        wait_until(
            lambda: self.run(*check).returncode == 0, within=_READY_SECONDS, what=f"health: {self.log}"
        )

    def read(self, name: str) -> str:
        """A file of its main process under `/proc`."""
        return Path(f"/proc/{self._main_pid()}/{name}").read_text()

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`docker compose exec`: a command in the running container, as its user."""
        pid = self._main_pid()
        target = [
            "nsenter",
            f"--target={pid}",
            "--mount",
            "--net",
            "--pid",
            "--root",
            f"--wd=/proc/{pid}/cwd",
        ]
        return subprocess.run(
            [*target, *self._confined(*words)], capture_output=True, text=True, timeout=120, check=False
        )

    def kill(self) -> None:
        """SIGKILL to the server, as when the machine runs out of memory."""
        os.kill(self._main_pid(), signal.SIGKILL)
        self._running().wait(STOP_SECONDS)

    def stop(self) -> int:
        """The image's own stop signal; the exit code."""
        wanted = self._image.stage.last("STOPSIGNAL").arguments
        os.kill(self._main_pid(), signal.Signals[wanted])
        return self._running().wait(STOP_SECONDS)

    def discard(self) -> None:
        """End it, however it is."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(AssertionError, ProcessLookupError):
                os.kill(self._main_pid(), signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def _command(self) -> list[str]:
        root, words = self._image.root, [*self._image.stage.last("ENTRYPOINT").exec_form, *self._arguments]
        script = [
            f"mount --bind {root} {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs tmpfs {root}/tmp",
            f"mount --bind {self._volume} {root}/data",
            # A container gets this from its engine.
            f"mount --bind {self._hosts} {root}/etc/hosts",
            f"mount -o remount,bind,ro {root}",
            f"exec chroot {root} sh -c {shlex.quote(self._in_folder(words))}",
        ]
        confined = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", " && ".join(script)]
        return self._network.command(*confined)

    def _in_folder(self, words: list[str]) -> str:
        return f"cd {self._image.folder} && exec {shlex.join(self._confined(*words))}"

    def _confined(self, *words: str) -> list[str]:
        """As the image's user, without capabilities, with exactly its variables."""
        user, group = self._image.user.split(":")
        limits = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        return ["setpriv", *limits, f"--reuid={user}", f"--regid={group}", "env", "-i", *variables, *words]

    def _main_pid(self) -> int:
        """The first process of the container, as this machine numbers it: the child of `unshare`.

        It is awaited until it has entered its root: a command must never run in this machine's.
        """
        pid: int = wait_until(self._find_main, within=10, what="the container's first process")
        return pid

    def _find_main(self) -> int | None:
        process = self._running()
        if process.poll() is not None:
            raise AssertionError(f"the container has ended:\n{self.log.read_text()[-3000:]}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if not children or os.readlink(f"/proc/{children[0]}/root") != str(self._image.root):
            return None
        return int(children[0])

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started"
        return self._process
