// Schemas and values for the workload `validate`: the same for tasker and for Ajv.
// $schema says by which draft a schema is read.

const flat = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  required: ['cart_id', 'customer', 'mode'],
  additionalProperties: false,
  properties: {
    cart_id: { type: 'integer', minimum: 1 },
    customer: { type: 'string', minLength: 1, maxLength: 40 },
    mode: { enum: ['fast', 'slow'] },
    note: { type: ['string', 'null'] },
    gift: { type: 'boolean' },
  },
};

const order = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  type: 'object',
  required: ['order_id', 'placed_at', 'customer', 'lines'],
  properties: {
    order_id: { type: 'string', pattern: '^ORD-[0-9]{8}$' },
    placed_at: { type: 'string', format: 'date-time' },
    customer: {
      type: 'object',
      required: ['name', 'email'],
      properties: {
        name: { type: 'string', minLength: 1 },
        email: { type: 'string', format: 'email' },
        country: { type: 'string', pattern: '^[A-Z]{2}$' },
      },
    },
    currency: { enum: ['EUR', 'USD', 'GBP', 'JPY', 'CHF', 'SEK'] },
    lines: {
      type: 'array',
      minItems: 1,
      maxItems: 500,
      items: {
        type: 'object',
        required: ['sku', 'quantity', 'price'],
        additionalProperties: false,
        properties: {
          sku: { type: 'string', pattern: '^[A-Z]{2}[0-9]{4}(-[a-z]+)?$' },
          quantity: { type: 'integer', minimum: 1, maximum: 1000 },
          price: { type: 'number', exclusiveMinimum: 0 },
          unit: { enum: ['piece', 'box', 'kg'] },
          name: { type: 'string', maxLength: 100 },
        },
      },
    },
  },
};

const shapes = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  required: ['shapes'],
  properties: { shapes: { type: 'array', items: { $ref: '#/$defs/shape' } } },
  unevaluatedProperties: false,
  $defs: {
    point: {
      type: 'object',
      required: ['x', 'y'],
      properties: { x: { type: 'number' }, y: { type: 'number' } },
      additionalProperties: false,
    },
    shape: {
      type: 'object',
      required: ['kind'],
      properties: { kind: { type: 'string' }, name: { type: 'string', minLength: 1 } },
      oneOf: [
        {
          properties: { kind: { const: 'circle' }, centre: { $ref: '#/$defs/point' }, radius: { type: 'number', exclusiveMinimum: 0 } },
          required: ['centre', 'radius'],
        },
        {
          properties: { kind: { const: 'line' }, from: { $ref: '#/$defs/point' }, to: { $ref: '#/$defs/point' } },
          required: ['from', 'to'],
        },
        {
          properties: { kind: { const: 'group' }, members: { type: 'array', items: { $ref: '#/$defs/shape' } } },
          required: ['members'],
        },
      ],
      unevaluatedProperties: false,
    },
  },
};

const range = (count, make) => Array.from({ length: count }, (_, i) => make(i));

const flatValue = (i) => ({
  cart_id: i + 1,
  customer: `customer ${i}`,
  mode: i % 2 ? 'fast' : 'slow',
  note: i % 3 ? null : 'please ring twice',
  gift: i % 5 === 0,
});

const orderValue = (i) => ({
  order_id: `ORD-${10000000 + i}`,
  placed_at: `2026-11-${String(1 + (i % 28)).padStart(2, '0')}T12:34:56.789Z`,
  customer: { name: `Customer ${i}`, email: `customer${i}@example.com`, country: 'DE' },
  currency: ['EUR', 'USD', 'GBP'][i % 3],
  lines: range(20, (k) => ({
    sku: `AB${1000 + ((i * 7 + k) % 9000)}${k % 2 ? '-red' : ''}`,
    quantity: 1 + ((i + k) % 9),
    price: Math.round((k + 1) * 1999 + i) / 100,
    unit: ['piece', 'box', 'kg'][k % 3],
    name: `a thing number ${k}`,
  })),
});

const shapesValue = (i) => ({
  shapes: [
    ...range(5, (k) => ({ kind: 'circle', name: `c${k}`, centre: { x: i, y: k }, radius: 1.5 })),
    ...range(5, (k) => ({ kind: 'line', from: { x: 0, y: i }, to: { x: k, y: 1 } })),
    { kind: 'group', name: 'g', members: [{ kind: 'circle', centre: { x: 1, y: 2 }, radius: 3 }] },
  ],
});

const VALUES = 1000;

// times: how often all values are checked for a unit of the workload's size.
export const cases = [
  { name: 'flat', schema: flat, values: range(VALUES, flatValue), times: 10 },
  { name: 'order', schema: order, values: range(VALUES, orderValue), times: 1 },
  { name: 'shapes', schema: shapes, values: range(VALUES, shapesValue), times: 1 },
];
