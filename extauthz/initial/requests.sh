#!/bin/sh
# Asks Envoy, and compares the status of each answer. Add a line for each rule that must never break.
#
#   TOKEN=… sh config/tests/requests.sh http://127.0.0.1:10000
#
# TOKEN is an issued token with the scope @scope. What is refused never reaches the API, which need not run for those lines.
envoy=${1:-http://127.0.0.1:10000}
failed=0

ask() { # METHOD PATH
  # The token comes by standard input: everybody on the machine may read the arguments of programs.
  if [ -n "$with_token" ]; then printf 'header = "Authorization: Bearer %s"\n' "$TOKEN"; fi |
    curl --config - --silent --max-time 10 --output /dev/null --write-out '%{http_code}' --request "$1" "$envoy$2"
}

expect() { # STATUS METHOD PATH
  status=$(ask "$2" "$3")
  if [ "$status" = "$1" ]; then
    echo "ok    $1 $2 $3${with_token:+, with the token}"
  else
    echo "FAIL  $1 $2 $3${with_token:+, with the token}: the status is $status"
    failed=1
  fi
}

with_token=
expect 401 @method @path
expect 403 GET /no-such-path
expect 403 GET /internal/metrics

with_token=yes
: "${TOKEN:?has no value; make a token: extauthz token create --help}"
expect 200 @method @path
expect 403 GET /no-such-path
exit $failed
