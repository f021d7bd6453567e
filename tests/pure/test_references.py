"""References in settings: resolved from where they say, left standing where secrets must not go, else refused."""

import json
import shutil
from pathlib import Path

import pytest

from flink_jobs.config import load_environment
from udfs.core.errors import DefinitionError
from udfs.core.references import resolve

CONF = Path(__file__).parents[2] / "conf"
ENVIRONMENT = {"PASSWORD": "p@ss", "USER": "u"}
SERVICES = {"kafka": "127.0.0.1:9092"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("broker:9092", "broker:9092"),
        ("${env:USER}:${env:PASSWORD}@${services:kafka}", "u:p@ss@127.0.0.1:9092"),
        ("$PASSWORD ${PASSWORD} ${other:PASSWORD} ${env:}", "$PASSWORD ${PASSWORD} ${other:PASSWORD} ${env:}"),
    ],
)
def test_references_are_replaced_and_other_text_is_not(text: str, expected: str) -> None:
    assert resolve(text, ENVIRONMENT, SERVICES) == expected


def test_a_file_gives_its_text_without_the_last_line_break(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("geheim ü\n", encoding="utf-8")
    assert resolve(f"x-${{file:{secret}}}", {}) == "x-geheim ü"


def test_what_a_reference_gives_is_not_resolved_again() -> None:
    assert resolve("${env:A}", {"A": "${env:B}", "B": "secret"}) == "${env:B}"


def test_secrets_stay_references_where_asked() -> None:
    text = "${services:kafka} ${env:MISSING} ${file:/no/such/file}"
    assert resolve(text, {}, SERVICES, secrets=False) == "127.0.0.1:9092 ${env:MISSING} ${file:/no/such/file}"


@pytest.mark.parametrize(
    ("text", "services", "message"),
    [
        ("${env:PASSWROD}", SERVICES, r"^\$\{env:PASSWROD\}: the environment variable PASSWROD is not set$"),
        ("${file:/no/such/file}", SERVICES, r"^\$\{file:/no/such/file\}: cannot be read: No such file or directory$"),
        ("${services:kafak}", SERVICES, r"there is no local service 'kafak'; did you mean 'kafka'\?$"),
        ("${services:kafka}", None, r"the local services are not up; start them with `headrace services up`$"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(text: str, services: dict[str, str] | None, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as refused:
        resolve(text, ENVIRONMENT, services)
    assert "p@ss" not in str(refused.value)


def test_services_are_those_of_the_project_that_the_environment_file_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `flink run` the code itself lies elsewhere, in an unpacked archive."""
    monkeypatch.delenv("HEADRACE_HOME", raising=False)
    shutil.copytree(CONF, tmp_path / "conf")
    endpoints = dict.fromkeys(("redis", "mlflow", "flink", "checkpoints", "savepoints"), "x") | {"kafka": "here:1"}
    (tmp_path / "build" / "local").mkdir(parents=True)
    (tmp_path / "build" / "local" / "endpoints.json").write_text(json.dumps(endpoints), encoding="utf-8")
    assert load_environment(tmp_path / "conf" / "local.yaml").kafka.bootstrap_servers == "here:1"
