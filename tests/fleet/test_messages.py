import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.fleet.messages import (
    Born,
    CommandAnswered,
    EventHappened,
    FramesStreamed,
    ProfilesTold,
    Reported,
    RevisionJudged,
    StatusTold,
    Unreadable,
    parse_message,
)
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES

BRANCH = "edge/v1/shop/pi-1"
STATUS = {"state": "ONLINE", "session": "s", "bootId": "b", "agentVersion": "1"}
RESULT = {"id": "0123456789abcdef", "op": "logs", "status": "SUCCEEDED"}


@pytest.mark.parametrize(
    ("channel", "document", "kind"),
    [
        ("reported", {}, Reported),
        ("birth", {}, Born),
        ("profiles", {"schemaVersion": 1, "profiles": []}, ProfilesTold),
        ("status", STATUS, StatusTold),
        ("desired/ack", {"revision": 1, "outcome": "APPLIED"}, RevisionJudged),
        ("res/logs/0123456789abcdef", RESULT, CommandAnswered),
        ("evt/task", {}, EventHappened),
        ("stream/0123456789abcdef/out", {}, FramesStreamed),
    ],
)
def test_each_topic_has_its_kind_of_message(channel: str, document: dict[str, Any], kind: type) -> None:
    assert isinstance(parse_message(f"{BRANCH}/{channel}", json.dumps(document).encode(), retained=False), kind)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("elsewhere", b"{}"),
        (f"{BRANCH}/unknown", b"{}"),
        (f"{BRANCH}/reported", b""),
        (f"{BRANCH}/reported", b"[]"),
        (f"{BRANCH}/reported", b"\xff"),
        (f"{BRANCH}/reported", b'{"a":' * 100_000),
        (f"{BRANCH}/reported", b" " * (MAXIMUM_DOCUMENT_BYTES + 1)),
        (f"{BRANCH}/status", b'{"state":"DREAMING"}'),
        (f"{BRANCH}/desired/ack", b'{"outcome":"APPLIED"}'),
        ("edge/v1/-/-/reported", b"{}"),
    ],
)
def test_what_is_wrong_is_unreadable_with_a_reason(topic: str, payload: bytes) -> None:
    message = parse_message(topic, payload, retained=False)
    assert isinstance(message, Unreadable)
    assert message.why


CHANNELS = ["reported", "birth", "status", "desired/ack", "res/logs/abcdefgh", "evt/task", "stream/abcdefgh/out", "x"]


@given(st.sampled_from(CHANNELS), st.binary(max_size=200))
def test_any_bytes_are_taken_in_order(channel: str, payload: bytes) -> None:
    parse_message(f"{BRANCH}/{channel}", payload, retained=True)


@given(st.text(max_size=60))
def test_any_topic_is_taken_in_order(topic: str) -> None:
    parse_message(topic, b"{}", retained=True)
