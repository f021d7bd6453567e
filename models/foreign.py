"""A model trained elsewhere: any ONNX file of standard operators -> checked, bound to a pipeline's features, sealed."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.binding import Meant, bind
from models.check import check_file, check_strictly
from models.formats import refuse_pickle_names
from models.lineage import feature_sources, step_columns
from models.package import EXPECTED_TOLERANCE, Package
from models.registration import Entry
from udfs.core.errors import did_you_mean
from udfs.core.model.contract import ModelContract, Output
from udfs.core.model.files import MAX_BYTES, ONNX_FILE, plain_name, read_file, sha256
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Matrix
from udfs.core.plan.checking import check_pipeline
from udfs.core.rows.ingest import number_column

EXPECTED = "expected"
"""Column of golden rows that holds what the model's own library gives: a number, or a list of them."""
MAX_GOLDEN_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a person says of an ONNX file."""

    file: Path
    pipeline: Path
    #: registered name; None: the one that the pipeline scores with
    name: str | None = None
    #: features in the order of the model's columns; empty: as the file says, else the pipeline's own order
    inputs: tuple[str, ...] = ()
    meant: Meant = field(default_factory=Meant)
    threshold: float | None = None
    #: Parquet file of golden rows: the features, and `expected`
    rows: Path | None = None
    tolerance: float = EXPECTED_TOLERANCE
    #: what is known of how it was trained
    provenance: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def prepare(what: Foreign) -> Entry:
    """Check an ONNX file from elsewhere and make everything that is registered with it.

    Raises
    ------
    DefinitionError : the pipeline is wrong.
    ModelRefusedError : a rule is broken, see `Refusal`.
    """
    refuse_pickle_names([what.file.name], f"{what.file}")
    checked = check_pipeline(what.pipeline)
    onnx = read_file(what.file.parent, what.file.name, MAX_BYTES[ONNX_FILE])
    name = plain_name(what.name or checked.pipeline.model.name)
    said = check_file(onnx, f"{what.file}")
    check_strictly(onnx)
    tensors, output = bind(
        onnx, f"{what.file}", what.inputs, checked.columns, what.meant, step_columns(checked.pipeline)
    )
    inputs = [feature for tensor in tensors for feature in tensor.features]
    contract = ModelContract(
        name=name,
        files={ONNX_FILE: sha256(onnx)},
        pipeline=checked.pipeline.name,
        feature_set=checked.feature_set,
        tensors=tensors,
        output=output,
        threshold=_threshold(what.threshold, output),
        provenance={"exporter": said.producer, "file": what.file.name, **what.provenance},
        lineage=feature_sources(checked.pipeline, checked.folder, inputs),
    )
    rows, expected = (None, None) if what.rows is None else golden_rows(what.rows, inputs)
    package = Package.seal(onnx, contract, rows, expected, what.tolerance)
    params = {**contract.provenance, "features": len(inputs), "output": output.meaning}
    return Entry(package, checked.pipeline.description, f"{name} from {what.file.name}", params, what.metrics)


def golden_rows(path: Path, inputs: list[str]) -> tuple[Matrix, Matrix | None]:
    """Read golden rows from a Parquet file: the features, float64[n, inputs], and what is expected, if it says so.

    Raises
    ------
    ModelRefusedError : `names` or `dtype`: a feature is missing or no number. `missing_file`. `shape`: no rows.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path}: cannot be read as a Parquet file of golden rows: {error}"
        raise ModelRefusedError(Refusal.MISSING_FILE, msg) from error
    for name in inputs:
        if name not in table.column_names:
            msg = f"{path}: has no column {name!r}{did_you_mean(name, table.column_names)}"
            raise ModelRefusedError(Refusal.NAMES, msg)
    if not table.num_rows:
        msg = f"{path}: has no rows"
        raise ModelRefusedError(Refusal.SHAPE, msg)
    taken = np.linspace(0, table.num_rows - 1, min(table.num_rows, MAX_GOLDEN_ROWS)).astype(np.int64)
    [batch] = table.take(pa.array(taken)).combine_chunks().to_batches()
    try:
        matrix = np.column_stack([number_column(batch, name).to_numpy(zero_copy_only=False) for name in inputs])
        expected = _expected(batch) if EXPECTED in table.column_names else None
    except pa.ArrowException as error:
        msg = f"{path}: holds what is no number: {error}"
        raise ModelRefusedError(Refusal.DTYPE, msg) from error
    return matrix, expected


def _expected(batch: pa.RecordBatch) -> Matrix:
    column = batch[EXPECTED]
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        return np.asarray(number_column(batch, EXPECTED).to_numpy(zero_copy_only=False), np.float64)
    widths = {len(row) for row in column.to_pylist()}
    if len(widths) != 1:
        msg = f"column {EXPECTED!r} holds lists of {sorted(widths)} numbers; all must have as many"
        raise ModelRefusedError(Refusal.SHAPE, msg)
    flat = pc.cast(column.flatten(), pa.float64())
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64).reshape(batch.num_rows, widths.pop())


def _threshold(given: float | None, output: Output) -> float | None:
    if given is not None and output.meaning not in ("probability", "value"):
        msg = f"got the threshold {given:g} for {output.meaning}; it needs one number per row"
        raise ModelRefusedError(Refusal.CONTRACT, msg)
    return 0.5 if given is None and output.meaning == "probability" else given
