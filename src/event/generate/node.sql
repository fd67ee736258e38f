-- Text of a subscriber in JavaScript, for Node; see python.sql.

CREATE FUNCTION tasker._subscriber_in_node()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT $program$// {{name}}: a subscriber of tasker, for Node 18 or later.
//
//     node {{name}}.mjs [--once] [CONNECTION_URL]
//
// It connects to CONNECTION_URL, or to what PGHOST, PGDATABASE and so on say,
// catches up with the events since it last ran, and then waits for more.
// --once: it ends when it has caught up.  Needs pg (npm install pg).
import pg from 'pg';

const SUBSCRIBER = {{subscriber}};
const EVENTS = {{events}};
const CHANNEL = {{channel}};
// A name for each copy of this program, where several share the events.
const CONSUMER = process.env.SUBSCRIBER_CONSUMER ?? null;
const BATCH = 100;
const POLL = 30000; // milliseconds; for the notification that was missed

// What to do.  An event has event_id, occurred_at, name, task_id, step_id and
// payload; ids are strings.  It is handled when its function returns.  If that
// throws, the event and those behind it come again.  So they do after a crash:
// event_id tells.

{{#event}}
// {{title}}
async function handle_{{function}}(event) {
  // Your code here.
  console.log(event.event_id, event.name, event.task_id);
}

{{/event}}
// Any other event.
async function handle_other(event) {
  // Your code here.
  console.log(event.event_id, event.name, event.task_id);
}

// Which function takes which events: the first that fits.
const ROUTES = [
{{#event}}
  [{{pattern}}, handle_{{function}}],
{{/event}}
  ['*', handle_other],
];

function route(event) {
  const [, handle] = ROUTES.find(([pattern]) =>
    event.name === pattern || (pattern.endsWith('*') && event.name.startsWith(pattern.slice(0, -1))));
  return handle(event);
}

let stopping = false;
let wake = () => {};
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => { stopping = true; wake(); });

function pause(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    wake = () => { clearTimeout(timer); resolve(); };
    if (stopping) wake();
  });
}

// Handles events, acknowledges them, and tells whether all went well.
async function handleEvents(db, events) {
  let done, failed;
  for (const event of events) {
    if (stopping) break;
    try {
      await route(event);
    } catch (error) {
      failed = event;
      console.error(error);
      break;
    }
    done = event;
  }
  if (done) await db.query('SELECT tasker.ack_events($1, $2, $3)', [SUBSCRIBER, done.event_id, CONSUMER]);
  return !failed;
}

// Works over one connection until it is told to stop; returns the exit status.
async function work(db, once) {
  let rung = false;
  db.on('notification', () => { rung = true; wake(); });
  db.on('end', () => { rung = true; wake(); }); // the next query says what happened
  await db.query('SELECT tasker.subscribe($1, $2, channel => $3)', [SUBSCRIBER, EVENTS, CHANNEL]);
  await db.query(`LISTEN "${CHANNEL}"`);
  for (let delay = 1000; !stopping;) {
    rung = false;
    const { rows: events } = await db.query('SELECT * FROM tasker.fetch_events($1, $2, $3)', [SUBSCRIBER, BATCH, CONSUMER]);
    if (!await handleEvents(db, events)) {
      if (once) return 1;
      await pause(delay);
      delay = Math.min(delay * 2, 60000);
      continue;
    }
    delay = 1000;
    if (events.length === 0 && once) return 0;
    if (events.length === 0 && !rung) await pause(POLL);
  }
  return 0;
}

async function main() {
  const once = process.argv.includes('--once');
  const url = process.argv.slice(2).find((word) => word !== '--once');
  for (let delay = 100; !stopping; delay = Math.min(delay * 2, 30000)) {
    const db = new pg.Client(url);
    db.on('error', () => {}); // a lost connection; whoever uses it hears of it
    try {
      await db.connect();
      delay = 100;
      return await work(db, once);
    } catch (error) {
      console.error(`${SUBSCRIBER}: ${error.message}`);
      if (once) return 1;
    } finally {
      await db.end().catch(() => {});
    }
    await pause(delay);
  }
  return 0;
}

process.exitCode = await main();
$program$;
$function$;
COMMENT ON FUNCTION tasker._subscriber_in_node() IS
'Text of a subscriber for Node, to be filled in. Private.';
