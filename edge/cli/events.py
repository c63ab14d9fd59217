"""`edge events`."""

import argparse
from collections import OrderedDict
from typing import Any, Final

from edge.cli.output import clean, clock_time, coloured, note, print_json_line
from edge.cli.session import connected, opened
from edge.cli.views import short, text_of
from edge.fleet.devices import find_device
from edge.fleet.messages import EventHappened, FleetMessage, LinkBack, LinkLost, Unreadable
from edge.fleet.watching import container_line, containers_of, reason_of
from edge.model.topics import ROOT, Topics

HELP = """\
Follow the state changes of the whole fleet, or of one device, as they happen. Each is shown once, however often it
is delivered. --output json prints each event as it came, one on a line (EventBridge's shape)."""
EXAMPLES = """\
examples:
  edge events
  edge events --device pi-1 --output json | jq .detail.lastStatus
  edge events --count 1 --timeout 60"""
_REMEMBERED: Final = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--device", metavar="DEVICE", help="only this one")
    parser.add_argument("--count", type=int, metavar="N", help="end after N events")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end after so long")


def run(args: argparse.Namespace) -> int:
    """Follow them."""
    seen: OrderedDict[str, None] = OrderedDict()
    shown = 0
    with opened(args) as fleet:
        if args.device:
            find_device(fleet.database, fleet.settings.cluster, args.device)
            topic = Topics(fleet.settings.cluster, args.device).event("+")
        else:
            topic = f"{ROOT}/{fleet.settings.cluster}/+/evt/+"
        with connected(args, fleet) as link:
            link.subscribe((topic, 1))
            note(f"following {topic}; Ctrl-C ends")
            for message in link.messages(args.timeout):
                shown += _take(args, message, seen)
                if shown == args.count:
                    break
    return 0


def _take(args: argparse.Namespace, message: FleetMessage, seen: OrderedDict[str, None]) -> int:
    match message:
        case EventHappened():
            return _happened(args, message, seen)
        case Unreadable():
            note(f"unreadable message on {message.topic}: {message.why}")
        case LinkLost():
            note(f"the link to the broker broke ({message.reason}); connecting again, events may be missed")
        case LinkBack():
            note("the link to the broker is back")
        case _:
            pass
    return 0


def _happened(args: argparse.Namespace, message: EventHappened, seen: OrderedDict[str, None]) -> int:
    identifier = f"{message.device.device}/{text_of(message.event, 'id')}"
    if identifier in seen:
        return 0
    seen[identifier] = None
    if len(seen) > _REMEMBERED:
        seen.popitem(last=False)
    if args.output == "json":
        print_json_line(message.event)
    else:
        _print(message)
    return 1


def _print(message: EventHappened) -> None:
    detail: Any = message.event.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    status = clean(text_of(detail, "lastStatus") or text_of(message.event, "detail-type"))
    line = (
        f"{clock_time(text_of(message.event, 'time'))}  {message.device.device}  {short(text_of(detail, 'taskId'))}  "
    )
    reasons = [reason_of(detail), *(container_line(one) for one in containers_of(detail) if one.get("reason"))]
    text = "  ".join(reason for reason in reasons if reason)
    print(clean(line) + coloured(status) + (f"  {clean(text)}" if text else ""), flush=True)
