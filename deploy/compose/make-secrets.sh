#!/bin/sh
# Makes the secrets of docker-compose.yml: make-secrets.sh SIDECAR_FOLDER DATABASE_FOLDER CONSOLE_FOLDER. What is there stays as it is.
#
# Who may read a secret is decided by the volumes, of which each container mounts what it needs: the database runs as another user.
set -eu
sidecar=$1 database=$2 console=$3

make() {
  [ -s "$1" ] && return
  # Written beside and moved, so that a stop in between leaves no half secret.
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$1.new"
  chmod 0444 "$1.new"
  mv "$1.new" "$1"
}

make "$sidecar/pepper"
make "$sidecar/serve-password"
make "$console/console-password"
make "$database/postgres-password"
make "$database/owner-password"
make "$database/admin-password"
# The certificate of the database, and the authority by which the others know it.
if [ ! -s "$sidecar/database-ca.crt" ]; then
  rm -f "$database/server.crt" "$database/server.key"
  python -m extauthz.demo.part certificates --name database "$database"
  chmod 0444 "$database/server.key"
  cp "$database/ca.crt" "$sidecar/database-ca.crt.new"
  mv "$sidecar/database-ca.crt.new" "$sidecar/database-ca.crt"
fi
# The certificate that browsers get, and the authority that signed it: import that, or accept the certificate in the browser.
if [ ! -s "$console/ca.crt" ]; then
  rm -rf "$console/new"
  mkdir "$console/new"
  python -m extauthz.demo.part certificates --name localhost "$console/new"
  mv "$console/new/server.crt" "$console/new/server.key" "$console"
  mv "$console/new/ca.crt" "$console"
  rm -r "$console/new"
fi
[ -s "$database/console-password" ] || cp "$console/console-password" "$database/console-password"
[ -s "$database/serve-password" ] || cp "$sidecar/serve-password" "$database/serve-password"
