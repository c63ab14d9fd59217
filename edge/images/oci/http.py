"""HTTP to one registry server: keep-alive connections, TLS as `certs.d` says, tokens, retries with full jitter."""

import contextlib
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning, MaxRetryError, SSLError
from urllib3.response import BaseHTTPResponse

from edge.errors import EdgeError, ImagePullError, InvalidInputError, RegistryUnavailableError
from edge.images.oci.auth import Credentials

REASON: Final = "CannotPullContainerError"
_T = TypeVar("_T")

_CONNECT_SECONDS: Final = 15.0
_CONNECTIONS: Final = 6
_MAXIMUM_TOKEN: Final = 256 * 1024
_MAXIMUM_REDIRECTS: Final = 5
_MAXIMUM_LEFT: Final = 64 * 1024
_TOKEN_SECONDS: Final = 60.0
"""How long a token is good that does not say it, and at least (distribution specification, token authentication)."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAXIMUM_RETRY_AFTER: Final = 60.0
_CHALLENGE: Final = re.compile(r'([a-z_]+)="([^"]*)"')
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_MAXIMUM_WORDS: Final = 500


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long a request is tried.

    Attributes:
        attempts: At most so many.
        sleep: Waits; a test's own.
        read_seconds: How long a server may send nothing.
        now: Seconds on a clock that only goes forward; a test's own.
    """

    attempts: int = 4
    sleep: Callable[[float], None] = time.sleep
    read_seconds: float = 30.0
    now: Callable[[], float] = time.monotonic


class _BusyError(RegistryUnavailableError):
    """The registry asked to be left alone for `pause` seconds; 0 if it did not say."""

    pause = 0.0


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    scope: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(slots=True)
class _Token:
    value: str
    until: float


@dataclass(slots=True)
class Server:
    """A registry server and how to talk to it. Usable from any thread.

    Attributes:
        host: Host and port.
        scheme: `https`, or `http` where the registry is configured insecure and answers no TLS.
        credentials: For this server; never sent to another.
        certificates: A folder with authorities and client certificates (containers-certs.d(5)).
    """

    host: str
    insecure: bool
    credentials: Credentials | None
    certificates: Path | None = None
    patience: Patience = field(default_factory=Patience)
    scheme: str = "https"
    _pool: urllib3.PoolManager = field(init=False, repr=False)
    _tokens: dict[str, _Token] = field(default_factory=dict, init=False, repr=False)
    _basic: bool = field(default=False, init=False)
    _asking: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare connections; none is made yet."""
        if self.insecure:
            # Who wrote `insecure = true` knows it; each request would say it again.
            urllib3.disable_warnings(InsecureRequestWarning)
        self._pool = urllib3.PoolManager(
            maxsize=_CONNECTIONS,
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=self.patience.read_seconds),
            ssl_context=_tls(self.certificates, insecure=self.insecure),
            headers={"User-Agent": "edge"},
        )

    def request(  # noqa: PLR0913 - what a request is
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accept: frozenset[int] = frozenset({200}),
    ) -> BaseHTTPResponse:
        """Send a request, again where that may help, and return an answer with one of the `accept`ed statuses, unread.

        Whoever gets it reads it to its end, or gives it to `discard`.

        Args:
            method: Of HTTP.
            path: From `/v2/` on, or a full URL the server gave.
            scope: What a token is asked for, `repository:name:pull`.
            headers: More of them.
            body: What is sent.
            accept: The statuses that are answers.

        Raises:
            RegistryUnavailableError: No answer; a retry helps.
            ImagePullError: A refusal; 404 and 401 among them unless accepted.
        """
        return self._patiently(lambda: self._accepted(_Request(method, path, scope, headers or {}, body), accept))

    def document(
        self,
        path: str,
        most: int,
        *,
        scope: str,
        headers: Mapping[str, str],
        accept: frozenset[int] = frozenset({200}),
    ) -> tuple[BaseHTTPResponse, bytes]:
        """Get an answer of at most so many bytes, again where it broke off; raises as `request`."""

        def ask() -> tuple[BaseHTTPResponse, bytes]:
            answer = self._accepted(_Request("GET", path, scope, headers), accept)
            return answer, whole(answer, most, self.host)

        return self._patiently(ask)

    def close(self) -> None:
        """End the connections that wait for another request."""
        for key in self._pool.pools.keys():  # noqa: SIM118 - it is no mapping to iterate over
            pool = self._pool.pools.get(key)
            if pool is not None:
                pool.close()
        self._pool.clear()

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        attempt = 1
        while True:
            try:
                return ask()
            except RegistryUnavailableError as error:
                if attempt == self.patience.attempts:
                    raise
                pause = error.pause if isinstance(error, _BusyError) else 0.0
            # Full jitter, unless the server said how long.
            jitter = random.uniform(0, min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))  # noqa: S311
            self.patience.sleep(pause or jitter)
            attempt += 1

    def _accepted(self, request: _Request, accept: frozenset[int]) -> BaseHTTPResponse:
        answer = self._authorized(request)
        if answer.status in accept:
            return answer
        failure = _refusal(answer, self.host, request.path)
        discard(answer)
        raise failure

    def _authorized(self, request: _Request) -> BaseHTTPResponse:
        asked = False
        while True:
            shown = self._authorization(request.scope)
            answer = self._send(request, shown)
            if answer.status != 401 or asked:  # noqa: PLR2004 - also in mid-layer, when a token ran out
                return answer
            try:
                # One thread asks for a token; those that were refused meanwhile wait, and take what it got.
                with self._asking:
                    if self._authorization(request.scope) == shown:
                        asked = True
                        self._tokens.pop(request.scope, None)
                        challenge = answer.headers.get("WWW-Authenticate", "")
                        if not self._answer_challenge(challenge, request.scope):
                            return answer
            except EdgeError:
                discard(answer)
                raise
            discard(answer)

    def _authorization(self, scope: str) -> dict[str, str]:
        token = self._tokens.get(scope)
        if token is not None and token.until > self.patience.now():
            return {"Authorization": f"Bearer {token.value}"}
        if self._basic and self.credentials is not None:
            return {"Authorization": self.credentials.basic()}
        return {}

    def _answer_challenge(self, challenge: str, scope: str) -> bool:
        kind = challenge.partition(" ")[0].lower()
        if kind == "basic":
            asked, self._basic = self._basic, True
            return self.credentials is not None and not asked
        if kind != "bearer":
            return False
        fields = dict(_CHALLENGE.findall(challenge))
        realm = self._allowed(fields.get("realm", ""), "its token fetched")
        scopes = dict.fromkeys(one for one in (fields.get("scope", ""), scope) if one)
        self._tokens[scope] = self._fetch_token(realm, fields.get("service", ""), tuple(scopes))
        return True

    def _fetch_token(self, realm: str, service: str, scopes: tuple[str, ...]) -> _Token:
        who = self.credentials
        if who is not None and who.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": who.identity_token, "client_id": "edge"}
            body = urlencode(form | {"service": service, "scope": " ".join(scopes)}).encode()
            answer = self._raw("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body)
        else:
            query = urlencode([("service", service), *(("scope", one) for one in scopes)])
            headers = {"Authorization": who.basic()} if who is not None else {}
            answer = self._raw("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers, None)
        if answer.status != 200:  # noqa: PLR2004
            failure = _refusal(answer, self.host, "its token")
            discard(answer)
            raise failure
        document = _json(whole(answer, _MAXIMUM_TOKEN, self.host), self.host)
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise ImagePullError(f"{self.host} gave no token", reason=REASON)
        seconds = document.get("expires_in")
        lasts = max(seconds, _TOKEN_SECONDS) if isinstance(seconds, int) else _TOKEN_SECONDS
        return _Token(value, self.patience.now() + lasts * 0.9)

    def _send(self, request: _Request, shown: Mapping[str, str]) -> BaseHTTPResponse:
        url = joined(f"{self.scheme}://{self.host}", request.path, self.host)
        for hop in range(_MAXIMUM_REDIRECTS + 1):
            foreign = urlsplit(url).netloc != self.host
            # Somebody else's server: our credentials are none of its business.
            own = shown if not foreign else {}
            url = self._allowed(url, "a request sent")
            answer = self._ask(request.method, url, {**request.headers, **own}, request.body, foreign=foreign)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                self._check_link(answer, url, followed=hop > 0, foreign=foreign)
                return answer
            discard(answer)
            url = joined(url, location, self.host)
        raise ImagePullError(f"registry {self.host} gave more than {_MAXIMUM_REDIRECTS} redirects", reason=REASON)

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, foreign: bool
    ) -> BaseHTTPResponse:
        try:
            return self._raw(method, url, headers, body)
        except RegistryUnavailableError as error:
            # As Podman: an insecure registry is tried with TLS first and then without.
            if not self.insecure or foreign or not url.startswith("https://") or not _speaks_no_tls(error):
                raise
            answer = self._raw(method, url.replace("https://", "http://", 1), headers, body)
            if answer.status == 400:  # noqa: PLR2004 - what a server with TLS says to plain HTTP: it was a hiccup
                discard(answer)
                raise
        self.scheme = "http"
        return answer

    def _check_link(self, answer: BaseHTTPResponse, url: str, *, followed: bool, foreign: bool) -> None:
        """Raise if a signed link is not taken: another one is to be had from the registry."""
        if (foreign and answer.status == 401) or (followed and answer.status in (400, 403)):  # noqa: PLR2004
            discard(answer)
            raise RegistryUnavailableError(
                f"registry {self.host} gave a link that {urlsplit(url).netloc} does not take (it may have expired)",
                reason=REASON,
            )

    def _allowed(self, url: str, what: str) -> str:
        scheme, netloc, *_ = urlsplit(joined(url, "", self.host))
        if scheme != "https" and not (scheme == "http" and self.insecure):
            raise ImagePullError(
                f"registry {self.host} wants {what} without TLS to {netloc or 'nowhere'}",
                reason=REASON,
                hint=f"If that is meant, set `insecure = true` for {self.host} in registries.conf.",
            )
        return url

    def _raw(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> BaseHTTPResponse:
        try:
            return self._pool.request(
                method, url, headers=headers, body=body, preload_content=False, redirect=False, decode_content=False
            )
        except (HTTPError, OSError, ValueError) as error:
            raise unavailable(self.host, error) from error


def joined(base: str, location: str, host: str) -> str:
    """Return where a server's `Location` points, seen from `base`.

    Raises:
        ImagePullError: It is no URL.
    """
    try:
        found = urljoin(base, location)
        urlsplit(found)
    except ValueError as error:
        raise ImagePullError(f"registry {host} gave an address that is none", reason=REASON) from error
    return found


def whole(answer: BaseHTTPResponse, most: int, host: str) -> bytes:
    """Read an answer to its end, for a document.

    Raises:
        RegistryUnavailableError: It broke off.
        ImagePullError: It has more than `most` bytes.
    """
    try:
        data = answer.read(most + 1)
    except (HTTPError, OSError) as error:
        raise unavailable(host, error) from error
    finally:
        answer.close()
    if len(data) <= most and answer.length_remaining:
        raise RegistryUnavailableError(
            f"registry {host} broke off {answer.length_remaining} bytes early", reason=REASON
        )
    if len(data) > most:
        raise ImagePullError(f"registry {host} sent a document of more than {most} bytes", reason=REASON)
    return data


def discard(answer: BaseHTTPResponse) -> None:
    """Be done with an answer: its connection is kept if little is left to read, and ended otherwise."""
    with contextlib.suppress(HTTPError, OSError):
        answer.read(_MAXIMUM_LEFT)
    # Of an answer read to its end this ends nothing: its connection is back in the pool.
    answer.close()


def unavailable(host: str, error: Exception) -> RegistryUnavailableError:
    """Return what a failed connection means."""
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
    return RegistryUnavailableError(f"registry {host} does not answer: {cause}", reason=REASON, hint=_hint(host, cause))


def _hint(host: str, cause: BaseException) -> str:
    if not isinstance(cause, SSLError):
        return ""
    if "CERTIFICATE" in str(cause).upper():
        return f"Put the registry's CA into /etc/containers/certs.d/{host}/ca.crt."
    return f"If it speaks plain HTTP, allow that: `insecure = true` for {host} in registries.conf."


def _speaks_no_tls(error: RegistryUnavailableError) -> bool:
    return isinstance(error.__cause__, SSLError)


def _refusal(answer: BaseHTTPResponse, host: str, path: str) -> EdgeError:
    told = _told(answer)
    # A query may hold what an upload is authorized by.
    message = f"registry {host} answered {answer.status} to {path.partition('?')[0]}{': ' if told else ''}{told}"
    if answer.status in _AGAIN:
        busy = _BusyError(message, reason=REASON)
        busy.pause = _retry_after(answer)
        return busy
    hint = {
        401: "Log in: podman login, then copy auth.json to the device.",
        403: "The credentials may not read this repository.",
        404: "Is the reference right, and was the image pushed?",
    }.get(answer.status, "")
    return ImagePullError(message, reason=REASON, hint=hint)


def _retry_after(answer: BaseHTTPResponse) -> float:
    wait = answer.headers.get("Retry-After", "")
    return min(float(wait), _MAXIMUM_RETRY_AFTER) if wait.isascii() and wait.isdigit() else 0.0


def _told(answer: BaseHTTPResponse) -> str:
    """The registry's own words: `errors[].code` and `message` (distribution specification, "Error codes")."""
    try:
        errors = json.loads(answer.read(8192)).get("errors", [])
        words = "; ".join(f"{one.get('message') or one.get('code')}" for one in errors)
    except (HTTPError, OSError, ValueError, AttributeError, TypeError, RecursionError):
        return ""
    return "".join(one if one.isprintable() else " " for one in words[:_MAXIMUM_WORDS])


def _json(data: bytes, host: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImagePullError(f"{host} gave a token that is not JSON", reason=REASON) from error
    return document if isinstance(document, dict) else {}


def _tls(folder: Path | None, *, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        for path in sorted(folder.iterdir()) if folder is not None else ():
            _use(context, path)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(f"cannot use the certificates in {folder}: {error}") from error
    return context


def _use(context: ssl.SSLContext, path: Path) -> None:
    if path.suffix == ".crt":
        context.load_verify_locations(path)
    elif path.suffix == ".cert":
        context.load_cert_chain(path, path.with_suffix(".key"))
