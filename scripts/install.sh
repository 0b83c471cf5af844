#!/usr/bin/env bash
# Installs what `make build` made, with its unit, user, example responder and example policy. The configuration is left
# alone if there is one.
#
#   [DESTDIR=DIR] scripts/install.sh
#
# With DESTDIR, for packages, nothing outside of it is touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=${DESTDIR:-}
built=${CARGO_TARGET_DIR:-target}/release
if [[ ! -x $built/dormoused || ! -x $built/dormouse ]]; then
  echo "install: run \`make build\` first" >&2
  exit 1
fi

put() { # MODE FILE DIRECTORY
  install -D -m "$1" -t "$root$3" "$2"
}
put 755 "$built/dormoused" /usr/bin
put 755 "$built/dormouse" /usr/bin
put 755 packaging/responders/udp-echo.py /usr/libexec/dormouse/responders
put 755 packaging/policies/office.py /usr/libexec/dormouse/policies
put 644 packaging/sysusers.d/dormouse.conf /usr/lib/sysusers.d
put 644 packaging/dormoused.service /usr/lib/systemd/system
[[ -e $root/etc/dormouse/dormoused.toml ]] || put 644 packaging/dormoused.toml /etc/dormouse

if [[ -z $root && -d /run/systemd/system ]]; then
  systemd-sysusers dormouse.conf
  systemctl daemon-reload
fi
