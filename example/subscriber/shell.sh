#!/usr/bin/env bash
# notification: a subscriber of tasker, for bash (4 or later) and psql.
#
#     notification.sh [--once] [CONNINFO]
#
# It connects to CONNINFO, or to what PGHOST, PGDATABASE and so on say, catches
# up with the events since it last ran, and then waits for more.  --once: it ends
# when it has caught up.  Each call of psql is a connection of its own.
set -u

subscriber='notification'
events='{step.failed,task.completed,task.failed}'
consumer=${SUBSCRIBER_CONSUMER-} # a name for each copy of this program, where several share the events
patience='30 s' # so long the server waits for events before it says that there are none

# What to do.  An event is in $event_id, $occurred_at, $name, $task_id, $step_id
# and ${payload[...]}: text as it is, anything else as JSON.  It is handled when
# its function returns 0.  If it does not, the event and those behind it come
# again.  So they do after a crash: event_id tells.

# step.failed
handle_step_failed() {
    echo "step ${payload[step_name]} of task $task_id failed: ${payload[error_message]-unknown error}"
}

# task.completed
handle_task_completed() {
    echo "task $task_id completed"
}

# task.failed
handle_task_failed() {
    echo "task $task_id failed: ${payload[error_message]-unknown error}"
}

# Any other event.
handle_other() {
    # Your code here.
    echo "$event_id $name $task_id"
}

# Which function takes which events: the first that fits.
route() {
    case $name in
        'step.failed') handle_step_failed ;;
        'task.completed') handle_task_completed ;;
        'task.failed') handle_task_failed ;;
        *) handle_other ;;
    esac
}

once= conninfo= stopping= child=
for word; do
    if [ "$word" = --once ]; then once=1; else conninfo=$word; fi
done
[ -z "$once" ] || patience=
batch=$(mktemp) || exit 1
trap 'rm -f "$batch"' EXIT
# psql cancels its query on SIGINT, so that the server does not wait for nobody.
trap 'stopping=1; [ -z "$child" ] || kill -INT "$child"' INT TERM

# sql [NAME=VALUE...]: runs the SQL that it reads, in the background, as the
# shell notices signals only while it waits.
sql() {
    local variables=() status
    for word; do variables+=("--set=$word"); done
    psql --no-psqlrc --quiet --tuples-only --no-align --field-separator=$'\x1f' --record-separator-zero \
        --set=ON_ERROR_STOP=1 "${variables[@]}" ${conninfo:+--dbname="$conninfo"} <&0 &
    child=$!
    while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done
    child=
    return "$status"
}

subscribe() {
    sql subscriber="$subscriber" events="$events" >/dev/null <<'SQL'
SELECT tasker.subscribe(:'subscriber', :'events')
SQL
}

# A record for each event: its columns, then the keys and values of its payload.
fetch() {
    sql subscriber="$subscriber" consumer="$consumer" patience="$patience" >"$batch" <<'SQL'
SELECT e.event_id, e.occurred_at, e.name, e.task_id, e.step_id,
       (SELECT string_agg(concat_ws(E'\x1f', f.key, translate(coalesce(f.value, ''), E'\x1f', ' ')), E'\x1f')
        FROM jsonb_each_text(e.payload) AS f)
FROM tasker.fetch_events(:'subscriber', 100, nullif(:'consumer', ''), nullif(:'patience', '')::interval) AS e
SQL
}

acknowledge() {
    sql subscriber="$subscriber" consumer="$consumer" up_to="$1" >/dev/null <<'SQL'
SELECT tasker.ack_events(:'subscriber', :'up_to', nullif(:'consumer', ''))
SQL
}

# pause SECONDS: or until a signal comes
pause() {
    [ -z "$stopping" ] || return 0
    sleep "$1" &
    child=$!
    wait "$child"
    kill "$child" 2>/dev/null
    child=
}

# handle_events: those of the batch; sets done, failed and found
handle_events() {
    local columns i
    done= failed= found=
    while [ -z "$stopping" ] && IFS=$'\x1f' read -r -d '' -a columns <&3; do
        found=1
        event_id=${columns[0]} occurred_at=${columns[1]} name=${columns[2]}
        task_id=${columns[3]-} step_id=${columns[4]-}
        declare -gA payload=()
        for ((i = 5; i < ${#columns[@]}; i += 2)); do
            [ -z "${columns[i]}" ] || payload["${columns[i]}"]=${columns[i + 1]-}
        done
        if ! route; then
            echo "$subscriber: event $event_id ($name) failed" >&2
            failed=1
            return
        fi
        done=$event_id
    done 3<"$batch"
}

delay=1 subscribed=
while [ -z "$stopping" ]; do
    good=
    if [ -n "$subscribed" ] || subscribe; then
        subscribed=1
        if fetch; then
            handle_events
            if [ -z "$done" ] || acknowledge "$done"; then good=1; fi
        fi
    fi
    if [ -n "$good" ] && [ -z "$failed" ]; then
        delay=1
        if [ -n "$once" ] && [ -z "$found" ]; then exit 0; fi
        continue
    fi
    [ -z "$stopping" ] || break
    [ -z "$once" ] || exit 1
    pause "$delay"
    delay=$((delay < 16 ? delay * 2 : 30))
done
exit 0
