"""The updater: takes one update to its end, from wherever a crash or a power cut left it.

What is on the disk decides, and nothing else; no network is needed once a bundle is here. The order:

1. verify, judge, install beside what runs;
2. note the trial, let `current` lead to the new version, restart the services;
3. watch the new agent: well without a break for `STEADY_SECONDS` before the window is over?
4. then `good` leads to it, the floor rises, the result is noted;
5. else the way back is noted first, then `current` leads to the old version, the services restart.

Containers are not touched: the agent that starts adopts them.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.errors import EdgeError, RefusedError, TransientError, TrustError
from edge.firmware.bundle_file import opened_bundle
from edge.firmware.runtimes import Runtimes
from edge.firmware.spool import Spool
from edge.model.runtime_bundle import Place, judge_fit, version_key
from edge.model.runtime_update import (
    MAXIMUM_ATTEMPTS,
    STEADY_SECONDS,
    AgentSeen,
    BundleReference,
    Outcome,
    Phase,
    Trial,
    UpdateRequest,
    UpdateResult,
    Verdict,
    judge_agent,
)
from edge.model.trust import TrustedSet

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class World:
    """What an updater needs beside its two folders; the command line wires the real ones.

    Attributes:
        trust: Returns the trust bundle in force on this device.
        place: Returns what a bundle must fit; its versions are filled in here.
        fetch: Brings a bundle from its registry to a path, going on where a former attempt broke off.
        look: Looks at the agent; None when none runs.
        restart: Lets the agent and the image service start anew, as whatever `current` leads to.
        sleep, monotonic: Time.
    """

    trust: Callable[[], TrustedSet]
    place: Callable[[], Place]
    fetch: Callable[[BundleReference, Path], None]
    look: Callable[[], AgentSeen | None]
    restart: Callable[[], None]
    sleep: Callable[[float], None]
    monotonic: Callable[[], float]


class Updater:
    """Works on one device's versions."""

    def __init__(self, runtimes: Runtimes, spool: Spool, world: World) -> None:
        self._runtimes = runtimes
        self._spool = spool
        self._world = world

    def carry_on(self) -> UpdateResult | None:
        """Do what is due, and return how the last update ended; None when there never was one.

        Raises:
            StoreError: The disk does not take what must be noted; the next call goes on from there.
        """
        with self._spool.only_one():
            trial = self._spool.trial()
            if trial is None and self._runtimes.current() != self._runtimes.good():
                trial = self._lost_trial()
            if trial is not None:
                self._go_on(trial)
            request = self._spool.request()
            last = self._spool.result()
            if request is not None:
                if last is not None and last.id == request.id:
                    self._spool.finish(last)
                else:
                    self._begin(request)
            return self._spool.result()

    def _lost_trial(self) -> Trial:
        """What runs has not proved itself, and the note of its trial is gone: there is no reason to believe it."""
        return Trial(
            id="unknown",
            version=self._runtimes.current(),
            previous=self._runtimes.good(),
            must_connect=False,
            window_seconds=0,
            phase=Phase.RETURNING,
            reason="the note of its trial was lost",
        )

    def _begin(self, request: UpdateRequest) -> None:
        version = ""
        try:
            path = self._obtain(request)
            with opened_bundle(path, self._world.trust()) as bundle:
                version = bundle.manifest.version
                judge_fit(bundle.manifest, self._place(), allow_downgrade=request.allow_downgrade)
                _log.info("installing edge %s beside %s", version, self._runtimes.current())
                self._runtimes.install(bundle)
            seen = self._world.look()
            if seen is None:
                raise RefusedError(
                    "the agent does not run, so a new version could not prove itself",
                    hint="Start the agent, then update.",
                )
        except EdgeError as error:
            refused = isinstance(error, RefusedError)
            self._finish(request.id, Outcome.REFUSED if refused else Outcome.FAILED, version, _words(error))
            return
        trial = Trial(
            id=request.id,
            version=version,
            previous=self._runtimes.current(),
            must_connect=seen.connected,
            window_seconds=request.window_seconds,
        )
        self._spool.note_trial(trial)
        self._go_on(trial)

    def _obtain(self, request: UpdateRequest) -> Path:
        if request.ref is None:
            return Path(request.file or "")
        path = self._spool.incoming(request.ref.digest)
        self._world.fetch(request.ref, path)
        return path

    def _place(self) -> Place:
        place = self._world.place()
        version = self._runtimes.current()
        floor = max(self._spool.floor(), self._runtimes.good(), key=version_key)
        return Place(version, floor, place.architecture, place.python, place.boards)

    def _go_on(self, trial: Trial) -> None:
        if trial.phase is Phase.TRYING and self._runtimes.good() != trial.version:
            trial = self._try(trial)
        if trial.phase is Phase.RETURNING:
            _log.error("edge %s was not well: %s; %s comes back", trial.version, trial.reason, trial.previous)
            self._runtimes.switch(trial.previous)
            self._restart(trial.previous)
            self._finish(trial.id, Outcome.RETURNED, trial.version, trial.reason, previous=trial.previous)
        else:
            self._runtimes.mark_good(trial.version)
            self._spool.raise_floor(trial.version)
            self._finish(trial.id, Outcome.INSTALLED, trial.version, "", previous=trial.previous)

    def _try(self, trial: Trial) -> Trial:
        """Return the trial as it stands after it: still TRYING when the new version is well."""
        if trial.attempts >= MAXIMUM_ATTEMPTS:
            return self._turn_back(trial, f"its trial was cut off {trial.attempts} times")
        trial = trial.model_copy(update={"attempts": trial.attempts + 1})
        self._spool.note_trial(trial)
        if not self._runtimes.is_whole(trial.version):
            return self._turn_back(trial, "its installation is damaged")
        # Without this note a power cut could leave nothing to go back to.
        self._runtimes.mark_good(trial.previous)
        self._runtimes.switch(trial.version)
        self._restart(trial.version)
        lacking = self._watch(trial)
        return self._turn_back(trial, lacking) if lacking else trial

    def _turn_back(self, trial: Trial, reason: str) -> Trial:
        trial = trial.model_copy(update={"phase": Phase.RETURNING, "reason": reason})
        self._spool.note_trial(trial)
        return trial

    def _restart(self, version: str) -> None:
        """An agent that is the right one already, as after a reboot, is left alone."""
        seen = self._world.look()
        if seen is None or seen.version != version:
            try:
                self._world.restart()
            except EdgeError as error:
                # Whoever supervises the agent may still start it; the watch tells.
                _log.warning("cannot restart the services: %s", error)

    def _watch(self, trial: Trial) -> str:
        """Return nothing once the agent has been well long enough, or what it lacked at the end."""
        now = self._world.monotonic()
        deadline, steady_since, pid = now + trial.window_seconds, 0.0, 0
        lacking, pids = "", set()
        while True:
            seen = self._world.look()
            verdict, why = judge_agent(trial, seen)
            now = self._world.monotonic()
            if seen is not None and seen.version == trial.version:
                pids.add(seen.pid)
            if verdict is Verdict.UNWELL or seen is None:
                lacking, pid = why, 0
            elif seen.pid != pid:
                steady_since, pid = now, seen.pid
            elif now - steady_since >= STEADY_SECONDS:
                return ""
            if now >= deadline:
                again = f" (it started {len(pids)} times)" if len(pids) > 1 else ""
                return f"{lacking or 'it was not well for long enough'} after {trial.window_seconds} s{again}"
            self._world.sleep(_LOOK_SECONDS)

    def _finish(self, request_id: str, outcome: Outcome, version: str, reason: str, *, previous: str = "") -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        result = UpdateResult(
            id=request_id, outcome=outcome, version=version, previous=previous, reason=reason[:1000], at=at
        )
        self._spool.finish(result)
        if outcome is not Outcome.FAILED:
            # What has come of one that could not be fetched to its end is not fetched again.
            self._spool.forget_incoming()
        match outcome:
            case Outcome.INSTALLED:
                # The one before stays: from now on the way back is root's.
                self._runtimes.prune([previous])
            case Outcome.RETURNED:
                self._runtimes.remove(version)
            case Outcome.REFUSED | Outcome.FAILED:
                pass  # An installation that failed left nothing.


def _words(error: EdgeError) -> str:
    kind = "refused: " if isinstance(error, TrustError) else ""
    again = " (try again)" if isinstance(error, TransientError) else ""
    return f"{kind}{error}{again}"
