// Before anything is drawn: the theme that was chosen here last. A classic script, lest the page flashes.
"use strict";
try {
  const theme = localStorage.getItem("receipt-actors theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // No storage: the system's theme it is.
}
