// What the page does in the browser, and names for what Gradio leaves without one.
(() => {
  let last = 0;
  const running = { search: 0, compare: 0 };  // by the tab whose "Cancel" ends them
  const q = selector => document.querySelector(selector);
  const mark = () => {
    const kinds = Object.keys(running).filter(kind => running[kind]);
    if (kinds.length) document.body.dataset.searching = kinds.join(" "); else delete document.body.dataset.searching;
  };
  const change = (kind, count) => { running[kind] = Math.max(0, count); window.plume.ended += 1; mark(); };

  window.plume = {
    // Runs are numbered when their event happens: of several the last one wins (sessions.py).
    number: () => ++last,
    begin(kind) { running[kind] += 1; mark(); return ++last; },
    end(kind) { change(kind, running[kind] - 1); },
    cancelled(kind) { change(kind, 0); },  // all at once; Gradio then tells of the end of one of them, and twice
    ended: 0,
    // The address repeats the search; inside a frame of the Hub the frame around it is told.
    share(link) {
      history.replaceState(null, "", link ? "?" + link : location.pathname);
      if (parent !== window) parent.postMessage({ queryString: link || "" }, "*");
      const refresh = q("#refresh-diagnostics");
      if (refresh && q("#tabs [role=tab][aria-selected=true]")?.textContent.includes("Diagnostics")) refresh.click();
    },
    searchAgain() { if (q("#query-text textarea, #query-text input")?.value || q("#query-image img, #query-video video")) q("#search").click(); },
    showResults() { if (innerWidth < 700) q("#status").scrollIntoView({ behavior: "smooth" }); },
    openDetail() { q("#detail dialog")?.showModal(); },
  };

  document.addEventListener("click", event => {
    const copy = event.target.closest("button[data-copy]");
    if (copy) navigator.clipboard.writeText(copy.dataset.copy).then(() => {
      copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
    if (event.target.closest("#intro a[href='#about']")) { event.preventDefault(); tabs().find(tab => tab.textContent.includes("About")).click(); }
    if (event.target.matches("#detail dialog")) event.target.close();  // a click beside it
  });

  // The upload field shows a film before the server has made a copy that plays: no error box in between.
  document.addEventListener("error", event => {
    if (event.target.tagName === "VIDEO" && event.target.closest("#query-video")) event.stopImmediatePropagation();
  }, true);

  // Arrow keys between tabs, as WAI-ARIA has them.
  const tabs = () => [...document.querySelectorAll("#tabs [role=tab]")].filter(tab => tab.checkVisibility());
  document.addEventListener("keydown", event => {
    const tab = event.target.closest?.("#tabs [role=tab]"), all = tab && tabs();
    const to = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!tab || !(to || event.key === "Home" || event.key === "End")) return;
    event.preventDefault();
    const next = to ? all[(all.indexOf(tab) + to + all.length) % all.length] : event.key === "Home" ? all[0] : all.at(-1);
    next.click(); next.focus();
  });

  const named = [["query-image", "Query picture", "Upload the query's picture"], ["query-video", "Query film", "Upload the query's film"], ["own-files", "Add your own files", "Upload files for your collection"]];
  const put = (element, attribute, value) => { if (element && element.getAttribute(attribute) !== value) element.setAttribute(attribute, value); };
  const name = () => {
    for (const [id, field, button] of named) {
      const block = document.getElementById(id);
      if (!block) continue;
      put(block.querySelector("input[type=file]"), "aria-label", field);
      put(block.querySelector("button[aria-dropeffect]"), "aria-label", button);
    }
  };
  let waiting = false;
  const start = () => {
    new MutationObserver(() => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; name(); });
    }).observe(document.body, { childList: true, subtree: true });
    name();
  };
  if (document.body) start(); else document.addEventListener("DOMContentLoaded", start);
})();
