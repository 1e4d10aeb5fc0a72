// Curves over the last minutes, drawn as SVG. One cursor for all of them: whoever looks at a peak in one sees the same
// moment in the others.

import { draw, keyed, make, setAttribute, setText } from "./dom.js";
import { clock, minute } from "./format.js";

const HEIGHT = 150;
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 8, 8, 20];
const LINES = 3;
const GAP_INTERVALS = 2.6; // from here on there is a hole in the curve

/** The charts that share their samples, their time span and their cursor. */
export class ChartGroup {
  #charts;
  #samples = [];
  #spanSeconds = 300;
  #intervalSeconds = 2;
  #cursor = null; // time of the sample that is read out; null: the newest

  constructor(charts) {
    this.#charts = charts;
    for (const chart of charts) {
      chart.onCursor = (atSeconds) => this.#moveCursor(atSeconds);
      chart.onStep = (step) => this.#stepCursor(step);
    }
    const resized = new ResizeObserver(() => this.render());
    charts.forEach((chart) => resized.observe(chart.element));
  }

  show(samples, intervalSeconds) {
    this.#samples = samples;
    this.#intervalSeconds = intervalSeconds;
    this.render();
  }

  set spanSeconds(seconds) {
    this.#spanSeconds = seconds;
    this.render();
  }

  render() {
    const newest = this.#samples.at(-1)?.at_seconds ?? 0;
    const from = newest - this.#spanSeconds;
    const visible = this.#samples.filter((sample) => sample.at_seconds >= from);
    if (this.#cursor !== null && this.#cursor < from) this.#cursor = null;
    const shown = { samples: visible, from, to: newest, intervalSeconds: this.#intervalSeconds, cursor: this.#cursor };
    this.#charts.forEach((chart) => chart.render(shown));
  }

  #moveCursor(atSeconds) {
    const nearest = atSeconds === null ? null : nearestTo(this.#samples, atSeconds);
    if (nearest === this.#cursor) return;
    this.#cursor = nearest;
    this.render();
  }

  #stepCursor(step) {
    const visible = this.#samples.filter((sample) => sample.at_seconds >= this.#samples.at(-1).at_seconds - this.#spanSeconds);
    if (visible.length === 0) return;
    const now = this.#cursor === null ? visible.length - 1 : visible.findIndex((sample) => sample.at_seconds >= this.#cursor);
    const next = Math.min(visible.length - 1, Math.max(0, now + step));
    this.#cursor = next === visible.length - 1 ? null : visible[next].at_seconds;
    this.render();
  }
}

function nearestTo(samples, atSeconds) {
  let nearest = null;
  for (const sample of samples) {
    if (nearest === null || Math.abs(sample.at_seconds - atSeconds) < Math.abs(nearest - atSeconds)) nearest = sample.at_seconds;
  }
  return nearest;
}

/** One chart: `series` are {label, kind, valueOf(sample)}, `kind` is the class that gives the colour. */
export class Chart {
  onCursor = () => {};
  onStep = () => {};
  #title;
  #series;
  #format;
  #smallestTop;
  #shown = null;
  #svg;
  #legend;
  #time;

  constructor(container, { title, unit, series, format, smallestTop = 1 }) {
    [this.#title, this.#series, this.#format, this.#smallestTop] = [title, series, format, smallestTop];
    this.#legend = make("dl", { class: "legend" });
    this.#time = make("span", { class: "chart-time" });
    this.#svg = draw("svg", { class: "curves", "aria-hidden": "true", focusable: "false" });
    this.element = make(
      "div",
      { class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}: read out`, "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0" },
      this.#svg,
    );
    container.append(
      make(
        "figure",
        { class: "card chart" },
        make("figcaption", {}, make("span", { class: "chart-title", text: title }), make("span", { class: "unit", text: unit }), this.#time),
        this.#legend,
        this.element,
      ),
    );
    this.#listen();
  }

  #listen() {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.onCursor(null);
      else if (event.key in steps) this.onStep(steps[event.key]);
      else return;
      event.preventDefault();
    });
    this.element.addEventListener("blur", () => this.onCursor(null));
    this.element.addEventListener("pointermove", (event) => this.onCursor(this.#timeAt(event.clientX)));
    this.element.addEventListener("pointerdown", (event) => this.onCursor(this.#timeAt(event.clientX)));
    this.element.addEventListener("pointerleave", () => this.onCursor(null));
  }

  #timeAt(clientX) {
    if (this.#shown === null || this.#shown.samples.length === 0) return null;
    const { left, width } = this.element.getBoundingClientRect();
    const share = (clientX - left - LEFT) / Math.max(1, width - LEFT - RIGHT);
    return this.#shown.from + share * (this.#shown.to - this.#shown.from);
  }

  render(shown) {
    this.#shown = shown;
    const { samples, from, to, cursor } = shown;
    const read = samples.find((sample) => sample.at_seconds === cursor) ?? samples.at(-1) ?? null;
    this.#readOut(read, cursor !== null && read !== null);
    const width = Math.max(120, Math.floor(this.element.clientWidth));
    setAttribute(this.#svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    const top = niceTop(Math.max(this.#smallestTop, ...samples.flatMap((sample) => this.#series.map((one) => one.valueOf(sample) ?? 0))));
    const x = (atSeconds) => LEFT + ((atSeconds - from) / Math.max(1, to - from)) * (width - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
    const parts = [...this.#grid(top, y, width), ...timeMarks(from, to, x, width)];
    for (const one of this.#series) parts.push(...this.#curve(one, x, y));
    if (read !== null) parts.push(...this.#marks(read, cursor !== null, x, y));
    this.#svg.replaceChildren(...parts);
  }

  #readOut(sample, isPast) {
    keyed(
      this.#legend,
      this.#series,
      (one) => one.label,
      (one) => make("div", {}, make("dt", {}, make("i", { class: `swatch ${one.kind}` }), one.label), make("dd")),
      (row, one) => setText(row.lastElementChild, this.#format(sample === null ? null : one.valueOf(sample))),
    );
    setText(this.#time, isPast ? clock(sample.at_seconds) : "");
    const samples = this.#shown.samples;
    const index = sample === null ? 0 : samples.indexOf(sample);
    const said = this.#series.map((one) => `${one.label} ${this.#format(sample === null ? null : one.valueOf(sample))}`).join(", ");
    setAttribute(this.element, "aria-valuemax", Math.max(0, samples.length - 1));
    setAttribute(this.element, "aria-valuenow", index);
    setAttribute(this.element, "aria-valuetext", sample === null ? "nothing yet" : `${clock(sample.at_seconds)}: ${said}`);
  }

  #grid(top, y, width) {
    return Array.from({ length: LINES + 1 }, (_, index) => {
      const value = (top * index) / LINES;
      return draw(
        "g",
        { class: index === 0 ? "axis base" : "axis" },
        draw("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
        draw("text", { x: LEFT - 8, y: y(value) + 3.5, "text-anchor": "end", text: this.#format(value) }),
      );
    });
  }

  #curve(one, x, y) {
    const pieces = [];
    let piece = [];
    let last = null;
    for (const sample of this.#shown.samples) {
      const value = one.valueOf(sample);
      const isHole = last !== null && sample.at_seconds - last > this.#shown.intervalSeconds * GAP_INTERVALS;
      if ((value === null || value === undefined || isHole) && piece.length > 0) {
        pieces.push(piece);
        piece = [];
      }
      if (value !== null && value !== undefined) piece.push([x(sample.at_seconds), y(value)]);
      last = sample.at_seconds;
    }
    if (piece.length > 0) pieces.push(piece);
    return pieces.flatMap((points) => {
      const line = points.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L");
      const area = `M${points[0][0].toFixed(1)} ${y(0)}L${line}L${points.at(-1)[0].toFixed(1)} ${y(0)}Z`;
      const drawn = [draw("path", { class: `line ${one.kind}`, d: `M${line}` })];
      if (one.hasArea) drawn.unshift(draw("path", { class: `area ${one.kind}`, d: area }));
      return drawn;
    });
  }

  #marks(sample, isPast, x, y) {
    const at = x(sample.at_seconds);
    const marks = this.#series
      .filter((one) => (one.valueOf(sample) ?? null) !== null)
      .map((one) => draw("circle", { class: `dot ${one.kind}`, cx: at, cy: y(one.valueOf(sample)), r: 3 }));
    if (isPast) marks.unshift(draw("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    return marks;
  }
}

function timeMarks(from, to, x, width) {
  if (to === 0) return [];
  const step = [15, 30, 60, 120, 300].find((seconds) => ((to - from) / seconds) * 64 < width - LEFT) ?? 300;
  const marks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const label = step < 60 ? clock(at) : minute(at);
    if (x(at) > LEFT + 14 && x(at) < width - 18) {
      marks.push(draw("text", { class: "time", x: x(at), y: HEIGHT - 5, "text-anchor": "middle", text: label }));
    }
  }
  return marks;
}

/** The next number that thirds of an axis are easy to read with. */
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1.2, 1.5, 3, 6, 9, 12].find((factor) => factor * power >= value) * power;
}

/** A curve without axes, for a figure. */
export function sparkline(svg, values, kind) {
  const [width, height] = [120, 32];
  const known = values.filter((value) => value !== null && value !== undefined);
  setAttribute(svg, "viewBox", `0 0 ${width} ${height}`);
  setAttribute(svg, "preserveAspectRatio", "none");
  if (known.length < 2) {
    svg.replaceChildren();
    return;
  }
  const top = Math.max(...known) || 1;
  const step = width / (known.length - 1);
  const points = known
    .map((value, index) => [index * step, height - 2 - (value / top) * (height - 6)])
    .map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`);
  svg.replaceChildren(
    draw("path", { class: `area ${kind}`, d: `M0 ${height}L${points.join("L")}L${width} ${height}Z` }),
    draw("path", { class: `line ${kind}`, d: `M${points.join("L")}`, "vector-effect": "non-scaling-stroke" }),
  );
}
