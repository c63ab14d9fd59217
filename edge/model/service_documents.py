"""Services and schedules in a desired state: what a device keeps running, and starts, without being told each time.

Names and defaults are those of ECS's `CreateService` and of EventBridge Scheduler's `CreateSchedule`, where they have
the field; what is ours is said at the field.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from edge.model.document import Document, TaskDefinitionKey

MAXIMUM_SERVICES: Final = 64
MAXIMUM_SCHEDULES: Final = 64
MAXIMUM_REPLICAS: Final = 32

ServiceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]
ScheduleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class DeploymentCircuitBreaker(Document):
    """When a deployment is given up.

    Attributes:
        enable: It may be given up at all. (ECS's default is off; a device that nobody watches needs it on.)
        rollback: The last deployment that was healthy comes back then.
        threshold: Tasks that failed before it is given up. ECS takes half of the desired count and at least 10, which
            on one device is hours of a crash loop; ours is 3 when nothing is said.
    """

    enable: bool = True
    rollback: bool = True
    threshold: Annotated[int, Field(ge=1, le=200)] = 3


class DeploymentConfiguration(Document):
    """How old tasks make room for new ones, in percent of the desired count.

    Attributes:
        minimum_healthy_percent: So many stay healthy, rounded up. None: 100, or 0 when the task definition has a host
            port that two tasks cannot share.
        maximum_percent: So many run at most, rounded down. None: 200, or 100 in that case.
    """

    minimum_healthy_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    maximum_percent: Annotated[int, Field(ge=100, le=400)] | None = None
    deployment_circuit_breaker: DeploymentCircuitBreaker = DeploymentCircuitBreaker()


class DesiredService(Document):
    """Tasks of one definition that the device keeps at a number.

    Attributes:
        task_definition: Key into `DesiredState.task_definitions`. A change of it is a deployment.
        desired_count: How many; for DAEMON always one.
        health_check_grace_period_seconds: For so long after a task began, bad health does not count.
        healthy_within_seconds: Ours: a deployment that has not become healthy in this time, counted while the device
            is on, is given up.
    """

    service_name: ServiceName
    task_definition: TaskDefinitionKey
    desired_count: Annotated[int, Field(ge=0, le=MAXIMUM_REPLICAS)] = 1
    scheduling_strategy: Literal["REPLICA", "DAEMON"] = "REPLICA"
    deployment_configuration: DeploymentConfiguration = DeploymentConfiguration()
    health_check_grace_period_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    healthy_within_seconds: Annotated[int, Field(ge=10, le=86_400)] = 300
    created_at: Annotated[str, Field(max_length=40)] = ""


class CatchUp(StrEnum):
    """What becomes of the times that passed while the device was off."""

    SKIP = "SKIP"
    ONCE = "ONCE"
    ALL = "ALL"


class DesiredSchedule(Document):
    """Tasks of one definition that the device starts at given times, by its own clock.

    Attributes:
        schedule_expression: `rate(5 minutes)`, `cron(0 3 * * ? *)` or `at(2027-01-31T03:00:00)`.
        schedule_expression_timezone: IANA name, for `cron` and `at`.
        task_count: How many tasks each time.
        catch_up: Ours: for the times that were missed, no start, one, or each (ten at most).
        maximum_event_age_in_seconds: A missed time older than this is not caught up with.
        overlap: Ours: `SKIP` leaves a time out while a task of an earlier one still runs.
    """

    name: ScheduleName
    schedule_expression: Annotated[str, Field(max_length=300)]
    schedule_expression_timezone: Annotated[str, Field(max_length=64)] = "UTC"
    state: Literal["ENABLED", "DISABLED"] = "ENABLED"
    start_date: Annotated[str, Field(max_length=40)] = ""
    end_date: Annotated[str, Field(max_length=40)] = ""
    task_definition: TaskDefinitionKey
    task_count: Annotated[int, Field(ge=1, le=10)] = 1
    catch_up: CatchUp = CatchUp.ONCE
    maximum_event_age_in_seconds: Annotated[int, Field(ge=60, le=86_400)] = 86_400
    overlap: Literal["ALLOW", "SKIP"] = "SKIP"
    created_at: Annotated[str, Field(max_length=40)] = ""
