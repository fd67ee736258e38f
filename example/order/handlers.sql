-- The shop's handlers: one function for each step of order.yaml.
--
-- A handler gets the step and returns its results.  Whatever it writes is
-- committed together with them.  It fails by raising an error.
--
-- For psql, in the top directory of the checkout: the last lines read
-- example/order/order.yaml.

SET ROLE shop_owner;

CREATE FUNCTION shop.fetch_cart(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cart jsonb;
BEGIN
    SELECT jsonb_build_object(
               'cart_id', c.cart_id,
               'customer', c.customer,
               'items', jsonb_agg(jsonb_build_object('product_id', i.product_id, 'quantity', i.quantity)
                                  ORDER BY i.product_id))
    INTO cart
    FROM shop.carts AS c
    JOIN shop.cart_items AS i USING (cart_id)
    WHERE c.cart_id = (step.context ->> 'cart_id')::integer
    GROUP BY c.cart_id;

    IF cart IS NULL THEN
        PERFORM tasker.permanent_error(
            format('cart %s does not exist or is empty', step.context ->> 'cart_id'));
    END IF;
    RETURN cart;
END;
$$;
COMMENT ON FUNCTION shop.fetch_cart(tasker.step_context) IS
'The cart of the context: its customer and items. An unknown or empty cart is a permanent error.';

CREATE FUNCTION shop.fetch_products(step tasker.step_context)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
               'products', coalesce(jsonb_agg(to_jsonb(p) - 'received' ORDER BY p.product_id), '[]'))
    FROM shop.products AS p
    JOIN shop.cart_items AS i USING (product_id)
    WHERE i.cart_id = (step.context ->> 'cart_id')::integer;
$$;
COMMENT ON FUNCTION shop.fetch_products(tasker.step_context) IS
'The catalogue''s entries of the products that the cart of the context asks for.';

CREATE FUNCTION shop.validate_products(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lines jsonb;
    gone jsonb;
    short jsonb;
    total numeric;
BEGIN
    SELECT jsonb_agg(jsonb_build_object('product_id', i.product_id, 'quantity', i.quantity, 'price', p.price)
                     ORDER BY i.product_id),
           jsonb_agg(p.name ORDER BY i.product_id) FILTER (WHERE p.discontinued),
           jsonb_agg(p.name ORDER BY i.product_id) FILTER (WHERE p.stock < i.quantity),
           sum(i.quantity * p.price)
    INTO lines, gone, short, total
    FROM jsonb_to_recordset(step.dependencies #> '{fetch_cart,items}')
         AS i (product_id integer, quantity integer)
    JOIN jsonb_to_recordset(step.dependencies #> '{fetch_products,products}')
         AS p (product_id integer, name text, price numeric, stock integer, discontinued boolean)
        USING (product_id);

    IF gone IS NOT NULL THEN
        PERFORM tasker.permanent_error(
            'the cart holds products that are no longer sold', jsonb_build_object('products', gone));
    END IF;
    IF short IS NOT NULL THEN
        PERFORM tasker.retryable_error(
            'the stock is too small for the cart', NULL, jsonb_build_object('products', short));
    END IF;
    RETURN jsonb_build_object(
        'customer', step.dependencies #> '{fetch_cart,customer}', 'items', lines, 'total', total);
END;
$$;
COMMENT ON FUNCTION shop.validate_products(tasker.step_context) IS
'The lines of the order, with prices and their sum. A product no longer sold is a permanent error; too small a stock may be filled up, and is tried again.';

CREATE FUNCTION shop.create_order(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cart_id integer := (step.context ->> 'cart_id')::integer;
    checked jsonb := step.dependencies -> 'validate_products';
    total numeric := (checked ->> 'total')::numeric;
    order_id bigint;
BEGIN
    -- Always in the same order, so that two orders can't wait for each other.
    PERFORM
    FROM shop.products AS p
    WHERE p.product_id IN (
        SELECT i.product_id
        FROM jsonb_to_recordset(checked -> 'items') AS i (product_id integer))
    ORDER BY p.product_id
    FOR NO KEY UPDATE;

    -- The check on stock refuses what another order took in the meantime.
    UPDATE shop.products AS p
    SET stock = p.stock - i.quantity
    FROM jsonb_to_recordset(checked -> 'items') AS i (product_id integer, quantity integer)
    WHERE p.product_id = i.product_id;

    INSERT INTO shop.orders AS o (cart_id, task_id, customer, total)
    VALUES (cart_id, step.task_id, checked ->> 'customer', total)
    RETURNING o.order_id INTO order_id;

    INSERT INTO shop.order_items (order_id, product_id, quantity, price)
    SELECT order_id, i.product_id, i.quantity, i.price
    FROM jsonb_to_recordset(checked -> 'items')
         AS i (product_id integer, quantity integer, price numeric);

    PERFORM shop.pay(cart_id, order_id, total, step.idempotency_key, step.attempt);
    RETURN jsonb_build_object('order_id', order_id, 'total', total);
END;
$$;
COMMENT ON FUNCTION shop.create_order(tasker.step_context) IS
'Takes the stock, writes the order with its items and has it paid. A declined payment undoes all of it, and is tried again.';

CREATE FUNCTION shop.pay(cart_id integer, order_id bigint, amount numeric, reference text, attempt integer)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    declines integer;
BEGIN
    SELECT m.declines INTO declines
    FROM shop.bank_moods AS m
    WHERE m.cart_id = pay.cart_id;

    IF attempt <= declines THEN
        PERFORM tasker.retryable_error(
            'the bank declines the payment', NULL, jsonb_build_object('amount', amount));
    END IF;
    INSERT INTO shop.payments (reference, order_id, amount)
    VALUES (reference, order_id, amount);
END;
$$;
COMMENT ON FUNCTION shop.pay(integer, bigint, numeric, text, integer) IS
'Records a payment, unless the bank declines this attempt: a retryable error.';

CREATE FUNCTION shop.publish_event(step tasker.step_context)
RETURNS jsonb
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO shop.outbox (event, payload)
    VALUES ('order.created', step.dependencies -> 'create_order')
    RETURNING jsonb_build_object('event_id', event_id);
$$;
COMMENT ON FUNCTION shop.publish_event(tasker.step_context) IS
'Tells the rest of the world of the order.';

SELECT tasker.register_handler('fetch_cart', 'shop.fetch_cart', namespace => 'shop');
SELECT tasker.register_handler('fetch_products', 'shop.fetch_products', namespace => 'shop');
SELECT tasker.register_handler('validate_products', 'shop.validate_products', namespace => 'shop');
SELECT tasker.register_handler('create_order', 'shop.create_order', namespace => 'shop');
SELECT tasker.register_handler('publish_event', 'shop.publish_event', namespace => 'shop');

\set definition `cat example/order/order.yaml`
SELECT tasker.register_task(:'definition');

RESET ROLE;
