-- Orders one cart, then all others that have not been tried yet, waits until
-- everything has ended, and shows what came of it.

\pset footer off
\set ON_ERROR_STOP on
SET statement_timeout = '60 s';

SELECT tasker.create_task('order', '{"cart_id": 1}', namespace => 'shop',
                          initiator => 'run.sql', reason => 'the customer went to the checkout',
                          idempotency_key => 'cart 1') AS task_id
\gset
SELECT tasker.wait_for_task(:task_id) AS state
\gset

\echo '== One cart: task' :task_id 'is' :state
\echo '== A task for every other cart'
SELECT count(*) AS created
FROM tasker.create_tasks(
    'order',
    (SELECT coalesce(array_agg(jsonb_build_object('cart_id', c.cart_id) ORDER BY c.cart_id), '{}')
     FROM shop.carts AS c
     WHERE NOT EXISTS (
         SELECT
         FROM tasker.tasks AS t
         WHERE t.namespace = 'shop'
           AND t.name = 'order'
           AND (t.context ->> 'cart_id')::integer = c.cart_id)),
    namespace => 'shop',
    initiator => 'run.sql',
    reason => 'the customer went to the checkout');

\echo '== How they ended'
SELECT w.state, count(*) AS tasks
FROM tasker.tasks AS t
CROSS JOIN LATERAL tasker.wait_for_task(t.task_id) AS w (state)
WHERE t.namespace = 'shop'
GROUP BY w.state
ORDER BY w.state;

\echo '== The first orders'
SELECT o.order_id, o.cart_id, o.customer, o.total,
       string_agg(i.quantity || ' ' || p.name, ', ' ORDER BY i.product_id) AS items
FROM shop.orders AS o
JOIN shop.order_items AS i USING (order_id)
JOIN shop.products AS p USING (product_id)
GROUP BY o.order_id
ORDER BY o.cart_id
LIMIT 5;

\echo '== Steps that failed at first and were tried again'
SELECT f.task_id, f.context ->> 'cart_id' AS cart, f.name AS step, f.attempt, f.error,
       round(1000 * extract(epoch FROM f.tried_again_at - f.occurred_at)) AS again_after_ms, f.state AS state_now
FROM (
    SELECT l.task_id, t.context, s.name, s.state, l.attempt, l.to_state, l.occurred_at,
           l.metadata ->> 'message' AS error,
           lead(l.occurred_at) OVER (PARTITION BY l.step_id ORDER BY l.occurred_at, l.transition_id) AS tried_again_at
    FROM tasker.transitions AS l
    JOIN tasker.workflow_steps AS s USING (step_id)
    JOIN tasker.tasks AS t ON t.task_id = l.task_id
    WHERE t.namespace = 'shop'
) AS f
WHERE f.to_state = 'waiting_for_retry'
ORDER BY f.task_id, f.attempt;

\echo '== Tasks that failed, and why'
SELECT s.task_id, t.context ->> 'cart_id' AS cart, s.name AS step, s.attempts,
       s.error ->> 'sqlstate' AS sqlstate, s.error ->> 'message' AS error, s.error ->> 'detail' AS detail
FROM tasker.workflow_steps AS s
JOIN tasker.tasks AS t USING (task_id)
WHERE t.namespace = 'shop'
  AND s.state = 'error'
ORDER BY s.task_id;

\echo '== The books: stock taken is stock ordered, and each finished step made its one order'
SELECT (SELECT sum(received - stock) FROM shop.products) AS pieces_taken,
       (SELECT sum(quantity) FROM shop.order_items) AS pieces_ordered,
       (SELECT count(*) FROM shop.orders) AS orders,
       (SELECT count(*) FROM shop.payments) AS payments,
       (SELECT count(*) FROM shop.stock_differences)
       + (SELECT count(*) FROM shop.order_differences) AS differences;

\echo '== How long it took'
SELECT count(*) AS steps_done,
       round(1000 * extract(epoch FROM max(s.finished_at) - min(s.created_at))) AS all_ms,
       round((1000 * extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (
           ORDER BY s.finished_at - s.started_at)))::numeric, 2) AS median_step_ms
FROM tasker.workflow_steps AS s
JOIN tasker.tasks AS t USING (task_id)
WHERE t.namespace = 'shop'
  AND s.state = 'complete';

\echo '== The failed task as a diagram (paste it into https://mermaid.live)'
SELECT tasker.task_diagram(t.task_id) AS diagram
FROM tasker.tasks AS t
WHERE t.namespace = 'shop'
  AND t.state = 'error'
ORDER BY t.task_id
LIMIT 1
\gset
\echo :diagram
