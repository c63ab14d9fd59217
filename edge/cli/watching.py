"""Showing the life of tasks while it happens."""

from collections.abc import Iterator
from dataclasses import dataclass

from edge.cli.output import clean, clock_time, coloured, note, print_json_line
from edge.cli.views import short
from edge.errors import RefusedError
from edge.fleet.clock import now, timestamp
from edge.fleet.devices import DeviceRecord
from edge.fleet.folder import Fleet
from edge.fleet.link import FleetLink
from edge.fleet.messages import FleetMessage, LinkBack, LinkLost, Reported, RevisionJudged, StatusTold
from edge.fleet.observing import DeviceView, rejection_reason
from edge.fleet.publishing import publish_newest
from edge.fleet.tasks import next_revision, nothing_new, record_rejection, record_report
from edge.fleet.watching import TaskWatch, Update, container_line, containers_of
from edge.model.documents import RevisionAck, RevisionOutcome
from edge.model.trust import Role


@dataclass
class Watching:
    """Tasks of one device being watched after a revision of its desired state was published."""

    fleet: Fleet
    link: FleetLink
    device: DeviceRecord
    revision: int
    watch: TaskWatch
    view: DeviceView
    as_json: bool

    def follow(self, timeout_seconds: float) -> Iterator[None]:
        """Take messages and show what they change; yields after each one, ends when the time is over.

        Raises:
            RefusedError: The device refused the revision; it was withdrawn.
        """
        if not self.view.is_online:
            note(f"{self.device.device} is {self.view.connection}; it gets this as soon as it connects")
        for message in self.link.messages(timeout_seconds):
            self._take(message)
            yield

    def _take(self, message: FleetMessage) -> None:
        self.view.take(message)
        match message:
            case Reported():
                record_report(self.fleet.database, self.device, message.document)
            case RevisionJudged(ack=ack, retained=False):
                self._judged(ack)
            case StatusTold(retained=False):
                note(f"{clock_time(timestamp(now()))}  {self.device.device} is {self.view.connection}")
            case LinkLost():
                note(f"the link to the broker broke ({message.reason}); connecting again")
            case LinkBack():
                note("the link to the broker is back")
            case _:
                pass
        for update in self.watch.feed(message):
            self._show(update)

    def _judged(self, ack: RevisionAck) -> None:
        # None: the device could not read a revision, and it was sent this one last.
        if ack.revision is not None and ack.revision < self.revision:
            return
        if ack.outcome is RevisionOutcome.REJECTED:
            self._withdraw(ack)
        elif ack.outcome is RevisionOutcome.SUPERSEDED and ack.revision == self.revision:
            raise RefusedError(
                f"{self.device.device} has a newer desired state than revision {self.revision}",
                hint="The fleet's folder is older than the device. Run the command again: it goes on from there.",
            )

    def _withdraw(self, ack: RevisionAck) -> None:
        """Take what the device refused out of its desired state, or it would refuse everything after, too."""
        reason = rejection_reason(ack)
        record_rejection(self.fleet.database, self.device, ack.revision or self.revision, reason, self.view.report)
        next_revision(self.fleet.database, self.fleet.signers(Role.DESIRED_STATE), self.device, now(), nothing_new)
        publish_newest(self.link, self.fleet.database, self.device)
        raise RefusedError(f"{self.device.device} refused revision {self.revision}: {reason}")

    def _show(self, update: Update) -> None:
        if self.as_json:
            print_json_line(dict(update.detail))
            return
        text = f"  {update.text}" if update.text else ""
        when = clock_time(timestamp(now()))
        print(clean(f"{when}  {short(update.task_id)}  ") + coloured(clean(update.status)) + clean(text), flush=True)

    def print_containers(self, task_id: str) -> None:
        """Say how each container of a task is."""
        for container in containers_of(self.watch.detail(task_id)):
            note(f"  {container_line(container)}")
