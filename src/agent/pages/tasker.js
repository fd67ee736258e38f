// The frame: which page is shown, its title, focus, theme, and who one is.
import { forgetMe, forgetToken, token } from './api.js';
import { append, h, problem, say } from './dom.js';
import * as events from './events.js';
import * as health from './health.js';
import * as task from './task.js';
import * as tasks from './tasks.js';
import * as template from './template.js';
import * as templates from './templates.js';
import * as workers from './workers.js';

const PAGES = [
  [/^\/tasks$/, tasks, 'tasks'],
  [/^\/tasks\/(\d+)$/, task, 'tasks'],
  [/^\/templates$/, templates, 'templates'],
  [/^\/templates\/([^/]+)\/([^/]+)$/, template, 'templates'],
  [/^\/workers$/, workers, 'workers'],
  [/^\/health$/, health, 'health'],
  [/^\/events$/, events, 'events'],
];

const LINKS = [
  ['tasks', 'Tasks'], ['templates', 'Templates'], ['workers', 'Workers'], ['health', 'Health'], ['events', 'Events'],
];

const main = document.getElementById('main');
let current = null;

function address() {
  const [text, query] = location.hash.slice(1).split('?');
  return { path: text || '/tasks', query: new URLSearchParams(query ?? '') };
}

function showLive(state) {
  const texts = { off: '', live: 'Live', waiting: 'Reconnecting', polling: 'Every 5 s' };
  document.getElementById('live').dataset.state = state;
  document.getElementById('live-text').textContent = texts[state];
}

function showNav(name) {
  document.getElementById('nav').replaceChildren(...LINKS.map(([link, text]) =>
    h('a', { href: `#/${link}`, 'aria-current': link === name ? 'page' : null }, text)));
  document.getElementById('sign-out').hidden = !token();
}

// A page gives { title, node, stop, update }.  update(query) takes a change of
// the query alone; without it the page is made anew.
async function show() {
  const { path, query } = address();
  if (current && current.path === path && current.page?.update) {
    current.page.update(query);
    return;
  }
  const isFirst = current === null;
  current?.stop();
  const mine = { path, page: null, isStopped: false, stop() {
    this.isStopped = true;
    this.page?.stop?.();
  } };
  current = mine;
  const found = PAGES.find(([pattern]) => pattern.test(path));
  showNav(found?.[2]);
  showLive('off');
  main.setAttribute('aria-busy', 'true');
  let node;
  let title;
  try {
    if (!found) throw new Error('There is no such page.');
    const parts = found[0].exec(path).slice(1).map(decodeURIComponent);
    const page = await found[1].open({ parts, query, showLive: (state) => { if (!mine.isStopped) showLive(state); } });
    mine.page = page;
    if (mine.isStopped) {
      page.stop?.();
      return;
    }
    ({ node, title } = page);
  } catch (error) {
    if (mine.isStopped) return;
    title = 'Not to be shown';
    node = append(h('div'), [h('h1', null, title), problem(error),
      h('p', null, h('button', { type: 'button', onclick: reload }, 'Try again'))]);
  }
  main.removeAttribute('aria-busy');
  main.replaceChildren(node);
  document.title = `${title} – tasker`;
  if (isFirst) return;
  scrollTo(0, 0);
  const heading = main.querySelector('h1');
  heading?.setAttribute('tabindex', '-1');
  heading?.focus({ preventScroll: true });
  say(title);
}

function reload() {
  current?.stop();
  current = { stop() {} };
  show();
}

// ---- theme

const THEMES = { auto: 'System', light: 'Light', dark: 'Dark' };

const choice = () => document.documentElement.dataset.choice;

function showTheme() {
  document.getElementById('theme').textContent = `Theme: ${THEMES[choice()]}`;
}

document.getElementById('theme').addEventListener('click', () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(choice()) + 1) % names.length];
  document.documentElement.dataset.choice = next;
  try { localStorage.setItem('tasker.theme', next); } catch { /* until the tab is closed */ }
  showTheme();
  document.dispatchEvent(new Event('theme-chosen'));
});

document.getElementById('sign-out').addEventListener('click', () => {
  forgetToken();
  forgetMe();
  reload();
});
document.addEventListener('signed-in', () => {
  forgetMe();
  document.getElementById('sign-out').hidden = false;
});

// The hash is the address: the link must not change it.
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});

addEventListener('hashchange', show);
showTheme();
show();
