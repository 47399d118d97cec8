"""Curl lines, and the requests that curl makes of them: each row was compared with what curl 7.88.1 put on the wire."""

from __future__ import annotations

import importlib
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import CurlError
from extauthz.tools import curl
from extauthz.tools.curl import read, read_line
from extauthz.tools.shell_words import words_of

HOST = "api.acme.com"
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json", "accept": "application/json"}
BASIC = {"authorization": "Basic YW5hOnNlY3JldA=="}

# A line without its URL's host, and the method, the target and the headers beside `user-agent: curl` and `accept: */*`.
SENT: dict[str, tuple[str, str, dict[str, str]]] = {
    "http://HOST": ("GET", "/", {}),
    "http://HOST/a/b?x=1#frag": ("GET", "/a/b?x=1", {}),
    "HOST/a": ("GET", "/a", {}),
    "HTTP://HOST/a": ("GET", "/a", {}),
    "https://HOST:443/a": ("GET", "/a", {}),
    "http://HOST?x=/../y": ("GET", "/?x=/../y", {}),
    "-X DELETE http://HOST/a": ("DELETE", "/a", {}),
    "-XPATCH http://HOST/a": ("PATCH", "/a", {}),
    "-sSkXPUT http://HOST/a": ("PUT", "/a", {}),
    "-X get http://HOST/a": ("get", "/a", {}),
    "-I http://HOST/a": ("HEAD", "/a", {}),
    "-d a=b http://HOST/a": ("POST", "/a", FORM),
    "-d @file http://HOST/a": ("POST", "/a", FORM),
    "-d x -X GET http://HOST/a": ("GET", "/a", FORM),
    "--data-raw @x http://HOST/a": ("POST", "/a", FORM),
    "-d a=b -d c=d -G http://HOST/a?z=1": ("GET", "/a?z=1&a=b&c=d", {}),
    "-G -d '' http://HOST/a": ("GET", "/a", {}),
    "-d x -G -I http://HOST/a": ("HEAD", "/a?x", {}),
    "-G --data-urlencode 'q=a b&c~d' http://HOST/a": ("GET", "/a?q=a+b%26c~d", {}),
    "-G --data-urlencode 'a b' http://HOST/a": ("GET", "/a?a+b", {}),
    "--url-query 'q=a b' http://HOST/a": ("GET", "/a?q=a+b", {}),
    "--json '{}' http://HOST/a": ("POST", "/a", JSON),
    "--json '{}' -H 'content-type: x/y' http://HOST/a": ("POST", "/a", JSON | {"content-type": "x/y"}),
    "-F a=b http://HOST/a": ("POST", "/a", {"content-type": "multipart/form-data"}),
    "-T /etc/file http://HOST/a": ("PUT", "/a", {}),
    "-T /etc/file http://HOST/a/": ("PUT", "/a/file", {}),
    "-b 'a=b; c=d' http://HOST/a": ("GET", "/a", {"cookie": "a=b; c=d"}),
    "-b a=b -b c=d http://HOST/a": ("GET", "/a", {"cookie": "a=b;c=d"}),
    "-b a=b -H 'Cookie: e=f' http://HOST/a": ("GET", "/a", {"cookie": "e=f"}),
    "-u ana:secret http://HOST/a": ("GET", "/a", BASIC),
    "-u ana http://HOST/a": ("GET", "/a", {"authorization": "Basic YW5hOg=="}),
    "--digest -u ana:secret http://HOST/a": ("GET", "/a", {}),
    "http://ana:secret@HOST/a": ("GET", "/a", BASIC),
    "http://an%20a:s%40@HOST/a": ("GET", "/a", {"authorization": "Basic YW4gYTpzQA=="}),
    "--oauth2-bearer TOKEN http://HOST/a": ("GET", "/a", {"authorization": "Bearer TOKEN"}),
    "--oauth2-bearer TOKEN -u ana:secret http://HOST/a": ("GET", "/a", {"authorization": "Bearer TOKEN"}),
    "-u ana:secret -H 'Authorization: Bearer x' http://HOST/a": ("GET", "/a", {"authorization": "Bearer x"}),
    "-H 'Authorization: Bearer a' -H 'authorization: Bearer b' HOST/a": ("GET", "/a", {"authorization": "Bearer a,Bearer b"}),
    "-H 'Authorization:' -u a:b http://HOST/": ("GET", "/", {}),
    "-H 'X-A:   v  ' -H 'x-a: 2' http://HOST/a": ("GET", "/a", {"x-a": "v,2"}),
    "-H 'X-Empty;' -H 'X-Gone:' -H 'no colon' http://HOST/a": ("GET", "/a", {"x-empty": ""}),
    "-H 'Accept:' -H 'Accept: x' http://HOST/a": ("GET", "/a", {"accept": "x"}),
    "-A agent -e http://ref/ -r 0-5 http://HOST/a": (
        *("GET", "/a"),
        {"user-agent": "agent", "referer": "http://ref/", "range": "bytes=0-5"},
    ),
    "http://HOST/a/../b/./c": ("GET", "/b/c", {}),
    "http://HOST/a/..": ("GET", "/", {}),
    "http://HOST/a/b/../../../c/.": ("GET", "/c/", {}),
    "http://HOST//a//b": ("GET", "//a//b", {}),
    "http://HOST/a/%2e%2e/b": ("GET", "/a/%2e%2e/b", {}),
    "--path-as-is http://HOST/a/../b": ("GET", "/a/../b", {}),
    "--request-target /x?y http://HOST/a": ("GET", "/x?y", {}),
    "http://HOST/ä?q=ä": ("GET", "/%c3%a4?q=Ã¤", {}),
    "-g 'http://HOST/a[1]{b}'": ("GET", "/a[1]{b}", {}),
    "'http://HOST/a?b[]=1'": ("GET", "/a?b[]=1", {}),
    "-sS -m 3 -o /dev/null --retry 2 -w '%{http_code}' --http1.1 --no-keepalive -- http://HOST/a": ("GET", "/a", {}),
    "$ curl http://HOST/a | jq .": ("GET", "/a", {}),
    'curl \\\n  -X POST \\\r\n  "http://HOST/a" > out': ("POST", "/a", {}),
    'curl $\'http://HOST/a?x=\\u00e9\\\'\' -H "X-Q: \\"v\\""': ("GET", "/a?x=Ã©'", {"x-q": '"v"'}),
}
REFUSED = {
    "": "no URL: write the address that is called",
    "curl -X": "-X needs a value",
    "curl --header": "--header needs a value",
    "curl --heder x http://HOST": "--heder is not known, did you mean '--header'?",
    "curl --zzzzzz http://HOST": "--zzzzzz is not known: leave it out, if the request does not depend on it",
    "curl -? http://HOST": "a flag is not known: leave it out, if the request does not depend on it",
    "curl --request=GET http://HOST": "--request: curl takes the value behind a space, and not behind '='",
    "curl -K file http://HOST": "-K: flags of a file are not read, write them out; --config of extauthz stands before the request",
    "curl http://HOST --as nobody": "--as: this is a flag of extauthz, and curl has none of that name: write it before the request",
    "curl -H @file http://HOST": "-H @file: headers of a file are not read, write them out",
    "curl -H 'a b: c' http://HOST": "-H (a name): this is no name of a header",
    "curl -H $'X-A: b\\r\\nX-C: d' http://HOST": "-H X-A: the value has more than one line",
    "curl http://HOST http://HOST": "2 URLs: explain one request at a time",
    "curl ftp://HOST": "the URL is not one of http or https",
    "curl http:/HOST/a": "the URL has no host",
    "curl http://": "the URL has no host",
    "curl 'http://HOST/a b'": "the URL holds a space or a control character: encode it",
    "curl 'http://HOST/{a,b}'": "the URL has brackets or braces, of which curl makes several requests: write -g, or one request",
    "curl 'http://HOST/[[1-3]'": "the URL has brackets or braces, of which curl makes several requests: write -g, or one request",
    "curl 'http://HOST": "a quotation is not closed",
    "curl --aws-sigv4 x http://HOST": "--aws-sigv4: a signature is not made: describe the caller with --as before the request",
}


@pytest.mark.parametrize("line", SENT)
def test_a_line_is_the_request_that_curl_makes(line: str) -> None:
    method, target, headers = SENT[line]
    request = read_line(line.replace("HOST", HOST)).request
    assert (request.method, request.path, request.host) == (method, target, HOST)
    assert request.headers == {"user-agent": "curl", "accept": "*/*", **headers}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_read_is_said(line: str) -> None:
    with pytest.raises(CurlError) as caught:
        read_line(line.replace("HOST", HOST))
    assert str(caught.value) == REFUSED[line]


def test_the_host_of_a_header_goes_before_that_of_the_url() -> None:
    assert read(["-H", "Host: api.acme.com:8443", "http://127.0.0.1/a"]).request.host == "api.acme.com:8443"
    assert read(["http://127.0.0.1:8080/a"]).request.host == "127.0.0.1:8080"
    assert read(["-H", "Host:", "http://127.0.0.1/a"]).request.host == ""


def test_what_a_shell_would_do_besides_is_a_note() -> None:
    expected = "A variable of the shell was not expanded: what it holds is not known here."
    assert words_of('curl -H "Authorization: Bearer $TOKEN" $(host)').notes == (expected,)
    assert words_of("curl '$TOKEN' \"\\$5\" a$").notes == ()
    assert words_of("curl a && rm b").notes == ("What stands behind the first command was left out.",)
    assert words_of("curl a && rm b").words == ("curl", "a")


@given(st.lists(st.text(string.printable, min_size=1), max_size=5))
def test_words_in_single_quotes_come_out_as_they_are(words: list[str]) -> None:
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    assert words_of(quoted).words == tuple(words)


@given(st.text("[]{}a", max_size=12))
def test_brackets_and_braces_are_several_requests_where_they_close(path: str) -> None:
    refused = False
    try:
        read(["curl", f"http://{HOST}/{path}"])
    except CurlError as error:
        refused = "brackets or braces" in str(error)
    assert refused == bool(re.search(r"\[[^\]]+\]|\{[^}]*\}", path))


def test_no_search_reads_on_without_a_bound() -> None:
    """A search begins again at each letter: one that reads to the end from each is quadratic."""
    parser = importlib.import_module("re._parser")
    patterns = [each.__self__.pattern for each in vars(curl).values() if getattr(each, "__name__", "") == "search"]
    assert patterns != []
    assert [pattern for pattern in patterns if parser.parse(pattern).getwidth()[1] > 8] == []
