#!/bin/sh
# Makes the certificates beside this file, which only tests use: a CA, two servers (to see one replaced), a client.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/index"
echo 01 >"$work/serial"
cat >"$work/conf" <<EOF
[ca]
default_ca = ours
[ours]
database = $work/index
serial = $work/serial
new_certs_dir = $work
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical,CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
EOF
sign() { # name extensions more...
    name=$1 extensions=$2
    shift 2
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=test $name" \
        -keyout "$name.key" -out "$work/$name.csr"
    openssl ca -batch -notext -config "$work/conf" -extensions "$extensions" -startdate 20200101000000Z \
        -enddate 21200101000000Z -in "$work/$name.csr" -out "$name.pem" -keyfile ca.key "$@"
}
sign ca authority -selfsign
for name in server renewed client; do sign "$name" leaf -cert ca.pem; done
rm ca.key
