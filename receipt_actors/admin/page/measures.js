// What the overviews say when they are put side by side: rates, sums over processes, and what has just changed. Pure.

export const RATE_SECONDS = 5; // over which rates of actors and services are taken
const RECENT_RESTART_SECONDS = 60;
const GROWING_LOOKS = 4; // a mailbox that only became longer over so many looks is growing
const GROWING_LENGTH = 10; // from here on

/** Counts as they were lately, by key, to tell how fast they grow. */
export class Growth {
  #past = new Map();

  /** Take the newest counts, a Map; what is no longer among them is forgotten. */
  add(atSeconds, counts) {
    const past = new Map();
    for (const [key, value] of counts) {
      const former = this.#past.get(key) ?? [];
      const newest = former.at(-1);
      // A count that fell is that of a successor: it begins anew.
      const kept = newest !== undefined && value < newest[1] ? [] : former.filter(([at]) => at > atSeconds - RATE_SECONDS - 1);
      if (newest === undefined || newest[0] < atSeconds) kept.push([atSeconds, value]);
      past.set(key, kept);
    }
    this.#past = past;
  }

  /** How much a count grew, and in how many seconds; null where that is not known yet. */
  of(key) {
    const points = this.#past.get(key) ?? [];
    if (points.length < 2) return null;
    const [first, last] = [points[0], points.at(-1)];
    return { grown: last[1] - first[1], seconds: last[0] - first[0] };
  }

  aSecond(key) {
    const growth = this.of(key);
    return growth === null ? null : growth.grown / growth.seconds;
  }
}

/** How many messages had this fate. */
export const fateCount = (statistics, fate) =>
  statistics.fates.filter((row) => row.fate === fate).reduce((sum, row) => sum + row.count, 0);

/** The sample of one process between two looks at it, in the form of the server's samples. */
export function sampleOfProcess(atSeconds, before, process, sourceDepth) {
  const seconds = atSeconds - before.atSeconds;
  const grown = (count) => Math.max(0, count(process.statistics) - count(before.process.statistics));
  return {
    at_seconds: atSeconds,
    seconds,
    received: grown((statistics) => statistics.received),
    answered: grown((statistics) => fateCount(statistics, "answered")),
    handed_back: grown((statistics) => fateCount(statistics, "handed_back")),
    moved: grown((statistics) => fateCount(statistics, "moved")),
    in_flight: process.in_flight,
    p50_seconds: process.statistics.latencies.p50_seconds,
    p95_seconds: process.statistics.latencies.p95_seconds,
    p99_seconds: process.statistics.latencies.p99_seconds,
    cpu_seconds: Math.max(0, process.usage.cpu_seconds - before.process.usage.cpu_seconds),
    queue_depth: sourceDepth,
  };
}

/** What several processes say of the same service, as one. */
export function servicesOf(processes) {
  const services = new Map();
  for (const process of processes) {
    for (const service of process.services) {
      const sum = services.get(service.name) ?? { name: service.name, unavailable: [], waiting: 0, underWay: 0, retries: 0, of: 0 };
      sum.of += 1;
      if (!service.is_available) sum.unavailable.push({ process: process.name, since: service.unavailable_since_seconds });
      sum.waiting += service.waiting;
      sum.underWay += service.under_way;
      sum.retries += service.retries;
      services.set(service.name, sum);
    }
  }
  return services;
}

/** The state of several processes: the one that most needs to be known. */
export function stateOf(processes) {
  const states = new Set(processes.map((process) => process.state));
  const order = ["ended", "draining", "starting", "paused", "waiting", "consuming", "standby"];
  return order.find((state) => states.has(state)) ?? (states.size > 0 ? "consuming" : "starting");
}

/**
 * The trees of actors as the page shows them: those of several processes as one, with what they do now and what has
 * lately become of them.
 */
export class Trees {
  #messages = new Growth();
  #mailboxes = new Map(); // path -> the last lengths
  #restarts = new Map(); // path -> {count, at}: how many, and when there last were more

  /** Return the roots: that of the parent, if there is one, and that of the processes. */
  update(atSeconds, parent, processes) {
    const roots = [];
    if (parent !== null) roots.push(merge("parent", [["parent", parent]]));
    const trees = processes.filter((process) => process.tree !== null).map((process) => [process.name, process.tree]);
    if (trees.length > 0) roots.push(merge("system", trees));
    const all = roots.flatMap((root) => [...descendants(root)]);
    this.#messages.add(atSeconds, new Map(all.flatMap((node) => node.messages)));
    const [mailboxes, restarts] = [new Map(), new Map()];
    for (const node of all) {
      node.rate = sumOfKnown(node.messages.map(([path]) => this.#messages.aSecond(path)));
      const lengths = [...(this.#mailboxes.get(node.path) ?? []), node.mailbox].slice(-GROWING_LOOKS);
      mailboxes.set(node.path, lengths);
      node.isGrowing = node.mailbox >= GROWING_LENGTH && lengths.length === GROWING_LOOKS && rises(lengths);
      const known = this.#restarts.get(node.path);
      const last = { count: node.restarts, at: known?.at ?? null };
      if (known !== undefined && node.restarts > known.count) last.at = atSeconds;
      restarts.set(node.path, last);
      node.hasRestarted = last.at !== null && atSeconds - last.at < RECENT_RESTART_SECONDS;
    }
    [this.#mailboxes, this.#restarts] = [mailboxes, restarts];
    roots.forEach(sumUp);
    return roots;
  }
}

const rises = (lengths) => lengths.at(-1) > lengths[0] && lengths.every((length, index) => index === 0 || length >= lengths[index - 1]);

function sumOfKnown(values) {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0);
}

function merge(path, actors) {
  const [, first] = actors[0];
  const children = new Map();
  for (const [process, actor] of actors) {
    for (const child of actor.children) {
      if (!children.has(child.name)) children.set(child.name, []);
      children.get(child.name).push([process, child]);
    }
  }
  const sum = (of) => actors.reduce((total, [, actor]) => total + of(actor), 0);
  return {
    path,
    name: first.name,
    kind: first.kind,
    strategy: first.strategy,
    status: actors.map(([, actor]) => actor.status).find((status) => status !== "running") ?? "running",
    of: actors.length,
    mailbox: sum((actor) => actor.mailbox_length),
    restarts: sum((actor) => actor.restarts),
    messages: actors.map(([process, actor]) => [`${process}\n${path}`, actor.messages]),
    unlisted: sum((actor) => actor.children_unlisted),
    children: [...children].map(([name, named]) => merge(`${path}\n${name}`, named)),
  };
}

function* descendants(node) {
  yield node;
  for (const child of node.children) yield* descendants(child);
}

/** What a row says for all below it while it is collapsed. */
function sumUp(node) {
  node.children.forEach(sumUp);
  const each = (of, own) => node.children.reduce((total, child) => total + of(child), own);
  node.below = {
    actors: each((child) => child.below.actors + 1, node.unlisted),
    mailbox: each((child) => child.below.mailbox, node.mailbox),
    restarts: each((child) => child.below.restarts, node.restarts),
    rate: each((child) => child.below.rate, node.rate ?? 0),
    isGrowing: node.isGrowing || node.children.some((child) => child.below.isGrowing),
    hasRestarted: node.hasRestarted || node.children.some((child) => child.below.hasRestarted),
    isTroubled: node.status !== "running" || node.children.some((child) => child.below.isTroubled),
  };
}

/** About how many messages wait on all source queues; null where it is not known of one of them. */
export function waitingAtSources(overview) {
  const depths = overview.source_queues.map((queue) => overview.queues[queue] ?? null);
  return depths.includes(null) ? null : depths.reduce((sum, depth) => sum + depth, 0);
}
