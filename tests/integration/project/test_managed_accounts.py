"""The accounts of docs/managed-databases.md, made as a cloud lets them be made: by an account that is no superuser."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
import yaml
from click.testing import CliRunner
from psycopg import sql

from extauthz.cli import main
from tests.support.deployment import server
from tests.support.project import ROOT
from tests.support.tcp_postgres import TcpPostgres

__all__ = ["server"]

PASSWORD = "a password of a test"
ACCOUNTS = ("extauthz_owner", "tokens_admin", "tokens_console", "tokens_serve")


def configuration(folder: Path, user: str, server: TcpPostgres) -> Path:
    """Write a configuration with an account of the database."""
    (folder / "pepper").write_bytes(b"a pepper for tests, 32 bytes long")
    (folder / "password").write_text(PASSWORD)
    (folder / "routes.yaml").write_text('routes: [{match: "* /**", deny: true}]\n')
    address = f"postgresql://{user}@127.0.0.1:{server.port}/extauthz?require_auth=scram-sha-256"
    tokens = {"store": address, "store_password": {"file": "password"}, "peppers": [{"id": "p1", "file": "pepper"}]}
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "tokens": tokens,
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
    }
    file = folder / f"{user}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def run(*arguments: str | Path) -> str:
    """Run a command that must work."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_whoever_may_make_roles_and_databases_makes_the_accounts_of_the_page(server: TcpPostgres, tmp_path: Path) -> None:
    (statements,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "managed-databases.md").read_text(), re.DOTALL)
    with server.connect() as superuser:
        superuser.execute(f"CREATE ROLE first LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}'")
    with psycopg.connect(f"postgresql://first@127.0.0.1:{server.port}/postgres", password=PASSWORD, autocommit=True) as first:
        for statement in filter(str.strip, statements.split(";")):
            first.execute(statement.encode())
        for account in ACCOUNTS:
            first.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(account), PASSWORD))

    run("store", "migrate", "--config", configuration(tmp_path, "extauthz_owner", server))
    create = "token create --permission GLOBAL --scope SEARCH --description d --expires 30d --config"
    run(*create.split(), configuration(tmp_path, "tokens_admin", server))
    address = f"postgresql://{{}}@127.0.0.1:{server.port}/extauthz"
    with psycopg.connect(address.format("tokens_serve"), password=PASSWORD) as sidecar:
        assert sidecar.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sidecar.execute("DELETE FROM tokens")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(address.format("first"), password=PASSWORD)
