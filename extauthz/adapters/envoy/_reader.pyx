# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Reads the usual CheckRequest, as Envoy writes it, without protobuf; None for any other message, which is protobuf's to judge.

Usual is: each message once, names in lower case, texts in ASCII, tags of one or two bytes as short as they can be, no
groups. Whatever differs from that is not refused here: the caller parses it again, and both ways have one outcome (protobuf,
encoding; `protos/ext_authz.proto` has the fields). Nothing is read behind `end`, and a length that reaches beyond it is unusual.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem, PyDict_SetItem
from cpython.ref cimport Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

ctypedef const uint8_t *Bytes

cdef struct Text:
    Bytes data
    Py_ssize_t size

cdef struct Check:
    Text method
    Text path
    Text host
    Text source
    bint sizes_as_grpc

cdef enum:
    VARINT = 0
    FIXED_64 = 1
    DELIMITED = 2
    FIXED_32 = 5

# --- the wire


cdef inline int tag(Bytes *place, Bytes end) noexcept:
    """Read a tag; -1 for the end, and for one that is unusual."""
    cdef Bytes at = place[0]
    cdef int first, second
    if at >= end:
        return -1
    first = at[0]
    if first < 0x80:
        place[0] = at + 1
        return first if first >= 8 else -1
    if at + 1 >= end:
        return -1
    second = at[1]
    if second == 0 or second >= 0x80:
        return -1
    place[0] = at + 2
    return (first & 0x7F) | second << 7


cdef inline Py_ssize_t length(Bytes *place, Bytes end) noexcept:
    """Read a length that fits into what is left; -1 for any other."""
    cdef Bytes at = place[0]
    cdef uint32_t value = 0
    cdef int shift = 0, byte
    while shift <= 21:
        if at >= end:
            return -1
        byte = at[0]
        at += 1
        value |= <uint32_t>(byte & 0x7F) << shift
        if byte < 0x80:
            if value > <size_t>(end - at):
                return -1
            place[0] = at
            return value
        shift += 7
    return -1


cdef inline bint varint(Bytes *place, Bytes end, uint64_t *value) noexcept:
    """Read a number of 64 bits."""
    cdef Bytes at = place[0]
    cdef uint64_t read = 0
    cdef int shift = 0, byte
    while shift <= 63 and at < end:
        byte = at[0]
        at += 1
        if shift == 63 and byte > 1:
            return False
        read |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            place[0] = at
            value[0] = read
            return True
        shift += 7
    return False


cdef inline bint skip(Bytes *place, Bytes end, int kind) noexcept:
    """Step over the value of a field that nobody reads."""
    cdef uint64_t ignored
    cdef Py_ssize_t size
    if kind == VARINT:
        return varint(place, end, &ignored)
    if kind == DELIMITED:
        size = length(place, end)
    elif kind == FIXED_64:
        size = 8
    elif kind == FIXED_32:
        size = 4
    else:
        return False
    if size < 0 or size > end - place[0]:
        return False
    place[0] += size
    return True


cdef inline bint is_ascii(Bytes data, Py_ssize_t size) noexcept:
    cdef uint64_t word, seen = 0
    cdef Py_ssize_t at = 0
    while at + 8 <= size:
        memcpy(&word, data + at, 8)
        seen |= word
        at += 8
    while at < size:
        seen |= data[at]
        at += 1
    return not seen & 0x8080808080808080ULL


cdef inline bint text(Bytes *place, Bytes end, Text *into) noexcept:
    """Read a string; the last one counts."""
    cdef Py_ssize_t size = length(place, end)
    if size < 0 or not is_ascii(place[0], size):
        return False
    into.data = place[0]
    into.size = size
    place[0] += size
    return True


# --- names of headers: the same few, again and again

cdef enum:
    SLOTS = 1024
    LONGEST = 64

cdef struct Slot:
    PyObject *name
    uint8_t size
    uint8_t data[LONGEST]

cdef Slot _names[SLOTS]


cdef str name_of(Bytes data, Py_ssize_t size):
    """Return a name, the same object for the same bytes where it has got a slot; None for one that is not in lower case."""
    cdef uint32_t hashed = 2166136261u
    cdef Py_ssize_t at
    cdef uint8_t byte
    cdef Slot *slot
    cdef str name
    for at in range(size):
        byte = data[at]
        if byte >= 0x80 or c'A' <= byte <= c'Z':
            return None
        hashed = (hashed ^ byte) * 16777619u
    if size > LONGEST:
        return PyUnicode_DecodeASCII(<const char *>data, size, NULL)
    slot = &_names[(hashed ^ hashed >> 16) % SLOTS]
    if slot.name != NULL and slot.size == size and memcmp(slot.data, data, size) == 0:
        return <str>slot.name
    name = PyUnicode_DecodeASCII(<const char *>data, size, NULL)
    if slot.name == NULL:
        Py_INCREF(name)
        slot.name = <PyObject *>name
        slot.size = <uint8_t>size
        memcpy(slot.data, data, size)
    return name


cdef inline str ascii_of(Text value):
    return PyUnicode_DecodeASCII(<const char *>value.data, value.size, NULL) if value.size else ""


# --- the messages


cdef int read_entry(Bytes at, Bytes end, dict headers) except -1:
    """Read an entry of a map of strings; into nothing, when `headers` is None. Return whether it is usual, as all that follow."""
    cdef Text key, value
    cdef int read
    cdef str name
    memset(&key, 0, sizeof(key))
    memset(&value, 0, sizeof(value))
    while at < end:
        read = tag(&at, end)
        if not (read == 0x0A and text(&at, end, &key) or read == 0x12 and text(&at, end, &value)):
            return False
    if not key.size:
        return False
    if headers is not None:
        name = name_of(key.data, key.size)
        if name is None:
            return False
        PyDict_SetItem(headers, name, ascii_of(value))
    return True


cdef int read_line(Bytes at, Bytes end, dict headers) except -1:
    """Read a header line: its exact bytes count, or its text where there are none; lines of one name are joined."""
    cdef Text key, value
    cdef Bytes raw = NULL
    cdef Py_ssize_t raw_size = 0
    cdef PyObject *before
    cdef int read
    cdef str name, content
    memset(&key, 0, sizeof(key))
    memset(&value, 0, sizeof(value))
    while at < end:
        read = tag(&at, end)
        if read == 0x1A:
            raw_size = length(&at, end)
            if raw_size < 0:
                return False
            raw = at
            at += raw_size
        elif not (read == 0x0A and text(&at, end, &key) or read == 0x12 and text(&at, end, &value)):
            return False
    if not key.size:
        return False
    name = name_of(key.data, key.size)
    if name is None:
        return False
    content = PyUnicode_DecodeLatin1(<const char *>raw, raw_size, NULL) if raw_size > 0 else ascii_of(value)
    before = PyDict_GetItem(headers, name)
    if before != NULL:
        content = f"{<str>before},{content}"
    PyDict_SetItem(headers, name, content)
    return True


cdef int read_lines(Bytes at, Bytes end, dict headers) except -1:
    cdef Py_ssize_t size
    while at < end:
        if tag(&at, end) != 0x0A:
            return False
        size = length(&at, end)
        if size < 0 or not read_line(at, at + size, headers):
            return False
        at += size
    return True


cdef int read_http(Bytes at, Bytes end, Check *check, dict by_map, dict by_line) except -1:
    cdef Text ignored
    cdef bint has_lines = False
    cdef Py_ssize_t size
    cdef uint64_t number
    cdef int read
    while at < end:
        read = tag(&at, end)
        if read == 0x1A or read == 0x6A:
            size = length(&at, end)
            if size < 0 or (read == 0x6A and has_lines):
                return False
            if not (read_entry(at, at + size, by_map) if read == 0x1A else read_lines(at, at + size, by_line)):
                return False
            has_lines = has_lines or read == 0x6A
            at += size
        elif read == 0x48:
            if not varint(&at, end, &number):
                return False
            check.sizes_as_grpc = number == 0xFFFFFFFFFFFFFFFFULL
        elif read == 0x12:
            if not text(&at, end, &check.method):
                return False
        elif read == 0x22:
            if not text(&at, end, &check.path):
                return False
        elif read == 0x2A:
            if not text(&at, end, &check.host):
                return False
        elif read == 0x0A or read == 0x32 or read == 0x52:
            if not text(&at, end, &ignored):
                return False
        elif read < 0 or is_known(read >> 3, 0x267E) or not skip(&at, end, read & 7):
            # The fields 1 to 6, 9, 10 and 13 in another form than theirs.
            return False
    return True


cdef inline bint is_known(int field, uint32_t known) noexcept:
    """Return whether a field is one of those whose bits are set."""
    return field < 32 and known >> field & 1


cdef int read_request(Bytes at, Bytes end, Check *check, dict by_map, dict by_line) except -1:
    cdef bint given = False
    cdef Py_ssize_t size
    cdef int read
    while at < end:
        read = tag(&at, end)
        if read == 0x12:
            size = length(&at, end)
            if size < 0 or given or not read_http(at, at + size, check, by_map, by_line):
                return False
            given = True
            at += size
        elif read < 0 or read >> 3 == 2 or not skip(&at, end, read & 7):
            return False
    return True


cdef bint read_socket_address(Bytes at, Bytes end, Text *address) noexcept:
    cdef int read
    while at < end:
        read = tag(&at, end)
        if read == 0x12:
            if not text(&at, end, address):
                return False
        elif read < 0 or read >> 3 == 2 or not skip(&at, end, read & 7):
            return False
    return True


cdef bint read_address(Bytes at, Bytes end, Text *address) noexcept:
    cdef bint given = False
    cdef Py_ssize_t size
    cdef int read
    while at < end:
        read = tag(&at, end)
        if read == 0x0A:
            size = length(&at, end)
            if size < 0 or given or not read_socket_address(at, at + size, address):
                return False
            given = True
            at += size
        elif read < 0 or read >> 3 == 1 or not skip(&at, end, read & 7):
            return False
    return True


cdef bint read_peer(Bytes at, Bytes end, Text *address) noexcept:
    cdef Text ignored
    cdef bint given = False
    cdef Py_ssize_t size
    cdef int read
    while at < end:
        read = tag(&at, end)
        if read == 0x0A:
            size = length(&at, end)
            if size < 0 or given or not read_address(at, at + size, address):
                return False
            given = True
            at += size
        elif read == 0x12 or read == 0x22:
            if not text(&at, end, &ignored):
                return False
        elif read < 0 or is_known(read >> 3, 0x16) or not skip(&at, end, read & 7):
            # The fields 1, 2 and 4 in another form than theirs.
            return False
    return True


cdef int read_attributes(Bytes at, Bytes end, Check *check, dict by_map, dict by_line) except -1:
    cdef Text elsewhere
    cdef int given = 0, usual
    cdef Py_ssize_t size
    cdef int read
    memset(&elsewhere, 0, sizeof(elsewhere))
    while at < end:
        read = tag(&at, end)
        if read == 0x0A or read == 0x12 or read == 0x22 or read == 0x52:
            size = length(&at, end)
            if size < 0 or (read != 0x52 and given >> (read >> 3) & 1):
                return False
            given |= 1 << (read >> 3)
            if read == 0x22:
                usual = read_request(at, at + size, check, by_map, by_line)
            elif read == 0x52:
                usual = read_entry(at, at + size, None)
            else:
                usual = read_peer(at, at + size, &check.source if read == 0x0A else &elsewhere)
            if not usual:
                return False
            at += size
        elif read < 0 or is_known(read >> 3, 0x416) or not skip(&at, end, read & 7):
            # The fields 1, 2, 4 and 10 in another form than theirs.
            return False
    return True


def read(bytes data not None):
    """Return method, path, host, headers, whether they are exact, the peer's address, and whether headers were kept back."""
    cdef Bytes at = <Bytes>PyBytes_AS_STRING(data)
    cdef Bytes end = at + PyBytes_GET_SIZE(data)
    cdef Check check
    cdef dict by_map = {}, by_line = {}, headers
    cdef bint given = False
    cdef Py_ssize_t size
    cdef int read
    memset(&check, 0, sizeof(check))
    while at < end:
        read = tag(&at, end)
        if read == 0x0A:
            size = length(&at, end)
            if size < 0 or given or not read_attributes(at, at + size, &check, by_map, by_line):
                return None
            given = True
            at += size
        elif read < 0 or read >> 3 == 1 or not skip(&at, end, read & 7):
            return None
    if not check.method.size:
        return None
    headers = by_line or by_map
    path, host = headers.get(":path"), headers.get(":authority")
    return (
        ascii_of(check.method),
        path or ascii_of(check.path),
        host or ascii_of(check.host),
        headers,
        bool(by_line),
        ascii_of(check.source),
        path is None and host is None and ":method" not in headers and not check.sizes_as_grpc,
    )
