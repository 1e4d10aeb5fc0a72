// The dashboard: follows the system, and shows the newest picture of it.

import { ActorDialog } from "./actor.js";
import { Chart, ChartGroup, sparkline } from "./charts.js";
import { announce, byId, keyed, make, setAttribute, setText } from "./dom.js";
import { clock, decimal, duration, exact, latency, percent, plural } from "./format.js";
import { Growth, sampleOfProcess, stateOf, Trees, waitingAtSources } from "./measures.js";
import { showFigures, showIncidents, showNodes, showProcesses, showQueues, showServices, showSteps, showVerdicts, toneOfState } from "./panels.js";
import { Link, post, Unauthorized, useToken } from "./server.js";
import { TraceForm } from "./trace.js";
import { ActorTree } from "./tree.js";

const STALE_SECONDS = 5; // without news
const HISTORY_SECONDS = 600;
const PROCESS_SAMPLE_SECONDS = 2;
const SPARK_SAMPLES = 60;
const THEME_KEY = "receipt-actors theme";

let overview = null;
let chosen = null; // name of the process that is shown; null: all as one system
let samples = []; // of the whole system
let intervalSeconds = 2;
let processSamples = new Map(); // by name, since the page was opened
let lastProcessLooks = new Map();
let newsAt = null; // performance.now() of the last picture
let lost = null; // {error, until}: why there is none, and when the next attempt is
let announcedState = null;
const growth = new Growth();
let trees = new Trees();

// --- what is shown --------------------------------------------------------------------------------------------------

const tree = new ActorTree(byId("tree"), (node) => actorDialog.open(node));
const rate = (of) => (sample) => (sample.seconds > 0 ? of(sample) / sample.seconds : null);
const charts = new ChartGroup(
  [
    {
      title: "Throughput",
      unit: "messages a second",
      format: decimal,
      smallestTop: 3,
      series: [
        { label: "received", kind: "in", valueOf: rate((sample) => sample.received), hasArea: true },
        { label: "answered", kind: "answered", valueOf: rate((sample) => sample.answered) },
      ],
    },
    {
      title: "Latency",
      unit: "from receive to delete",
      format: latency,
      smallestTop: 0.003,
      series: [
        { label: "p50", kind: "p50", valueOf: (sample) => sample.p50_seconds, hasArea: true },
        { label: "p95", kind: "p95", valueOf: (sample) => sample.p95_seconds },
        { label: "p99", kind: "p99", valueOf: (sample) => sample.p99_seconds },
      ],
    },
    {
      title: "In flight",
      unit: "messages",
      format: exact,
      smallestTop: 3,
      series: [{ label: "in flight", kind: "flight", valueOf: (sample) => sample.in_flight, hasArea: true }],
    },
    {
      title: "Source queue",
      unit: "messages, approximately",
      format: exact,
      smallestTop: 3,
      series: [{ label: "depth", kind: "queue", valueOf: (sample) => sample.queue_depth, hasArea: true }],
    },
    {
      title: "Not answered",
      unit: "messages a second",
      format: decimal,
      smallestTop: 3,
      series: [
        { label: "handed back", kind: "handed-back", valueOf: rate((sample) => sample.handed_back), hasArea: true },
        { label: "dead-lettered", kind: "moved", valueOf: rate((sample) => sample.moved), hasArea: true },
      ],
    },
    {
      title: "CPU",
      unit: "of one core",
      format: percent,
      smallestTop: 0.3,
      series: [{ label: "all processes", kind: "cpu", valueOf: rate((sample) => sample.cpu_seconds), hasArea: true }],
    },
  ].map((definition) => new Chart(byId("charts"), definition)),
);

const MEANINGS = {
  starting: () => "The tree is being started.",
  consuming: () => `Takes messages from ${overview.source_queues.join(", ")} and answers them.`,
  standby: () => `Other nodes take the messages of ${overview.source_queues.join(", ")}: it takes over from one that goes.`,
  waiting: (services) => `${services || (overview.role?.state === "cut off" ? "The table of roles" : "A service")} unavailable: what is in flight is kept, nothing is taken in.`,
  paused: () => "By an operator: what is in flight is finished, nothing is taken in.",
  draining: () => "Ends in good order: what is in flight is finished or handed back.",
  ended: () => "The tree has ended. The last incidents say why.",
};

function render() {
  if (overview === null || document.hidden) return;
  const processes = overview.processes.filter((process) => chosen === null || process.name === chosen);
  const one = chosen === null ? null : (processes[0] ?? null);
  const statistics = one === null ? overview.statistics : one.statistics;
  const state = one === null ? overview.state : stateOf(processes);
  const shown = one === null ? samples : (processSamples.get(chosen) ?? []);
  const sample = shown.at(-1) ?? null;
  showHead(state, processes);
  const roots = trees.update(overview.at_seconds, chosen === null ? overview.parent : null, processes);
  const restarts = roots.reduce((sum, root) => sum + root.below.restarts, 0);
  showFigures({ overview, statistics, processes, sample, samples: shown, restarts, restartedLately: roots.some((root) => root.below.hasRestarted) });
  for (const [id, kind, valueOf] of [
    ["figure-received", "in", rate((each) => each.received)],
    ["figure-answered", "answered", rate((each) => each.answered)],
    ["figure-latency", "p95", (each) => each.p95_seconds],
    ["figure-in-flight", "flight", (each) => each.in_flight],
    ["figure-queue", "queue", (each) => each.queue_depth],
    ["figure-handed-back", "handed-back", rate((each) => each.handed_back)],
    ["figure-moved", "moved", rate((each) => each.moved)],
  ]) {
    sparkline(byId(id).querySelector("svg"), shown.slice(-SPARK_SAMPLES).map(valueOf), kind);
  }
  charts.show(shown, chosen === null ? intervalSeconds : PROCESS_SAMPLE_SECONDS);
  setText(byId("charts-note"), chosen === null ? "" : `of ${chosen}, since this page was opened; latencies since its start`);
  tree.show(roots);
  showServices(overview, processes, statistics, growth);
  showQueues(overview);
  showNodes(overview.role);
  showProcesses(overview, growth, chosen);
  showVerdicts(statistics);
  showSteps(statistics, shown.slice(-SPARK_SAMPLES));
  showIncidents(overview, chosen);
}

function showHead(state, processes) {
  setAttribute(byId("state"), "class", `state ${toneOfState(state)}`);
  setText(byId("state-name"), state);
  const services = [...new Set(processes.flatMap((process) => process.unavailable))].join(", ");
  const meaning = (MEANINGS[state] ?? (() => ""))(services);
  setText(byId("state-meaning"), meaning);
  setText(byId("version"), overview.version);
  const starts = overview.processes.map((process) => process.started_at_seconds).filter((start) => start > 0);
  setText(byId("uptime"), starts.length > 0 ? `up ${duration(overview.at_seconds - Math.min(...starts))}` : "");
  setText(byId("process-count"), plural(overview.processes.length, "process", "processes"));
  document.title = `${state === "consuming" ? "" : `${state.toUpperCase()} · `}receipt_actors`;
  if (announcedState !== null && announcedState !== state) announce(`Now ${state}. ${meaning}`);
  announcedState = state;
  const isPaused = overview.state === "paused";
  const toggle = byId("pause");
  setText(toggle, isPaused ? "Resume consumers" : "Pause consumers");
  setAttribute(toggle, "class", isPaused ? "primary" : null);
  toggle.dataset.action = isPaused ? "resume" : "pause";
  toggle.disabled = ["ended", "draining"].includes(overview.state);
  const chooser = byId("process");
  setAttribute(chooser.parentElement, "hidden", overview.processes.length < 2);
  keyed(
    chooser,
    ["", ...overview.processes.map((process) => process.name)],
    (name) => name,
    (name) => make("option", { value: name, text: name === "" ? "All processes" : name }),
    () => {},
  );
  if (chosen !== null && processes.length === 0) choose(null); // it has ended
}

function choose(name) {
  chosen = name;
  byId("process").value = name ?? "";
  trees = new Trees();
  render();
}

// --- what comes in --------------------------------------------------------------------------------------------------

function takeHistory(data) {
  intervalSeconds = data.interval_seconds;
  samples = data.samples.map(withSeconds);
}

function withSeconds(sample) {
  return { seconds: intervalSeconds, ...sample };
}

function takeOverview({ overview: newest, sample }) {
  const isNews = overview === null || newest.at_seconds > overview.at_seconds;
  overview = newest;
  if (sample !== null && !samples.some((known) => known.at_seconds >= sample.at_seconds)) samples.push(withSeconds(sample));
  samples = samples.filter((each) => each.at_seconds > newest.at_seconds - HISTORY_SECONDS);
  growth.add(newest.at_seconds, countsOf(newest));
  sampleProcesses(newest);
  if (isNews) newsAt = performance.now();
  lost = null;
  setAttribute(byId("loading"), "hidden", true);
  setAttribute(byId("content"), "hidden", false);
  render();
  showFreshness();
}

/** All counts whose growth is shown. */
function countsOf(newest) {
  const counts = new Map();
  const calls = chosen === null ? newest.statistics.calls : (newest.processes.find((process) => process.name === chosen)?.statistics.calls ?? {});
  for (const [service, { requests, entries }] of Object.entries(calls)) {
    counts.set(`requests\n${service}`, requests);
    counts.set(`entries\n${service}`, entries);
  }
  for (const process of newest.processes) counts.set(`cpu\n${process.name}`, process.usage.cpu_seconds);
  if (newest.parent_usage !== null) counts.set("cpu\nparent", newest.parent_usage.cpu_seconds);
  return counts;
}

function sampleProcesses(newest) {
  const [looks, kept] = [new Map(), new Map()];
  for (const process of newest.processes) {
    const before = lastProcessLooks.get(process.name);
    const known = processSamples.get(process.name) ?? [];
    const look = { atSeconds: newest.at_seconds, process };
    // Its successor has its name, and counts from nothing.
    const isSame = before !== undefined && before.process.pid === process.pid;
    const isDue = isSame && newest.at_seconds - before.atSeconds >= PROCESS_SAMPLE_SECONDS - 0.5;
    const depth = waitingAtSources(newest);
    const added = isDue ? [...known, sampleOfProcess(newest.at_seconds, before, process, depth)] : known;
    looks.set(process.name, isSame && !isDue ? before : look);
    kept.set(process.name, added.filter((sample) => sample.at_seconds > newest.at_seconds - HISTORY_SECONDS));
  }
  [lastProcessLooks, processSamples] = [looks, kept];
}

// --- how fresh it is ------------------------------------------------------------------------------------------------

function showFreshness() {
  const age = newsAt === null ? null : (performance.now() - newsAt) / 1000;
  const isStale = age === null ? lost !== null : age > STALE_SECONDS || (lost !== null && age > 1.5);
  const stale = byId("stale");
  if (isStale && stale.hidden) announce("The picture is stale: there is no news from the server.");
  if (!isStale && !stale.hidden) announce("The picture is live again.");
  setAttribute(stale, "hidden", !isStale);
  setAttribute(document.body, "class", isStale ? "is-stale" : null);
  setText(byId("link"), isStale ? "stale" : age === null ? "connecting" : "live");
  setAttribute(byId("link"), "class", `link ${isStale ? "bad" : age === null ? "calm" : "good"}`);
  if (!isStale) return;
  const next = lost === null ? null : Math.max(0, (lost.until - performance.now()) / 1000);
  const why = lost === null ? "the server sends nothing new" : lost.error.message;
  const what = overview === null ? "There is no picture yet" : `This picture is ${duration(age)} old, of ${clock(overview.at_seconds)}`;
  const then = next === null ? "" : next > 0.5 ? ` Trying again in ${Math.ceil(next)} s.` : " Trying again now.";
  setText(byId("stale-text"), `${what}: ${why}.${then}`);
}

function takeLoss({ error, pauseSeconds }) {
  lost = { error, until: performance.now() + pauseSeconds * 1000 };
  showFreshness();
}

// --- who may see it -------------------------------------------------------------------------------------------------

let tokenGiven = () => {};
let tokenAsked = null;

/** Ask for a token; resolves when there is one. Whoever asks meanwhile gets the same answer. */
function askForToken(error) {
  tokenAsked ??= new Promise((resolve) => {
    setText(byId("token-error"), error.message === "this token is refused" ? "The server refuses this token." : "");
    byId("token-dialog").showModal();
    tokenGiven = resolve;
  }).finally(() => {
    tokenAsked = null;
  });
  return tokenAsked;
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value);
  byId("token").value = "";
  byId("token-dialog").close();
  tokenGiven();
});
byId("token-dialog").addEventListener("cancel", (event) => event.preventDefault()); // there is nothing to see without

// --- what can be done -----------------------------------------------------------------------------------------------

const actorDialog = new ActorDialog(askForToken);
new TraceForm(askForToken);

byId("pause").addEventListener("click", () => {
  const action = byId("pause").dataset.action;
  const inFlight = overview.processes.reduce((sum, process) => sum + process.in_flight, 0);
  setText(byId("confirm-title"), action === "pause" ? "Pause the consumers?" : "Resume the consumers?");
  setText(
    byId("confirm-text"),
    action === "pause"
      ? `Nothing more is taken from ${overview.source_queues.join(", ")}, in any process, until somebody resumes. The ${plural(inFlight, "message")} in flight will be finished.${overview.role === null ? "" : " This node stays active: no other takes over."}`
      : `Messages of ${overview.source_queues.join(", ")} are taken in again, in every process.`,
  );
  setText(byId("confirm-yes"), action === "pause" ? "Pause" : "Resume");
  byId("confirm-yes").dataset.action = action;
  setText(byId("confirm-error"), "");
  byId("confirm").showModal();
});
byId("confirm-no").addEventListener("click", () => byId("confirm").close());
byId("confirm-yes").addEventListener("click", async () => {
  const action = byId("confirm-yes").dataset.action;
  try {
    await post(`api/${action}`, {});
    byId("confirm").close();
    announce(action === "pause" ? "The consumers have been paused." : "The consumers have been resumed.");
  } catch (error) {
    if (error instanceof Unauthorized) {
      byId("confirm").close();
      askForToken(error);
    } else {
      setText(byId("confirm-error"), error.message);
    }
  }
});

byId("process").addEventListener("change", (event) => choose(event.target.value === "" ? null : event.target.value));
for (const choice of document.querySelectorAll("input[name=span]")) {
  choice.addEventListener("change", () => {
    charts.spanSeconds = Number(choice.value);
  });
}

const theme = byId("theme");
theme.value = document.documentElement.dataset.theme ?? "auto";
theme.addEventListener("change", () => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  try {
    localStorage.setItem(THEME_KEY, theme.value);
  } catch {
    // no storage: it holds until the page is left
  }
});

const link = new Link({ history: takeHistory, overview: takeOverview, lost: takeLoss, unauthorized: askForToken });
byId("stale-retry").addEventListener("click", () => link.retryNow());
window.addEventListener("online", () => link.retryNow());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  link.retryNow();
  render();
});
setInterval(showFreshness, 500);
link.run();
