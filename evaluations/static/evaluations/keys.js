// Keys do what an element says with aria-keyshortcuts, unless somebody is typing.

const isTyping = (element) => element?.matches("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const target = document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key)}"]`);
  if (!target || target.closest("[hidden]")) return;
  event.preventDefault();
  target.click();
});
