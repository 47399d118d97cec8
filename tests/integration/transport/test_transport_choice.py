"""Which transport serves: by what the library has, never by its version, and grpcio where there is none."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from typing import Any, Literal

import pytest

from extauthz.errors import ListenError
from extauthz.transport import grpc as grpc_transports
from extauthz.transport.grpc import libnghttp2
from extauthz.transport.select import choose
from tests.support.transports import default_limits

RESETS, CONTINUATIONS = "nghttp2_option_set_stream_reset_rate_limit", "nghttp2_option_set_max_continuations"


class Lacking:
    """The library without some of its symbols."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing

    def __getattr__(self, name: str) -> object:
        if name in self.missing:
            raise AttributeError(name)
        return getattr(libnghttp2_library, name)


libnghttp2_library: ctypes.PyDLL = libnghttp2._library


def test_a_library_with_both_limits_is_taken() -> None:
    assert libnghttp2.missing_flood_limits() == []
    assert choose("auto").name == choose("nghttp2").name == "nghttp2"
    assert choose("grpcio").name == "grpcio"


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ((RESETS,), "stream_reset_rate_limit"),
        ((CONTINUATIONS,), "max_continuations"),
        ((RESETS, CONTINUATIONS), "stream_reset_rate_limit and max_continuations"),
    ],
)
def test_a_library_without_a_flood_limit_serves_only_who_insists(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: tuple[str, ...], told: str
) -> None:
    monkeypatch.setattr(libnghttp2, "_library", Lacking(*missing))
    caplog.set_level(logging.INFO)
    assert choose("auto").name == "grpcio"
    assert choose("nghttp2").name == "nghttp2"
    assert choose("grpcio").name == "grpcio"
    levels = [(record.levelno, told in record.getMessage()) for record in caplog.records]
    assert levels == [(logging.INFO, True), (logging.WARNING, True)]


def test_without_the_library_grpcio_serves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "extauthz.transport.grpc.libnghttp2", None)
    monkeypatch.delattr(grpc_transports, "libnghttp2")
    caplog.set_level(logging.INFO)
    assert choose("auto").name == choose("grpcio").name == "grpcio"
    (record,) = caplog.records
    assert record.getMessage().startswith("serving with grpcio: ")
    with pytest.raises(ListenError, match=r"nghttp2 cannot be had: .*; or write auto"):
        choose("nghttp2")


def test_without_compiled_modules_grpcio_serves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "extauthz.transport.grpc._session", None)
    monkeypatch.delattr(grpc_transports, "_session")
    caplog.set_level(logging.INFO)
    assert choose("auto").name == "grpcio"
    (record,) = caplog.records
    assert "install the wheel of this platform, or a C compiler before" in record.getMessage()
    with pytest.raises(ListenError, match=r"nghttp2 cannot be had: the compiled modules are missing, .*; or write auto"):
        choose("nghttp2")


@pytest.mark.parametrize("error", ["AttributeError('nghttp2_submit_trailer')", "ImportError('undefined symbol')"])
def test_a_compiled_module_that_does_not_fit_the_library_does_not_end_the_start(error: str) -> None:
    """In a process of its own: here it is loaded."""
    code = (
        "from extauthz.transport.grpc import libnghttp2\n"
        f"def refuse(name): raise {error}\n"
        "libnghttp2.address = refuse\n"
        "from extauthz.transport.select import choose\n"
        "assert choose('auto').name == 'grpcio'\n"
        "choose('nghttp2')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "server.transport: nghttp2 cannot be had: the compiled modules are missing, or do not fit this libnghttp2" in done.stderr


def test_a_switch_leaves_out_what_is_compiled(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """For a support case: is it the compiled part?"""
    caplog.set_level(logging.INFO)
    for value, expected in (("1", "grpcio"), ("0", "nghttp2"), ("", "nghttp2")):
        monkeypatch.setenv("EXTAUTHZ_PURE", value)
        assert choose("auto").name == expected
    (record,) = caplog.records
    assert record.getMessage() == "serving with grpcio: EXTAUTHZ_PURE is 1, so nothing that is compiled is used"


def test_a_missing_library_is_told_with_its_packages() -> None:
    """In a process of its own: here it is loaded."""
    code = (
        "import ctypes\n"
        "def refuse(name, *_): raise OSError(name)\n"
        "ctypes.PyDLL = refuse\n"
        "from extauthz.transport.select import choose\n"
        "assert choose('auto').name == 'grpcio'\n"
        "choose('nghttp2')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "libnghttp2 is not installed (Debian, Ubuntu: libnghttp2-14; " in done.stderr


@pytest.mark.parametrize("fallback", [b"", None], ids=repr)
@pytest.mark.parametrize("name", ["grpcio", "nghttp2"])
def test_a_server_whose_fallback_would_let_everybody_in_does_not_start(name: Literal["grpcio", "nghttp2"], fallback: Any) -> None:
    """What is sent when a handler breaks: an empty answer is an ALLOW for Envoy."""
    with pytest.raises(ValueError, match="the fallback answer is empty, which Envoy takes for an allow: not serving"):
        choose(name).server(lambda _: b"denied", fallback, limits=default_limits(), certificates=None)
