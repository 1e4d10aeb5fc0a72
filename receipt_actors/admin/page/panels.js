// The tables around the tree: services, queues, processes, verdicts, steps and incidents.

import { sparkline } from "./charts.js";
import { byId, draw, keyed, make, setAttribute, setText } from "./dom.js";
import { bytes, clock, count, decimal, duration, exact, latency, moment, percent, plural, words } from "./format.js";
import { fateCount, servicesOf, waitingAtSources } from "./measures.js";

const cells = (row) => [...row.children];
const tableRow = (columns) => () =>
  make("tr", {}, make("th", { scope: "row" }), ...Array.from({ length: columns - 1 }, () => make("td", { class: "number" })));

/** The gate, and what stands behind it. `growth` tells how requests grew, by service. */
export function showServices(overview, processes, statistics, growth) {
  const closed = processes.filter((process) => process.unavailable.length > 0);
  const gate = byId("gate");
  const sum = (of) => processes.reduce((total, process) => total + of(process), 0);
  setAttribute(gate, "class", `gate ${closed.length > 0 ? "bad" : "good"}`);
  const names = [...new Set(closed.flatMap((process) => process.unavailable))];
  const where = processes.length > 1 && closed.length > 0 ? ` in ${closed.length} of ${processes.length} processes` : "";
  const isForAll = overview.source_queues.length === 1 || closed.some((process) => process.state === "waiting");
  setText(
    gate,
    closed.length > 0
      ? `Gate closed${isForAll ? "" : " for some sources"}${where}: ${names.join(", ")} unavailable`
      : `Gate open: ${exact(sum((process) => process.in_flight))} in flight, ${exact(sum((process) => process.reserved))} reserved by receives under way`,
  );
  const services = servicesOf(processes);
  for (const name of Object.keys(statistics.calls)) {
    if (!services.has(name)) services.set(name, { name, unavailable: [], waiting: null, underWay: null, retries: null, of: 0 });
  }
  keyed(
    byId("services"),
    services.values(),
    (service) => service.name,
    tableRow(7),
    (row, service) => {
      const [name, breaker, waiting, underWay, retries, rate, fill] = cells(row);
      setText(name, service.name);
      const isOpen = service.unavailable.length > 0;
      const since = Math.min(...service.unavailable.map((each) => each.since ?? overview.at_seconds));
      const share = service.of > 1 && isOpen ? ` (${service.unavailable.length}/${service.of})` : "";
      setText(breaker, service.of === 0 ? "–" : isOpen ? `open ${duration(overview.at_seconds - since)}${share}` : "closed");
      setAttribute(breaker, "class", `state-cell ${service.of === 0 ? "" : isOpen ? "bad" : "good"}`);
      setText(waiting, exact(service.waiting));
      setText(underWay, exact(service.underWay));
      setText(retries, count(service.retries));
      const requests = growth.of(`requests\n${service.name}`);
      const entries = growth.of(`entries\n${service.name}`);
      setText(rate, decimal(requests === null ? null : requests.grown / requests.seconds));
      setText(fill, decimal(batchFill(requests, entries, statistics.calls[service.name])));
    },
  );
}

/** Entries a request: lately, or since the start where there were none lately. */
function batchFill(requests, entries, calls) {
  if (requests !== null && entries !== null && requests.grown > 0) return entries.grown / requests.grown;
  return calls !== undefined && calls.requests > 0 ? calls.entries / calls.requests : null;
}

export function showQueues(overview) {
  const deepest = Math.max(1, ...Object.values(overview.queues).map((depth) => depth ?? 0));
  keyed(
    byId("queues"),
    Object.entries(overview.queues).map(([name, depth]) => ({ name, depth })),
    (queue) => queue.name,
    () => make("tr", {}, make("th", { scope: "row" }), make("td", { class: "bar-cell" }, make("div", { class: "bar in" })), make("td", { class: "number" })),
    (row, { name, depth }) => {
      setText(row.children[0], overview.source_queues.includes(name) ? `${name} (source)` : name);
      row.children[1].firstElementChild.style.setProperty("--share", (depth ?? 0) / deepest);
      setText(row.children[2], exact(depth));
    },
  );
}

export function showProcesses(overview, growth, chosen) {
  const rows = overview.processes.map((process) => ({ ...process }));
  if (overview.parent_usage !== null) rows.unshift({ name: "parent", state: null, usage: overview.parent_usage, pid: null, in_flight: null });
  keyed(
    byId("processes"),
    rows,
    (process) => process.name,
    tableRow(9),
    (row, process) => {
      const [name, pid, state, up, inFlight, cpu, memory, threads, files] = cells(row);
      setAttribute(row, "class", process.name === chosen ? "chosen" : null);
      setText(name, process.name);
      setText(pid, process.pid ?? "–");
      setText(state, process.state ?? "supervises");
      setAttribute(state, "class", `state-cell ${process.state === null ? "" : toneOfState(process.state)}`);
      setText(up, process.started_at_seconds > 0 ? duration(overview.at_seconds - process.started_at_seconds) : "–");
      setText(inFlight, exact(process.in_flight));
      setText(cpu, percent(growth.aSecond(`cpu\n${process.name}`)));
      setText(memory, bytes(process.usage.memory_bytes));
      setText(threads, exact(process.usage.threads));
      setText(files, exact(process.usage.open_files));
    },
  );
}

const toneOfNode = (state) => ({ active: "good", standby: "calm", waiting: "warn" })[state] ?? "bad";
const NODE_STATES = {
  waiting: ": others are giving back what is to be its share",
  standby: ": it takes over from an active node that goes",
  "cut off": ": its lease is over and the table does not answer, nothing new is begun",
};
const LEDGER = "ledger_concurrency"; // of this limit all nodes have parts

/** Who shares the work, as the node that is asked knows it; nothing where it is alone. */
export function showNodes(role) {
  for (const part of ["nodes-card", "nodes-link"]) setAttribute(byId(part), "hidden", role === null);
  if (role === null) return;
  setText(byId("nodes-group"), `${role.role}, group ${role.group}`);
  const held = role.held_for_seconds === null ? "" : `, its lease held for ${role.held_for_seconds.toFixed(1)} s`;
  setText(byId("nodes-lease"), `This node: ${role.state}${held}${NODE_STATES[role.state] ?? ""}`);
  setAttribute(byId("nodes-lease"), "class", `gate ${toneOfNode(role.state)}`);
  keyed(
    byId("nodes"),
    role.nodes,
    (node) => node.name,
    () =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }),
        make("td"),
        make("td", { class: "number" }),
        make("td", { class: "bar-cell" }, make("div", { class: "bar answered", "aria-hidden": "true" })),
        make("td", { class: "number" }),
        make("td", { class: "number" }),
      ),
    (row, node) => {
      const [name, state, token, bar, share, heard] = cells(row);
      const isOwn = node.name === role.node;
      setAttribute(row, "class", isOwn ? "chosen" : null);
      setText(name, node.name);
      setText(state, node.state);
      setAttribute(state, "class", `state-cell ${toneOfNode(node.state)}`);
      setText(token, node.token ?? "–");
      const [part, whole] = [node.share?.[LEDGER] ?? 0, role.whole?.[LEDGER] ?? 0];
      bar.firstElementChild.style.setProperty("--share", whole > 0 ? part / whole : 0);
      setAttribute(bar.firstElementChild, "hidden", part === 0);
      setText(share, part > 0 ? `${exact(part)} of ${exact(whole)}` : "–");
      setText(heard, isOwn ? "this node" : `${duration(node.seconds_since_heard)} ago`);
      setAttribute(heard, "class", `number ${!isOwn && node.seconds_since_heard > role.lease_seconds / 2 ? "warn" : "soft"}`);
    },
  );
}

export const toneOfState = (state) => ({ consuming: "good", ended: "bad", waiting: "bad", paused: "warn", draining: "warn" })[state] ?? "calm";

const FATES = { moved: "dead-lettered", handed_back: "handed back", left: "left for redelivery" };

export function showVerdicts(statistics) {
  const groups = [
    ...["OK", "INVALID"].map((verdict) => ({ label: verdict, rows: statistics.results.filter((row) => row.verdict === verdict) })),
    ...Object.entries(FATES).map(([fate, label]) => ({ label, rows: statistics.fates.filter((row) => row.fate === fate) })),
  ];
  const kinds = { OK: "answered", INVALID: "invalid", "dead-lettered": "moved", "handed back": "handed-back", "left for redelivery": "handed-back" };
  const total = groups.reduce((sum, group) => sum + group.rows.reduce((inner, row) => inner + row.count, 0), 0);
  const rows = groups.flatMap((group) =>
    [...group.rows].sort((one, other) => other.count - one.count).map((row) => ({ ...row, label: group.label, share: row.count / total })),
  );
  setAttribute(byId("verdicts-none"), "hidden", rows.length > 0);
  keyed(
    byId("verdicts"),
    rows,
    (row) => `${row.label}\n${row.reason}`,
    () =>
      make(
        "tr",
        {},
        make("td", {}, make("span", { class: "badge" })),
        make("th", { scope: "row" }),
        make("td", { class: "bar-cell" }, make("div")),
        make("td", { class: "number" }),
        make("td", { class: "number soft" }),
      ),
    (element, row) => {
      const [label, reason, bar, number, share] = cells(element);
      setText(label.firstElementChild, row.label);
      setAttribute(label.firstElementChild, "class", `badge ${kinds[row.label]}`);
      setText(reason, row.reason === null ? "–" : words(row.reason));
      setAttribute(bar.firstElementChild, "class", `bar ${kinds[row.label]}`);
      bar.firstElementChild.style.setProperty("--share", row.share);
      setText(number, exact(row.count));
      setText(share, percent(row.share));
    },
  );
}

const STEPS = ["verifying", "claiming", "replying", "moving", "deleting"];

/** Where the time goes: in the last seconds, or since the start where nothing was finished lately. */
export function showSteps(statistics, samples) {
  const sample = samples.at(-1) ?? null;
  const order = (name) => (STEPS.includes(name) ? STEPS.indexOf(name) : STEPS.length);
  const named = Object.entries(statistics.steps).sort(([one], [other]) => order(one) - order(other));
  const steps = named.map(([name, whole]) => ({ name, whole, lately: sample?.steps?.[name], past: samples.map((one) => one.steps?.[name]?.p95_seconds) }));
  if (steps.length > 0) steps.push({ name: "receive to delete", whole: statistics.latencies, lately: sample, past: samples.map((one) => one.p95_seconds) });
  setAttribute(byId("steps-none"), "hidden", steps.length > 0);
  keyed(
    byId("steps"),
    steps,
    (step) => step.name,
    () => make("tr", {}, make("th", { scope: "row" }), make("td", { class: "bar-cell" }, draw("svg", { "aria-hidden": "true" })), ...Array.from({ length: 3 }, () => make("td", { class: "number" }))),
    (row, step) => {
      const [name, curve, ...numbers] = cells(row);
      setText(name, words(step.name));
      sparkline(curve.firstElementChild, step.past, "p95");
      const isLate = (step.lately?.p50_seconds ?? null) !== null;
      const values = isLate ? step.lately : step.whole;
      numbers.forEach((cell, index) => {
        setText(cell, latency(values[["p50_seconds", "p95_seconds", "p99_seconds"][index]]));
        setAttribute(cell, "class", `number ${isLate ? "" : "soft"}`);
      });
    },
  );
}

const BAD = new Set(["crash", "storm", "abandoned", "configuration", "node_lost", "stepped_down"]);
const GOOD = new Set(["recovered"]);
const CALM = new Set(["role"]);
export const toneOfIncident = (kind) => (BAD.has(kind) ? "bad" : GOOD.has(kind) ? "good" : CALM.has(kind) ? "calm" : "warn");

const ALL_KINDS = "";
let shownKind = ALL_KINDS;
let shownIncidents = [null, null]; // what was last shown: the overview, and the process

/** One kind at a time can be looked at: a crash is easily lost among what was moved. */
function showKinds(kinds) {
  setAttribute(byId("incident-kinds"), "hidden", kinds.size < 3);
  keyed(
    byId("incident-kinds"),
    kinds,
    ([kind]) => kind,
    ([kind]) =>
      make("button", {
        type: "button",
        on: {
          click: () => {
            shownKind = kind;
            showIncidents(...shownIncidents);
          },
        },
      }),
    (button, [kind, number]) => {
      setText(button, `${kind === ALL_KINDS ? "all" : words(kind)} ${exact(number)}`);
      setAttribute(button, "class", `chip ${kind === ALL_KINDS ? "" : toneOfIncident(kind)}`);
      setAttribute(button, "aria-pressed", String(kind === shownKind));
    },
  );
}

/** The newest first. Alike ones share a name, and are told apart by how many of that name are older. */
export function showIncidents(overview, chosen) {
  const all = overview.incidents.filter((incident) => chosen === null || incident.process === chosen);
  const kinds = new Map([[ALL_KINDS, all.length]]);
  for (const incident of all) kinds.set(incident.kind, (kinds.get(incident.kind) ?? 0) + 1);
  if (!kinds.has(shownKind)) shownKind = ALL_KINDS;
  shownIncidents = [overview, chosen];
  showKinds(kinds);
  const incidents = all.filter((incident) => shownKind === ALL_KINDS || incident.kind === shownKind);
  const older = new Map();
  const rows = [...incidents].reverse().map((incident) => {
    const name = [incident.kind, incident.process, incident.summary].join("\n");
    const index = older.get(name) ?? 0;
    older.set(name, index + 1);
    return { incident, key: `${name}\n${index}` };
  });
  setAttribute(byId("incidents-none"), "hidden", rows.length > 0);
  keyed(
    byId("incidents"),
    rows.reverse(),
    (row) => row.key,
    () =>
      make(
        "li",
        {},
        make(
          "details",
          {},
          make("summary", {}, make("span", { class: "badge" }), make("span", { class: "times" }), make("time"), make("span", { class: "what" })),
          make("div", { class: "story" }, make("p", { class: "facts" }), make("ol")),
        ),
      ),
    (element, { incident }) => {
      const [summary, story] = element.firstElementChild.children;
      const [badge, times, time, what] = summary.children;
      setText(badge, words(incident.kind));
      setAttribute(badge, "class", `badge ${toneOfIncident(incident.kind)}`);
      setText(times, incident.count > 1 ? `×${exact(incident.count)}` : "");
      const ago = overview.at_seconds - incident.at_seconds;
      setText(time, `${duration(ago)} ago`);
      setAttribute(time, "datetime", new Date(incident.at_seconds * 1000).toISOString());
      setText(what, incident.summary);
      const facts = [
        `${incident.count > 1 ? `${plural(incident.count, "time")}, last at` : "At"} ${moment(incident.at_seconds, overview.at_seconds)}`,
        ...(incident.process === "" ? [] : [`process ${incident.process}`]),
        ...(incident.message_id === null ? [] : [`message ${incident.message_id}`]),
      ];
      setText(story.firstElementChild, facts.join(" · "));
      keyed(
        story.lastElementChild,
        incident.story.map((line, index) => ({ line, index })),
        (each) => each.index,
        () => make("li"),
        (line, each) => setText(line, each.line),
      );
    },
  );
}

const work = (seconds) => (seconds < 1 ? "< 1 s" : duration(seconds));

/** The tiles at the top. `sample` is the newest, `samples` those of the last ten minutes. */
export function showFigures({ overview, statistics, processes, sample, samples, restarts, restartedLately }) {
  const aSecond = (value) => (sample === null || !(sample.seconds > 0) ? null : value / sample.seconds);
  const lately = (of) => samples.reduce((sum, one) => sum + of(one), 0);
  const figure = (id, value, below, tone = "") => {
    const tile = byId(id);
    setText(tile.querySelector(".value"), value);
    setText(tile.querySelector(".below"), below);
    setAttribute(tile, "class", `figure card ${tone}`);
  };
  const answeredRate = aSecond(sample?.answered);
  figure("figure-received", decimal(aSecond(sample?.received)), `${count(statistics.received)} in all`);
  figure("figure-answered", decimal(answeredRate), `${count(fateCount(statistics, "answered"))} in all`);
  for (const percentile of ["p50", "p95", "p99"]) setText(byId(percentile), latency(sample?.[`${percentile}_seconds`]));
  const reserved = processes.reduce((sum, process) => sum + process.reserved, 0);
  figure("figure-in-flight", exact(processes.reduce((sum, process) => sum + process.in_flight, 0)), `${exact(reserved)} reserved`);
  const depth = waitingAtSources(overview) ?? sample?.queue_depth ?? null;
  figure("figure-queue", count(depth), depth > 0 && answeredRate > 0 ? `${work(depth / answeredRate)} of work` : overview.source_queues.join(", "));
  const [handedBack, moved] = [lately((one) => one.handed_back), lately((one) => one.moved)];
  figure("figure-handed-back", count(handedBack), "in 10 minutes", handedBack > 0 ? "warn" : "");
  figure("figure-moved", count(moved), "in 10 minutes", moved > 0 ? "bad" : "");
  figure("figure-restarts", exact(restarts), restartedLately ? "a moment ago" : "in all", restartedLately ? "warn" : "");
  setText(byId("figures-at"), sample === null ? "" : clock(sample.at_seconds));
}
