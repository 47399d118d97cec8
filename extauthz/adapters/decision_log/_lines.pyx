# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Makes the usual line of a decision, byte for byte as `lines.py` does; None for any other, which is made in Python.

Usual is: texts of ASCII without anything that JSON escapes, a path with one spelling, lengths within the limits, the traceparent of
version 00, a time and a duration that fit into 40 bits, and a reason whose text is remembered. The line is put together on the stack, and
each piece is measured before it is copied.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_GetItem
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DATA, PyUnicode_GET_LENGTH
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr, memcpy

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object)

# Those of lines.py, and of client_address.py.
cdef enum:
    MAX_LINE = 4096
    MAX_METHOD = 32
    MAX_REQUEST_ID = 128
    MAX_ADDRESS = 45
    ORDINARY = 512

cdef struct Text:
    const char *data
    Py_ssize_t size

cdef struct Line:
    char *at
    char *end

# --- kinds of characters

cdef enum:
    ESCAPED = 1
    BLANK = 2
    SPELLED = 4
    NO_HEX = 8

cdef uint8_t _kinds[256]


cdef int fill_kinds() except -1:
    cdef int byte
    for byte in range(256):
        _kinds[byte] = (
            (ESCAPED if not 0x20 <= byte < 0x7F or byte == c'"' or byte == c'\\' else 0)
            | (BLANK if byte == c' ' else 0)
            | (SPELLED if byte == c'%' or byte == c'#' else 0)
            | (0 if c'0' <= byte <= c'9' or c'a' <= byte <= c'f' else NO_HEX)
        )
    return 0


fill_kinds()


cdef inline bint has(Text text, uint8_t kinds) noexcept:
    """Return whether a character is of one of the kinds."""
    cdef uint8_t seen = 0
    cdef Py_ssize_t at
    for at in range(text.size):
        seen |= _kinds[<uint8_t>text.data[at]]
    return seen & kinds != 0


# --- texts


cdef inline bint read(object value, Text *text) noexcept:
    """Look into a text of ASCII, which has to outlive this."""
    if not PyUnicode_CheckExact(value) or not PyUnicode_IS_COMPACT_ASCII(value):
        return False
    text.data = <const char *>PyUnicode_DATA(value)
    text.size = PyUnicode_GET_LENGTH(value)
    return True


cdef inline bint is_id(const char *data, Py_ssize_t size) noexcept:
    """Return whether all are hex digits in lower case, and not all of them 0."""
    cdef uint8_t kinds = 0, digits = 0
    cdef Py_ssize_t at
    for at in range(size):
        kinds |= _kinds[<uint8_t>data[at]]
        digits |= <uint8_t>data[at] ^ c'0'
    return not kinds & NO_HEX and digits != 0


cdef inline bint read_trace_id(Text traceparent, Text *trace_id) noexcept:
    """Find the id in a traceparent of version 00."""
    cdef Text flags
    if traceparent.size != 55 or traceparent.data[0] != c'0' or traceparent.data[1] != c'0':
        return False
    if traceparent.data[2] != c'-' or traceparent.data[35] != c'-' or traceparent.data[52] != c'-':
        return False
    trace_id.data, trace_id.size = traceparent.data + 3, 32
    flags.data, flags.size = traceparent.data + 53, 2
    return is_id(trace_id.data, 32) and is_id(traceparent.data + 36, 16) and not has(flags, NO_HEX)


# --- pieces of a line


cdef inline bint put(Line *line, const char *data, Py_ssize_t size) noexcept:
    """Copy bytes, if there is room for them."""
    if size > line.end - line.at:
        return False
    memcpy(line.at, data, size)
    line.at += size
    return True


cdef inline bint put_bytes(Line *line, bytes piece) noexcept:
    return put(line, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))


cdef inline bint put_field(Line *line, bytes name, Text text) noexcept:
    """Write a field whose value needs no escape; `name` is all that stands before it."""
    return put_bytes(line, name) and put(line, text.data, text.size) and put(line, b'"', 1)


cdef inline bint put_number(Line *line, int64_t value, int least) noexcept:
    """Write a number from 0 on, with so many digits at least."""
    cdef char digits[20]
    cdef int at = 20
    while value or 20 - at < least:
        at -= 1
        digits[at] = <char>(c'0' + value % 10)
        value //= 10
    return put(line, digits + at, 20 - at)


cdef inline int64_t nearest(double value) noexcept:
    """Round as Python does, a half to the even one; exact for what fits into 52 bits."""
    cdef double doubled = 2 * value
    cdef int64_t halves = <int64_t>doubled
    cdef int64_t whole = halves >> 1
    if halves & 1 and (whole & 1 or doubled != <double>halves):
        whole += 1
    return whole


cdef inline bint put_time(Line *line, double moment) noexcept:
    """Write seconds to the millisecond, as "%.3f" does.

    From 128 on the fraction has 45 bits at most, so that a thousand times of it is exact.
    """
    cdef int64_t seconds, milliseconds
    if not 128 <= moment < 1099511627776.0:
        return False
    seconds = <int64_t>moment
    milliseconds = nearest((moment - <double>seconds) * 1000)
    if milliseconds == 1000:
        seconds += 1
        milliseconds = 0
    return put_number(line, seconds, 1) and put(line, b".", 1) and put_number(line, milliseconds, 3)


cdef inline bint put_remembered(Line *line, object piece) noexcept:
    cdef Text text
    return read(piece, &text) and put(line, text.data, text.size)


cdef class UsualLines:
    """Makes usual lines of the given fields, out of texts that `Lines` remembers.

    `reasons` are texts by outcome and reason, of those alone that need nothing of a token. `caller` returns the text of route, identity and
    user.
    """

    cdef bint has_time, has_decision_id, has_request_id, has_trace_id, has_method, has_path, has_client_address, has_microseconds
    cdef dict reasons, samples
    cdef object caller

    def __init__(self, fields, dict reasons not None, dict samples not None, caller):
        self.has_time, self.has_decision_id = "time" in fields, "decision_id" in fields
        self.has_request_id, self.has_trace_id = "request_id" in fields, "trace_id" in fields
        self.has_method, self.has_path = "method" in fields, "path" in fields
        self.has_client_address, self.has_microseconds = "client_address" in fields, "microseconds" in fields
        self.reasons, self.samples, self.caller = reasons, samples, caller

    def line(self, double moment, request, decision, double seconds):
        """Return a usual line, line feed included, and None for any other."""
        cdef char buffer[MAX_LINE + 1]
        cdef Line line
        cdef Text decision_id, method, path, source, request_id, traceparent, trace_id
        cdef PyObject *header
        cdef const char *query
        cdef double microseconds = seconds * 1e6
        cdef object reason = decision.reason, headers = request.headers, reason_text, caller, sample
        cdef object of_id = request.decision_id, of_method = request.method, of_path = request.path, of_source = request.source
        cdef object of_trace = request.traceparent, of_request_id = ""
        if not PyDict_CheckExact(headers) or not 0 <= microseconds < 1099511627776.0:
            return None
        reason_text = self.reasons.get((decision.outcome, reason))
        if reason_text is None:
            return None
        header = PyDict_GetItem(headers, "x-request-id")
        if header != NULL:
            of_request_id = <object>header
        if not of_trace:
            header = PyDict_GetItem(headers, "traceparent")
            if header != NULL:
                of_trace = <object>header
        if not (read(of_id, &decision_id) and read(of_method, &method) and read(of_path, &path) and read(of_source, &source)):
            return None
        if not (read(of_request_id, &request_id) and read(of_trace, &traceparent)):
            return None
        query = <const char *>memchr(path.data, c'?', path.size)
        if query != NULL:
            path.size = query - path.data
        if method.size > MAX_METHOD or path.size + request_id.size + traceparent.size > ORDINARY:
            return None
        if request_id.size > MAX_REQUEST_ID or source.size > MAX_ADDRESS:
            return None
        if has(decision_id, ESCAPED) or has(method, ESCAPED) or has(path, ESCAPED | SPELLED) or has(source, ESCAPED):
            return None
        if has(request_id, ESCAPED | BLANK) or (traceparent.size and not read_trace_id(traceparent, &trace_id)):
            return None
        caller = self.caller(decision.route, decision.identity, decision.user)
        sample = self.samples.get(reason)
        # All pieces begin with ", ". The brace will stand in place of the first blank, and two bytes are left for the end.
        line.at, line.end = buffer, buffer + MAX_LINE - 1
        if not (
            (not self.has_time or (put_bytes(&line, b', "time": ') and put_time(&line, moment)))
            and put_remembered(&line, reason_text)
            and (not self.has_decision_id or put_field(&line, b', "decision_id": "', decision_id))
            and (not self.has_request_id or not request_id.size or put_field(&line, b', "request_id": "', request_id))
            and (not self.has_trace_id or not traceparent.size or put_field(&line, b', "trace_id": "', trace_id))
            and (not self.has_method or not method.size or put_field(&line, b', "method": "', method))
            and (not self.has_path or not path.size or put_field(&line, b', "path": "', path))
            and (not self.has_client_address or not source.size or put_field(&line, b', "client_address": "', source))
            and put_remembered(&line, caller)
            and (sample is None or put_remembered(&line, sample))
            and (
                not self.has_microseconds
                or (put_bytes(&line, b', "microseconds": ') and put_number(&line, nearest(microseconds), 1))
            )
            and line.at > buffer
        ):
            return None
        buffer[1] = c'{'
        memcpy(line.at, b"}\n", 2)
        return PyBytes_FromStringAndSize(buffer + 1, line.at + 2 - (buffer + 1))
