# SPDX-License-Identifier: GPL-2.0-or-later
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm.common.stomp import COMMANDS, Frame, Limits, NotStomp, Parser, encode

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
names = text.filter(lambda name: name and name != "content-length")
frames = st.builds(
    Frame,
    st.sampled_from(sorted(COMMANDS - {"CONNECT", "CONNECTED"})),
    st.dictionaries(names, text, max_size=5),
    st.binary(max_size=300),
)


@given(st.lists(frames, max_size=5), st.data())
def test_frames_come_back_however_the_bytes_are_split(sent, data):
    wire = b"".join(b"\n" * data.draw(st.integers(0, 3)) + encode(frame) for frame in sent)
    parser, got, at = Parser(), [], 0
    while at < len(wire):
        step = data.draw(st.integers(1, 50))
        got += parser.feed(wire[at : at + step])
        at += step
    assert [(frame.command, frame.body) for frame in got] == [(frame.command, frame.body) for frame in sent]
    for back, frame in zip(got, sent, strict=True):
        assert {**back.headers} == {**frame.headers} | ({"content-length": str(len(frame.body))} if frame.body else {})


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_give_frames_or_one_kind_of_error(parts):
    parser = Parser(Limits(head_bytes=100, headers=5, body_bytes=100))
    try:
        for part in parts:
            for frame in parser.feed(part):
                assert frame.command in COMMANDS
            assert len(parser._buffer) <= 100 + 200 + 100  # what is kept is bounded, whatever comes
    except NotStomp:
        pass


def test_what_the_engine_sends_is_taken():
    wire = b"CONNECT\naccept-version:1.2\nhost:null\nheart-beat:0,15000\n\n\0"
    wire += b"SEND\nreply-to:jms.topic.vdsm_responses\ndestination:jms.topic.vdsm_requests\ncontent-length:2\n\n{}\0"
    connect, send = Parser().feed(wire)
    assert connect == Frame("CONNECT", {"accept-version": "1.2", "host": "null", "heart-beat": "0,15000"})
    assert (send.headers["reply-to"], send.body) == ("jms.topic.vdsm_responses", b"{}")


@pytest.mark.parametrize(
    ("wire", "headers"),
    [
        (b"SEND\r\na:b\r\n\r\n\0", {"a": "b"}),
        (b"\n\r\n\nSEND\na:b\n\n\0", {"a": "b"}),
        (b"SEND\na:b:c\n\n\0", {"a": "b:c"}),
        (b"SEND\na:1\na:2\n\n\0", {"a": "1"}),
        (b"SEND\na:x\\cy\\n\\\\\n\n\0", {"a": "x:y\n\\"}),
        (b"SEND\na:C\\:\\t\n\n\0", {"a": "C\\:\\t"}),
        (b"CONNECT\na:x\\cy\n\n\0", {"a": "x\\cy"}),
        (b"SEND\na:\n\n\0", {"a": ""}),
    ],
)
def test_headers_are_read_leniently(wire, headers):
    (frame,) = Parser().feed(wire)
    assert frame.headers == headers


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"HELLO", "it begins with 'HELLO'"),
        (b"\x16\x03\x01", "it begins with"),
        (b"SENDX\n", "it begins with 'SENDX'"),
        (b"SEND\nno colon\n\n", "header 'no colon'"),
        (b"SEND\n:x\n\n", "header ':x'"),
        (b"SEND\ncontent-length:-1\n\n", "content-length '-1'"),
        (b"SEND\ncontent-length:1e3\n\n", "content-length '1e3'"),
        (b"SEND\ncontent-length:101\n\n", "a body of 101 bytes, 100 are allowed"),
        (b"SEND\ncontent-length:1\n\nab\0", "no NUL after the body"),
        (b"SEND\n\n" + b"x" * 101, "a body of more than 100 bytes"),
        (b"SEND\na:" + b"x" * 200, "headers of more than 90 bytes"),
        (b"SEND\na:" + b"x" * 200 + b"\n\n", "headers of more than 90 bytes"),
        (b"SEND\n" + b"".join(b"h%d:\n" % n for n in range(9)) + b"\n", "9 headers, 5 are allowed"),
        (b"SEND\na:\xff\n\n\0", "not UTF-8"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_reason(wire, reason):
    parser = Parser(Limits(head_bytes=90, headers=5, body_bytes=100))
    with pytest.raises(NotStomp, match=f"Not a STOMP frame: .*{reason}"):
        parser.feed(wire)


def test_a_frame_is_written_as_the_strictest_parser_wants_it():
    frame = Frame("MESSAGE", {"destination": "jms.queue.events", "subscription": "a:b"}, b"{}")
    assert encode(frame) == b"MESSAGE\ndestination:jms.queue.events\nsubscription:a\\cb\ncontent-length:2\n\n{}\0"


def test_a_megabyte_in_small_pieces_takes_no_time():
    parser = Parser()
    wire = encode(Frame("SEND", {"a": "b"}, b"x" * (1 << 20)))
    got = [frame for at in range(0, len(wire), 1000) for frame in parser.feed(wire[at : at + 1000])]
    assert len(got[0].body) == 1 << 20


def test_the_time_for_small_frames_grows_with_their_number_and_no_faster():
    few, many = (b"UNSUBSCRIBE\nid:x\n\n\0" * count for count in (10_000, 120_000))
    assert _seconds(many) < 3 * 12 * _seconds(few)


def _seconds(wire):
    took = []
    for _ in range(2):
        parser = Parser()
        parser.add(wire)
        began = time.thread_time()
        while parser.next_frame() is not None:
            pass  # kept by nobody: the collector of garbage has nothing to walk through
        took.append(time.thread_time() - began)
    return min(took)


def test_frames_are_handed_out_one_by_one():
    parser = Parser()
    parser.add(b"SEND\na:1\n\n\0\nSEND\na:2\n\n\0SEND")
    assert [parser.next_frame().headers["a"] for _ in range(2)] == ["1", "2"]
    assert parser.next_frame() is None
    parser.add(b"\na:3\n\n\0")
    assert parser.next_frame().headers == {"a": "3"}


def test_a_frame_says_its_length_once_and_right_whatever_its_headers_said():
    data = encode(Frame("MESSAGE", {"content-length": "7", "destination": "q"}, b"four"))
    assert data.count(b"content-length:") == 1
    assert b"\ncontent-length:4\n\nfour\0" in data


LIMITS = Limits(head_bytes=20, headers=2, body_bytes=10)


@pytest.mark.parametrize(
    "wire",
    [
        b"SEND\na:" + b"x" * 13 + b"\n\n\0",
        b"SEND\na:1\nb:2\n\n\0",
        b"SEND\n\n" + b"x" * 10 + b"\0",
        b"SEND\ncontent-length:10\n\n" + b"x" * 10 + b"\0",
        b"SEND\ncontent-length:0\n\n\0",
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 100])
def test_the_largest_frame_is_taken_however_it_comes(wire, piece):
    parser = Parser(Limits(head_bytes=25, headers=2, body_bytes=10) if b"content" in wire else LIMITS)
    (frame,) = [frame for at in range(0, len(wire), piece) for frame in parser.feed(wire[at : at + piece])]
    assert frame.command == "SEND"


@pytest.mark.parametrize(
    "wire",
    [
        b"SEND\na:" + b"x" * 14 + b"\n\n\0",
        b"SEND\na:1\nb:2\nc:3\n\n\0",
        b"SEND\n\n" + b"x" * 11 + b"\0",
        b"UNSUBSCRIBEX\n",
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 100])
def test_one_more_is_too_much_however_it_comes(wire, piece):
    parser = Parser(LIMITS)
    with pytest.raises(NotStomp):
        [parser.feed(wire[at : at + piece]) for at in range(0, len(wire), piece)]


def test_limits_are_those_of_the_documents():
    assert Limits() == Limits(head_bytes=16384, headers=64, body_bytes=16777216)


def test_a_frame_without_a_body_keeps_its_headers_as_they_are():
    assert encode(Frame("RECEIPT", {"receipt-id": "1", "content-length": "0"})) == (
        b"RECEIPT\nreceipt-id:1\ncontent-length:0\n\n\0"
    )
    assert encode(Frame("CONNECTED", {"session": "a:b"})) == b"CONNECTED\nsession:a:b\n\n\0"


def test_what_is_refused_is_quoted_in_part():
    with pytest.raises(NotStomp) as e:
        Parser().feed(b"SEND\n" + b"x" * 100 + b"\n\n")
    assert str(e.value) == f"Not a STOMP frame: header '{'x' * 40}'"
    with pytest.raises(NotStomp) as e:
        Parser().feed(b"SEND\ncontent-length:" + b"1" * 30 + b"\n\n")
    assert str(e.value) == f"Not a STOMP frame: content-length '{'1' * 20}'"
