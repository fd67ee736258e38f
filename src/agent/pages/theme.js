// Before anything is drawn: the theme that was chosen, or that of the system.
(function () {
  let theme = null;
  try { theme = localStorage.getItem('tasker.theme'); } catch { /* no storage: that of the system */ }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
