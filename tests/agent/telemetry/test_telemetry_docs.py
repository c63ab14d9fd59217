"""`docs/telemetry.md` says what the code says: fields and limits, in both directions."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge.agent.adapters.followed_log import BURST_SECONDS, LogLimits
from edge.agent.telemetry.collector import Intervals
from edge.agent.telemetry.http_requests import MAXIMUM_BODY
from edge.agent.telemetry.log_lines import MAXIMUM_TEXT, Entry, Source, dropped_record, log_record
from edge.agent.telemetry.metrics import CONTAINER_FIELDS, Earlier, container_record
from edge.agent.telemetry.ports import ContainerSample, RunningContainer
from edge.agent.telemetry.readings import MAXIMUM_RECORDS
from edge.model.records import MAXIMUM_RECORD

PAGE: Final = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text()
SAMPLE: Final = ContainerSample(**dict.fromkeys(CONTAINER_FIELDS.values(), 1))


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def fields(title: str) -> set[str]:
    table = section(title).partition("| Field |")[2].partition("\n\n")[0]
    return {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.partition("|")[2].partition("|")[0])
    }


def test_the_page_has_every_field_of_a_container_and_no_other() -> None:
    container = RunningContainer("a", 1, "t", "c")
    first = container_record(container, SAMPLE, 1, Earlier(0, replace(SAMPLE, since_ms=0)))
    second = container_record(container, SAMPLE, 2, Earlier(1, SAMPLE))
    assert fields("Containers") == (first.keys() | second.keys()) - {"t"}


def test_the_page_has_every_field_of_a_line_and_no_other() -> None:
    record = log_record(Source("t", "c", "g", "s"), Entry("", "stdout", "", goes_on=True), 1)
    assert fields("Logs") == record.keys() - {"t"}
    dropped = dropped_record(Source("t", "c"), 1, lines=1, size=1, files=1)
    assert all(f"`{name}`" in section("Logs") for name in dropped if name != "t")


def test_the_page_has_every_field_of_the_device_and_no_other() -> None:
    code = (Path(__file__).parents[3] / "edge/agent/adapters").glob("device_*.py")
    named = set(re.findall(r'"([a-z]+[A-Za-z0-9]*)": |fields\["(\w+)"\]', "".join(path.read_text() for path in code)))
    of_code = {name for pair in named for name in pair if name}
    of_code |= {"load1", "load5", "load15", "kind", "stateFree", "stateSize", "rootFree", "rootSize"}
    assert fields("Device") == of_code - {"name", "up", "mbits", "dbm"}


def test_the_page_has_the_limits_of_the_code() -> None:
    readings, logs = section("Readings of your own"), section("Logs")
    assert f"{MAXIMUM_BODY // 2**20} MiB in a request, {MAXIMUM_RECORDS} readings" in readings
    assert f"{MAXIMUM_RECORD // 1024} KiB in a record" in readings
    limits = LogLimits()
    assert f"{limits.lines} lines and {limits.size // 1024} KiB a second" in logs
    assert BURST_SECONDS == 10
    assert f"longer than {MAXIMUM_TEXT // 1024} KiB" in logs
    assert f"Every {Intervals().containers} s" in section("Containers")
    assert f"Every {Intervals().device} s" in section("Device")
