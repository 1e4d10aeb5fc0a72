// What an actor holds, in a dialog: read when it is opened, and when asked again.

import { byId, make, setText } from "./dom.js";
import { clock, exact, plural } from "./format.js";
import { get, Unauthorized } from "./server.js";

const DEEPEST_OPEN = 2;

export class ActorDialog {
  #dialog = byId("actor");
  #node = null;
  #onUnauthorized;
  #question = 0; // the newest; an answer to an older one comes too late

  constructor(onUnauthorized) {
    this.#onUnauthorized = onUnauthorized;
    byId("actor-refresh").addEventListener("click", () => this.#ask());
    byId("actor-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside it
    });
  }

  open(node) {
    this.#node = node;
    setText(byId("actor-name"), node.name);
    byId("actor-state").replaceChildren();
    setText(byId("actor-error"), "");
    this.#dialog.showModal();
    this.#ask();
  }

  async #ask() {
    const node = this.#node;
    const question = ++this.#question;
    setText(byId("actor-facts"), "Asking…");
    try {
      const state = await get(`api/actors/${encodeURIComponent(node.name)}`);
      if (question !== this.#question) return;
      const facts = [node.kind, node.status, `mailbox ${exact(node.mailbox)}`, plural(node.restarts, "restart"), `asked at ${clock(Date.now() / 1000)}`];
      setText(byId("actor-facts"), facts.join(" · "));
      setText(byId("actor-error"), "");
      byId("actor-state").replaceChildren(...entries(state, 1));
    } catch (error) {
      if (question !== this.#question) return;
      setText(byId("actor-facts"), "");
      if (error instanceof Unauthorized) {
        this.#dialog.close();
        this.#onUnauthorized(error);
      } else {
        setText(byId("actor-error"), error.message);
      }
    }
  }
}

/** Show a value of JSON's: objects and arrays can be folded, what is deep is folded at first. */
function entries(value, depth) {
  return Object.entries(value).map(([key, each]) => {
    if (each === null || typeof each !== "object") {
      return make("div", { class: "entry" }, make("span", { class: "key", text: key }), make("span", { class: `leaf ${typeof each}`, text: leaf(each) }));
    }
    const size = Object.keys(each).length;
    const hint = Array.isArray(each) ? `[${size}]` : `{${size}}`;
    if (size === 0) return make("div", { class: "entry" }, make("span", { class: "key", text: key }), make("span", { class: "leaf", text: hint }));
    const details = make("details", { class: "entry", open: depth <= DEEPEST_OPEN }, make("summary", {}, make("span", { class: "key", text: key }), make("span", { class: "soft", text: hint })));
    details.append(...entries(each, depth + 1));
    return details;
  });
}

const leaf = (value) => (typeof value === "string" ? value : JSON.stringify(value));
