# SPDX-License-Identifier: GPL-2.0-or-later
"""The root helper's border: who may call, what is refused, what survives a lost caller."""

import asyncio

import msgspec
import pytest

from vdsm.common.errors import DeadlineExceeded, InvalidParameter
from vdsm.common.link import Link
from vdsm.common.paths import Paths
from vdsm.root.client import RootClient, RootHelperUnreachable
from vdsm.root.server.registry import VERBS, Helper, NoSuchRootVerb, dispatch, root_verb


class EchoParams(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    times: int = 1


@pytest.fixture
def echo():
    @root_verb("Test.echo", EchoParams)
    async def run(helper, params):
        return params.text * params.times

    yield
    del VERBS["Test.echo"]


HELPER = Helper(Paths(), 36, 36)


async def test_verb_gets_typed_parameters(echo):
    assert await dispatch(HELPER, "Test.echo", {"text": "ab", "times": 2}) == "abab"


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({}, "text"),
        ({"text": 5}, r"\$\.text"),
        ({"text": "a", "times": "2"}, r"\$\.times"),
        ({"text": "a", "command": "rm"}, "command"),
    ],
)
async def test_bad_parameters_are_refused_by_name(echo, params, named):
    with pytest.raises(InvalidParameter, match=named):
        await dispatch(HELPER, "Test.echo", params)


async def test_unknown_verb_is_refused():
    with pytest.raises(NoSuchRootVerb, match=r"'Shell\.run'"):
        await dispatch(HELPER, "Shell.run", {})


async def test_absent_helper_is_named_with_its_socket(tmp_path):
    client = RootClient(str(tmp_path / "root.sock"))
    with pytest.raises(RootHelperUnreachable, match=r"root\.sock: No such file"):
        await client.call("Test.echo", {}, timeout_s=1)


async def test_client_connects_again_after_a_restart_of_the_helper(tmp_path):
    path = str(tmp_path / "root.sock")

    async def serve(verb, params):
        return verb

    async def start():
        links = []

        async def connected(reader, writer):
            link = Link(reader, writer, serve=serve)
            links.append(link)
            await link.run()

        return await asyncio.start_unix_server(connected, path), links

    server, links = await start()
    client = RootClient(path)
    assert await client.call("One", {}, timeout_s=5) == "One"
    server.close()
    for link in links:
        await link.close()
    with pytest.raises(Exception, match=r"closed|does not answer"):
        await client.call("Lost", {}, timeout_s=5)
    server, links = await start()
    assert await client.call("Two", {}, timeout_s=5) == "Two"
    await client.close()
    server.close()


@pytest.fixture
async def answering(tmp_path):
    """A helper that answers with what it got, and does not answer to ``Wait``; its links."""
    links = []

    async def serve(verb, params):
        if verb == "Wait":
            await asyncio.Event().wait()
        return [verb, params]

    async def connected(reader, writer):
        links.append(Link(reader, writer, serve=serve))
        await links[-1].run()

    server = await asyncio.start_unix_server(connected, str(tmp_path / "root.sock"))
    yield str(tmp_path / "root.sock"), links
    server.close()
    for link in links:
        await link.close()


async def test_a_call_has_its_parameters_and_its_deadline(answering):
    client = RootClient(answering[0])
    assert await client.call("Mount.list", {"a": 1}, timeout_s=5) == ["Mount.list", {"a": 1}]
    with pytest.raises(DeadlineExceeded, match=r"Wait of the root helper did not end within 0\.05 s"):
        await client.call("Wait", {}, timeout_s=0.05)
    await client.close()


async def test_calls_at_once_have_one_connection(answering):
    client = RootClient(answering[0])
    await asyncio.gather(*(client.call("x", {}, timeout_s=5) for _ in range(5)))
    assert len(answering[1]) == 1
    await client.close()


async def test_a_closed_client_leaves_neither_connection_nor_task(answering):
    before = asyncio.all_tasks()
    client = RootClient(answering[0])
    await client.call("x", {}, timeout_s=5)
    await client.close()
    async with asyncio.timeout(5):
        while not answering[1][0].closed or asyncio.all_tasks() - before:
            await asyncio.sleep(0)


async def test_a_client_that_never_called_can_be_closed(tmp_path):
    await RootClient(str(tmp_path / "root.sock")).close()
