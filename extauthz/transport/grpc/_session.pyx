# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, always_allow_keywords=False
"""The session of one HTTP/2 connection, compiled: what libnghttp2 calls, the streams, and the bytes in and out.

A callback that raises would hand garbage to C, so each is `noexcept` and guards itself: it gives up its stream or the connection.
Whatever runs for a request runs after `nghttp2_session_mem_recv` has returned, and nothing that sends or deletes is called in a
callback. The interpreter's lock is held throughout. libnghttp2 keeps pointers to streams and header blocks: streams stay in
`streams` until it has closed them or the session is deleted, header blocks live as long as the process.

Functions are called at the addresses that `libnghttp2` found when it loaded the library: no header of it is needed to build this.
"""

import asyncio
import logging

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy
from posix.time cimport clock_gettime, clockid_t, timespec

from extauthz.transport.grpc import libnghttp2 as _http2
from extauthz.transport.grpc import messages as _messages
from extauthz.transport.grpc.fields import MAX_MEMO as _MAX_MEMO
from extauthz.transport.grpc.fields import are_trailers, judge
from extauthz.transport.grpc.messages import GrpcStatus, RequestHead, RequestRefusal
from extauthz.transport.grpc.refusals import RefusalReason

cdef extern from *:
    """
    #ifdef __APPLE__
    #define CLOCK_OF_PYTHON CLOCK_UPTIME_RAW
    #else
    #define CLOCK_OF_PYTHON CLOCK_MONOTONIC
    #endif
    """
    # That of time.monotonic, with which its times are compared.
    clockid_t CLOCK_OF_PYTHON

# --- libnghttp2 (nghttp2.h)

cdef enum:
    TEMPORAL_CALLBACK_FAILURE = -521
    CALLBACK_FAILURE = -902
    DEFERRED = -508
    REFUSED_STREAM = -533
    NO_COPY = 0x2 | 0x4
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RESET = 3
    SETTINGS = 4
    GOAWAY = 7
    END_STREAM = 0x1
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    EOF = 0x1
    NO_END_STREAM = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    MAX_HEADER_LIST_SIZE = 0x6
    GOAWAY_SIZE = 17
    LARGEST_SETTING = 0x7FFFFFFF

cdef struct nghttp2_session:
    int opaque

cdef struct nghttp2_session_callbacks:
    int opaque

cdef struct nghttp2_option:
    int opaque

cdef struct nghttp2_frame:
    # nghttp2_frame_hd, which every frame begins with.
    size_t length
    int32_t stream_id
    uint8_t type
    uint8_t flags
    uint8_t reserved

cdef struct nghttp2_nv:
    uint8_t *name
    uint8_t *value
    size_t name_length
    size_t value_length
    uint8_t flags

cdef union nghttp2_data_source:
    int descriptor
    void *pointer

ctypedef ssize_t (*read_callback)(
    nghttp2_session *, int32_t, uint8_t *, size_t, uint32_t *, nghttp2_data_source *, void *) noexcept

cdef struct nghttp2_data_provider:
    nghttp2_data_source source
    read_callback read

cdef struct nghttp2_settings_entry:
    int32_t identifier
    uint32_t value

ctypedef int (*begin_headers_callback)(nghttp2_session *, const nghttp2_frame *, void *) noexcept
ctypedef int (*header_callback)(
    nghttp2_session *, const nghttp2_frame *, const uint8_t *, size_t, const uint8_t *, size_t, uint8_t, void *) noexcept
ctypedef int (*frame_callback)(nghttp2_session *, const nghttp2_frame *, void *) noexcept
ctypedef int (*data_callback)(nghttp2_session *, uint8_t, int32_t, const uint8_t *, size_t, void *) noexcept
ctypedef int (*invalid_callback)(nghttp2_session *, const nghttp2_frame *, int, void *) noexcept
ctypedef int (*close_callback)(nghttp2_session *, int32_t, uint32_t, void *) noexcept

ctypedef int (*t_callbacks_new)(nghttp2_session_callbacks **) noexcept
ctypedef void (*t_set_begin_headers)(nghttp2_session_callbacks *, begin_headers_callback) noexcept
ctypedef void (*t_set_header)(nghttp2_session_callbacks *, header_callback) noexcept
ctypedef void (*t_set_frame)(nghttp2_session_callbacks *, frame_callback) noexcept
ctypedef void (*t_set_data)(nghttp2_session_callbacks *, data_callback) noexcept
ctypedef void (*t_set_invalid)(nghttp2_session_callbacks *, invalid_callback) noexcept
ctypedef void (*t_set_close)(nghttp2_session_callbacks *, close_callback) noexcept
ctypedef int (*t_server_new)(nghttp2_session **, nghttp2_session_callbacks *, void *, nghttp2_option *) noexcept
ctypedef void (*t_del)(nghttp2_session *) noexcept
ctypedef ssize_t (*t_mem_recv)(nghttp2_session *, const uint8_t *, size_t) noexcept
ctypedef ssize_t (*t_mem_send)(nghttp2_session *, const uint8_t **) noexcept
ctypedef int (*t_session)(nghttp2_session *) noexcept
ctypedef int (*t_stream)(nghttp2_session *, int32_t) noexcept
ctypedef int (*t_submit_response)(
    nghttp2_session *, int32_t, const nghttp2_nv *, size_t, const nghttp2_data_provider *) noexcept
ctypedef int (*t_submit_trailer)(nghttp2_session *, int32_t, const nghttp2_nv *, size_t) noexcept
ctypedef int (*t_submit_reset)(nghttp2_session *, uint8_t, int32_t, uint32_t) noexcept
ctypedef int (*t_submit_goaway)(nghttp2_session *, uint8_t, int32_t, uint32_t, const uint8_t *, size_t) noexcept
ctypedef int (*t_submit_settings)(nghttp2_session *, uint8_t, const nghttp2_settings_entry *, size_t) noexcept
ctypedef int (*t_set_window)(nghttp2_session *, uint8_t, int32_t, int32_t) noexcept
ctypedef int (*t_set_stream_data)(nghttp2_session *, int32_t, void *) noexcept
ctypedef void *(*t_get_stream_data)(nghttp2_session *, int32_t) noexcept


cdef size_t at(str name) except 0:
    return _http2.address(name)


cdef t_callbacks_new callbacks_new = <t_callbacks_new>at("session_callbacks_new")
cdef t_server_new server_new = <t_server_new>at("session_server_new2")
cdef t_del session_del = <t_del>at("session_del")
cdef t_mem_recv mem_recv = <t_mem_recv>at("session_mem_recv")
cdef t_mem_send mem_send = <t_mem_send>at("session_mem_send")
cdef t_session want_read = <t_session>at("session_want_read")
cdef t_session want_write = <t_session>at("session_want_write")
cdef t_session last_stream = <t_session>at("session_get_last_proc_stream_id")
cdef t_session submit_shutdown_notice = <t_session>at("submit_shutdown_notice")
cdef t_stream resume_data = <t_stream>at("session_resume_data")
cdef t_submit_response submit_response = <t_submit_response>at("submit_response")
cdef t_submit_trailer submit_trailer = <t_submit_trailer>at("submit_trailer")
cdef t_submit_reset submit_reset = <t_submit_reset>at("submit_rst_stream")
cdef t_submit_goaway submit_goaway = <t_submit_goaway>at("submit_goaway")
cdef t_submit_settings submit_settings = <t_submit_settings>at("submit_settings")
cdef t_set_window set_local_window = <t_set_window>at("session_set_local_window_size")
cdef t_set_stream_data set_stream_data = <t_set_stream_data>at("session_set_stream_user_data")
cdef t_get_stream_data get_stream_data = <t_get_stream_data>at("session_get_stream_user_data")

# --- what is sent

cdef enum:
    MAX_FIELDS = 8
    WRITE_SIZE = 64 * 1024

# One loop runs in a process, and nothing that is called while it is filled sends for another connection.
cdef uint8_t OUT[WRITE_SIZE]


@cython.final
cdef class HeaderBlock:
    """Header fields of an answer, which the library reads in place: one that was sent must live as long as the process."""

    cdef nghttp2_nv fields[MAX_FIELDS]
    cdef size_t count
    cdef tuple pairs

    def __init__(self, pairs):
        """Take names and values."""
        cdef bytes name, value
        self.pairs = tuple(pairs)
        if len(self.pairs) > MAX_FIELDS:
            raise ValueError("too many header fields")
        self.count = 0
        for name, value in self.pairs:
            self.fields[self.count].name = <uint8_t *>PyBytes_AS_STRING(name)
            self.fields[self.count].value = <uint8_t *>PyBytes_AS_STRING(value)
            self.fields[self.count].name_length = PyBytes_GET_SIZE(name)
            self.fields[self.count].value_length = PyBytes_GET_SIZE(value)
            self.fields[self.count].flags = NO_COPY
            self.count += 1


RESPONSE = HeaderBlock([(b":status", b"200"), (b"content-type", b"application/grpc")])
OK = HeaderBlock([(b"grpc-status", b"0")])
cdef HeaderBlock _RESPONSE = RESPONSE
cdef HeaderBlock _OK = OK

RESET_STREAM = RequestRefusal(GrpcStatus.INTERNAL, "the stream is reset", RefusalReason.STREAM_ERROR)
"""Marks a stream that gets no answer, and is counted already."""

_log = logging.getLogger(__name__)

# --- streams


@cython.freelist(64)
@cython.final
cdef class Stream:
    """One call; `answer` holds framed messages, of which those before `offset` are sent, and `trailer` comes behind them.

    With `more` other messages may follow before it. A bidirectional stream `is_counted` among those of the process.
    """

    cdef readonly int32_t id
    cdef readonly double opened_at
    cdef public object head, body, refusal, task, watches
    cdef public bytes answer
    cdef public HeaderBlock trailer
    cdef public Py_ssize_t offset
    cdef public int requests
    cdef public bint complete, more, is_counted, queued, closed
    cdef bytes block
    cdef bint is_plain

    @property
    def fields(self):
        """Names and values of the request by turns."""
        return fields_of(self.block)


cdef list fields_of(bytes block):
    """Take a block apart: each name and each value stands behind its length."""
    cdef const char *data = PyBytes_AS_STRING(block)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(block), place = 0
    cdef uint32_t length
    cdef list fields = []
    while place < size:
        memcpy(&length, data + place, sizeof(length))
        place += sizeof(length)
        fields.append(PyBytes_FromStringAndSize(data + place, length))
        place += length
    return fields


@cython.final
cdef class TransportCounters:
    """Bytes of requests that have not come completely, and bidirectional streams, on all connections of a process."""

    cdef public Py_ssize_t unfinished
    cdef public int streams


# Header lists that came before, and what they ask for: all requests of one Envoy have the same few.
cdef dict _judged = {}
cdef enum:
    JUDGED = 1024
    FIRST_BLOCK = 1024

# --- callbacks


cdef int failed(int code) noexcept:
    """Log what a callback raised: called where it is handled."""
    try:
        _log.exception("callback failed")
    except BaseException:
        pass
    return code


cdef int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *data) noexcept:
    cdef Session self = <Session>data
    cdef void *known = get_stream_data(session, frame.stream_id)
    try:
        self.list_size = 0
        self.block_size = 0
        self.is_traced = False
        self.current = <Stream>known if known != NULL else self.begin(session, frame.stream_id)
    except BaseException:
        return failed(TEMPORAL_CALLBACK_FAILURE)
    return 0


cdef int on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length, const uint8_t *value,
    size_t value_length, uint8_t flags, void *data
) noexcept:
    cdef Session self = <Session>data
    try:
        self.list_size += name_length + value_length + 32
        if self.list_size > self.max_list_size:
            if self.current is not None and self.current.refusal is None:
                self.current.refusal = RESET_STREAM
                self.count_refusal(RefusalReason.FIELDS_TOO_LARGE)
            return TEMPORAL_CALLBACK_FAILURE
        self.keep_field(name, name_length)
        self.keep_field(value, value_length)
        if (name_length == 11 and memcmp(name, b"traceparent", 11) == 0) or (
            name_length == 10 and memcmp(name, b"tracestate", 10) == 0
        ):
            self.is_traced = True
    except BaseException:
        return failed(TEMPORAL_CALLBACK_FAILURE)
    return 0


cdef int on_data(nghttp2_session *session, uint8_t flags, int32_t number, const uint8_t *data, size_t length, void *own) noexcept:
    cdef Session self = <Session>own
    cdef void *known = get_stream_data(session, number)
    self.data_came = True
    if known == NULL:
        return 0
    try:
        self.take(<Stream>known, data, length)
    except BaseException:
        submit_reset(session, 0, number, INTERNAL_ERROR)
        return failed(0)
    return 0


cdef int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data) noexcept:
    cdef Session self = <Session>data
    cdef int kind = frame.type
    cdef bint ends = frame.flags & END_STREAM
    cdef void *known
    cdef Stream stream
    try:
        if kind == HEADERS:
            self.judge(ends)
        if kind <= HEADERS and ends:
            self.data_came = False
            known = get_stream_data(session, frame.stream_id)
            if known != NULL:
                stream = <Stream>known
                stream.complete = True
                if stream.refusal is None:
                    self.queue(stream)
        elif kind == SETTINGS:
            self.greeted = True
        elif kind == DATA and self.data_came:
            self.data_came = False
            known = get_stream_data(session, frame.stream_id)
            if known != NULL:
                self.continue_stream(<Stream>known)
        elif kind == DATA or kind == PRIORITY:
            return self.count_empty()
        elif kind == RESET:
            self.reset_by_peer = frame.stream_id
        elif kind == GOAWAY:
            self.peer_leaves = True
    except BaseException:
        submit_reset(session, 0, frame.stream_id, INTERNAL_ERROR)
        return failed(0)
    return 0


cdef int on_invalid(nghttp2_session *session, const nghttp2_frame *frame, int code, void *data) noexcept:
    try:
        if code == REFUSED_STREAM:
            (<Session>data).count_refusal(RefusalReason.STREAM_LIMIT)
    except BaseException:
        return failed(0)
    return 0


cdef int on_close(nghttp2_session *session, int32_t number, uint32_t code, void *data) noexcept:
    cdef Session self = <Session>data
    cdef Stream stream
    try:
        stream = self.streams.pop(number, None)
        if stream is not None:
            if self.current is stream:
                self.current = None
            try:
                if code and stream.refusal is None and number != self.reset_by_peer:
                    self.count_refusal(RefusalReason.INTERNAL if code == INTERNAL_ERROR else RefusalReason.STREAM_ERROR)
            finally:
                self.close(stream)
    except BaseException:
        return failed(0)
    return 0


cdef ssize_t on_read(
    nghttp2_session *session, int32_t number, uint8_t *buffer, size_t length, uint32_t *flags, nghttp2_data_source *source,
    void *data
) noexcept:
    cdef void *known = get_stream_data(session, number)
    if known == NULL:
        return TEMPORAL_CALLBACK_FAILURE
    cdef Stream stream = <Stream>known
    cdef Py_ssize_t rest = PyBytes_GET_SIZE(stream.answer) - stream.offset
    cdef Py_ssize_t size = rest if rest < <Py_ssize_t>length else <Py_ssize_t>length
    if size > 0:
        memcpy(buffer, PyBytes_AS_STRING(stream.answer) + stream.offset, size)
        stream.offset += size
    if size == rest:
        if not stream.more:
            flags[0] = EOF | NO_END_STREAM
            if submit_trailer(session, number, stream.trailer.fields, stream.trailer.count) < 0:
                return TEMPORAL_CALLBACK_FAILURE
        if not size:
            return DEFERRED
    return size


cdef nghttp2_session_callbacks *_callbacks = NULL


cdef int prepare_callbacks() except -1:
    global _callbacks
    must(callbacks_new(&_callbacks))
    (<t_set_begin_headers>at("session_callbacks_set_on_begin_headers_callback"))(_callbacks, on_begin_headers)
    (<t_set_header>at("session_callbacks_set_on_header_callback"))(_callbacks, on_header)
    (<t_set_data>at("session_callbacks_set_on_data_chunk_recv_callback"))(_callbacks, on_data)
    (<t_set_frame>at("session_callbacks_set_on_frame_recv_callback"))(_callbacks, on_frame)
    (<t_set_invalid>at("session_callbacks_set_on_invalid_frame_recv_callback"))(_callbacks, on_invalid)
    (<t_set_close>at("session_callbacks_set_on_stream_close_callback"))(_callbacks, on_close)
    return 0


cdef int must(int code) except -1:
    if code < 0:
        raise RuntimeError(f"libnghttp2 refused a call with {code}")
    return 0


cdef inline double monotonic() noexcept:
    cdef timespec moment
    clock_gettime(CLOCK_OF_PYTHON, &moment)
    return moment.tv_sec + moment.tv_nsec * 1e-9


prepare_callbacks()

# --- the session


cdef class Session:
    """Streams of a connection and what has come of each; bytes of the peer go in, bytes for it come out.

    A subclass is the protocol of asyncio. It owns the transport, counts refusals, and its `call` answers what is not answered here:
    the usual check, one whole message, goes to `handler` at once.
    """

    cdef nghttp2_session *session
    cdef char *block
    cdef Py_ssize_t block_size, block_capacity
    cdef Py_ssize_t list_size, max_list_size, message_size, requests_size
    cdef readonly object limits
    cdef readonly TransportCounters counters
    cdef readonly dict streams
    cdef list ready
    cdef Stream current
    cdef bytes check_path
    cdef object handler
    cdef public object transport
    cdef readonly double now
    cdef public double used_at
    cdef public bint paused, greeted
    cdef readonly bint peer_leaves, flush_due
    cdef bint is_traced, data_came
    cdef int32_t reset_by_peer
    cdef double allowance, allowance_of, empty_frames, empty_frames_per_second

    def __cinit__(self, *_, **__):
        self.session = NULL
        self.block = NULL

    def __init__(self, limits, TransportCounters counters not None, bytes check_path not None, handler):
        """Begin with no stream; `handler` is None where every request goes to `call`."""
        self.limits = limits
        self.counters = counters
        self.check_path = check_path
        self.handler = handler
        self.streams = {}
        self.ready = []
        self.max_list_size = limits.header_list_size
        self.message_size = limits.message_size
        self.requests_size = limits.requests_size
        self.now = self.used_at = self.allowance_of = monotonic()
        self.allowance = self.empty_frames = limits.empty_frames
        self.empty_frames_per_second = limits.empty_frames_per_second

    def __dealloc__(self):
        if self.session != NULL:
            session_del(self.session)
        free(self.block)

    # What the protocol of asyncio calls.

    def open(self, size_t options, int32_t window):
        """Begin: say which limits hold. `window` is in bytes; raises RuntimeError."""
        cdef nghttp2_settings_entry entries[2]
        entries[0].identifier = MAX_CONCURRENT_STREAMS
        entries[0].value = min(self.limits.concurrent_streams, LARGEST_SETTING)
        entries[1].identifier = MAX_HEADER_LIST_SIZE
        entries[1].value = min(self.limits.header_list_size, LARGEST_SETTING)
        must(server_new(&self.session, _callbacks, <void *>self, <nghttp2_option *>options))
        must(submit_settings(self.session, 0, entries, 2))
        must(set_local_window(self.session, 0, 0, window))

    @property
    def is_open(self):
        """Whether there is a session."""
        return self.session != NULL

    def shut(self):
        """End the session, and every stream that is left: a task that waits for an answer stops."""
        cdef nghttp2_session *session = self.session
        cdef Stream stream
        self.session = NULL
        if session != NULL:
            session_del(session)
        streams, self.streams = self.streams, {}
        self.ready = []
        self.current = None
        for stream in streams.values():
            self.close(stream)

    def data_received(self, data):
        """Take what came, answer what is complete, and send."""
        cdef ssize_t code
        cdef Stream stream
        cdef list ready
        if self.session == NULL:
            return
        cdef bytes content = data if PyBytes_CheckExact(data) else bytes(data)
        self.now = monotonic()
        code = mem_recv(self.session, <const uint8_t *>PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))
        if code < 0:
            self.broken(code, content)
            return
        if self.ready:
            self.used_at = self.now
            ready, self.ready = self.ready, []
            for stream in ready:
                stream.queued = False
            for stream in ready:
                if not stream.closed:
                    self.look_at(stream)
        self.send()

    def flush(self):
        """Send all that may be sent; close when both sides are done."""
        self.send()

    def flush_soon(self):
        """Send at the end of this turn of the loop, together with what else becomes ready in it."""
        if not self.flush_due:
            self.flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    # What a server does with a stream.

    def answer(self, Stream stream not None, bytes message not None):
        """Queue the one message of a call."""
        self.respond(stream, message)

    def submit(self, Stream stream not None, HeaderBlock block not None, bint has_body):
        """Queue an answer: header fields, and with `has_body` the answer of the stream and its trailer."""
        self.submit_block(stream, block, has_body)

    def resume(self, Stream stream not None):
        """Go on with a stream that has got more of its answer."""
        if self.session != NULL:
            resume_data(self.session, stream.id)
            self.flush_soon()

    def reset(self, Stream stream not None, reason, uint32_t code):
        """End a stream without an answer; once, since a peer that does not read gets nothing of it."""
        self.release(stream)
        if stream.refusal is None:
            self.count_refusal(reason)
        stream.complete, stream.refusal = True, RESET_STREAM
        if self.session != NULL:
            submit_reset(self.session, 0, stream.id, code)

    cpdef release(self, Stream stream):
        """Return what came of a request, which no longer counts as unfinished."""
        body, stream.body = stream.body, b""
        self.counters.unfinished -= len(body)
        return body

    def keep(self, Stream stream not None, body):
        """Keep what is left of a request that goes on."""
        stream.body = body
        self.counters.unfinished += len(body)

    def announce_end(self):
        """Announce that the connection will end (RFC 9113 6.8)."""
        if self.session != NULL:
            submit_shutdown_notice(self.session)

    def refuse_streams(self):
        """Refuse streams that begin from now on."""
        if self.session != NULL:
            submit_goaway(self.session, 0, last_stream(self.session), 0, NULL, 0)

    # What callbacks note.

    cdef Stream begin(self, nghttp2_session *session, int32_t number):
        cdef Stream stream = Stream.__new__(Stream)
        stream.id = number
        stream.opened_at = self.now
        stream.body = b""
        stream.answer = b""
        stream.block = b""
        stream.trailer = _OK
        # The library keeps no pointer to a stream that is not in the table.
        self.streams[number] = stream
        must(set_stream_data(session, number, <void *>stream))
        return stream

    cdef int keep_field(self, const uint8_t *text, size_t length) except -1:
        cdef Py_ssize_t needed = self.block_size + sizeof(uint32_t) + length
        cdef uint32_t prefix = <uint32_t>length
        cdef char *grown
        if needed > self.block_capacity:
            grown = <char *>realloc(self.block, max(2 * needed, FIRST_BLOCK))
            if grown == NULL:
                raise MemoryError
            self.block = grown
            self.block_capacity = max(2 * needed, FIRST_BLOCK)
        memcpy(self.block + self.block_size, &prefix, sizeof(prefix))
        memcpy(self.block + self.block_size + sizeof(prefix), text, length)
        self.block_size = needed
        return 0

    cdef int judge(self, bint ends) except -1:
        """Judge the fields that have come completely: of a request, or behind one, which they must end."""
        cdef Stream stream = self.current
        cdef PyObject *entry
        if stream is None or stream.refusal is not None:
            return 0
        cdef bytes block = PyBytes_FromStringAndSize(self.block, self.block_size)
        if stream.head is not None:
            if not ends or not are_trailers(fields_of(block)):
                self.reset(stream, RefusalReason.FIELDS_MALFORMED, PROTOCOL_ERROR)
            return 0
        stream.block = block
        entry = PyDict_GetItem(_judged, block)
        if entry != NULL:
            stream.head = (<tuple>entry)[0]
            stream.is_plain = (<tuple>entry)[1] == self.check_path
            return 0
        head = judge(fields_of(block), self.list_size)
        if head is None:
            self.reset(stream, RefusalReason.FIELDS_MALFORMED, PROTOCOL_ERROR)
            return 0
        stream.head = head
        path = _messages.path_of_plain(head)
        stream.is_plain = path == self.check_path
        # A list with the ids of a trace does not come twice.
        if not self.is_traced and self.list_size <= _MAX_MEMO:
            if len(_judged) >= JUDGED:
                del _judged[next(iter(_judged))]
            _judged[block] = (head, path)
        return 0

    cdef int take(self, Stream stream, const uint8_t *data, size_t length) except -1:
        """Keep a part of a request, as long as it may become a message."""
        if stream.refusal is not None:
            return 0
        cdef Py_ssize_t size = len(stream.body) + <Py_ssize_t>length
        if size > self.message_size + 5:
            self.turn_down(stream, _messages.TOO_LARGE)
        elif self.counters.unfinished + <Py_ssize_t>length > self.requests_size:
            self.turn_down(stream, _messages.TOO_MUCH)
        else:
            part = PyBytes_FromStringAndSize(<const char *>data, length)
            self.counters.unfinished += length
            if not stream.body:
                stream.body = part
            elif isinstance(stream.body, bytearray):
                stream.body += part
            else:
                stream.body = bytearray(stream.body) + part
        return 0

    cdef int turn_down(self, Stream stream, refusal) except -1:
        """Refuse a request before it has come completely."""
        self.release(stream)
        stream.refusal = refusal
        self.queue(stream)
        return 0

    cdef int queue(self, Stream stream) except -1:
        """Have a stream looked at when all that came has been read; once, however much of it came."""
        if not stream.queued:
            stream.queued = True
            self.ready.append(stream)
        return 0

    cdef int continue_stream(self, Stream stream) except -1:
        """Look at a request that has not ended, if its messages are answered before it does."""
        head = stream.head
        if isinstance(head, RequestHead) and head.path in _messages.BIDIRECTIONAL and stream.refusal is None:
            self.queue(stream)
        return 0

    cdef int close(self, Stream stream) except -1:
        """Forget a stream; a task that waits for its answer stops."""
        stream.closed = True
        self.release(stream)
        if stream.is_counted:
            self.counters.streams -= 1
        if stream.task is not None:
            stream.task.cancel()
        return 0

    cdef int count_empty(self) noexcept:
        """Count a frame that carries nothing, and give the connection up when there are too many."""
        cdef double grown = self.allowance + (self.now - self.allowance_of) * self.empty_frames_per_second
        self.allowance = min(self.empty_frames, grown) - 1
        self.allowance_of = self.now
        return 0 if self.allowance >= 0 else CALLBACK_FAILURE

    # What is done when the bytes that came were read.

    cdef int look_at(self, Stream stream) except -1:
        cdef bytes body, message
        cdef const uint8_t *data
        cdef Py_ssize_t size
        try:
            if stream.is_plain and self.handler is not None and stream.refusal is None and PyBytes_CheckExact(stream.body):
                body = stream.body
                data = <const uint8_t *>PyBytes_AS_STRING(body)
                size = PyBytes_GET_SIZE(body) - 5
                if size >= 0 and data[0] == 0 and size <= self.message_size and size == (
                    <Py_ssize_t>data[1] << 24 | data[2] << 16 | data[3] << 8 | data[4]
                ):
                    timeout = stream.head.timeout
                    if timeout is None or monotonic() - stream.opened_at < timeout:
                        self.release(stream)
                        self.check(stream, PyBytes_FromStringAndSize(<const char *>data + 5, size))
                        return 0
            self.call(stream)
        except Exception:
            # One stream fails, the others of the connection live.
            _log.exception("call failed")
            if self.session != NULL:
                submit_reset(self.session, 0, stream.id, INTERNAL_ERROR)
        return 0

    cdef int check(self, Stream stream, bytes message) except -1:
        try:
            answer = self.handler(message)
        except (Exception, asyncio.CancelledError):
            # No exception may become a gRPC status.
            _log.exception("the handler raised")
            answer = None
        if PyBytes_CheckExact(answer) and PyBytes_GET_SIZE(answer):
            self.respond(stream, answer)
        else:
            self.settle(stream, answer)
        return 0

    cdef int respond(self, Stream stream, bytes message) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
        if size > 0xFFFFFFFF:
            raise ValueError("an answer is longer than a message can be")
        cdef bytes framed = PyBytes_FromStringAndSize(NULL, size + 5)
        cdef uint8_t *data = <uint8_t *>PyBytes_AS_STRING(framed)
        data[0] = 0
        data[1] = size >> 24 & 0xFF
        data[2] = size >> 16 & 0xFF
        data[3] = size >> 8 & 0xFF
        data[4] = size & 0xFF
        memcpy(data + 5, PyBytes_AS_STRING(message), size)
        stream.answer = framed
        self.submit_block(stream, _RESPONSE, True)
        return 0

    cdef int submit_block(self, Stream stream, HeaderBlock block, bint has_body) except -1:
        cdef nghttp2_data_provider provider
        cdef int code
        if self.session == NULL or stream.closed:
            return 0
        provider.source.pointer = NULL
        provider.read = on_read
        code = submit_response(self.session, stream.id, block.fields, block.count, &provider if has_body else NULL)
        if code < 0:
            _log.error("answer not queued", extra={"code": code})
            submit_reset(self.session, 0, stream.id, INTERNAL_ERROR)
        return 0

    cdef int send(self) except -1:
        cdef const uint8_t *data = NULL
        cdef ssize_t length = 0
        cdef Py_ssize_t size = 0
        cdef bytes last = b""
        self.flush_due = False
        if self.session == NULL or self.transport is None or self.paused:
            return 0
        while True:
            length = mem_send(self.session, &data)
            if length <= 0:
                break
            last = PyBytes_FromStringAndSize(<const char *>data, length) if length >= GOAWAY_SIZE and data[3] == GOAWAY else b""
            if size + length > WRITE_SIZE:
                self.transport.write(PyBytes_FromStringAndSize(<const char *>OUT, size))
                size = 0
            if length > WRITE_SIZE:
                self.transport.write(PyBytes_FromStringAndSize(<const char *>data, length))
            else:
                memcpy(OUT + size, data, length)
                size += length
            if self.paused:
                # What the library has handed out is written, and nothing more is asked for.
                break
        if size:
            self.transport.write(PyBytes_FromStringAndSize(<const char *>OUT, size))
        if self.session == NULL or length > 0:
            # There is more to send, when there is room again.
            return 0
        if length < 0:
            self.count_refusal(RefusalReason.INTERNAL)
            self.transport.abort()
        elif not want_read(self.session) and not want_write(self.session):
            self.ended(last)
        return 0
