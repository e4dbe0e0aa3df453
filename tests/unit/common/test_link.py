# SPDX-License-Identifier: GPL-2.0-or-later
import asyncio
import socket

import pytest

from vdsm.common.errors import AgentError, DeadlineExceeded, InvalidParameter, RemoteError
from vdsm.common.link import Link, LinkClosed


class Refused(AgentError):
    what: str
    msg = "{self.what} is refused"


async def linked(serve, notified=None):
    ours, theirs = socket.socketpair()
    client = Link(*await asyncio.open_connection(sock=ours), name="server", notified=notified)
    server = Link(*await asyncio.open_connection(sock=theirs), name="client", serve=serve)
    tasks = [asyncio.ensure_future(client.run()), asyncio.ensure_future(server.run())]
    return client, server, tasks


async def end(*links):
    for link in links:
        await link.close()


async def test_answers_find_their_callers_in_any_order():
    first = asyncio.Event()

    async def serve(verb, params):
        if params["n"] == 1:
            await first.wait()
        else:
            first.set()
        return [verb, params["n"]]

    client, server, _ = await linked(serve)
    answers = await asyncio.gather(*(client.call("count", {"n": n}, timeout_s=5) for n in (1, 2)))
    assert answers == [["count", 1], ["count", 2]]
    await end(client, server)


async def test_typed_error_arrives_as_itself():
    async def serve(verb, params):
        raise Refused("the verb")

    client, server, _ = await linked(serve)
    with pytest.raises(Refused, match="the verb is refused"):
        await client.call("any", {}, timeout_s=5)
    await end(client, server)


async def test_defect_of_the_server_is_answered_not_lost():
    async def serve(verb, params):
        return 1 / 0

    client, server, _ = await linked(serve)
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        await client.call("any", {}, timeout_s=5)
    await end(client, server)


async def test_deadline_ends_the_waiting_not_the_work():
    done = asyncio.Event()

    async def serve(verb, params):
        await asyncio.sleep(0.2)
        done.set()

    client, server, _ = await linked(serve)
    with pytest.raises(DeadlineExceeded, match="slow of server"):
        await client.call("slow", {}, timeout_s=0.05)
    await asyncio.wait_for(done.wait(), 5)
    await end(client, server)


async def test_closed_peer_ends_every_waiting_call():
    client, server, _ = await linked(lambda verb, params: asyncio.sleep(60))
    call = asyncio.ensure_future(client.call("any", {}, timeout_s=60))
    await asyncio.sleep(0)
    await server.close()
    with pytest.raises(LinkClosed):
        await asyncio.wait_for(call, 5)
    with pytest.raises(LinkClosed):
        await client.call("any", {}, timeout_s=1)
    await end(client)


async def test_garbage_closes_the_link():
    ours, theirs = socket.socketpair()
    link = Link(*await asyncio.open_connection(sock=ours))
    task = asyncio.ensure_future(link.run())
    theirs.sendall(b"\xff\xff\xff\xff garbage")
    await asyncio.wait_for(task, 5)
    assert link.closed
    theirs.close()


async def test_notifications_arrive():
    got = asyncio.get_running_loop().create_future()
    client, server, _ = await linked(None, notified=lambda topic, params: got.set_result((topic, params)))
    await server.notify("lease.lost", {"domain": "d"})
    assert await asyncio.wait_for(got, 5) == ("lease.lost", {"domain": "d"})
    await end(client, server)


def test_invalid_parameter_names_the_parameter():
    assert str(InvalidParameter("size", "'x'", "expected bytes")) == (
        "Parameter 'size' is invalid: expected bytes (got 'x')"
    )
