"""How long a connection to a database may take, with addresses that do not answer."""

from __future__ import annotations

import socket

import pytest

from extauthz.adapters.store.contact import FeedLost
from extauthz.adapters.store.link import DatabaseLink
from tests.support.virtual_time import in_virtual_time, now

pytest_plugins = ["tests.support.postgresql"]


def test_a_server_that_accepts_and_says_nothing_is_given_up_after_five_seconds() -> None:
    """However many addresses are tried; each of them has two, which is told to libpq."""

    async def work(port: int) -> tuple[float, str]:
        link = DatabaseLink(f"postgresql://ana@127.0.0.1:{port},127.0.0.1:{port},127.0.0.1:{port}/tokens", None, prepare=False)
        with pytest.raises(FeedLost) as caught:
            await link.connect()
        lasted = now()
        await link.close()
        return lasted, str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        lasted, cause = in_virtual_time(lambda: work(silent.getsockname()[1]))
    assert lasted == pytest.approx(5.0, abs=0.2)
    assert cause == "no answer within 5 s"
