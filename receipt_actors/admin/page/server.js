// The admin port, as seen from the page: requests with the token, and the stream of events that never gives up.

const TOKEN_KEY = "receipt-actors token";
const FIRST_PAUSE_SECONDS = 0.5;
const LONGEST_PAUSE_SECONDS = 15;
const SILENCE_SECONDS = 15; // then the connection is taken for dead, whatever the browser thinks of it

let token = stored();

function stored() {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null; // no storage here: the token lives as long as the page
  }
}

export function useToken(value) {
  token = value;
  try {
    sessionStorage.setItem(TOKEN_KEY, value);
  } catch {
    // see above
  }
}

/** The server wants a token, or another one. */
export class Unauthorized extends Error {}

/** The server said no, and why. */
export class Refused extends Error {}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  if (response.ok) return response;
  if (response.status === 401) throw new Unauthorized(token === null ? "a token is needed" : "this token is refused");
  throw new Refused(await reason(response));
}

async function reason(response) {
  const fallback = `the server answered ${response.status} ${response.statusText}`.trim();
  try {
    const { error } = await response.json();
    return typeof error === "string" ? error : fallback;
  } catch {
    return fallback;
  }
}

/** Whole numbers that JavaScript has to round (a user's id has up to 64 bits) stay as their digits. */
const exactly = (_key, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) ? (context?.source ?? value) : value;

export const get = async (path) => JSON.parse(await (await request(path)).text(), exactly);

export const post = (path, body, signal) =>
  request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });

/** Read server-sent events from a response, each as {event, data}. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = "";
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) yield { event: event || "message", data: JSON.parse(data.join("\n"), event === "trace" ? exactly : undefined) };
        event = "";
        data = [];
      } else {
        const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "event") event = text;
        else if (field === "data") data.push(text);
      }
    }
  }
}

/**
 * The stream of overviews: connects, and again whenever it is lost, with longer and longer pauses.
 *
 * `listener` has `history(data)`, `overview(data)`, `lost({error, pauseSeconds})` and `unauthorized(error)`, which
 * resolves when there is another token.
 */
export class Link {
  #listener;
  #failures = 0;
  #hurry = () => {};

  constructor(listener) {
    this.#listener = listener;
  }

  /** Don't wait for the pause to be over. */
  retryNow() {
    this.#hurry();
  }

  async run() {
    for (;;) {
      try {
        await this.#follow();
      } catch (error) {
        if (error instanceof Unauthorized) {
          await this.#listener.unauthorized(error);
          continue;
        }
        await this.#pause(error);
      }
    }
  }

  async #follow() {
    const quit = new AbortController();
    let silence = 0;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => quit.abort(new Error("the server has fallen silent")), SILENCE_SECONDS * 1000);
    };
    listen();
    try {
      const history = await request("api/history", { signal: quit.signal });
      this.#listener.history(await history.json());
      const stream = await request("api/events", { headers: { Accept: "text/event-stream" }, signal: quit.signal });
      for await (const { event, data } of events(stream)) {
        listen();
        this.#failures = 0;
        if (event === "overview") this.#tell(data);
      }
      throw new Error("the server has closed the connection");
    } finally {
      clearTimeout(silence);
      quit.abort();
    }
  }

  /** A picture that can't be drawn is a bug of the page's, and no loss of the connection. */
  #tell(data) {
    try {
      this.#listener.overview(data);
    } catch (error) {
      reportError(error);
    }
  }

  async #pause(error) {
    const longest = Math.min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** this.#failures++);
    const pauseSeconds = longest * (0.5 + Math.random() / 2); // many pages shall not come back at once
    this.#listener.lost({ error, pauseSeconds });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, pauseSeconds * 1000);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
