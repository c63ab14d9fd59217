"""A new certificate before the old one ends: asked for over MQTT, by the device itself, for a new key of its own.

At half of the certificate's life, later by up to a tenth of it, so that a fleet does not ask at once. The old one stays
in use until the new one is on the disk; a request that was cut off is made again, with the same key.
"""

import json
import logging
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edge.agent.config import AgentConfig
from edge.agent.device_key import check_issued, make_request
from edge.agent.engine.ports import Clock
from edge.agent.identity_file import identity_file, replace_identity
from edge.errors import EdgeError, StoreError
from edge.model.documents import CertificateIssued, CertificateRequest
from edge.model.topics import Topics
from edge.mqtt.broker import Broker, BrokerEvent, Connected, Disconnected, MessageReceived, Publication

_log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 86400.0
"""Between two looks at the certificate."""
ANSWER_SECONDS: Final = 3600.0
"""After so long without an answer it is asked for again."""
_TOKEN: Final = -1
"""Of the request; nobody else has negative ones."""


def due_at(begins: datetime, ends: datetime, device: str) -> datetime:
    """Return when a certificate is to be renewed: at 50 to 60 % of its life, for one device always at the same point.

    >>> from datetime import UTC
    >>> due = due_at(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 11, tzinfo=UTC), "pi-1")
    >>> datetime(2026, 2, 20, tzinfo=UTC) <= due <= datetime(2026, 3, 2, tzinfo=UTC)
    True
    """
    # Jitter is no secret, and must be the same after a restart.
    share = 0.5 + 0.1 * random.Random(device).random()  # noqa: S311
    return begins + timedelta(seconds=(ends - begins).total_seconds() * share)


def _unheard(_outcome: str, _reason: str) -> None:
    """For a renewal without an audit trail."""


class Renewal:
    """Keeps the device's certificate fresh, on a thread of its own.

    Args:
        broker: The agent's connection.
        clock: Tells what time has passed at least: a certificate is never renewed too late for a clock that is behind
            unnoticed, only as late as the clock is.
        witnessed: Told what became of a certificate that came: `RENEWED` or `REFUSED`, and why.
    """

    def __init__(
        self, config: AgentConfig, broker: Broker, clock: Clock, witnessed: Callable[[str, str], None] = _unheard
    ) -> None:
        self._witnessed = witnessed
        self._config = config
        self._broker = broker
        self._clock = clock
        self._topics = Topics(config.cluster, config.device)
        self._changed = threading.Condition()
        self._connected = False
        self._closed = False
        self._answers: list[MessageReceived] = []
        self._look_at = 0.0
        self._looking: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def start(self) -> None:
        """Begin, if the device has a certificate."""
        if self._config.cert_file is not None:
            self._thread.start()

    def hear(self, event: BrokerEvent) -> bool:
        """Take what the broker's thread says; returns whether it was for this alone."""
        answer = isinstance(event, MessageReceived) and event.topic == self._topics.certificate
        with self._changed:
            if isinstance(event, Connected | Disconnected):
                self._connected = isinstance(event, Connected)
            elif isinstance(event, MessageReceived) and answer:
                self._answers.append(event)
            else:
                return False
            self._changed.notify()
        if isinstance(event, Connected):
            self._broker.subscribe(((self._topics.certificate, 1),))
        return answer

    def close(self) -> None:
        """End."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._looking is not None:
                # On a busy device it takes seconds.
                self._looking.kill()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._answers or (self._connected and self._is_time())):
                    self._changed.wait(self._patience() if self._connected else None)
                if self._closed:
                    return
                answers, self._answers = self._answers, []
            for message in answers:
                self._take(message)
            if not answers:
                self._look()

    def _is_time(self) -> bool:
        return self._clock.monotonic() >= self._look_at

    def _patience(self) -> float:
        return max(0.0, self._look_at - self._clock.monotonic())

    def _look(self) -> None:
        self._look_at = self._clock.monotonic() + CHECK_SECONDS
        try:
            if self._is_due():
                self._look_at = self._clock.monotonic() + ANSWER_SECONDS
                self._ask()
        except EdgeError as error:
            if self._closed:
                return
            _log.warning("the certificate's life cannot be looked after: %s", error)

    def _is_due(self) -> bool:
        path = identity_file(self._config)
        try:
            begins, ends = (datetime.fromisoformat(one) for one in json.loads(self._told_of(str(path))))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise StoreError(f"cannot tell when {path} ends: {error}") from error
        return datetime.fromisoformat(self._clock.now()) >= due_at(begins, ends, self._config.device)

    def _told_of(self, path: str) -> bytes:
        # In a process of its own: the library that reads certificates would stay in this one's memory.
        with self._changed:
            if self._closed:
                return b""
            command = (sys.executable, "-m", "edge.agent.device_key", path)
            self._looking = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
        with self._looking as looking:
            try:
                return looking.communicate(timeout=60)[0]
            finally:
                with self._changed:
                    self._looking = None
                looking.kill()

    def _ask(self) -> None:
        request = make_request(self._folder, self._config.device).read_text()
        payload = json.dumps(CertificateRequest(request=request).to_wire()).encode()
        self._broker.publish(Publication(self._topics.certificate_request, payload, _TOKEN))
        _log.info("asked for a new certificate: the present one is past half of its life")

    def _take(self, message: MessageReceived) -> None:
        try:
            certificate = CertificateIssued.model_validate_json(message.payload).certificate.encode()
            authority = self._config.ca_file.read_bytes() if self._config.ca_file else b""
            key = check_issued(certificate, self._folder / "device.key", self._config.device, authority)
            replace_identity(self._config, certificate, key)
        except (EdgeError, ValidationError, OSError) as error:
            _log.warning("a new certificate was refused: %s", str(error).splitlines()[0])
            self._witnessed("REFUSED", str(error).splitlines()[0])
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._look_at = self._clock.monotonic() + CHECK_SECONDS
            _log.info("there is a new certificate; it counts from the next connection on")
            self._witnessed("RENEWED", "")
        self._broker.acknowledge(message)

    @property
    def _folder(self) -> Path:
        return self._config.state_dir / "renewal"
