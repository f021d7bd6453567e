"""The folder that one set of services lives in: its logs, pid files, data, settings and endpoints.

Two homes are two independent sets of services; nothing is written outside of them.
"""

from dataclasses import dataclass
from pathlib import Path

from udfs.core.home import services_home

REPOSITORY = Path(__file__).resolve().parents[2]
JARS = REPOSITORY / "build" / "jars"


@dataclass(frozen=True, slots=True)
class Home:
    """Where each kind of file of one set of services is kept.

    Parameters
    ----------
    root : absolute folder; it need not exist yet.

    Examples
    --------
    >>> Home(Path("/srv/h")).pid_file("redis").as_posix()
    '/srv/h/run/redis.json'
    """

    root: Path

    @property
    def logs(self) -> Path:
        """Folder of the log files, one per process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Folder of the pid files, and the working folder of every process."""
        return self.root / "run"

    @property
    def data(self) -> Path:
        """Folder of what the services store; deleting it while they are down makes them new."""
        return self.root / "data"

    @property
    def conf(self) -> Path:
        """Folder of the generated settings, written anew at every start."""
        return self.root / "conf"

    @property
    def ports_file(self) -> Path:
        """Where the chosen ports are remembered."""
        return self.root / "ports.json"

    @property
    def endpoints_file(self) -> Path:
        """Where other programs read the addresses."""
        return self.root / "endpoints.json"

    def log_file(self, process: str) -> Path:
        """Where the standard output and error of a process go."""
        return self.logs / f"{process}.log"

    def pid_file(self, process: str) -> Path:
        """Where the identity of a running process is kept."""
        return self.run / f"{process}.json"

    def create(self) -> None:
        """Make the folders."""
        for folder in (self.logs, self.run, self.data, self.conf):
            folder.mkdir(parents=True, exist_ok=True)


def home_at(root: Path | None = None) -> Home:
    """Return the home at `root`, else at `$HEADRACE_HOME`, else at `build/local` of the repository."""
    return Home(root.expanduser().resolve() if root else services_home())
