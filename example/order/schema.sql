-- A little shop: what is for sale, what customers want, what was ordered.
--
-- It belongs to the role shop_owner, who is no superuser and can't log in.  The
-- shop's handlers run as that role, so they can do in the database what the
-- shop may, and no more.

CREATE ROLE shop_owner NOLOGIN;
CREATE SCHEMA shop AUTHORIZATION shop_owner;
SET ROLE shop_owner;

CREATE TABLE shop.products (
    product_id integer PRIMARY KEY,
    name text NOT NULL,
    price numeric(10, 2) NOT NULL CHECK (price >= 0),
    received integer NOT NULL CHECK (received >= 0),
    stock integer NOT NULL CHECK (stock BETWEEN 0 AND received),
    discontinued boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE shop.products IS 'What is for sale.';
COMMENT ON COLUMN shop.products.price IS 'Price of one piece.';
COMMENT ON COLUMN shop.products.received IS 'Pieces that ever came in.';
COMMENT ON COLUMN shop.products.stock IS 'Pieces that nobody has ordered yet.';
COMMENT ON COLUMN shop.products.discontinued IS 'No longer sold, whatever the stock.';

CREATE TABLE shop.carts (
    cart_id integer PRIMARY KEY,
    customer text NOT NULL
);
COMMENT ON TABLE shop.carts IS 'Carts whose customers went to the checkout.';

CREATE TABLE shop.cart_items (
    cart_id integer NOT NULL REFERENCES shop.carts,
    product_id integer NOT NULL REFERENCES shop.products,
    quantity integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (cart_id, product_id)
);
COMMENT ON TABLE shop.cart_items IS 'What lies in the carts.';

CREATE TABLE shop.bank_moods (
    cart_id integer PRIMARY KEY REFERENCES shop.carts,
    declines integer NOT NULL CHECK (declines > 0)
);
COMMENT ON TABLE shop.bank_moods IS 'Plays the bank: carts whose payment is declined at first.';
COMMENT ON COLUMN shop.bank_moods.declines IS 'Number of attempts that are declined before one goes through.';

CREATE TABLE shop.orders (
    order_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cart_id integer NOT NULL UNIQUE REFERENCES shop.carts,
    task_id bigint NOT NULL UNIQUE,
    customer text NOT NULL,
    total numeric(12, 2) NOT NULL CHECK (total >= 0)
);
COMMENT ON TABLE shop.orders IS 'Orders. A cart is ordered once.';
COMMENT ON COLUMN shop.orders.task_id IS 'Task that made the order.';
COMMENT ON COLUMN shop.orders.total IS 'Sum over the items.';

CREATE TABLE shop.order_items (
    order_id bigint NOT NULL REFERENCES shop.orders,
    product_id integer NOT NULL REFERENCES shop.products,
    quantity integer NOT NULL CHECK (quantity > 0),
    price numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, product_id)
);
COMMENT ON TABLE shop.order_items IS 'What was ordered, at the price of that moment.';

CREATE TABLE shop.payments (
    reference text PRIMARY KEY,
    order_id bigint NOT NULL UNIQUE REFERENCES shop.orders,
    amount numeric(12, 2) NOT NULL
);
COMMENT ON TABLE shop.payments IS 'Payments that went through.';
COMMENT ON COLUMN shop.payments.reference IS 'Key that names the payment to the bank: the same at each attempt of the step that asked for it.';

CREATE TABLE shop.outbox (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event text NOT NULL,
    payload jsonb NOT NULL
);
COMMENT ON TABLE shop.outbox IS 'What the rest of the world is to hear about.';

-- Both are zero, or empty, at any moment: the handlers' writes are committed
-- with the steps that made them, or not at all.
CREATE VIEW shop.stock_differences AS
SELECT p.product_id, p.received - p.stock AS taken, coalesce(o.ordered, 0) AS ordered
FROM shop.products AS p
LEFT JOIN (
    SELECT product_id, sum(quantity) AS ordered
    FROM shop.order_items
    GROUP BY product_id
) AS o USING (product_id)
WHERE p.received - p.stock <> coalesce(o.ordered, 0);
COMMENT ON VIEW shop.stock_differences IS 'Products of which more or less left the stock than was ordered: none.';

CREATE VIEW shop.order_differences AS
SELECT t.task_id, t.state, s.state AS step_state, o.order_id
FROM tasker.tasks AS t
JOIN tasker.workflow_steps AS s ON s.task_id = t.task_id AND s.name = 'create_order'
LEFT JOIN shop.orders AS o ON o.task_id = t.task_id
WHERE t.namespace = 'shop'
  AND t.name = 'order'
  AND (s.state = 'complete') <> (o.order_id IS NOT NULL);
COMMENT ON VIEW shop.order_differences IS 'Tasks that have an order without having made it, or made one that is not there: none.';

RESET ROLE;
