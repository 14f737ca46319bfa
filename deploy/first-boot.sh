#!/usr/bin/env bash
# Makes this EC2 instance a host of the service, or brings it up to date. Called by the user data of two-hosts.yaml from
# an unpacked checkout; may be run again at any time.
#
#   deploy/first-boot.sh orchestrator|worker
#     NVC_NETWORKS       the addresses that the two kinds of hosts and the clients have, as CIDR, with spaces between them
#     NVC_KEY_PARAMETER  name of the SSM parameter that holds the workers' key
#     NVC_VOLUME         orchestrator: id of the EBS volume of the state, vol-…
#     NVC_WORKER_NETWORKS  orchestrator: the addresses that workers have
#     NVC_ADDRESS        worker: private address of the orchestrator
#     NVC_ROOT           install below this folder in place of /, without systemctl: for tests
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
role=${1:-} root=${NVC_ROOT:-}
say() { echo "first-boot.sh: $*"; }
die() { echo "first-boot.sh: $*" >&2; exit 2; }
[[ $role == orchestrator || $role == worker ]] || die "expected orchestrator or worker, got '$role'"
: "${NVC_NETWORKS:?the networks are missing}" "${NVC_KEY_PARAMETER:?the name of the key parameter is missing}"
install=("$here/../systemd/install.sh" "$role")
for network in $NVC_NETWORKS; do install+=(--network "$network"); done
[[ -z $root ]] || install+=(--root "$root")
state=$root/var/lib/nvc-orchestrator

packages() { # Amazon Linux 2023 has Python 3.11 beside its own; Debian 12 and Ubuntu 24.04 have 3.11 or newer
    if command -v dnf > /dev/null; then
        dnf install -y -q python3.11 python3.11-pip amazon-cloudwatch-agent logrotate
        install+=(--python python3.11)
    else
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv logrotate
    fi
}

mount_state() { # the volume outlives the instance; it is formatted only if there is nothing on it
    : "${NVC_VOLUME:?the volume of the state is missing}"
    local device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${NVC_VOLUME/-/} tries
    for ((tries = 0; tries < 150; tries++)); do
        [[ ! -e $root$device ]] || break
        sleep 2 # it is attached once the instance runs
    done
    [[ -e $root$device ]] || die "volume $NVC_VOLUME was not attached within five minutes"
    [[ -n $(blkid "$root$device" || true) ]] || mkfs.ext4 -q -L nvc-state "$root$device"
    install -d -m 0700 "$state"
    mkdir -p "$root/etc"
    grep -qs "$device" "$root/etc/fstab" ||
        echo "$device /var/lib/nvc-orchestrator ext4 nofail,noatime 0 2" >> "$root/etc/fstab"
    mountpoint -q "$state" || mount "$root$device" "$state"
}

setting() { # NAME VALUE: once, in the settings of this role
    local file=$root/etc/nvc/$role.env
    grep -qs "^$1=" "$file" || echo "$1=$2" >> "$file"
}

logs() { # to a file, which the CloudWatch agent reads; its lines hold the metrics too (NVC_EMF_NAMESPACE)
    local unit=nvc-$role
    install -d "$root/etc/systemd/system/$unit.service.d" "$root/etc/logrotate.d" \
        "$root/opt/aws/amazon-cloudwatch-agent/etc"
    printf '[Service]\nStandardOutput=append:/var/log/%s.log\n' "$unit" \
        > "$root/etc/systemd/system/$unit.service.d/log.conf"
    printf '/var/log/nvc-*.log {\n    daily\n    rotate 7\n    compress\n    missingok\n    copytruncate\n}\n' \
        > "$root/etc/logrotate.d/nvc"
    cat > "$root/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json" << END
{"logs": {"logs_collected": {"files": {"collect_list": [
    {"file_path": "/var/log/$unit.log", "log_group_name": "/nvc/$role", "log_stream_name": "{instance_id}",
     "retention_in_days": 30}]}}}}
END
}

worker_key() { # made once by the orchestrator, kept encrypted in the parameter store, where workers alone may read it
    aws ssm get-parameter --name "$NVC_KEY_PARAMETER" --with-decryption --query Parameter.Value --output text \
        2> /dev/null || true
}

packages
"${install[@]}" --no-start
logs
setting NVC_EMF_NAMESPACE NVC
if [[ $role == orchestrator ]]; then
    mount_state
    [[ -n $root ]] || chown nvc:nvc "$state"
    setting NVC_HOST 0.0.0.0
    setting NVC_WORKER_NETWORKS "${NVC_WORKER_NETWORKS:?the addresses of workers are missing}"
    if [[ -z $(worker_key) ]]; then
        say "a key for the workers, in the parameter $NVC_KEY_PARAMETER"
        keys=("$root/opt/nvc/.venv/bin/python" "$root/opt/nvc/orchestrator.py" keys --state "$state")
        [[ -n $root ]] || keys=(runuser -u nvc -- "${keys[@]}")
        key=$("${keys[@]}" add --role worker --label "workers of the group")
        aws ssm put-parameter --name "$NVC_KEY_PARAMETER" --type SecureString --overwrite --value "$key" > /dev/null
    fi
    "${install[@]}" # again: the socket takes the address from the settings, and the services start
else
    : "${NVC_ADDRESS:?the address of the orchestrator is missing}"
    key=$(mktemp)
    trap 'rm -f "$key"' EXIT
    for ((tries = 0; tries < 90; tries++)); do
        worker_key > "$key"
        [[ ! -s $key ]] || break
        sleep 10 # the orchestrator makes it at its own first start
    done
    [[ -s $key ]] || die "no key in $NVC_KEY_PARAMETER after fifteen minutes; look at the orchestrator's first-boot.sh"
    address=$(hostname -I | cut -d ' ' -f 1)
    setting NVC_HOST 0.0.0.0
    setting NVC_URL "http://$address:8080"
    sed -i "s|^NVC_ORCHESTRATOR=.*|NVC_ORCHESTRATOR=http://$NVC_ADDRESS:8081|" "$root/etc/nvc/worker.env"
    "${install[@]}" --key "$key"
fi
[[ -n $root ]] || ! command -v amazon-cloudwatch-agent-ctl > /dev/null || systemctl enable --now amazon-cloudwatch-agent
say "done: $role"
