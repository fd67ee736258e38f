# place.sh: where benchmarks work, and how they leave it.  Read by them,
# behind test/unprivileged.sh.

# work_directory NAME: short, as a socket's path has room for 107 bytes
work_directory() {
    base=${TMPDIR:-/var/tmp}
    if [ ${#base} -gt 40 ]; then
        base=/var/tmp
    fi
    mktemp -d "$base/tasker_$1.XXXXXX"
}

# stop_program FILE: the one that `running` is the shell's child of: not the
# program itself, whose number is in the file
stop_program() {
    if [ -n "$running" ]; then
        kill "$(cat "$1" 2>/dev/null || echo "$running")" 2>/dev/null || :
        wait "$running" || :
    fi
}

# stop_servers: those below the work directory
stop_servers() {
    find "$work" -name postmaster.pid 2>/dev/null | while read -r pid_file; do
        (cd / && as_user "$bindir/pg_ctl" stop -D "$(dirname "$pid_file")" -m immediate >/dev/null 2>&1) || :
    done
}

# median: of the numbers on standard input
median() {
    sort -n | awk '{ n[NR] = $1 } END { print n[int((NR + 1) / 2)] }'
}
