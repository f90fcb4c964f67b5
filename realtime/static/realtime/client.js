// A connection to /ws/v1/ that comes back by itself. No dependency; docs/realtime.md describes the messages.
//
//   import { connect } from "/static/realtime/client.js";
//   const connection = connect();
//   const leave = connection.subscribe("runs.<id>", (message) => …);   // snapshots and events
//   const { text } = await connection.complete({ prompt, vars }, { onText: (piece) => … });

const PING_MS = 25_000;
const SILENCE_MS = 10_000;
const DELAY_MS = { first: 500, most: 30_000 };
// How long a connection must last until the next failure counts as the first one again.
const STABLE_MS = 5_000;
const REFUSED = 4401;
const NO_SUCH_PATH = 4404;

/**
 * Open a connection and keep it open.
 *
 * options.url      address of the WebSocket; by default /ws/v1/ of the page's own host, with its session
 * options.project  which of the user's projects
 * options.ticket   async function that returns a fresh one-time ticket (POST /api/v1/ws-tickets)
 * options.onState  called with "connecting", "open", "waiting" (and milliseconds) or "closed" (and a code)
 */
export function connect(options = {}) {
  return new Connection(options);
}

/** A `ticket` option that asks `url`, which answers {"ticket": …}; `init` is fetch's. */
export function ticketsFrom(url, init = { method: "POST" }) {
  return async () => {
    const response = await fetch(url, init);
    if (!response.ok) throw new Error(`No ticket: ${url} answered ${response.status}.`);
    return (await response.json()).ticket;
  };
}

/** A completion that failed; `code` is the server's, or "connection_lost". */
export class CompletionError extends Error {
  constructor(code, detail) {
    super(detail);
    this.code = code;
  }
}

class Connection {
  #options;
  #socket = null;
  #topics = new Map();
  #completions = new Map();
  #lastId = 0;
  #failures = 0;
  #openedAt = 0;
  #retryAfterMs = null;
  #timer = 0;
  #heartbeat = 0;
  #isClosed = false;

  constructor(options) {
    this.#options = options;
    this.#open();
  }

  /** Call `listener` with each snapshot and event of `topic`, and with an error that ends it; returns what leaves. */
  subscribe(topic, listener) {
    const followed = this.#topics.get(topic) ?? { seq: null, listeners: new Set() };
    followed.listeners.add(listener);
    this.#topics.set(topic, followed);
    // Also when it is followed already: the new listener needs a snapshot.
    this.#send({ type: "subscribe", topic });
    return () => this.#leave(topic, listener);
  }

  /** Ask a model; resolves to the `completed` message. `onText` gets pieces, `signal` (AbortSignal) cancels. */
  complete(request, { onText = () => {}, signal } = {}) {
    const id = `c${++this.#lastId}`;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(new CompletionError("cancelled", "It was cancelled before it was asked."));
        return;
      }
      if (!this.#send({ ...request, type: "complete", id })) {
        reject(new CompletionError("connection_lost", "There is no connection right now."));
        return;
      }
      this.#completions.set(id, { onText, resolve, reject });
      signal?.addEventListener("abort", () => this.#send({ type: "cancel", id }), { once: true });
    });
  }

  /** Close for good. */
  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  async #open() {
    this.#tell("connecting");
    let address;
    try {
      address = await this.#address();
    } catch {
      this.#comeBack();
      return;
    }
    if (this.#isClosed) return;
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.#socket && this.#ended(code);
  }

  async #address() {
    const { url, project, ticket } = this.#options;
    const address = new URL(url ?? "/ws/v1/", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    if (project) address.searchParams.set("project", project);
    if (ticket) address.searchParams.set("ticket", await ticket());
    return address;
  }

  #opened() {
    this.#openedAt = performance.now();
    this.#beat();
    for (const topic of this.#topics.keys()) this.#send({ type: "subscribe", topic });
    this.#tell("open");
  }

  #ended(code) {
    clearTimeout(this.#heartbeat);
    this.#socket = null;
    for (const { reject } of this.#completions.values()) {
      reject(new CompletionError("connection_lost", "The connection ended before the completion did."));
    }
    this.#completions.clear();
    // A session that ends while we are connected may have been followed by another one: once we ask again.
    const hasLasted = this.#openedAt && performance.now() - this.#openedAt > STABLE_MS;
    const isFinal = code === NO_SUCH_PATH || (code === REFUSED && !this.#options.ticket && !hasLasted);
    if (this.#isClosed || isFinal) this.#tell("closed", code);
    else this.#comeBack();
  }

  // Full jitter (Brooker 2015, "Exponential Backoff And Jitter"), unless the server said when.
  #comeBack() {
    if (this.#openedAt && performance.now() - this.#openedAt > STABLE_MS) this.#failures = 0;
    this.#openedAt = 0;
    const bound = Math.min(DELAY_MS.most, DELAY_MS.first * 2 ** this.#failures++);
    const delayMs = this.#retryAfterMs ?? Math.random() * bound;
    this.#retryAfterMs = null;
    this.#timer = setTimeout(() => this.#open(), delayMs);
    this.#tell("waiting", Math.round(delayMs));
  }

  // Scripts do not see the server's pings: without our own, a dead connection would look like a quiet one.
  #beat() {
    clearTimeout(this.#heartbeat);
    const socket = this.#socket;
    this.#heartbeat = setTimeout(() => {
      this.#send({ type: "ping" });
      this.#heartbeat = setTimeout(() => {
        // The browser waits long for a peer that does not answer: we do not.
        socket.close();
        if (socket === this.#socket) this.#ended(1006);
      }, SILENCE_MS);
    }, PING_MS);
  }

  #receive(message) {
    this.#beat();
    if (message.type === "closing") this.#retryAfterMs = message.retry_after_ms;
    else if (message.id !== undefined) this.#advance(message);
    else if (message.topic !== undefined) this.#hear(message);
  }

  #hear(message) {
    const followed = this.#topics.get(message.topic);
    if (!followed) return;
    if (message.type === "snapshot") {
      followed.seq = message.seq;
    } else if (message.type === "event") {
      // Older ones are in the snapshot that has been asked for, or in the one before it.
      if (followed.seq === null || message.seq <= followed.seq) return;
      if (message.seq !== followed.seq + 1) {
        followed.seq = null;
        this.#send({ type: "subscribe", topic: message.topic });
        return;
      }
      followed.seq = message.seq;
    } else if (message.type === "error" && message.code !== "unavailable") {
      this.#topics.delete(message.topic);
    } else if (message.type === "error") {
      setTimeout(() => {
        // Somebody may have left it meanwhile.
        if (this.#topics.get(message.topic) === followed) this.#send({ type: "subscribe", topic: message.topic });
      }, DELAY_MS.first);
      return;
    } else {
      return;
    }
    for (const listener of followed.listeners) listener(message);
  }

  #advance(message) {
    const completion = this.#completions.get(message.id);
    if (!completion) return;
    if (message.type === "token") {
      completion.onText(message.text);
      return;
    }
    this.#completions.delete(message.id);
    if (message.type === "completed") completion.resolve(message);
    else completion.reject(new CompletionError(message.code ?? message.type, message.detail ?? message.type));
  }

  #leave(topic, listener) {
    const followed = this.#topics.get(topic);
    followed?.listeners.delete(listener);
    if (followed?.listeners.size === 0) {
      this.#topics.delete(topic);
      this.#send({ type: "unsubscribe", topic });
    }
  }

  // What is followed is said again at every opening, so that nothing need be kept for later.
  #send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #tell(...state) {
    this.#options.onState?.(...state);
  }
}
