// Keeps a page up to date and in Airflow's theme. Without this script every page works all the same.
"use strict";
(() => {
  const root = document.documentElement;

  // Airflow (next-themes) keeps the choice in localStorage.theme and shows it as a class of its <html>.
  const airflow = (() => {
    try {
      return window.parent !== window ? window.parent.document.documentElement : null;
    } catch {
      return null; // a page of another site: frame-ancestors forbids it
    }
  })();

  function chosenTheme() {
    if (airflow?.classList.contains("dark")) return "dark";
    if (airflow?.classList.contains("light")) return "light";
    try {
      const stored = localStorage.getItem("theme");
      return stored === "dark" || stored === "light" ? stored : "";
    } catch {
      return "";
    }
  }

  function applyTheme() {
    const theme = chosenTheme();
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  applyTheme();
  if (airflow) {
    root.classList.add("framed");
    new MutationObserver(applyTheme).observe(airflow, { attributes: true, attributeFilter: ["class"] });
  }
  window.addEventListener("storage", applyTheme);

  // Make `old` look like `fresh` with as few changes as possible: focus, scrolling and what was typed stay.
  function patch(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    const opened = old.nodeName === "DETAILS";
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !(opened && name === "open")) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value && !(opened && name === "open")) old.setAttribute(name, value);
    patchChildren(old, fresh);
  }

  function patchChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
    let at = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const key = child.dataset?.key;
      const same = key ? keyed.get(key) : at?.dataset?.key ? null : at;
      if (!same) {
        old.insertBefore(child, at);
        continue;
      }
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      patch(same, child);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  const BUSY_SECONDS = 5;
  const CALM_SECONDS = 60;
  let timer = 0;
  let failures = 0;

  function schedule() {
    clearTimeout(timer);
    const live = document.querySelector("[data-live]");
    if (!live || document.hidden) return;
    const seconds = Math.min(live.hasAttribute("data-busy") ? BUSY_SECONDS * 2 ** failures : CALM_SECONDS, CALM_SECONDS);
    timer = setTimeout(refresh, seconds * 1000);
  }

  async function refresh() {
    clearTimeout(timer);
    const live = document.querySelector("[data-live]");
    const stale = document.getElementById("stale");
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-live]");
      if (!answer.ok || !fresh) throw new Error(String(answer.status));
      if (answer.redirected && new URL(answer.url).pathname !== location.pathname) {
        location.replace(answer.url);
        return;
      }
      const before = live.dataset.announce;
      const focused = document.activeElement;
      patch(live, fresh);
      // An element that is moved loses the focus.
      if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
      if (document.title !== page.title) document.title = page.title;
      if (live.dataset.announce !== before) document.getElementById("announcer").textContent = live.dataset.announce;
      failures = 0;
    } catch {
      failures = Math.min(failures + 1, 4);
    }
    stale.hidden = failures < 2;
    schedule();
  }

  // In the restore dialog: the chosen moment is marked on the time line, and a mark chooses its moment.
  function linkTimeline() {
    const line = document.querySelector(".timeline svg");
    if (!line) return;
    const choices = [...document.querySelectorAll('input[name="backup"]')];
    const marks = new Map([...line.querySelectorAll(".mark")].map((mark) => [mark.dataset.number, mark]));
    const show = () => choices.forEach((one) => marks.get(one.value)?.classList.toggle("chosen", one.checked));
    document.getElementById("moments").addEventListener("change", show);
    line.addEventListener("click", (event) => {
      const box = line.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * 1000;
      const away = (one) => Math.abs(Number(marks.get(one.value).getAttribute("x1")) - x);
      const nearest = choices.reduce((best, one) => (away(one) < away(best) ? one : best));
      nearest.closest("details")?.setAttribute("open", "");
      nearest.click();
      nearest.focus();
    });
    line.classList.add("clickable");
    show();
  }

  document.addEventListener("DOMContentLoaded", () => {
    linkTimeline();
    document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
    // A second press of the same button does not ask twice.
    document.addEventListener("submit", (event) => {
      if (event.target.method !== "post") return;
      if (event.target.dataset.sent) event.preventDefault();
      event.target.dataset.sent = "yes";
    });
    window.addEventListener("pageshow", () => {
      for (const form of document.forms) delete form.dataset.sent;
    });
    schedule();
  });
})();
