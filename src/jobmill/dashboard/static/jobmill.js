// What pages do beyond reading: stay current, obey keys, copy, count what is selected.
// Every page is whole without this file.
(() => {
  "use strict";

  const root = document.documentElement;
  const body = document.body;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const live = () => one("#live:not([data-still])");

  function say(text) {
    const place = document.getElementById("said");
    if (place) place.textContent = text;
  }

  function remembered(key) {
    try { return localStorage.getItem(key); } catch { return null; }
  }

  function remember(key, value) {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch { /* it lasts as long as the page, then */ }
  }

  // ---------------------------------------------------------------- colours

  const THEMES = { system: "as the system", light: "light", dark: "dark" };

  function showTheme() {
    const theme = root.dataset.theme || "system";
    for (const button of all("[data-theme-switch]")) {
      button.setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
      button.title = `Colours: ${THEMES[theme]}`;
    }
  }

  function nextTheme() {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(root.dataset.theme || "system") + 1) % names.length];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    remember("jobmill-theme", next === "system" ? null : next);
    showTheme();
    say(`Colours: ${THEMES[next]}`);
    document.dispatchEvent(new Event("jobmill:colours"));
  }

  // ---------------------------------------------------------------- staying current
  // The stream says only that something changed; the page itself is then fetched again and
  // morphed into place. Where there is no stream the page is fetched every few seconds.

  const POLL = 5000;
  const REST = 1000; // at the least between two fetches, and ten times as long as one takes
  const REFUSED = 30_000; // until a stream is asked for again that was refused
  const HOW = { stream: "Live", wait: "Live", poll: "Polling", lost: "No answer", paused: "Paused" };
  let stream = null;
  let streaming = null; // not known before the first answer
  let paused = remembered("jobmill-live") === "off";
  let lost = false;
  let fetching = false;
  let again = false;
  let last = 0;
  let rest = REST;
  let timer = 0;
  let refusedAt = -REFUSED;
  const broken = Boolean(one("#live[data-broken]")); // the store did not answer for this page

  function showLive() {
    const button = one("[data-live]");
    if (!button) return;
    const how = paused ? "paused" : lost ? "lost" : streaming === null ? "wait" : streaming ? "stream" : "poll";
    if (button.dataset.how !== how) {
      button.dataset.how = how;
      one("span", button).textContent = HOW[how];
    }
    button.setAttribute("aria-pressed", String(!paused));
    button.title = paused ? "Updates are paused; go on (p)" : "Updates by itself; pause (p)";
  }

  function occupied() {
    const selection = document.getSelection();
    // What a button has just said is to be read.
    if (document.hidden || paused || one("dialog[open]") || one("[data-told]")) return true;
    // What somebody is about to copy is not pulled away.
    return Boolean(selection && !selection.isCollapsed && live()?.contains(selection.anchorNode));
  }

  async function refresh() {
    if (fetching) { again = true; return; }
    if (!live() || occupied()) { again = true; return; }
    fetching = true;
    again = false;
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-Jobmill-Live": "1" }, cache: "no-store" });
      // Somebody has to log in again, what was shown is gone, or a store is back.
      if (answer.redirected || answer.status === 404 || (broken && answer.ok)) { location.reload(); return; }
      if (answer.ok || answer.status === 503) {
        const text = await answer.text();
        const there = live();
        if (there && !occupied() && text.includes('id="live"')) {
          await htmx.swap({ text, target: there, sourceElement: there, select: "#live", swap: "outerMorph" });
          settled();
        }
      }
      lost = answer.status >= 500;
    } catch {
      lost = true;
    } finally {
      last = Date.now();
      rest = Math.max(REST, 10 * (performance.now() - began));
      fetching = false;
      showLive();
      if (again) soon();
    }
  }

  function soon(wait = Math.max(0, last + rest - Date.now())) {
    if (timer) return;
    timer = setTimeout(() => { timer = 0; refresh(); }, wait);
  }

  function connect() {
    if (stream || paused || document.hidden || !live()) return;
    if (performance.now() - refusedAt < REFUSED) return;
    stream = new EventSource(body.dataset.events);
    stream.addEventListener("open", () => { streaming = true; lost = false; showLive(); });
    stream.addEventListener("change", () => soon());
    stream.addEventListener("error", () => {
      streaming = false;
      // A browser tries again by itself, unless it was refused for good.
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream = null;
        refusedAt = performance.now();
      }
      showLive();
    });
  }

  function disconnect() {
    if (stream) stream.close();
    stream = null;
    streaming = null;
  }

  function pause(on) {
    paused = on;
    remember("jobmill-live", on ? "off" : null);
    if (on) disconnect();
    else { connect(); soon(0); }
    showLive();
    say(on ? "Updates are paused" : "Updates go on");
  }

  function stayCurrent() {
    if (!live() || !window.EventSource || !window.htmx) return;
    connect();
    showLive();
    setInterval(() => {
      if (paused || document.hidden) return;
      if (!stream) connect();
      // With a stream, once in a while all the same: the times on the page go on.
      if (!streaming || again || Date.now() - last > 3 * POLL) soon(0);
    }, POLL);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) disconnect();
      else if (!paused) { connect(); soon(0); }
    });
    window.addEventListener("pagehide", disconnect);
    window.addEventListener("pageshow", (event) => {
      if (event.persisted && !paused) { connect(); soon(0); }
    });
  }

  // ---------------------------------------------------------------- selecting jobs

  function countPicked() {
    const form = one("[data-bulk]");
    const bar = form && one(".bulk", form);
    if (!bar) return;
    const boxes = all("[data-pick]", form);
    const number = boxes.filter((box) => box.checked).length;
    const whole = one("[data-all]", form)?.checked;
    const text = whole ? "All that match, after a count:" : number ? `${number} selected:` : "Select jobs, or:";
    const place = one("[data-picked]", bar);
    if (place.textContent !== text) place.textContent = text;
    bar.toggleAttribute("data-kept", Boolean(whole || number));
    for (const button of all("[data-act]", bar)) button.disabled = !whole && !number;
    const every = one("[data-pick-all]", form);
    if (every) {
      every.checked = number > 0 && number === boxes.length;
      every.indeterminate = number > 0 && number < boxes.length;
    }
  }

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("[data-pick-all]")) {
      for (const each of all("[data-pick]")) each.checked = box.checked;
    }
    if (box.closest("[data-bulk]")) countPicked();
    const form = box.closest("[data-autosubmit]");
    if (form) form.requestSubmit();
  });

  // ---------------------------------------------------------------- clicks

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.matches("[data-live]")) pause(!paused);
    else if (button.matches("[data-theme-switch]")) nextTheme();
    else if (button.matches("[data-help]")) help();
    else if (button.matches("[data-copy]")) {
      const said = one("[data-said]", button);
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        said.textContent = "Copied";
        say("Copied");
      } catch {
        getSelection().selectAllChildren(one("code", button.parentElement));
        said.textContent = "Press Ctrl-C";
      }
      said.dataset.told = "";
      setTimeout(() => { said.textContent = "Copy"; delete said.dataset.told; }, 2000);
    }
  });

  // ---------------------------------------------------------------- keys

  const rows = () => all(".list tbody tr").filter((row) => one("[data-open]", row));
  let going = 0;

  function help() {
    const dialog = document.getElementById("help");
    if (dialog && !dialog.open) dialog.showModal();
  }

  function move(step) {
    const list = rows();
    if (!list.length) return;
    const at = list.findIndex((row) => "here" in row.dataset);
    const next = at < 0 ? (step > 0 ? 0 : list.length - 1) : Math.min(list.length - 1, Math.max(0, at + step));
    if (at >= 0) delete list[at].dataset.here;
    list[next].dataset.here = "";
    one("[data-open]", list[next]).focus({ preventScroll: true });
    list[next].scrollIntoView({ block: "nearest" });
  }

  function search() {
    const field = document.getElementById("search");
    if (field) { field.focus(); field.select(); }
    else location.href = `${body.dataset.home.replace(/\/$/, "")}/jobs#search`;
  }

  const KEYS = {
    "/": search,
    "?": help,
    j: () => move(1),
    k: () => move(-1),
    x: () => {
      const box = one(".list tr[data-here] [data-pick]");
      if (box) { box.checked = !box.checked; countPicked(); }
    },
    p: () => pause(!paused),
    t: nextTheme,
    g: () => { going = Date.now(); },
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target;
    if (target.matches("input:not([type=checkbox]), textarea, select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (one("dialog[open]")) return;
    if (going && Date.now() - going < 2000 && event.key.length === 1) {
      going = 0;
      const link = one(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); location.href = link.href; }
      return;
    }
    const action = KEYS[event.key];
    if (action) { event.preventDefault(); action(); }
  });

  document.addEventListener("focusin", (event) => {
    const row = event.target.closest?.(".list tbody tr");
    for (const each of all(".list tr[data-here]")) if (each !== row) delete each.dataset.here;
    if (row && one("[data-open]", row)) row.dataset.here = "";
  });

  // ---------------------------------------------------------------- beginning

  function settled() {
    countPicked();
    document.dispatchEvent(new Event("jobmill:settled"));
  }

  // A search that has found nothing yet goes on; the server says for how many pages at most.
  function goOn() {
    const next = one("a[data-goes-on]");
    if (next) location.replace(next.href);
  }

  showTheme();
  countPicked();
  stayCurrent();
  goOn();
  if (location.hash === "#search") document.getElementById("search")?.focus();
})();
