#!/bin/sh
# Make every secret that compose.yaml wants, once: what is there already stays as it is.
#
#   sudo sh deployments/compose/secrets.sh [/etc/refinery [/srv/refinery]]
#
# The folders are closed to other users of the machine. The files in them are open to all, because containers get
# each of them alone and run as users of their own.
set -eu
umask 077
secrets=${1:-/etc/refinery}
state=${2:-/srv/refinery}
mkdir -p "$secrets" "$state"
chmod 700 "$secrets" "$state"

random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# Write standard input to a file that appears whole or not at all.
keep() {
    cat >"$secrets/$1.new"
    chmod 444 "$secrets/$1.new"
    mv "$secrets/$1.new" "$secrets/$1"
    echo "made $secrets/$1"
}

make_password() {
    [ -e "$secrets/$1" ] || random | keep "$1"
}

for name in postgres-password refinery-database-password prefect-database-password grafana-password; do
    make_password "$name"
done

if [ ! -e "$secrets/prefect.env" ]; then
    keep prefect.env <<END
PREFECT_SERVER_DATABASE_CONNECTION_URL='postgresql+asyncpg://prefect:$(cat "$secrets/prefect-database-password")@postgres:5432/prefect'
PREFECT_SERVER_ENCRYPTION_KEY='$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')'
PREFECT_SERVER_API_AUTH_STRING='refinery:$(random)'
END
fi

if [ ! -e "$secrets/refinery.env" ]; then
    keep refinery.env <<END
REFINERY_DATABASE_URL='postgresql://refinery:$(cat "$secrets/refinery-database-password")@postgres:5432/refinery'
ASG_ENCRYPTION_KEY='$(random)'
PREFECT_API_AUTH_STRING=$(sed -n 's/^PREFECT_SERVER_API_AUTH_STRING=//p' "$secrets/prefect.env")
END
fi

# One identity that may do everything in the store. For customers add identities of their own, limited to their buckets.
if [ ! -e "$secrets/store.json" ]; then
    keep store.json <<END
{"identities": [{"name": "operator", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "$(random | cut -c1-20)", "secretKey": "$(random)"}]}]}
END
fi

# Caddy and the store write as a user of no name, into folders that nobody else gets at.
for name in caddy store; do
    mkdir -p "$state/$name"
    chmod 777 "$state/$name"
done
