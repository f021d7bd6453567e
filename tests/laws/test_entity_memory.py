"""Models per entity in a process of their own: its memory stays bounded while more models come and go than fit."""

import subprocess
import sys
from pathlib import Path

from tests.pure.test_composition import entity_folders, limited
from udfs.core.model.entities import memory_of
from udfs.core.model.files import ONNX_FILE
from udfs.core.model.memory import MemoryLimit

MODELS, MODEL_BYTES, MEMORY_MB, ROUNDS = 48, 2_000_000, 40, 3


def grown_mb(folder: Path, memory_mb: int) -> int:
    """Load every model a few times, and return by how much this process has grown."""
    folders = {f"champion.{one.name}": one for one in sorted(folder.iterdir())}
    models, rss = limited(folders, memory_mb), MemoryLimit(None)
    model = models.get(next(iter(folders)))
    before_mb, most_mb = rss.rss_mb, 0
    for _ in range(ROUNDS):
        for name in folders:
            model = models.get(name)
            model.score(model.scorer.blank(4096))
            most_mb = max(most_mb, rss.rss_mb)
    return most_mb - before_mb


def test_memory_is_bounded_with_many_more_models_than_fit(tmp_path: Path) -> None:
    folders = entity_folders(tmp_path, [f"m{i:02}" for i in range(MODELS)], padding=MODEL_BYTES)
    size = memory_of((folders["champion.m00"] / ONNX_FILE).stat().st_size)
    assert MODELS * size > 10 * MEMORY_MB * 2**20
    code = "import sys; from pathlib import Path; from tests.laws.test_entity_memory import grown_mb; "
    code += "print(grown_mb(Path(sys.argv[1]), int(sys.argv[2])))"
    grown = {}
    for memory_mb in (MEMORY_MB, 100 * MEMORY_MB):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(memory_mb)], check=True, capture_output=True, text=True
        )
        grown[memory_mb] = int(done.stdout)
    held, all_of_them = grown.values()
    assert held <= MEMORY_MB
    assert all_of_them > MODELS * MODEL_BYTES / 2**20 / 2, "without a limit it grows, so the measure measures"
