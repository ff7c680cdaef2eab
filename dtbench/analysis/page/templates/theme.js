// Before anything is painted: the colours that the reader chose last time, if the browser lets a file remember.
try {
  const chosen = localStorage.getItem("dtbench-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* a page opened from disk may have no storage */ }
