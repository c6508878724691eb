"""Where a request ends: however it is cut into pieces, and never elsewhere than gunicorn's parser says."""

import pytest
from gunicorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from scanbook.serving.app import refusal
from scanbook.serving.arrival import MAX_CHUNKS, MAX_HEAD, Arrival, State
from scanbook.serving.server import at_end, parse, status_of

MOST = 10_000
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\n\r\n!\r\n0\r\n\r\n"
)
TRAILER = CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n"


def head(*lines: str) -> bytes:
    return "\r\n".join(("POST / HTTP/1.1", *lines, "", "")).encode("latin-1")


@pytest.mark.parametrize("request_", [GET, POST, CHUNKED, TRAILER, b"\r\n" + GET])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_request_ends_where_it_ends_in_whatever_pieces(request_, step):
    arrival = Arrival(MOST)
    for at in range(0, len(request_), step):
        assert arrival.state in (State.HEAD, State.BODY)
        arrival.feed(request_[at : at + step])
    assert arrival.state is State.WHOLE and not arrival.closes
    assert arrival.take() == request_ and not arrival.data


def test_requests_in_one_piece_are_taken_apart():
    arrival = Arrival(MOST)
    arrival.feed(GET + POST + CHUNKED + GET[:10])
    for expected in (GET, POST, CHUNKED):
        assert arrival.parse() is State.WHOLE
        assert arrival.take() == expected
    assert arrival.parse() is State.HEAD and arrival.data == GET[:10]


@pytest.mark.parametrize(
    "hostile",
    [
        head("Content-Length: 5", "Content-Length: 6") + b"hello!",
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Content-Length: +5") + b"hello",
        head("Content-Length: 5, 5") + b"hello",
        head("Content-Length: ²") + b"hello",
        head("Content-Length:") + b"hello",
        head("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + b"0\r\n\r\n",
        head("Transfer-Encoding: gzip") + b"hello",
        head("Transfer-Encoding: xchunked") + b"hello",
        CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0"),
        CHUNKED.replace(b"5\r\n", b"-5\r\n"),
        CHUNKED.replace(b"5\r\n", b"0x5\r\n"),
        CHUNKED.replace(b"hello\r\n", b"hello--"),
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\n\r\n",
        b"\n" + GET,
    ],
)
def test_what_could_end_in_two_places_closes_the_connection(hostile):
    arrival = Arrival(MOST)
    arrival.feed(hostile + GET)
    # or gunicorn's parser refuses it, and the connection closes as well
    assert arrival.state is State.WHOLE
    assert arrival.closes or refused(arrival.take())


@pytest.mark.parametrize("space", [b"Content-Length : 5", b" Content-Length: 5", b"X: 1\r\n Content-Length: 5"])
def test_fields_that_only_look_like_a_length_are_refused(space):
    arrival = Arrival(MOST)
    arrival.feed(b"POST / HTTP/1.1\r\n" + space + b"\r\n\r\nhello" + GET)
    assert arrival.state is State.WHOLE and refused(arrival.take())


def test_limits():
    arrival = Arrival(MOST)
    assert arrival.feed(b"GET / HTTP/1.1\r\nX: " + bytes([120]) * MAX_HEAD) is State.LARGE_HEAD
    arrival = Arrival(MOST)
    # announced too large: the head alone goes to the application, which says so
    assert arrival.feed(head(f"Content-Length: {MOST + 1}", "Expect: 100-continue") + b"part") is State.WHOLE
    assert arrival.closes and not arrival.continues and arrival.take().endswith(b"\r\n\r\n")
    arrival = Arrival(MOST)
    chunk = b"3e8\r\n" + bytes(1000) + b"\r\n"
    states = [arrival.feed(head("Transfer-Encoding: chunked")), *(arrival.feed(chunk) for _ in range(10))]
    assert states[-2] is State.BODY and states[-1] is State.LARGE_BODY
    assert Arrival(MOST).feed(head("Transfer-Encoding: chunked") + b"FFFFFFFF\r\n") is State.LARGE_BODY
    assert (
        Arrival(10**9).feed(head("Transfer-Encoding: chunked") + b"1\r\nx\r\n" * (MAX_CHUNKS + 2)) is State.LARGE_BODY
    )


def test_expectation_is_met_only_while_the_body_is_missing():
    arrival = Arrival(MOST)
    expecting = head("Content-Length: 5", "Expect: 100-Continue")
    arrival.feed(expecting)
    assert arrival.continues
    arrival.feed(b"hello")
    assert not arrival.continues
    whole = Arrival(MOST)
    whole.feed(expecting + b"hello")
    old = Arrival(MOST)
    old.feed(expecting.replace(b"1.1", b"1.0"))
    assert not whole.continues and not old.continues


def refused(request: bytes) -> bool:
    """Whether gunicorn's parser finds something wrong."""
    try:
        consumed(request)
    except Exception as error:
        return status_of(error) != 500
    return False


def consumed(request: bytes) -> bool:
    """Whether gunicorn's parser stops at the end of the request."""
    parser = parse(Config(), request, ("127.0.0.1", 1))
    next(parser).body.read()
    return at_end(parser)


LINES = st.sampled_from(
    ["Host: x", "Content-Length: 3", "Content-Length: 0", "content-length:  7 ", "Transfer-Encoding: chunked",
     "Transfer-Encoding: Chunked", "Expect: 100-continue", "X_Y: 1", "Content-Length : 3", "X: \x00", "Y: é"]
)  # fmt: skip
BODIES = st.sampled_from([b"", b"abc", b"abcdefg", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\n\r\n", b"3\r\nabcd0\r\n\r\n"])


@given(st.lists(LINES, max_size=3), BODIES, st.sampled_from([b"", GET]), st.integers(1, 40))
def test_a_connection_that_goes_on_goes_on_where_the_parser_stopped(lines, body, after, step):
    arrival = Arrival(MOST)
    data = head(*lines) + body + after
    for at in range(0, len(data), step):
        if arrival.feed(data[at : at + step]) is State.WHOLE:
            break
    if arrival.state is State.WHOLE and not arrival.closes:
        request = arrival.take()
        assert refused(request) or consumed(request)


def test_refusals_are_whole_answers():
    text = refusal(503, "later").decode()
    first, _, body = text.partition("\r\n\r\n")
    assert first.startswith("HTTP/1.1 503 Service Unavailable\r\n") and "Retry-After: 1" in first
    assert "Connection: close" in first and f"Content-Length: {len(body)}" in first and '"detail": "later"' in body
