// Before anything is drawn: the theme that was chosen, or that of the system.
(function () {
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');

  function show() {
    root.dataset.theme = root.dataset.choice === 'auto' ? (system.matches ? 'dark' : 'light') : root.dataset.choice;
    document.dispatchEvent(new Event('theme'));
  }

  let choice = null;
  try { choice = localStorage.getItem('tasker.theme'); } catch { /* no storage: that of the system */ }
  root.dataset.choice = choice === 'light' || choice === 'dark' ? choice : 'auto';
  system.addEventListener('change', show);
  document.addEventListener('theme-chosen', show);
  show();
})();
