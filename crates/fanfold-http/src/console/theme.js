// Runs before the page is painted, so that a chosen theme does not flash.
try {
  const chosen = localStorage.getItem('fanfold.theme');
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
} catch {
  // The browser keeps nothing for this page.
}
