"""JSON Schemas of the files that people write, so that editors complete and check them."""

import json
from pathlib import Path

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from flink_jobs.config import Environment
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.durations import format_duration

SCHEMAS: dict[str, type[BaseModel]] = {"pipeline.schema.json": Pipeline, "environment.schema.json": Environment}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def write_schemas(conf: Path) -> list[Path]:
    """Write every schema into the folder and return the files."""
    for name in SCHEMAS:
        (conf / name).write_text(schema_text(name), encoding="utf-8")
    return [conf / name for name in SCHEMAS]


def schema_text(name: str) -> str:
    """Return the text of one schema file."""
    schema = SCHEMAS[name].model_json_schema(by_alias=True, schema_generator=_Generator)
    return json.dumps({"$schema": DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Writes durations as people do, and no titles that only repeat the name."""

    def default_schema(self, schema: object) -> JsonSchemaValue:
        found = super().default_schema(schema)  # type: ignore[arg-type]
        if "examples" in found and isinstance(found.get("default"), int):
            found["default"] = format_duration(found["default"])
        return found

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002  pydantic gives the signature
        return False
