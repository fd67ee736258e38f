// A graph: the picture that the server draws, coloured by the states of now.
import { getText, isPassing } from './api.js';
import { append, h, stateText } from './dom.js';

// What a picture may consist of; the server makes nothing else.
const ALLOWED = new Set(['svg', 'g', 'title', 'text', 'path', 'polygon', 'ellipse', 'polyline']);
const ALLOWED_ATTRIBUTES = new Set(['id', 'class', 'd', 'points', 'x', 'y', 'cx', 'cy', 'rx', 'ry', 'fill', 'stroke', 'stroke-width',
  'text-anchor', 'font-family', 'font-size', 'transform', 'viewBox', 'width', 'height', 'xmlns', 'xmlns:xlink']);

function isHarmless(root) {
  return root.localName === 'svg' && [root, ...root.querySelectorAll('*')].every((node) =>
    ALLOWED.has(node.localName) && [...node.attributes].every((a) => ALLOWED_ATTRIBUTES.has(a.name)));
}

function parse(text) {
  const root = new DOMParser().parseFromString(text, 'image/svg+xml').documentElement;
  if (!isHarmless(root)) throw new Error('The picture could not be read.');
  return document.importNode(root, true);
}

// label: for screen readers; onPick(stepId): a step was clicked.
export function graph({ url, query, label, onPick }) {
  const stage = h('div', { class: 'stage', tabindex: '0', role: 'region', 'aria-label': label });
  const note = h('p', { class: 'note', role: 'status' });
  let svg = null;
  let isLost = false;
  let natural = 0;
  let zoom = 'fit';
  let nodes = new Map();

  function resize() {
    if (!svg) return;
    svg.style.width = zoom === 'fit' ? '100%' : `${natural * zoom}px`;
    svg.style.maxWidth = zoom === 'fit' ? `${natural}px` : 'none';
  }

  function step(factor) {
    const now = svg ? svg.getBoundingClientRect().width / natural : 1;
    zoom = Math.min(4, Math.max(0.05, now * factor));
    resize();
  }

  const buttons = h('div', { class: 'buttons zoom', role: 'group', 'aria-label': 'Size of the graph' },
    h('button', { type: 'button', 'aria-label': 'Smaller', onclick: () => step(0.75) }, '−'),
    h('button', { type: 'button', 'aria-label': 'Larger', onclick: () => step(1.33) }, '+'),
    h('button', { type: 'button', onclick: () => { zoom = 'fit'; resize(); } }, 'Fit'));
  const node = h('div', { class: 'graph' }, buttons, stage, note);

  stage.addEventListener('click', (event) => {
    const id = event.target.closest?.('.node')?.dataset.step;
    if (id && onPick) onPick(id);
  });

  // Fonts differ from the one that it was laid out with.
  function fitTexts({ g, lines }) {
    const room = g.querySelector('path, polygon').getBBox().width - 10;
    for (const line of lines) {
      line.removeAttribute('textLength');
      if (line.getComputedTextLength() > room) {
        line.setAttribute('textLength', String(room));
        line.setAttribute('lengthAdjust', 'spacingAndGlyphs');
      }
    }
  }

  async function load() {
    const text = await getText(url, { ...query, format: 'svg' }, 'image/svg+xml');
    const fresh = parse(text);
    fresh.removeAttribute('width');
    fresh.removeAttribute('height');
    fresh.setAttribute('role', 'img');
    fresh.setAttribute('aria-label', label);
    // The title is that of the page, and of a state that was.
    fresh.querySelector('.graph > text')?.remove();
    fresh.querySelectorAll('title').forEach((title) => title.remove());
    fresh.querySelector('.graph > polygon')?.remove();
    nodes = new Map();
    fresh.querySelectorAll('.node').forEach((g) => {
      const id = g.id.replace('step-', '');
      const lines = [...g.querySelectorAll('text')];
      g.dataset.step = id;
      nodes.set(id, { g, lines, room: Math.max(...lines.map((line) => line.textContent.length)) });
    });
    if (onPick) fresh.classList.add('pickable');
    svg = fresh;
    stage.replaceChildren(svg);
    // Without its title it is smaller.
    const box = svg.querySelector('g').getBBox();
    const move = svg.querySelector('g').transform.baseVal.consolidate()?.matrix;
    svg.setAttribute('viewBox', [box.x + (move?.e ?? 0) - 4, box.y + (move?.f ?? 0) - 4, box.width + 8, box.height + 8].join(' '));
    natural = (box.width + 8) * 1.2;
    nodes.forEach(fitTexts);
    resize();
    note.textContent = '';
    buttons.hidden = false;
  }

  return {
    node,
    // False where it failed, and may not the next time.
    async load() {
      isLost = false;
      try {
        await load();
      } catch (error) {
        isLost = isPassing(error);
        svg = null;
        buttons.hidden = true;
        stage.replaceChildren();
        note.replaceChildren();
        append(note, ['There is no picture of it: ', error.message]);
      }
      return !isLost;
    },
    // Colours the steps; false where the picture has no room for what they have
    // to say now, or could not be had when it was asked for, and is to be drawn anew.
    colour(steps) {
      let fits = true;
      if (!svg) return !isLost;
      for (const s of steps) {
        const drawn = nodes.get(String(s.step_id));
        if (!drawn) return false;
        const text = `${s.state}, attempts: ${s.attempts}`;
        const hasError = s.state === 'error' || s.state === 'waiting_for_retry';
        drawn.g.setAttribute('class', `node step-${s.step_id} ${s.state}`);
        if (drawn.lines[1] && drawn.lines[1].textContent !== text) {
          drawn.lines[1].textContent = text;
          fitTexts(drawn);
        }
        if (text.length > drawn.room || hasError !== drawn.lines.length > 2) fits = false;
        drawn.g.setAttribute('aria-label', `${s.name}, ${stateText(s.state)}`);
      }
      return fits;
    },
    pick(id) {
      nodes.forEach(({ g }, key) => g.classList.toggle('picked', key === String(id)));
    },
  };
}
