"""Flink: a session cluster from the wheel, one JobManager and one TaskManager that is started again when it dies."""

from dataclasses import dataclass
from typing import ClassVar

from scripts.services import flink_conf, probe
from scripts.services.home import JARS, Home
from scripts.services.processes import Command

# A TaskManager can die natively: a shell starts it again until it is asked to stop. Its Python workers outlive it,
# so they are ended first; `-s 0` is the shell's own session, and the brackets keep the pattern from matching the shell.
_KEEP_RUNNING = """
trap 'exit 0' TERM
while true; do
  "$@" &
  wait $!
  echo "the TaskManager ended with exit code $?; it starts again in a second"
  pkill -KILL -s 0 -f '[b]eam_boot' || true
  sleep 1
done
"""


@dataclass(frozen=True, slots=True)
class Flink:
    """One standalone Flink cluster."""

    home: Home
    port: int
    rpc_port: int

    name: ClassVar[str] = "flink"
    ready_timeout_s: ClassVar[float] = 120.0
    grace_s: ClassVar[float] = 15.0

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports that must be free before the start."""
        return (self.port, self.rpc_port)

    def check(self) -> None:
        """Raise when Java, PyFlink or the connector's jar are missing."""
        probe.java()
        probe.require_jars(JARS / self.name)
        flink_conf.wheel_folder()

    def prepare(self) -> None:
        """Write the settings and collect the jars."""
        wheel = flink_conf.wheel_folder()
        flink_conf.write_conf(self.home, wheel=wheel, rest_port=self.port, rpc_port=self.rpc_port)
        # PyFlink's jar and the connector in the cluster's own classpath: else every submission loads its own copy.
        jars = (
            *(wheel / "lib").glob("*.jar"),
            *(wheel / "opt").glob("flink-python-*.jar"),
            *(JARS / self.name).glob("*.jar"),
        )
        flink_conf.link_jars(flink_conf.lib_dir(self.home), *jars)
        for folder in ("checkpoints", "savepoints", "rocksdb-log", "tmp"):
            (self.home.data / self.name / folder).mkdir(parents=True, exist_ok=True)

    def commands(self) -> tuple[Command, ...]:
        """Return the programs to run."""
        wheel = flink_conf.wheel_folder()
        jobmanager = (str(wheel / "bin" / "jobmanager.sh"), "start-foreground")
        taskmanager = (str(wheel / "bin" / "taskmanager.sh"), "start-foreground")
        env = {
            "FLINK_HOME": str(wheel),
            "FLINK_CONF_DIR": str(flink_conf.conf_dir(self.home)),
            "FLINK_LIB_DIR": str(flink_conf.lib_dir(self.home)),
            "FLINK_OPT_DIR": str(wheel / "opt"),
            "FLINK_PLUGINS_DIR": str(wheel / "plugins"),
            "FLINK_LOG_DIR": str(self.home.logs),
            "FLINK_PID_DIR": str(self.home.run),
            "FLINK_IDENT_STRING": "headrace",
            "PATH": flink_conf.path_with_python(),
            # The rolling files beside these have everything, and the web page shows those.
            "JVM_ARGS": "-Dconsole.log.level=WARN",
        }
        return (
            Command("jobmanager", jobmanager, env),
            Command("taskmanager", ("bash", "-c", _KEEP_RUNNING, "taskmanager", *taskmanager), env),
        )

    def waiting_for(self) -> str | None:
        """Return what is still missing, or None when the slots are there."""
        slots = probe.get_json(self.port, "/overview").get("slots-total")
        if slots is None:
            return f"a JobManager on port {self.port}"
        return None if slots >= flink_conf.SLOTS else f"{flink_conf.SLOTS} task slots; {slots} so far"
