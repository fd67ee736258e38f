#!/usr/bin/env python3
"""notification: a subscriber of tasker, in Python.

    notification.py [--once] [CONNINFO]

It connects to CONNINFO, or to what PGHOST, PGDATABASE and so on say, catches
up with the events since it last ran, and then waits for more.  --once: it ends
when it has caught up.  Needs psycopg 3 (Debian: python3-psycopg).
"""
import os
import select
import signal
import socket
import sys
import traceback

import psycopg
from psycopg.rows import namedtuple_row

SUBSCRIBER = "notification"
EVENTS = ["step.failed", "task.completed", "task.failed"]
CHANNEL = "subscriber_notification"
# A name for each copy of this program, where several share the events.
CONSUMER = os.environ.get("SUBSCRIBER_CONSUMER")
BATCH = 100
POLL = 30  # seconds; for the notification that was missed


# What to do.  An event has event_id, occurred_at, name, task_id, step_id and
# payload.  It is handled when its function returns.  If that raises, the event
# and those behind it come again.  So they do after a crash: event_id tells.

def handle_step_failed(event):
    """step.failed"""
    error = event.payload.get("error_message", "unknown error")
    print(f"step {event.payload['step_name']} of task {event.task_id} failed: {error}", flush=True)


def handle_task_completed(event):
    """task.completed"""
    print(f"task {event.task_id} completed", flush=True)


def handle_task_failed(event):
    """task.failed"""
    error = event.payload.get("error_message", "unknown error")
    print(f"task {event.task_id} failed: {error}", flush=True)


def handle_other(event):
    """Any other event."""
    # Your code here.
    print(event.event_id, event.name, event.task_id, flush=True)


# Which function takes which events: the first that fits.
ROUTES = [
    ("step.failed", handle_step_failed),
    ("task.completed", handle_task_completed),
    ("task.failed", handle_task_failed),
    ("*", handle_other),
]


def route(event):
    for pattern, handle in ROUTES:
        if event.name == pattern or pattern[-1] == "*" and event.name.startswith(pattern[:-1]):
            return handle(event)


stopping = False
wakes, woken = socket.socketpair()  # written to by a signal, so that no pause outlasts it
wakes.setblocking(False)


def stop(signal_number, frame):
    global stopping
    stopping = True


def pause(seconds, *others):
    if not stopping:
        select.select([woken, *others], [], [], seconds)


def handle_events(db, events):
    """Handles events, acknowledges them, and tells whether all went well."""
    done = failed = None
    for event in events:
        if stopping:
            break
        try:
            route(event)
        except Exception:
            failed = event
            traceback.print_exc()
            break
        done = event
    if done is not None:
        db.execute("SELECT tasker.ack_events(%s, %s, %s)", (SUBSCRIBER, done.event_id, CONSUMER))
    return failed is None


def work(db, once):
    """Works over one connection until it is told to stop; returns the exit status."""
    bell = []
    db.add_notify_handler(bell.append)
    db.execute("SELECT tasker.subscribe(%s, %s, channel => %s)", (SUBSCRIBER, EVENTS, CHANNEL))
    db.execute(f'LISTEN "{CHANNEL}"')
    delay = 1
    while not stopping:
        bell.clear()
        events = db.execute("SELECT * FROM tasker.fetch_events(%s, %s, %s)", (SUBSCRIBER, BATCH, CONSUMER)).fetchall()
        if not handle_events(db, events):
            if once:
                return 1
            pause(delay)
            delay = min(delay * 2, 60)
            continue
        delay = 1
        if not events and once:
            return 0
        if not events and not bell:
            pause(POLL, db)
    return 0


def main():
    once = "--once" in sys.argv[1:]
    conninfo = " ".join(word for word in sys.argv[1:] if word != "--once")
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    delay = 0.1
    while not stopping:
        try:
            with psycopg.connect(conninfo, autocommit=True, row_factory=namedtuple_row) as db:
                delay = 0.1
                return work(db, once)
        except psycopg.Error as error:
            print(f"{SUBSCRIBER}: {error}", file=sys.stderr)
        if once:
            return 1
        pause(delay)
        delay = min(delay * 2, 30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
