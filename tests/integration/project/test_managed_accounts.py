"""The accounts of docs/managed-databases.md, made by an account that is no superuser, and the chart's pods with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from extauthz.cli import main
from tests.support.deployment import server
from tests.support.kubernetes import Manifest, laid_out, pod_of, rendered, secret, with_all_workloads
from tests.support.project import ROOT
from tests.support.tcp_postgres import TcpPostgres

__all__ = ["server"]

ACCOUNTS = {
    "first": "first-password",
    "extauthz_owner": "owner-password",
    "tokens_admin": "admin-password",
    "tokens_console": "console-password",
    "tokens_serve": "store-password",
}
"""The secret that has the password of each account."""
PEPPERS = [{"id": "p2", "file": "secrets/pepper-2027"}, {"id": "p1", "file": "secrets/pepper"}]
VALUES = with_all_workloads(
    {"config": {"tokens": {"peppers": PEPPERS}}, "secretFiles": ["pepper", "pepper-2027", "store-password", "store-ca.crt"]}
)


def make_accounts(server: TcpPostgres) -> None:
    """Do what the page says, as an account that may make roles and databases and nothing else."""
    (statements,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "managed-databases.md").read_text(), re.DOTALL)
    with server.connect() as superuser:
        superuser.execute(f"CREATE ROLE first LOGIN CREATEROLE CREATEDB PASSWORD '{secret(ACCOUNTS['first'])}'")
    with connect(server, "first", "postgres") as first:
        for statement in filter(str.strip, statements.split(";")):
            first.execute(statement.encode())
        for account in ACCOUNTS.keys() - {"first"}:
            first.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(account), secret(ACCOUNTS[account])))


def connect(server: TcpPostgres, account: str, database: str = "extauthz") -> psycopg.Connection[Any]:
    """Connect over the network, with the password of an account."""
    address = f"postgresql://{account}@127.0.0.1:{server.port}/{database}"
    return psycopg.connect(address, password=secret(ACCOUNTS[account]), autocommit=True)


def configuration(made: dict[str, list[Manifest]], template: str, folder: Path, server: TcpPostgres) -> Path:
    """Lay out the pod of a template, with the address of the server that is here."""
    everything = [manifest for manifests in made.values() for manifest in manifests]
    file = laid_out(everything, pod_of(made[template]), folder / template)
    here = rf"\1@127.0.0.1:{server.port}/extauthz?require_auth=scram-sha-256"
    text, count = re.subn(r"(postgresql://\w+)@[^\s\"]+", here, file.read_text())
    assert count == 1
    file.write_text(text)
    return file


def run(arguments: list[str], file: Path) -> str:
    """Run a command with a configuration; it must work."""
    done = CliRunner().invoke(main, [*arguments, "--config", str(file)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_pods_of_the_chart_work_with_the_accounts_of_the_page(server: TcpPostgres, tmp_path: Path) -> None:
    make_accounts(server)
    made = rendered(**VALUES)

    def command(template: str) -> list[str]:
        arguments: list[str] = pod_of(made[template])["containers"][0]["args"]
        return arguments[: arguments.index("--config")]

    run(command("migrate.yaml"), configuration(made, "migrate.yaml", tmp_path, server))
    admin = configuration(made, "admin-deployment.yaml", tmp_path, server)
    run(["token", "create", "--permission", "GLOBAL", "--scope", "SEARCH", "--description", "d", "--expires", "30d"], admin)
    verified = run(command("admin-job.yaml"), configuration(made, "admin-job.yaml", tmp_path, server))
    assert "The audit is whole, 1 row." in verified, "the job has the pepper that the row was written with"
    assert "p2: 1 active token" in run(["store", "status"], admin)

    with connect(server, "tokens_serve") as sidecar:
        assert sidecar.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sidecar.execute("DELETE FROM tokens")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(server, "first")
