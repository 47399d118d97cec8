#!/bin/sh
# Runs when the database is made: accounts for who owns the tables, for who issues tokens, for the
# console and for `extauthz serve`, and TLS.
#
# The passwords are read by psql itself: on its command line they would stand in the list of processes.
set -eu
EXTAUTHZ_SECRETS=${EXTAUTHZ_SECRETS:-/run/extauthz}
export EXTAUTHZ_SECRETS

# The server wants a key that is its own.
install -m 0644 "$EXTAUTHZ_SECRETS/server.crt" "$PGDATA/server.crt"
install -m 0600 "$EXTAUTHZ_SECRETS/server.key" "$PGDATA/server.key"

psql --no-psqlrc --set ON_ERROR_STOP=1 --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set owner_password `cat "$EXTAUTHZ_SECRETS/owner-password"`
\set admin_password `cat "$EXTAUTHZ_SECRETS/admin-password"`
\set console_password `cat "$EXTAUTHZ_SECRETS/console-password"`
\set serve_password `cat "$EXTAUTHZ_SECRETS/serve-password"`

-- From the next start on, which follows at once.
ALTER SYSTEM SET ssl = on;

-- What each of these may do is granted by `extauthz store migrate`.
CREATE ROLE extauthz_admin NOLOGIN;
CREATE ROLE extauthz_sidecar NOLOGIN;

CREATE ROLE extauthz_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE tokens_admin LOGIN PASSWORD :'admin_password' IN ROLE extauthz_admin;
CREATE ROLE tokens_console LOGIN PASSWORD :'console_password' IN ROLE extauthz_admin CONNECTION LIMIT 20;
CREATE ROLE tokens_serve LOGIN PASSWORD :'serve_password' IN ROLE extauthz_sidecar CONNECTION LIMIT 20;

CREATE DATABASE extauthz OWNER extauthz_owner;
REVOKE ALL ON DATABASE extauthz FROM PUBLIC;
GRANT CONNECT ON DATABASE extauthz TO extauthz_admin, extauthz_sidecar;
SQL
