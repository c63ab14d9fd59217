"""Make a TCP connection to the broker, with TLS when it is asked for, without ever being stuck in it."""

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edge.errors import BrokerError, BrokerUnavailableError
from edge.mqtt.broker import BrokerSettings
from edge.mqtt.wire import acknowledge_at_once, tune

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, openssl/x509_vfy.h."""

Wait = Callable[[int, int, float], None]
"""Wait until a file descriptor is ready for these poll events, at most until a monotonic time (TimeoutError)."""


@dataclass(frozen=True, slots=True)
class _Peer:
    """Who must answer; `least` is what time it is at the least, None while the clock is good and OpenSSL goes by it."""

    context: ssl.SSLContext
    host: str
    least: datetime | None


def dial(settings: BrokerSettings, wait: Wait) -> socket.socket:
    """Return a connected, non-blocking socket, with the TLS handshake done when `settings.ca_file` is given.

    Everything after the name look-up ends within `settings.connect_timeout_seconds`.

    Raises:
        BrokerUnavailableError: It cannot be reached now.
        BrokerError: It can, and its certificate is not to be trusted, or ours is not accepted, or our files are bad.
    """
    where = f"{settings.host}:{settings.port}"
    deadline = time.monotonic() + settings.connect_timeout_seconds
    peer = _peer(settings)
    try:
        sock = _connect(settings, deadline, wait)
    except TimeoutError as error:
        raise BrokerUnavailableError(f"no connection to {where} in time") from error
    except OSError as error:
        raise BrokerUnavailableError(f"cannot connect to {where}: {error.strerror or error}") from error
    try:
        tune(sock)
        return sock if peer is None else _handshake(sock, peer, deadline, wait)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise BrokerError(f"the certificate of {where} is not accepted: {error.verify_message}") from error
    except ssl.SSLError as error:
        sock.close()
        raise BrokerError(f"TLS with {where} failed: {error.reason or error}") from error
    except TimeoutError as error:
        sock.close()
        raise BrokerUnavailableError(f"the TLS handshake with {where} did not end in time") from error
    except OSError as error:
        sock.close()
        raise BrokerUnavailableError(f"{where} broke off the TLS handshake: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise


def _peer(settings: BrokerSettings) -> _Peer | None:
    # Read anew for each connection: a rotated certificate counts from the next one on.
    if settings.ca_file is None:
        return None
    least = settings.least_time() if settings.least_time is not None else None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(name) for name in (settings.ca_file, settings.cert_file, settings.key_file) if name)
        raise BrokerError(f"the TLS files cannot be used ({files}): {error}") from error
    if least is not None:
        context.verify_flags |= _NO_CHECK_TIME
    return _Peer(context, settings.host, least)


def _connect(settings: BrokerSettings, deadline: float, wait: Wait) -> socket.socket:
    addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(errno.EHOSTUNREACH, "the name has no address")
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now = time.monotonic()
        # One address that swallows packets must not use up the time of the others.
        share = now + (deadline - now) / left
        try:
            return _connect_to(socket.socket(family, kind, protocol), address, share, wait)
        except OSError as error:
            failure = error
    raise failure


def _connect_to(sock: socket.socket, address: object, deadline: float, wait: Wait) -> socket.socket:
    try:
        sock.settimeout(0.0)
        code = sock.connect_ex(address)  # type: ignore[arg-type]  # whatever getaddrinfo gave
        if code == errno.EINPROGRESS:
            wait(sock.fileno(), select.POLLOUT, deadline)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if code:
        sock.close()
        raise OSError(code, os.strerror(code))
    return sock


def _handshake(sock: socket.socket, peer: _Peer, deadline: float, wait: Wait) -> socket.socket:
    secure = peer.context.wrap_socket(sock, server_hostname=peer.host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                wait(secure.fileno(), select.POLLIN, deadline)
                acknowledge_at_once(secure)
            except ssl.SSLWantWriteError:
                wait(secure.fileno(), select.POLLOUT, deadline)
            else:
                _check_not_expired(secure, peer)
                return secure
    except BaseException:
        secure.close()
        raise


def _check_not_expired(secure: ssl.SSLSocket, peer: _Peer) -> None:
    """Judge by what time it is at the least; when it began is not judged: the clock is what is in doubt."""
    ends = (secure.getpeercert() or {}).get("notAfter")
    if peer.least and isinstance(ends, str) and ssl.cert_time_to_seconds(ends) < peer.least.timestamp():
        raise BrokerError(f"the certificate of {peer.host} is not accepted: it expired on {ends}")
