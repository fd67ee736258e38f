# unprivileged.sh: PostgreSQL refuses to run as root, so root has to be somebody
# else for it.  Read by test/run and bootstrap.

# unprivileged_user: who runs servers: the caller, or whom root gives them to
unprivileged_user() {
    if [ "$(id -u)" -ne 0 ]; then
        id -un
        return
    fi
    for user in postgres nobody; do
        if id -u "$user" >/dev/null 2>&1; then
            echo "$user"
            return
        fi
    done
    echo 'neither the user postgres nor nobody exists, and PostgreSQL refuses to run as root' >&2
    return 1
}

# as_user COMMAND...: runs it as the unprivileged user
as_user() {
    if [ "$(id -u)" -eq 0 ]; then
        runuser -u "$(unprivileged_user)" -- "$@"
    else
        "$@"
    fi
}
