import pytest

from edge.agent.telemetry.log_choice import source_of
from edge.agent.telemetry.log_lines import Source

OPTIONS = {"awslogs-group": "shop", "awslogs-stream-prefix": "till"}


@pytest.mark.parametrize(
    ("driver", "whose", "shipped"),
    [
        ("awslogs", "asked", True),
        ("awslogs", "all", True),
        ("awslogs", "none", False),
        ("json-file", "asked", False),
        ("json-file", "all", True),
        ("json-file", "none", False),
        ("journald", "all", False),
        ("none", "all", False),
    ],
)
def test_the_definition_asks_and_the_owner_decides(driver: str, whose: str, *, shipped: bool) -> None:
    assert (source_of("t1", "web", driver, {}, whose) is not None) is shipped


def test_the_stream_is_named_as_ecs_names_it() -> None:
    assert source_of("t1", "web", "awslogs", OPTIONS, "asked") == Source("t1", "web", "shop", "till/web/t1")
    assert source_of("t1", "web", "awslogs", {"awslogs-group": "shop"}, "asked") == Source(
        "t1", "web", "shop", "web/t1"
    )
    assert source_of("t1", "web", "json-file", {}, "all") == Source("t1", "web")
