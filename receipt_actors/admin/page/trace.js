// Tracing: filters, and a table of the events that match them, until there are enough or the time is over.

import { announce, byId, make, setAttribute, setText } from "./dom.js";
import { clock, plural, words } from "./format.js";
import { events, post, Refused, Unauthorized } from "./server.js";

const MOST_ROWS = 500;
const ENDS = { limit: "as many as were asked for", seconds: "the time is over", system: "the system has ended" };

export class TraceForm {
  #form = byId("trace-form");
  #quit = null; // of the trace that runs
  #onUnauthorized;

  constructor(onUnauthorized) {
    this.#onUnauthorized = onUnauthorized;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#quit === null) this.#run();
    });
    byId("trace-stop").addEventListener("click", () => this.#quit?.abort());
    for (const example of document.querySelectorAll("[data-filters]")) {
      example.addEventListener("click", () => {
        const values = JSON.parse(example.dataset.filters);
        for (const input of this.#filters()) input.value = values[input.name] ?? "";
        byId("trace-start").focus();
      });
    }
  }

  async #run() {
    const quit = (this.#quit = new AbortController());
    const rows = byId("trace-events");
    rows.replaceChildren();
    this.#show(true, "Tracing…", "");
    let seen = 0;
    let end = null;
    try {
      const response = await post("api/trace", this.#request(), quit.signal);
      for await (const { event, data } of events(response)) {
        if (event === "end") end = data;
        if (event !== "trace") continue;
        seen += 1;
        rows.prepend(traceRow(data));
        if (rows.childElementCount > MOST_ROWS) rows.lastElementChild.remove();
        setText(byId("trace-status"), `Tracing… ${plural(seen, "event")} so far`);
      }
      this.#show(false, end === null ? `${plural(seen, "event")}; the connection was closed` : ended(end), "");
    } catch (error) {
      if (quit.signal.aborted) this.#show(false, `${plural(seen, "event")}; stopped here`, "");
      else if (error instanceof Unauthorized) {
        this.#show(false, "", "");
        this.#onUnauthorized(error);
      } else {
        const reason = error instanceof Refused ? error.message : `the connection was lost: ${error.message}`;
        this.#show(false, seen > 0 ? plural(seen, "event") : "", reason);
      }
    } finally {
      quit.abort();
      this.#quit = null;
    }
  }

  #filters() {
    return this.#form.querySelectorAll("input[name]");
  }

  #request() {
    const filters = {};
    for (const { name, value } of this.#filters()) {
      const values = value.split(",").map((each) => each.trim());
      filters[name] = values.filter((each) => each !== "");
    }
    return {
      filters,
      limit: byId("trace-limit").valueAsNumber,
      seconds: byId("trace-seconds").valueAsNumber,
    };
  }

  #show(isRunning, status, error) {
    setText(byId("trace-status"), status);
    setText(byId("trace-error"), error);
    for (const input of this.#filters()) setAttribute(input, "aria-invalid", error === "" ? null : "true");
    byId("trace-start").disabled = isRunning;
    byId("trace-stop").disabled = !isRunning;
    setAttribute(byId("trace-table"), "hidden", !isRunning && byId("trace-events").childElementCount === 0);
    announce(status);
  }
}

function ended({ reason, events: number, lost }) {
  return `${plural(number, "event")}; ended: ${ENDS[reason] ?? words(reason)}${lost > 0 ? `; ${lost} more were lost, they came too fast` : ""}`;
}

function traceRow(fields) {
  const { at_seconds: at, event } = fields;
  const time = typeof at === "number" ? `${clock(at)}.${String(Math.floor((at % 1) * 1000)).padStart(3, "0")}` : "";
  const about = "actor" in fields ? "actor" : "message_id"; // an actor's event, or one of a message
  const columns = ["at_seconds", "event", about];
  const rest = Object.entries(fields).filter(([name, value]) => !columns.includes(name) && value !== null);
  return make(
    "tr",
    {},
    make("td", { class: "mono", text: time }),
    make("td", { class: "event", text: words(event ?? "") }),
    make("td", { class: "mono", text: fields[about] ?? "" }),
    make("td", { class: "fields" }, ...rest.map(([name, value]) => field(name, value))),
  );
}

const field = (name, value) =>
  make(
    "span",
    { class: "field" },
    make("span", { class: "soft", text: words(name) }),
    make("span", { class: "mono", text: shown(value) }),
  );

function shown(value) {
  if (typeof value === "string") return value;
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : JSON.stringify(value);
}
