"""Addresses that are ours alone: a second instance there is an error at its start, never a silent one.

The kernel sees to it for a port. grpcio and asyncio both take over a live unix socket in silence, and the one that stops first
removes the other's file: a lock file beside the socket is held for the life of the process, and a socket that answers is refused.
Only a process that leaves an address offers it, to one successor; it goes on listening until that one serves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from extauthz.addresses import TEMPORARY, Address
from extauthz.errors import AddressInUseError, ListenError
from extauthz.transport import handover, socket_files
from extauthz.transport.sockets import open_port, publish, restricted_umask

LOOK = 1.0
"""Seconds between two looks whether a socket file is still there."""
SUCCESSOR_LOOK = 0.05
"""Seconds between two looks whether the socket file of a successor is there."""

SuccessorWait = Callable[[], Awaitable[object]]
"""Waits until a successor serves at an address that was offered."""

_log = logging.getLogger(__name__)


class AddressClaim(Protocol):
    """An address that no other instance listens on."""

    address: Address
    binding: Address
    """Where the socket is bound before it is published."""

    @property
    def shared(self) -> bool:
        """Return whether a process that leaves listens there still, so that the port has to be shared."""

    def publish(self, *, mode: str, group: str | None) -> None:
        """Let everybody find the socket that was bound, and serves; raises ListenError."""

    def offer(self) -> AbstractAsyncContextManager[SuccessorWait]:
        """Let one successor listen there too, for good; raises OSError."""

    def close(self) -> None:
        """Leave the address, and remove its files unless they are another process's by now."""


class PortClaim:
    """A TCP address."""

    def __init__(self, address: Address, *, take_over: bool) -> None:
        """See that it is free, or left for us; raises ListenError."""
        self.address = self.binding = address
        self._predecessor: socket.socket | None = None
        try:
            open_port(address).close()
        except AddressInUseError:
            self._predecessor = handover.ask(address) if take_over else None
            if self._predecessor is None:
                raise

    @property
    def shared(self) -> bool:
        """Return whether a process that leaves listens there still."""
        return self._predecessor is not None

    def publish(self, *, mode: str, group: str | None) -> None:
        """Tell the predecessor that it may end; a port has neither mode nor group."""
        if self._predecessor is not None:
            handover.confirm(self._predecessor, self.address)

    @asynccontextmanager
    async def offer(self) -> AsyncIterator[SuccessorWait]:
        """Let one successor bind the port as well; raises OSError."""
        if not self.address.port:
            # No successor can name a port that the system chose.
            yield asyncio.Event().wait
            return
        async with handover.offer(self.address) as event:
            yield event.wait

    def close(self) -> None:
        """Forget it: the kernel frees it with the socket."""
        if self._predecessor is not None:
            self._predecessor.close()


class PathClaim:
    """A socket path: the lock beside it, and which file it is that we made."""

    def __init__(self, address: Address, *, take_over: bool) -> None:
        """Take the lock, and see that the path is free, or left for us; raises ListenError."""
        self.address = address
        self.binding = replace(address, path=address.path + TEMPORARY)
        self._path = Path(address.path)
        self._take_over = take_over
        self._lock = socket_files.acquire_lock(address)
        self._mode = "0600"
        self._group: str | None = None
        self._identity: socket_files.Identity | None = None
        self._is_offered = False
        try:
            self.make_room()
        except BaseException:
            self._lock.close()
            raise

    @property
    def shared(self) -> bool:
        """Return False: a path leads to one socket alone."""
        return False

    @property
    def is_lost(self) -> bool:
        """Return whether the file that was published is there no more, or another one is."""
        return socket_files.identity(self._path) != self._identity

    @property
    def is_offered(self) -> bool:
        """Return whether another one may take its place."""
        return self._is_offered

    def make_room(self) -> None:
        """Make the path free to bind, with the lock held beside it; raises ListenError."""
        if socket_files.identity(Path(f"{self._path}.lock")) != socket_files.identity(self._lock.fileno()):
            # It went with its folder, say: a second process could lock the next one.
            previous, self._lock = self._lock, socket_files.acquire_lock(self.address)
            previous.close()
        if not (self._take_over and socket_files.is_released(self._lock, socket_files.identity(self._path))):
            socket_files.make_room(self._path, self.address)
        # What a process that was killed left behind.
        socket_files.make_room(Path(self.binding.path), self.binding)

    def publish(self, *, mode: str, group: str | None) -> None:
        """Give the socket that was just bound its group and octal mode, and its name; raises ListenError."""
        publish(self.binding, mode=mode, group=group)
        identity = socket_files.identity(Path(self.binding.path))
        try:
            os.replace(self.binding.path, self._path)
            socket_files.forget(self._lock)
        except OSError as error:
            raise ListenError(f"{self.address} cannot be listened on: {error.strerror or error}") from error
        self._mode, self._group, self._identity = mode, group, identity

    async def bind_again(self, listen_again: Callable[[Address], Awaitable[None]]) -> None:
        """Bind anew and publish as before; raises ListenError and OSError."""
        # A socket that is there is tried, which takes time.
        await asyncio.to_thread(self.make_room)
        with restricted_umask(self._mode):
            await listen_again(self.binding)
        self.publish(mode=self._mode, group=self._group)

    @asynccontextmanager
    async def offer(self) -> AsyncIterator[SuccessorWait]:
        """Let one successor put its socket in the place of this one; raises OSError."""
        self._is_offered = True
        socket_files.release(self._lock, self._identity)
        yield self._wait_for_successor

    async def _wait_for_successor(self) -> None:
        while socket_files.identity(self._path) in (None, self._identity):  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(SUCCESSOR_LOOK)

    def close(self) -> None:
        """Remove the socket files that are ours, and let go of the lock."""
        with self._lock:
            if self._is_offered and not socket_files.try_lock(self._lock):
                # A successor holds it, whose socket it may be in a moment.
                return
            Path(self.binding.path).unlink(missing_ok=True)
            if self._identity is None:
                # Another one may be left there, for the next to come.
                return
            socket_files.forget(self._lock)
            if not self.is_lost:
                self._path.unlink(missing_ok=True)


def take(address: Address, *, take_over: bool = True) -> AddressClaim:
    """Return the claim to an address, also of one that leaves it unless `take_over` is false; raises ListenError."""
    return PathClaim(address, take_over=take_over) if address.path else PortClaim(address, take_over=take_over)


@contextmanager
def claim(address: Address, *, take_over: bool = True) -> Iterator[AddressClaim]:
    """Hold an address, which is free to bind inside; raises ListenError.

    A socket file is removed at the end. Its lock file stays: removing it would let two processes hold two locks.
    """
    claimed = take(address, take_over=take_over)
    try:
        yield claimed
    finally:
        claimed.close()


@asynccontextmanager
async def offer(*claims: AddressClaim) -> AsyncIterator[SuccessorWait]:
    """Leave addresses to a successor inside the block, which serves once it serves at the first of them."""
    async with AsyncExitStack() as stack:
        wait: SuccessorWait = asyncio.Event().wait
        for claimed in claims:
            try:
                claim_wait = await stack.enter_async_context(claimed.offer())
            except OSError as error:
                # A successor finds it in use until this process has ended.
                _log.warning("an address cannot be handed over", extra={"listen": str(claimed.address), "cause": str(error)})
            else:
                wait = claim_wait if claimed is claims[0] else wait
        yield wait


async def first_of(*waiting: Awaitable[object], seconds: float | None = None) -> None:
    """Wait until the first of these has come, for so many seconds at most, and give up the others."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keep(
    claimed: AddressClaim,
    listen_again: Callable[[Address], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look after a published socket file, and bind it again when it was removed or replaced; connections stay open.

    A port needs no such care, and a path that is offered may be another's.
    """
    is_logged = False
    while isinstance(claimed, PathClaim):
        await sleep(LOOK)
        if claimed.is_offered:
            return
        if not claimed.is_lost:
            is_logged = False
            continue
        try:
            await claimed.bind_again(listen_again)
        except Exception as error:  # noqa: BLE001 - the next look may find the way free
            if not is_logged:
                is_expected = isinstance(error, ListenError | OSError)
                extra = {"listen": str(claimed.address), "cause": str(error)}
                _log.error("the socket is gone and cannot be made again", extra=extra, exc_info=None if is_expected else error)
            is_logged = True
        else:
            is_logged = False
            _log.warning("the socket was removed and is made again", extra={"listen": str(claimed.address)})
