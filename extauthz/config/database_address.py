"""The address of a PostgreSQL database, read by libpq itself: one reading for `config check`, `serve` and every command."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

_SCHEMES = ("postgresql://", "postgres://")
_NOWHERE = "/nonexistent"
_NOT_REACHED = ("connection to server on socket", "Is the server running locally")
_SECRETS = frozenset({"scram_client_key", "scram_server_key"})
_KEEPS_THE_PASSWORD = frozenset({"scram-sha-256", "gss", "sspi"})
_HOST_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"

_FORM = "write postgresql://user@host:5432/database, without a password: that is named by store_password"
_WEAK_SSLMODE = (
    "sslmode={mode}, which believes whoever answers: they get the password and choose who is let in; write sslmode=verify-full, "
    "and sslrootcert=FILE or sslrootcert=system"
)
_WEAK_REQUIRE_AUTH = (
    "require_auth={methods}, so that whoever answers may ask for the password itself; write require_auth=scram-sha-256 "
    "(with a client certificate alone: require_auth=none and sslcertmode=require)"
)


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """An address without a secret in it: its text, its parameters, and those that libpq uses, environment and defaults included."""

    text: str
    parameters: Mapping[str, str]
    effective: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The address as it is shown to people: without options."""
        parameters = self.parameters
        user = f"{quote(parameters['user'])}@" if parameters.get("user") else ""
        hosts, ports = parameters.get("host", "").split(","), parameters.get("port", "").split(",")
        database = quote(parameters["dbname"], safe="")
        if any(host.startswith(("/", "@")) for host in hosts):
            return f"postgresql://{user}/{database}?host={quote(parameters['host'], safe='/,@')}"
        ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
        names = (f"[{host}]" if ":" in host else quote(host, safe=_HOST_NAME) for host in hosts)
        places = (f"{host}:{quote(port)}" if port else host for host, port in zip(names, ports, strict=True))
        return f"postgresql://{user}{','.join(places)}/{database}"

    @property
    def is_local(self) -> bool:
        """Whether the way to every host stays on this machine: a unix socket, or loopback."""
        places = self.effective.get("hostaddr") or self.effective.get("host") or ""
        return all(map(_is_local, places.split(",")))

    @property
    def risks(self) -> tuple[str, ...]:
        """What lets somebody on the way to the database get the password, or answer in its place; nothing for a local one."""
        if self.is_local:
            return ()
        parameters, risks = self.effective, []
        if parameters.get("sslmode") != "verify-full":
            risks.append(_WEAK_SSLMODE.format(mode=parameters.get("sslmode")))
        methods = {method.strip() for method in parameters.get("require_auth", "").split(",")}
        by_certificate = methods == {"none"} and parameters.get("sslcertmode") == "require"
        if not by_certificate and not methods <= _KEEPS_THE_PASSWORD:
            risks.append(_WEAK_REQUIRE_AUTH.format(methods=parameters.get("require_auth") or "(anything)"))
        return tuple(risks)


def read(text: str) -> DatabaseAddress:
    """Read a `postgresql://` URL; raise ValueError for one that no connection could be made with, or that holds a secret.

    The error names the parameter and repeats no value: a password may stand anywhere. Nobody is connected to.
    """
    # Eight megabytes that a SQLite store has no use for.
    import psycopg
    from psycopg import pq

    if not text.startswith(_SCHEMES):
        raise ValueError(f"no postgresql:// URL: {_FORM}")
    try:
        options = pq.Conninfo.parse(text.encode())
        parameters = {option.keyword.decode(): option.val.decode() for option in options if option.val is not None}
        defaults = {option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val}
    except (psycopg.Error, UnicodeError):
        # Not chained: libpq quotes the part that it does not understand, which may be a password.
        raise ValueError(f"no postgresql:// URL that libpq can read: {_FORM}") from None
    secrets = {option.keyword.decode() for option in options if option.dispchar == b"*"} | _SECRETS
    secret_names = sorted(secrets & parameters.keys())
    if secret_names:
        raise ValueError(f"it holds a password ({', '.join(secret_names)}), which belongs elsewhere: {_FORM}")
    if not parameters.get("dbname"):
        raise ValueError(f"it names no database: {_FORM}")
    if "service" in parameters:
        raise ValueError("service: a file of services is not read: write host, user and options into the address")
    for value in parameters.values():
        if not value.isprintable():
            raise ValueError(f"it holds a control character: {_FORM}")
    return DatabaseAddress(text, parameters, _effective(parameters, defaults))


def _effective(parameters: Mapping[str, str], defaults: Mapping[str, str]) -> Mapping[str, str]:
    """Let libpq judge the parameters and fill in the others, with sockets that do not exist in place of the hosts."""
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    hosts, addresses = parameters.get("host", ""), parameters.get("hostaddr", "")
    count = (hosts or addresses).count(",")
    if hosts and addresses and hosts.count(",") != addresses.count(","):
        raise ValueError("hostaddr: there are not as many addresses as hosts")
    for address in filter(None, addresses.split(",")):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError("hostaddr: write IP addresses, one for each host, with commas") from None
    nowhere = {"host": ",".join([_NOWHERE] * (count + 1)), "hostaddr": "", "connect_timeout": "2"}
    probe = pq.PGconn.connect_start(make_conninfo("", **{**parameters, **nowhere}).encode())
    try:
        complaints = [line for line in probe.error_message.decode().splitlines() if not line.strip().startswith(_NOT_REACHED)]
        effective = {option.keyword.decode(): option.val.decode() for option in probe.info if option.val is not None}
    finally:
        probe.finish()
    if complaints:
        words = complaints[0].replace('"', " ").split()
        name = next((name for name in parameters if name in words), "port" if "port" in words else "an option")
        raise ValueError(f"libpq does not take what it says for {name}: {_FORM}")
    places = {name: parameters.get(name) or defaults.get(name, "") for name in ("host", "hostaddr")}
    return {**effective, **places}


def _is_local(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
