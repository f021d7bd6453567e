"""What a controller deploys: a pipeline in an environment, kept as it was for when the old version comes back."""

import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from flink_jobs.config import Environment, load_environment
from flink_jobs.deploy.health import Topics
from flink_jobs.launch import is_local
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import PIPELINE_FILE, load_pipeline
from udfs.core.errors import StateFormatError
from udfs.core.plan.checking import check_pipeline
from udfs.core.state.header import StateHeader
from udfs.core.state.migration import plan_migration

_HEADER = "header.json"


@dataclass(frozen=True)
class Target:
    """One pipeline in one environment."""

    pipeline: Path
    environment_file: Path

    @property
    def environment(self) -> Environment:
        """The environment, its references resolved now."""
        return load_environment(self.environment_file)

    @property
    def declared(self) -> Pipeline:
        """The definition, without topic prefix."""
        return load_pipeline(self.pipeline)

    @property
    def job_name(self) -> str:
        """Name of the job in the cluster."""
        return self.environment.job_name(self.declared.name)

    @property
    def is_local(self) -> bool:
        """Say whether it runs on the local services."""
        return is_local(self.environment_file)

    @property
    def topics(self) -> Topics:
        """Topics that tell how the job fares."""
        return Topics.of(self.declared, self.environment)

    @property
    def folder(self) -> Path:
        """Where its ledger is."""
        root = Path(self.environment.deploy.folder)
        return (self.environment_file.resolve().parent.parent / root / self.job_name).resolve()

    def keep(self) -> str:
        """Keep a copy of the definition as it is now, and return its digest."""
        declared, digest = self.declared, hashlib.sha256(self.environment_file.read_bytes())
        files = [PIPELINE_FILE, *(lookup.file for lookup in declared.lookups)]
        files += [declared.derive.function.partition(":")[0]] if declared.derive else []
        for file in dict.fromkeys(files):
            content = (self.pipeline / file).read_bytes()
            digest.update(f"{file}\0{len(content)}\0".encode() + content)
        config = digest.hexdigest()[:16]
        kept = self.kept(config)
        if not kept.is_dir():
            draft = kept.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            for file in dict.fromkeys(files):
                (draft / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.pipeline / file, draft / file)
            pipeline = declared.with_topic_prefix(self.environment.kafka.topic_prefix)
            (draft / _HEADER).write_bytes(StateHeader.of(pipeline, self.pipeline).encode())
            draft.rename(kept)
        return config

    def kept(self, config: str) -> Path:
        """Return the folder of a definition that was kept."""
        return self.folder / "configs" / config

    def is_kept(self, config: str) -> bool:
        """Say whether a definition was kept, with what its state is like."""
        return (self.kept(config) / _HEADER).is_file()

    def refuse_unfit(self, old: str | None, new: str) -> str:
        """Hold the state of the job that runs to the definition that is to come, and return the plan in a line.

        Raises
        ------
        StateFormatError : the new job cannot go on from it.
        """
        if old is None or not self.is_kept(old):
            return "the running job was not started by a controller; its savepoint is held to the definition"
        if old == new:
            return "same definition"
        before, after = (StateHeader.decode((self.kept(one) / _HEADER).read_bytes()) for one in (old, new))
        plan = plan_migration(before, after)
        if not plan.fits:
            msg = f"no job can go on from the state as it is: {'; '.join(plan.obstacles)}; migrate it: headrace state"
            raise StateFormatError(msg)
        counts = Counter(change.action for change in plan.changes)
        return ", ".join(f"{action}: {count}" for action, count in counts.items())

    def feature_set(self, config: str) -> str:
        """Return the feature set hash of a definition that was kept."""
        return check_pipeline(self.kept(config)).feature_set
