#!/usr/bin/env bash
# Runs the unit for real: systemd as the first process of fresh namespaces, over a throw-away layer on this
# system. Used by tests/systemd.rs; by hand: sudo bash tests/systemd/trial.sh target/debug/spacebot systemd/spacebot.service
# LOWER=/path/to/another/root tries another system, for example one made by debootstrap.
#
# Prints what was seen. Ends with 3 where such a trial is not possible (no root, a tight container).
set -euo pipefail

binary=$1 unit=$2 lower=${LOWER:-/}
deadline=30 # seconds, for each wait
cannot() { echo "cannot: $*"; exit 3; }

# The second half of this file runs as the first process of the new namespaces.
if [ "${3:-}" = inside ]; then
  here=$4 root=$4/root
  mount --make-rprivate /
  mount -t tmpfs -o size=512m tmpfs "$here"
  mkdir -p "$here"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$here/upper,workdir=$here/work" "$root"
  # Nothing of this system's own units: only ours, and empty targets under it.
  rm -rf "$root"/etc/systemd/system "$root"/lib/systemd/system/*.wants "$root"/lib/systemd/system-generators
  mkdir -p "$root/etc/systemd/system" "$root/usr/local/bin"
  for target in sysinit basic shutdown trial; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\nAllowIsolate=yes\n' $target >"$root/etc/systemd/system/$target.target"
  done
  echo Wants=spacebot.service >>"$root/etc/systemd/system/trial.target"
  { sed '/^\[Service\]/q' "$unit"
    printf 'StandardOutput=append:/log\nStandardError=append:/log\n'
    sed '1,/^\[Service\]/d' "$unit"; } >"$root/etc/systemd/system/spacebot.service"
  cp "$binary" "$root/usr/local/bin/spacebot"
  rm -rf "$root/etc/spacebot" "$root/var/lib/spacebot"
  chroot "$root" useradd --system --no-create-home --home-dir /var/lib/spacebot spacebot 2>/dev/null || chroot "$root" id spacebot >/dev/null
  mount -t proc proc "$root/proc"
  # systemd would raise limits of the kernel that outlive the trial.
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs tmpfs "$root/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<<"$device"
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  mount -t tmpfs tmpfs "$root/dev/shm"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  cd "$root"
  mkdir -p mnt/old
  pivot_root . mnt/old
  umount -l /mnt/old
  exec env -i container=trial PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=trial.target --log-target=null \
    </dev/null >/dev/null 2>&1
fi

[ "$(id -u)" = 0 ] || cannot "not root"
[ -x /lib/systemd/systemd ] || cannot "no systemd"
here=$(mktemp -d)
boot=""
group=""
clean() {
  [ -z "$boot" ] || { kill -KILL "$boot" 2>/dev/null || true; wait "$boot" 2>/dev/null || true; }
  # The processes of the group are gone a moment after their first one.
  [ -z "$group" ] || for _ in $(seq 100); do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.05
  done
  rmdir "$here" 2>/dev/null || true
}
trap clean EXIT
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$groups" ] || cannot "no second version of control groups"
mkdir "$groups/spacebot-trial-$$" 2>/dev/null || cannot "no control group of its own"
group=$groups/spacebot-trial-$$
spaces=(--fork --pid --mount --cgroup --uts --ipc --net --kill-child)
unshare "${spaces[@]}" true 2>/dev/null || cannot "no new namespaces"

( echo $BASHPID >"$group/cgroup.procs" && exec unshare "${spaces[@]}" bash "$0" "$binary" "$unit" inside "$here" ) >"$here.log" 2>&1 &
boot=$!
first=""
within() { # an expression, tried until it holds
  local end=$((SECONDS + deadline))
  until eval "$1"; do
    kill -0 "$boot" 2>/dev/null && [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}
in_it() { nsenter -t "$first" -m -p -n -u -i -- "$@"; }
state() { in_it systemctl show spacebot -p "$1" --value; }
within 'first=$(cat /proc/$boot/task/$boot/children 2>/dev/null); first=${first%% *}; [ -n "$first" ]' || cannot "$(cat "$here.log")"
within '[ "$(cat /proc/$first/comm 2>/dev/null)" = systemd ] && in_it systemctl list-units >/dev/null 2>&1' || cannot "$(cat "$here.log")"
rm -f "$here.log"

echo "booted: $(in_it systemctl --version | head -1), $(in_it bwrap --version)"
within 'case $(state ActiveState) in active) true ;; *) [ "$(state NRestarts)" != 0 ] ;; esac' || true
echo "state: $(state ActiveState), restarts: $(state NRestarts), status: $(state ExecMainStatus)"
in_it spacebot chat --once "run id -un; touch made; ls; ls -d /proc/self; ls /run/spacebot-proc /var/lib/spacebot/agents/main/data" 2>&1 | sed 's/^/answer: /' || true
in_it sh -c 'mkdir -p /etc/spacebot; printf "[defaults]\nmax_turns = 7\n[api]\nport = 19899\n" >/etc/spacebot/config.toml'
in_it timeout $deadline systemctl reload spacebot && echo "reload: done"
within 'in_it grep -q "in force from now on" /log && [ "$(state ActiveState)" = active ]' || true
echo "state after the reload: $(state ActiveState), $(state StatusText), restarts: $(state NRestarts)"
in_it timeout $deadline systemctl stop spacebot || true
echo "stopped: $(state Result)"
in_it cat /log 2>/dev/null | sed 's/^/log: /'
