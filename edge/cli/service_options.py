"""The options that say what a service is."""

import argparse
from typing import Any

from pydantic import ValidationError

from edge.errors import InvalidInputError
from edge.fleet.task_definitions import RegisteredTaskDefinition
from edge.model.service import service_problems
from edge.model.service_documents import DesiredService

_WORDS = {
    "desired_count": "desiredCount",
    "health_check_grace_period": "healthCheckGracePeriodSeconds",
    "healthy_within": "healthyWithinSeconds",
}
_DEPLOYMENT_WORDS = {
    "minimum_healthy_percent": "minimumHealthyPercent",
    "maximum_percent": "maximumPercent",
}


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Let a command say what a service is; what is not said stays as it was."""
    add = parser.add_argument
    add("--desired-count", type=int, metavar="N", help="how many tasks (default: 1)")
    add("--minimum-healthy-percent", type=int, metavar="P", help="of the desired count, that stay healthy meanwhile")
    add("--maximum-percent", type=int, metavar="P", help="of the desired count, that run at most meanwhile")
    add("--health-check-grace-period", type=int, metavar="SECONDS", help="bad health does not count so long (0)")
    add("--healthy-within", type=int, metavar="SECONDS", help="a deployment has so long to become healthy (300)")
    add("--failure-threshold", type=int, metavar="N", help="failed tasks before it is given up (3)")
    add("--rollback", action=argparse.BooleanOptionalAction, help="return to the last healthy one then (default)")


def service_from(
    args: argparse.Namespace, known: DesiredService | None, definition: RegisteredTaskDefinition, **fixed: Any
) -> DesiredService:
    """Return the service the options mean, on top of what it was.

    Raises:
        InvalidInputError: An option is out of bounds, or together they can never work.
    """
    wire: dict[str, Any] = {} if known is None else known.to_wire()
    wire |= {word: value for name, word in _WORDS.items() if (value := getattr(args, name)) is not None}
    deployment = dict(wire.get("deploymentConfiguration", {}))
    deployment |= {word: v for name, word in _DEPLOYMENT_WORDS.items() if (v := getattr(args, name)) is not None}
    breaker = dict(deployment.get("deploymentCircuitBreaker", {}))
    if args.failure_threshold is not None:
        breaker["threshold"] = args.failure_threshold
    if args.rollback is not None:
        breaker["rollback"] = args.rollback
    deployment["deploymentCircuitBreaker"] = breaker
    wire |= {"deploymentConfiguration": deployment, "taskDefinition": definition.key, **fixed}
    try:
        service = DesiredService.model_validate(wire)
    except ValidationError as error:
        raise InvalidInputError(
            "this is no service",
            problems=tuple((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()),
        ) from error
    problems = tuple(service_problems(service, definition.document))
    if problems:
        raise InvalidInputError("this service can never work", problems=problems)
    return service
