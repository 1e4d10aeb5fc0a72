// The supervision tree as a tree of ARIA's: one tab stop, arrow keys, Enter for an actor's state.

import { keyed, make, setAttribute, setText } from "./dom.js";
import { decimal, exact, plural } from "./format.js";

const STRATEGIES = {
  one_for_one: "one for one",
  one_for_all: "one for all",
  rest_for_one: "rest for one",
  simple_one_for_one: "simple",
};

export class ActorTree {
  #element;
  #onOpen;
  #roots = [];
  #rows = []; // what is visible, top to bottom
  #toggled = new Map(); // path -> whether it is expanded, where somebody said so
  #current = null; // path of the row that has the tab stop
  #typed = "";
  #typedAt = 0;

  constructor(element, onOpen) {
    [this.#element, this.#onOpen] = [element, onOpen];
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("click", (event) => this.#click(event));
    element.addEventListener("focusin", (event) => {
      const row = event.target.closest("[role=treeitem]");
      if (row !== null) this.#select(row.node.path);
    });
  }

  show(roots) {
    this.#roots = roots;
    this.#render();
  }

  #render() {
    this.#rows = this.#roots.flatMap((root, index) => [...this.#visible(root, 1, index, this.#roots.length, null)]);
    const hadFocus = this.#element.contains(document.activeElement);
    const isThere = (path) => this.#rows.some((row) => row.node.path === path);
    // Whose row is gone, short-lived as it was, is with its supervisor now.
    while (this.#current !== null && !isThere(this.#current)) this.#current = supervisorOf(this.#current);
    this.#current ??= this.#rows[0]?.node.path ?? null;
    keyed(this.#element, this.#rows, (row) => row.node.path, createRow, (element, row) => this.#update(element, row));
    if (hadFocus && !this.#element.contains(document.activeElement)) this.#focus(this.#rows.find((row) => row.node.path === this.#current));
  }

  *#visible(node, level, index, size, parent) {
    const hasChildren = node.children.length > 0 || node.unlisted > 0;
    const row = { node, level, position: index + 1, size, parent, hasChildren, isExpanded: hasChildren && this.#isExpanded(node) };
    yield row;
    if (!row.isExpanded) return;
    for (const [position, child] of node.children.entries()) {
      yield* this.#visible(child, level + 1, position, node.children.length, node.path);
    }
    if (node.unlisted > 0) yield { level: level + 1, parent: node.path, isMore: true, node: { path: `${node.path}\n…`, unlisted: node.unlisted } };
  }

  /** A supervisor of short-lived actors shows how many there are, and which only to who asks. */
  #isExpanded(node) {
    return this.#toggled.get(node.path) ?? (node.strategy !== "simple_one_for_one" || node.children.length + node.unlisted <= 3);
  }

  #update(element, row) {
    element.node = row.node;
    element.row = row;
    element.style.setProperty("--level", row.level);
    setAttribute(element, "aria-level", row.level);
    setAttribute(element, "tabindex", row.node.path === this.#current ? "0" : "-1");
    const [twisty, light, name, badge, mailbox, restarts, rate] = element.children;
    if (row.isMore) {
      setAttribute(element, "class", "row more");
      setText(name, `and ${exact(row.node.unlisted)} more`);
      return;
    }
    const { node } = row;
    const isFolded = row.hasChildren && !row.isExpanded;
    // A folded row speaks for all that it hides.
    const shown = isFolded
      ? node.below
      : { mailbox: node.mailbox, restarts: node.restarts, rate: node.rate, isGrowing: node.isGrowing, hasRestarted: node.hasRestarted, isTroubled: node.status !== "running" };
    setAttribute(element, "aria-posinset", row.position);
    setAttribute(element, "aria-setsize", row.size);
    setAttribute(element, "aria-expanded", row.hasChildren ? String(row.isExpanded) : null);
    setAttribute(element, "aria-selected", row.node.path === this.#current ? "true" : "false");
    setAttribute(element, "class", `row ${node.kind}${isFolded ? " folded" : ""}${shown.isTroubled ? " troubled" : ""}`);
    setAttribute(twisty, "class", row.hasChildren ? "twisty" : "twisty none");
    setAttribute(light, "class", `light ${shown.isTroubled ? "bad" : shown.hasRestarted || shown.isGrowing ? "warn" : "good"}`);
    setText(name, node.of > 1 ? `${node.name} ×${node.of}` : node.name);
    const counted = isFolded ? plural(node.below.actors, "actor") : (STRATEGIES[node.strategy] ?? node.strategy ?? "");
    setText(badge, node.status === "running" ? counted : node.status);
    setAttribute(badge, "class", node.status === "running" ? "badge" : "badge bad");
    setText(mailbox, shown.isGrowing ? `↑ ${exact(shown.mailbox)}` : exact(shown.mailbox));
    setAttribute(mailbox, "class", `number ${shown.isGrowing ? "warn" : shown.mailbox === 0 ? "zero" : ""}`);
    setText(restarts, exact(shown.restarts));
    setAttribute(restarts, "class", `number ${shown.hasRestarted ? "warn flash" : shown.restarts === 0 ? "zero" : ""}`);
    setText(rate, decimal(shown.rate));
    setAttribute(rate, "class", `number ${shown.rate ? "" : "zero"}`);
    const said = [
      node.of > 1 ? `${node.name}, in ${node.of} processes` : node.name,
      node.kind,
      node.status,
      `mailbox ${exact(shown.mailbox)}${shown.isGrowing ? " and growing" : ""}`,
      plural(shown.restarts, "restart") + (shown.hasRestarted ? ", the last a moment ago" : ""),
      `${decimal(shown.rate)} messages a second`,
      ...(isFolded ? [`${plural(node.below.actors, "actor")} below`] : []),
    ];
    setAttribute(element, "aria-label", said.join(", "));
  }

  #select(path) {
    if (this.#current === path) return;
    this.#current = path;
    for (const element of this.#element.children) {
      setAttribute(element, "tabindex", element.node.path === path ? "0" : "-1");
      if (!element.row.isMore) setAttribute(element, "aria-selected", String(element.node.path === path));
    }
  }

  #focus(row) {
    if (row === undefined) return;
    this.#select(row.node.path);
    [...this.#element.children].find((element) => element.node.path === row.node.path)?.focus();
  }

  #toggle(row, isExpanded) {
    this.#toggled.set(row.node.path, isExpanded);
    this.#render();
  }

  #click(event) {
    const element = event.target.closest("[role=treeitem]");
    if (element === null || element.row.isMore) return;
    if (event.target.closest(".twisty") !== null && element.row.hasChildren) this.#toggle(element.row, !element.row.isExpanded);
    else this.#onOpen(element.node);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const index = this.#rows.findIndex((row) => row.node.path === this.#current);
    const row = this.#rows[index];
    if (row === undefined) return;
    const actions = {
      ArrowDown: () => this.#focus(this.#rows[index + 1]),
      ArrowUp: () => this.#focus(this.#rows[index - 1]),
      Home: () => this.#focus(this.#rows[0]),
      End: () => this.#focus(this.#rows.at(-1)),
      ArrowRight: () => (row.hasChildren && !row.isExpanded ? this.#toggle(row, true) : row.hasChildren && this.#focus(this.#rows[index + 1])),
      ArrowLeft: () =>
        row.isExpanded ? this.#toggle(row, false) : this.#focus(this.#rows.find((other) => other.node.path === row.parent)),
      Enter: () => !row.isMore && this.#onOpen(row.node),
      " ": () => !row.isMore && this.#onOpen(row.node),
      "*": () => this.#rows.filter((other) => other.parent === row.parent && other.hasChildren).forEach((other) => this.#toggle(other, true)),
    };
    if (event.key in actions) {
      this.#typed = "";
      actions[event.key]();
    } else if (event.key.length === 1) this.#find(event, index);
    else return;
    event.preventDefault();
  }

  /** Type ahead: the next row whose name begins so. */
  #find(event, index) {
    this.#typed = event.timeStamp - this.#typedAt < 700 ? this.#typed + event.key.toLowerCase() : event.key.toLowerCase();
    this.#typedAt = event.timeStamp;
    const from = this.#typed.length > 1 ? index : index + 1;
    const rows = [...this.#rows.slice(from), ...this.#rows.slice(0, from)];
    this.#focus(rows.find((row) => row.node.name?.toLowerCase().startsWith(this.#typed)));
  }
}

function supervisorOf(path) {
  const end = path.lastIndexOf("\n");
  return end < 0 ? null : path.slice(0, end);
}

function createRow() {
  return make(
    "div",
    { role: "treeitem" },
    make("span", { class: "twisty", "aria-hidden": "true" }),
    make("span", { class: "light" }),
    make("span", { class: "name" }),
    make("span", { class: "badge" }),
    make("span", { class: "number" }),
    make("span", { class: "number" }),
    make("span", { class: "number" }),
  );
}
