-- A dozen products and a hundred carts, the same every time.  The bank declines
-- every tenth cart at first, and cart 13 holds a product that is no longer sold.

SET ROLE shop_owner;

INSERT INTO shop.products (product_id, name, price, received, stock, discontinued)
SELECT p.product_id, p.name, p.price, 200, 200, p.name = 'almanac of 1999'
FROM (VALUES
    (1, 'teapot', 24.50),
    (2, 'box of tea', 6.90),
    (3, 'kettle', 39.00),
    (4, 'cup', 8.25),
    (5, 'saucer', 4.75),
    (6, 'spoon', 2.10),
    (7, 'sugar bowl', 12.00),
    (8, 'milk jug', 14.40),
    (9, 'tray', 19.95),
    (10, 'tin', 5.60),
    (11, 'honey', 7.30),
    (12, 'almanac of 1999', 9.99)
) AS p (product_id, name, price);

INSERT INTO shop.carts (cart_id, customer)
SELECT n, (ARRAY['Ada', 'Edgar', 'Grace', 'Donald', 'Barbara', 'Niklaus', 'Frances'])[n % 7 + 1]
FROM generate_series(1, 100) AS n;

-- One to three different products a cart; 11 is prime, so none comes twice.
INSERT INTO shop.cart_items (cart_id, product_id, quantity)
SELECT n, (n * 3 + k * 5) % 11 + 1, (n + k) % 4 + 1
FROM generate_series(1, 100) AS n
CROSS JOIN LATERAL generate_series(0, n % 3) AS k
UNION ALL
SELECT 13, 12, 1;

INSERT INTO shop.bank_moods (cart_id, declines)
SELECT n, 1
FROM generate_series(10, 100, 10) AS n;

RESET ROLE;
