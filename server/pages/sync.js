// The operator's page. It asks the proxy's own routes every few seconds and shows what they say;
// everything is written as text, never as markup.

const OWN = new URL("api/2.0/mlproxy/", document.baseURI);
const REFRESH_MS = 5000;
const LATE_SECONDS = 300;
const DISK_DAYS = 14;
const TOO_MANY = "TOO_MANY_REQUESTS";
const SHORT_PLOT_MS = 600000;
const shown = { pages: 1, chosen: new Set() };

const find = (id) => document.getElementById(id);

async function ask(path, options = {}) {
  const answer = await fetch(new URL(path, OWN), { credentials: "same-origin", ...options });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message || `status ${answer.status}`);
  return body;
}

const tell = (path, message) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(message) });

// --- words ---

function lasted(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

const lasting = (days) => (days < 2 ? `${Math.floor(days * 24)} hours` : `${Math.floor(days)} days`);

function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let index = 0;
  while (count >= 1024 && index < units.length - 1) { count /= 1024; index += 1; }
  return `${count.toFixed(index ? 1 : 0)} ${units[index]}`;
}

const number = (count) => count.toLocaleString("en");
const moment = (ms) => new Date(ms).toLocaleString();

function element(name, { text, className, children = [], ...attributes } = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- verdict and figures ---

const asksToWait = (workspace) => workspace.reachable === false && (workspace.last_failure || "").startsWith(TOO_MANY);

function judge(status) {
  const { workspace, disk } = status;
  if (!disk.has_headroom) {
    return ["bad", `The disk is nearly full: ${bytes(disk.free_bytes)} left.`, `Make room now: on a full disk nothing is accepted. /health/ready says no below ${bytes(disk.least_free_bytes)} (MLPROXY_MIN_FREE_BYTES).`];
  }
  for (const [what, fullness] of [["backlog", status.pending_fullness], ["spool", status.spool_fullness]]) {
    if (fullness === "hard_full") return ["bad", `The ${what} is full: clients are refused (507).`, workspace.last_failure || "See to it that delivery goes on, or raise its limit."];
    if (fullness === "soft_full") return ["bad", `The ${what} is nearly full: clients are told to come again (429).`, workspace.last_failure || "See to it that delivery goes on, or raise its limit."];
  }
  if (!workspace.configured) {
    return ["warn", "Nothing is delivered: no workspace is configured.", "Everything is kept until MLPROXY_WORKSPACE is set."];
  }
  if (asksToWait(workspace)) {
    const next = status.pace.waits_seconds > 0 ? `; the next call in ${lasted(status.pace.waits_seconds)}` : "";
    return ["warn", "The workspace asks us to wait. Clients are not affected; delivery goes on by itself.", `${number(status.pending)} entries wait${next}.`];
  }
  if (workspace.reachable === false) {
    return ["bad", "The workspace cannot be used. Clients are not affected; delivery goes on when it is back.", workspace.last_failure || ""];
  }
  if (status.parked > 0) {
    return ["warn", `${number(status.parked)} ${status.parked === 1 ? "entry waits" : "entries wait"} for your decision.`, "The workspace refused them for good; everything else goes on."];
  }
  if (disk.days_until_full !== null && disk.days_until_full < DISK_DAYS) {
    return ["warn", `The disk is full in ${lasting(disk.days_until_full)}.`, `The store grows by ${bytes(disk.growth_bytes_per_day)} a day.`];
  }
  if (status.lag_seconds > LATE_SECONDS) {
    return ["warn", `Delivery is ${lasted(status.lag_seconds)} behind.`, `${number(status.pending)} entries are on their way.`];
  }
  if (status.pending > 0) return ["good", "All is well: delivering.", `${number(status.pending)} entries are on their way.`];
  return ["good", "All is well: everything is delivered.", ""];
}

function showVerdict(kind, headline, detail) {
  const place = find("verdict");
  place.className = `verdict ${kind}`;
  // Said again only when it changes, so that a screen reader is not kept talking.
  const [first, second] = place.children;
  if (first.textContent !== headline) first.textContent = headline;
  if (second.textContent !== detail) second.textContent = detail;
}

function figure(label, value, { kind = "", small = "", words = false } = {}) {
  const shownValue = element("dd", { text: value, className: words ? "words" : "" });
  if (small) shownValue.append(element("small", { text: small }));
  return element("div", { className: kind, children: [element("dt", { text: label }), shownValue] });
}

function paceFigure(pace, workspace) {
  const waits = pace.waits_seconds > 0 && workspace.reachable !== null ? `next call in ${lasted(pace.waits_seconds)}` : "";
  if (!pace.is_throttled) return figure("Throttling", "none", { words: true, small: waits || `up to ${number(pace.most_calls_per_second)} calls/s` });
  const rate = `${number(Math.round(pace.calls_per_second * 10) / 10)} of ${number(pace.most_calls_per_second)} calls/s`;
  return figure("Throttling", rate, { words: true, kind: "warn", small: waits || "the workspace answered 429" });
}

function diskFigure(disk) {
  const days = disk.days_until_full;
  const store = `store ${bytes(disk.store_bytes)}`;
  const kind = !disk.has_headroom ? "bad" : days !== null && days < DISK_DAYS ? "warn" : "";
  if (!disk.has_headroom || days === null) return figure("Disk free", bytes(disk.free_bytes), { kind, small: store });
  return figure("Disk free", bytes(disk.free_bytes), { kind, small: `${store}, +${bytes(disk.growth_bytes_per_day)} a day; full in ${lasting(days)}` });
}

const filled = (held, most, fullness) => ({
  kind: { has_room: "", soft_full: "warn", hard_full: "bad" }[fullness],
  small: `${bytes(held)} of ${bytes(most)}`,
});

function showFigures(status) {
  const { workspace, token, pace, disk } = status;
  const reach = !workspace.configured ? "none" : asksToWait(workspace) ? "asks to wait" : { true: "reachable", false: "not reachable", null: "not tried yet" }[workspace.reachable];
  const figures = [
    figure("Pending", number(status.pending), filled(status.pending_bytes, status.pending_limit_bytes, status.pending_fullness)),
    figure("Lag", lasted(status.lag_seconds), { kind: status.lag_seconds > LATE_SECONDS ? "warn" : "" }),
    figure("Uncertain", number(status.uncertain), { small: "sent, being read back" }),
    figure("Parked", number(status.parked), { kind: status.parked ? "warn" : "", small: status.dropped ? `${number(status.dropped)} dropped` : "" }),
    figure("Overflow", number(status.overflow), { small: "delivered as files" }),
    figure("Spool", bytes(status.spool_bytes), { ...filled(status.spool_bytes, status.spool_limit_bytes, status.spool_fullness), small: `files on their way, of ${bytes(status.spool_limit_bytes)}` }),
    figure("Workspace", reach, { words: true, kind: asksToWait(workspace) ? "warn" : workspace.reachable === false ? "bad" : workspace.reachable ? "good" : "" }),
  ];
  if (token) {
    const failed = token.failures > 0;
    const isHeld = token.expires_in_seconds !== null;
    figures.push(figure("Azure token", failed ? "not renewed" : isHeld ? lasted(token.expires_in_seconds) : "none yet", {
      words: failed || !isHeld, kind: failed ? "bad" : "", small: failed ? token.last_error || "" : isHeld ? "left; renewed in time" : "fetched with the first call",
    }));
  }
  if (pace) figures.push(paceFigure(pace, workspace));
  if (status.being_read_back) figures.push(figure("Read back", number(status.being_read_back), { small: "restored, looked for in the workspace" }));
  figures.push(diskFigure(disk));
  find("figures").replaceChildren(...figures);
  const address = workspace.address ? ` · ${workspace.address}` : "";
  find("footer").textContent = `mlproxy ${status.version}${address} · updated ${new Date().toLocaleTimeString()}`;
}

// --- the plot ---

const SVG = "http://www.w3.org/2000/svg";
const PLOT = { width: 900, height: 208, left: 56, right: 12, top: 12, bottom: 26 };

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function roundUp(value) {
  const steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];
  return steps.find((step) => step >= value) || Math.ceil(value / 86400) * 86400;
}

function plot(samples) {
  const svg = find("lag");
  // As wide as it is shown, so that nothing in it is stretched.
  PLOT.width = Math.max(svg.clientWidth, 240);
  svg.setAttribute("viewBox", `0 0 ${PLOT.width} ${PLOT.height}`);
  if (samples.length < 2) {
    svg.replaceChildren(drawn("text", { x: PLOT.left, y: PLOT.height / 2 }, "The first minute is being measured."));
    return;
  }
  const first = samples[0].time, last = samples[samples.length - 1].time;
  const top = roundUp(Math.max(...samples.map((sample) => sample.lag_seconds), 1));
  const x = (time) => PLOT.left + ((time - first) / (last - first)) * (PLOT.width - PLOT.left - PLOT.right);
  const y = (lag) => PLOT.height - PLOT.bottom - (lag / top) * (PLOT.height - PLOT.top - PLOT.bottom);
  const points = samples.map((sample) => `${x(sample.time).toFixed(1)},${y(sample.lag_seconds).toFixed(1)}`);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const height = y(top * share);
    parts.push(drawn("line", { class: "axis", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: height, y2: height }));
    parts.push(drawn("text", { x: PLOT.left - 8, y: height + 4, "text-anchor": "end" }, lasted(top * share)));
  }
  const clockFace = { hour: "2-digit", minute: "2-digit", ...(last - first < SHORT_PLOT_MS ? { second: "2-digit" } : {}) };
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const time = first + (last - first) * share;
    parts.push(drawn("text", { x: x(time), y: PLOT.height - 8, "text-anchor": anchor }, new Date(time).toLocaleTimeString([], clockFace)));
  }
  const floor = y(0);
  parts.push(drawn("polygon", { class: "area", points: `${x(first)},${floor} ${points.join(" ")} ${x(last)},${floor}` }));
  parts.push(drawn("polyline", { class: "stroke", points: points.join(" ") }));
  const cursor = drawn("line", { class: "cursor", y1: PLOT.top, y2: floor, visibility: "hidden" });
  parts.push(cursor);
  svg.replaceChildren(...parts);
  const worst = samples.reduce((one, other) => (other.lag_seconds > one.lag_seconds ? other : one));
  const summary = `Since ${moment(first)}: now ${lasted(samples.at(-1).lag_seconds)}, worst ${lasted(worst.lag_seconds)} at ${moment(worst.time)}.`;
  svg.setAttribute("aria-label", `Lag over time. ${summary}`);
  const note = find("lag-note");
  note.textContent = summary;
  svg.onpointermove = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * PLOT.width;
    const near = samples.reduce((one, other) => (Math.abs(x(other.time) - at) < Math.abs(x(one.time) - at) ? other : one));
    cursor.setAttribute("x1", x(near.time));
    cursor.setAttribute("x2", x(near.time));
    cursor.setAttribute("visibility", "visible");
    note.textContent = `${moment(near.time)}: lag ${lasted(near.lag_seconds)}, ${number(near.pending)} pending, ${number(near.parked)} parked`;
  };
  svg.onpointerleave = () => { cursor.setAttribute("visibility", "hidden"); note.textContent = summary; };
}

// --- runs ---

const pill = (kind, text) => element("span", { className: `pill ${kind}`, text });

function deliveryCell(run) {
  const pills = [];
  if (run.pending) pills.push(pill("plain", `${number(run.pending)} pending, ${lasted(run.oldest_pending_seconds)}`));
  if (run.uncertain) pills.push(pill("warn", `${number(run.uncertain)} uncertain`));
  if (run.parked) pills.push(pill("bad", `${number(run.parked)} parked`));
  if (run.overflow) pills.push(pill("plain", `${number(run.overflow)} overflow`));
  if (!run.pending && !run.parked) pills.unshift(pill("good", "delivered"));
  return element("td", { children: pills, "data-label": "Delivery" });
}

function runRow(run) {
  const inUi = `./#/experiments/${encodeURIComponent(run.experiment_id)}/runs/${encodeURIComponent(run.run_id)}`;
  const name = element("td", { children: [element("a", { href: inUi, text: run.run_name || run.run_id }), element("small", { text: run.run_id })] });
  const waits = element("td", { className: "long", text: run.blocked_by || "", "data-label": run.blocked_by ? "Waits for" : "" });
  if (run.last_failure && run.pending) waits.append(element("small", { text: run.last_failure }));
  const studio = element("td");
  if (run.studio_url && run.studio_url.startsWith("https://")) {
    studio.append(element("a", { href: run.studio_url, text: "Azure ML studio", target: "_blank", rel: "noopener noreferrer" }));
  }
  return element("tr", {
    children: [name, element("td", { text: run.experiment_name, "data-label": "Experiment" }), element("td", { text: run.status, "data-label": "Status" }), deliveryCell(run), waits, studio],
  });
}

const emptyRow = (words, columns) => element("tr", { children: [element("td", { className: "empty", text: words, colspan: columns })] });

async function showRuns() {
  const form = new FormData(find("runs-form"));
  const rows = [];
  let token = "";
  for (let page = 0; page < shown.pages; page += 1) {
    const query = new URLSearchParams({ state: form.get("state"), filter: form.get("filter"), max_results: "50" });
    if (token) query.set("page_token", token);
    const answer = await ask(`runs?${query}`);
    rows.push(...answer.runs.map(runRow));
    token = answer.next_page_token || "";
    if (!token) break;
  }
  const words = form.get("state") === "undelivered" && !form.get("filter") ? "Every run is delivered." : "No such run.";
  find("runs").replaceChildren(...(rows.length ? rows : [emptyRow(words, 6)]));
  find("runs-more").hidden = !token;
}

// --- parked ---

function parkedRow(item) {
  const box = element("input", { type: "checkbox", "aria-label": `Select ${item.what} of ${item.subject}` });
  box.checked = shown.chosen.has(item.parked_id);
  box.onchange = () => { box.checked ? shown.chosen.add(item.parked_id) : shown.chosen.delete(item.parked_id); };
  box.dataset.parked = item.parked_id;
  return element("tr", {
    children: [
      element("td", { children: [box] }),
      element("td", { text: item.subject, className: "long", "data-label": "Of" }),
      element("td", { text: item.what, className: "long", "data-label": "What" }),
      element("td", { text: item.reason, "data-label": "Reason" }),
      element("td", { text: item.message, className: "long", "data-label": "Said" }),
      element("td", { text: moment(item.parked_at), "data-label": "Since" }),
    ],
  });
}

async function showParked(count) {
  const section = find("parked-section");
  section.hidden = count === 0;
  if (count === 0) { shown.chosen.clear(); return; }
  try {
    const { parked, total } = await ask("parked?max_results=100");
    const there = new Set(parked.map((item) => item.parked_id));
    shown.chosen = new Set([...shown.chosen].filter((id) => there.has(id)));
    const more = total - parked.length;
    const rest = more > 0 ? [emptyRow(`${number(more)} more: mlproxy parked list`, 6)] : [];
    find("parked").replaceChildren(...parked.map(parkedRow), ...rest);
  } catch (error) {
    find("parked").replaceChildren(emptyRow(`Only an administrator's key shows these: ${error.message}`, 6));
    for (const button of document.querySelectorAll("[data-decide]")) button.disabled = true;
  }
}

function retryWords(answer) {
  const words = [`${number(answer.retried)} will be sent again.`];
  if (answer.superseded.length) words.push(`${number(answer.superseded.length)} not: later writes have taken their place.`);
  if (answer.kept.length) words.push(`${number(answer.kept.length)} stay parked: ${answer.kept[0].why}`);
  if (answer.suggestion) words.push(`What waited for them is parked too: ${answer.suggestion}`);
  return words.join(" ");
}

async function decide(what) {
  const ids = [...shown.chosen];
  const note = find("parked-note");
  if (!ids.length) { note.textContent = "Select entries first."; return; }
  const message = { ids };
  if (what === "drop") {
    message.reason = prompt(`Drop ${ids.length}? They stay readable here, and are never sent. Why?`);
    if (!message.reason) return;
  }
  try {
    const answer = await tell(`parked/${what}`, message);
    note.textContent = what === "drop" ? `${number(answer.dropped)} dropped.` : retryWords(answer);
    shown.chosen.clear();
  } catch (error) {
    note.textContent = error.message;
  }
  await refresh();
}

// --- who looks ---

async function showMe() {
  const me = await ask("me");
  find("me").textContent = me.name ? `${me.name} (${me.role})` : "";
  find("log-out").hidden = !me.can_log_out;
}

async function logOut() {
  // A cookie alone does not do: the server wants the Origin header that a browser adds to its own page's POST.
  const answer = await fetch(new URL("logout", document.baseURI), { method: "POST", credentials: "same-origin" });
  const next = new URLSearchParams({ next: new URL("sync", document.baseURI).pathname });
  if (answer.ok) location.assign(new URL(`login?${next}`, document.baseURI));
}

// --- the loop ---

async function refresh() {
  try {
    const [status, history] = await Promise.all([ask("status"), ask("history")]);
    showVerdict(...judge(status));
    showFigures(status);
    plot(history.samples);
    await Promise.all([showRuns(), showParked(status.parked)]);
  } catch (error) {
    showVerdict("bad", "The proxy does not answer this page.", error.message);
  }
}

find("runs-form").addEventListener("input", () => { shown.pages = 1; showRuns(); });
find("runs-form").addEventListener("submit", (event) => event.preventDefault());
find("runs-more").addEventListener("click", () => { shown.pages += 1; showRuns(); });
find("parked-all").addEventListener("change", (event) => {
  for (const box of document.querySelectorAll("[data-parked]")) { box.checked = event.target.checked; box.onchange(); }
});
for (const button of document.querySelectorAll("[data-decide]")) button.addEventListener("click", () => decide(button.dataset.decide));

find("log-out").addEventListener("click", logOut);

await Promise.all([refresh(), showMe().catch(() => {})]);
setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
