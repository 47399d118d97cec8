# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Writes many runs of lines without taking the interpreter's lock back between them: the loop would have to wait for every one."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EINTR, ETIMEDOUT, errno
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport write

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)
    short POLLOUT

cdef struct Run:
    const char *data
    size_t size


cdef long milliseconds_now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000 + now.tv_nsec // 1000000


cdef ssize_t write_one(int descriptor, Run run, long deadline, int *error) noexcept nogil:
    """Wait until there is room, and write; -1 with an error."""
    cdef pollfd waiting
    cdef int ready
    cdef ssize_t written
    cdef long left = 0
    waiting.fd = descriptor
    waiting.events = POLLOUT
    while True:
        waiting.revents = 0
        ready = poll(&waiting, 1, <int>left)
        if ready < 0 and errno != EINTR:
            error[0] = errno
            return -1
        if ready <= 0:
            left = deadline - milliseconds_now()
            if left <= 0:
                error[0] = ETIMEDOUT
                return -1
            continue
        written = write(descriptor, run.data, run.size)
        if written < 0 and errno == EINTR:
            continue
        if written < 0:
            error[0] = errno
        return written


def write_runs(int descriptor, list runs not None, int milliseconds):
    """Write runs one after the other; return how many bytes went out, and the error or 0.

    Room is waited for, altogether for so long. It ends at the first that is not written whole, or that has no room by then.
    """
    cdef Py_ssize_t count = len(runs), at
    cdef Run *all_runs = <Run *>malloc((count or 1) * sizeof(Run))
    cdef size_t total = 0
    cdef ssize_t written
    cdef long deadline
    cdef int error = 0
    cdef bytes run
    if all_runs == NULL:
        raise MemoryError
    try:
        for at in range(count):
            run = runs[at]
            all_runs[at].data = PyBytes_AS_STRING(run)
            all_runs[at].size = PyBytes_GET_SIZE(run)
        with nogil:
            deadline = milliseconds_now() + milliseconds
            for at in range(count):
                written = write_one(descriptor, all_runs[at], deadline, &error)
                if written < 0:
                    if at > 0 and error == ETIMEDOUT:
                        error = 0
                    break
                total += written
                if <size_t>written < all_runs[at].size:
                    break
    finally:
        free(all_runs)
    return total, error
