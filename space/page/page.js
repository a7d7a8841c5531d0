// Names for what Gradio leaves without one: its upload fields and the results. It draws them anew, hence the observer.
() => {
  const named = [["query-image", "Query image", "Upload the query's picture"], ["query-video", "Query video", "Upload the query's film"], ["own-files", "Add your own files", "Upload files for your collection"]];
  const put = (element, name) => { if (element && element.getAttribute("aria-label") !== name) element.setAttribute("aria-label", name); };
  const name = () => {
    for (const [id, field, button] of named) {
      const block = document.getElementById(id);
      if (!block) continue;
      put(block.querySelector("input[type=file]"), field);
      put(block.querySelector("button[aria-dropeffect]"), button);
    }
    for (const item of document.querySelectorAll("#results .gallery-item button")) {
      const caption = item.querySelector(".caption-label");
      if (caption) put(item, caption.textContent);
    }
  };
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; name(); });
  }).observe(document.body, { childList: true, subtree: true });
  name();
}
