"""The webhook's door on loopback, and MLflow's own code knocking at it."""

import threading
import time
import urllib.error
import urllib.request

import pytest

from flink_jobs.deploy.webhook import (
    BODY_MAX_BYTES,
    DELIVERY,
    SIGNATURE,
    TIMESTAMP,
    NoticeError,
    Notices,
    listening,
    sign,
)

SECRET, BODY = "s3cret", b'{"entity": "model_version_alias"}'


def test_a_notice_that_mlflow_sends_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Loopback and plain HTTP, which MLflow sends to only when it is told so.
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    from mlflow.entities.webhook import Webhook, WebhookAction, WebhookEntity, WebhookEvent
    from mlflow.webhooks.delivery import _get_or_create_webhook_session, _send_webhook_request
    from mlflow.webhooks.types import get_example_payload_for_event

    event, hinted = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED), threading.Event()
    with listening(0, Notices(SECRET, 300), hinted.set) as port:
        made = Webhook("1", "moved", f"http://127.0.0.1:{port}/", [event], 0, 0, secret=SECRET)
        payload, session = get_example_payload_for_event(event), _get_or_create_webhook_session()
        assert _send_webhook_request(made, payload, event, session).status_code == 204
        assert hinted.is_set()


def test_only_a_signed_new_notice_of_now_hints_and_it_does_so_once() -> None:
    hints: list[int] = []
    with listening(0, Notices(SECRET, 300), lambda: hints.append(1)) as port:
        now = str(int(time.time()))
        good = {DELIVERY: "d1", TIMESTAMP: now, SIGNATURE: sign(SECRET, "d1", now, BODY)}
        assert [_post(port, BODY, good) for _ in range(2)] == [204, 204]
        assert _post(port, BODY + b" ", good) == 401
        assert _post(port, b"x" * (BODY_MAX_BYTES + 1), good) == 413
        assert _post(port, BODY, {}) == 401
    assert hints == [1]


def test_a_port_that_is_taken_is_named() -> None:
    notices = Notices(SECRET, 300)
    with (
        listening(0, notices, lambda: None) as port,
        pytest.raises(NoticeError, match=f"port {port}"),
        listening(port, notices, lambda: None),
    ):
        pass


def _post(port: int, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
