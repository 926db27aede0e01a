#!/bin/sh
# Makes the secrets that compose.yaml reads, once, in docker/secrets/; prints the first operator's password.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
random() { python3 -c 'import secrets; print(secrets.token_urlsafe(48))'; }
[ -s secrets/database_password ] || random >secrets/database_password
[ -s secrets/database_url ] || echo "postgresql://switchyard:$(cat secrets/database_password)@postgres:5432/switchyard" >secrets/database_url
[ -s secrets/secret_key ] || random >secrets/secret_key
[ -s secrets/encryption_keys ] || python3 -c 'import base64, os; print("k1:" + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="))' >secrets/encryption_keys
[ -s secrets/checkpoint_keys ] || python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="))' >secrets/checkpoint_keys
[ -s secrets/admin_password ] || random >secrets/admin_password
# the containers read them as user 10001; on this machine the directory keeps others out
chmod 644 secrets/*
chmod 700 secrets
echo "admin password: $(cat secrets/admin_password)"
