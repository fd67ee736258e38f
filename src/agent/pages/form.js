// A form made of a JSON Schema: a field for each property of an object.  What
// is no plain value is written as JSON, and the server has the last word.
import { h, words } from './dom.js';

function typeOf(schema) {
  const types = [schema.type ?? []].flat().filter((t) => t !== 'null');
  return types.length === 1 ? types[0] : null;
}

function control(schema, isRequired) {
  const type = typeOf(schema);
  const base = { required: isRequired };

  if (Array.isArray(schema.enum) && schema.enum.every((v) => ['string', 'number', 'boolean'].includes(typeof v))) {
    const input = h('select', base, !isRequired || schema.default === undefined ? h('option', { value: '' }, '–') : null,
      schema.enum.map((v) => h('option', { value: JSON.stringify(v) }, String(v))));
    return { input, set: (v) => { input.value = JSON.stringify(v); }, get: () => (input.value === '' ? undefined : JSON.parse(input.value)) };
  }
  if (type === 'boolean') {
    const input = h('input', { type: 'checkbox' });
    let isTouched = isRequired;
    input.addEventListener('change', () => { isTouched = true; });
    return { input, isCheck: true, set: (v) => { input.checked = v === true; }, get: () => (isTouched ? input.checked : undefined) };
  }
  if (type === 'integer' || type === 'number') {
    const input = h('input', { ...base, type: 'number', step: type === 'integer' ? '1' : 'any', min: schema.minimum, max: schema.maximum, inputmode: 'decimal' });
    return { input, set: (v) => { input.value = String(v); }, get: () => (input.value === '' ? undefined : Number(input.value)) };
  }
  if (type === 'string') {
    const kind = { email: 'email', uri: 'url', date: 'date', 'date-time': 'text' }[schema.format] ?? 'text';
    const input = schema.maxLength > 200 ? h('textarea', { ...base, rows: '3' }) : h('input', { ...base, type: kind, autocomplete: 'off' });
    if (schema.maxLength) input.maxLength = schema.maxLength;
    if (schema.minLength > 0 && isRequired) input.minLength = schema.minLength;
    return { input, set: (v) => { input.value = String(v); }, get: () => (input.value === '' && !isRequired ? undefined : input.value) };
  }
  const input = h('textarea', { ...base, rows: '3', spellcheck: 'false', class: 'code' });
  return { input, isJson: true, set: (v) => { input.value = JSON.stringify(v, null, 2); }, get() {
    if (input.value.trim() === '') return undefined;
    try { return JSON.parse(input.value); } catch { throw new FieldError(input, 'This is no JSON.'); }
  } };
}

export class FieldError extends Error {
  constructor(input, message) {
    super(message);
    this.input = input;
  }
}

export function schemaForm(schema) {
  const properties = schema?.properties && typeof schema.properties === 'object' ? Object.entries(schema.properties) : [];
  const required = new Set(Array.isArray(schema?.required) ? schema.required : []);
  // The server does not keep their order: what is required comes first.
  const place = ([name]) => (required.has(name) ? [...required].indexOf(name) : required.size);
  properties.sort((a, b) => place(a) - place(b));
  const fields = properties.map(([name, property], i) => {
    const rule = property && typeof property === 'object' ? property : {};
    const c = control(rule, required.has(name));
    const id = `context-${i}`;
    const hint = [rule.description, c.isJson && 'As JSON.'].filter(Boolean).join(' ');
    c.input.id = id;
    if (hint) c.input.setAttribute('aria-describedby', `${id}-hint`);
    if (rule.default !== undefined) c.set(rule.default);
    const label = h('label', { for: id }, rule.title ?? words(name), required.has(name) && !c.isCheck ? h('span', { class: 'note' }, ' (required)') : null);
    return { name, ...c, node: h('div', { class: c.isCheck ? 'field check' : 'field' }, c.isCheck ? [c.input, label] : [label, c.input],
      hint && h('p', { class: 'note', id: `${id}-hint` }, hint)) };
  });

  const raw = h('textarea', { id: 'context-json', rows: '10', spellcheck: 'false', class: 'code', value: '{}' });
  const rawField = h('div', { class: 'field' }, h('label', { for: 'context-json' }, 'Context, as JSON'), raw);
  const inFields = h('div', { class: 'fields' }, fields.map((f) => f.node));
  let isRaw = fields.length === 0;

  function value() {
    if (isRaw) {
      try { return JSON.parse(raw.value); } catch { throw new FieldError(raw, 'The context is no JSON.'); }
    }
    return Object.fromEntries(fields.map((f) => [f.name, f.get()]).filter(([, v]) => v !== undefined));
  }

  const swap = h('button', { type: 'button', hidden: fields.length === 0, onclick: () => {
    if (!isRaw) raw.value = JSON.stringify(value(), null, 2);
    isRaw = !isRaw;
    show();
  } });

  function show() {
    inFields.hidden = isRaw;
    inFields.querySelectorAll('input, select, textarea').forEach((input) => { input.disabled = isRaw; });
    rawField.hidden = !isRaw;
    swap.textContent = isRaw ? 'Fields' : 'As JSON';
  }

  show();
  return { node: h('fieldset', null, h('legend', null, 'Context'), inFields, rawField, swap), value };
}
