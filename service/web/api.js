/** Asking the service: pictures out, answers in, every failure in words. */

const MOST_TRIES = 4;
const LONGEST_WAIT_S = 30;
const PATIENCE_MS = 60_000;

/** What went wrong, in words for people. */
export class Failure extends Error {
  /**
   * @param {string} title - What kind of failure it is.
   * @param {string} detail - What was wrong this time and what to do.
   * @param {number} status - Of HTTP; 0 where there was no answer.
   * @param {?number} retryAfterS - When the service wants to be asked again.
   */
  constructor(title, detail, status = 0, retryAfterS = null) {
    super(title);
    this.title = title;
    this.detail = detail;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * What to look for in a picture, and the prior to answer under; empty is the service's own.
 * @typedef {{detect: string, maxFaces: ?number, minFace: string, prior: string}} Search
 *
 * How to ask: `signal` gives up, `onWait` is told of each 503 that is waited out.
 * @typedef {{signal?: AbortSignal, onWait?: (failure: Failure) => void}} Manner
 */

/** The service that this page came from. */
export class Service {
  #askForKey;
  #key = null;

  /** @param {(wrong: boolean) => Promise<string>} askForKey - Told whether one was refused. */
  constructor(askForKey) {
    this.#askForKey = askForKey;
  }

  /**
   * Find and classify the faces of a picture.
   * @param {Blob} image
   * @param {Search} search
   * @param {Manner} manner
   * @returns {Promise<object>} The API's `Prediction`.
   * @throws {Failure}
   */
  predict(image, search, manner = {}) {
    return this.#ask("predict", image, search, manner);
  }

  /**
   * The same, with what the network saw. It explains no more than 16 faces at once.
   * @param {Blob} image
   * @param {Search} search
   * @param {Manner} manner
   * @returns {Promise<object>}
   * @throws {Failure}
   */
  explain(image, search, manner = {}) {
    const maxFaces = Math.min(search.maxFaces ?? 16, 16);
    return this.#ask("explain", image, { ...search, maxFaces }, manner);
  }

  async #ask(path, image, search, { signal, onWait = () => {} }) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#exchange(`${path}?${query(search)}`, image, signal);
      } catch (error) {
        if (tries === MOST_TRIES || !isWorthWaiting(error)) throw error;
        onWait(error);
        await rest(error.retryAfterS, signal);
      }
    }
  }

  async #exchange(url, image, signal) {
    for (;;) {
      const key = this.#key;
      try {
        return await post(url, image, key, signal);
      } catch (error) {
        if (error.status !== 401) throw error;
      }
      // Another request may have been given one meanwhile.
      if (key === this.#key) this.#key = await this.#askForKey(key !== null);
      signal?.throwIfAborted();
    }
  }
}

/**
 * Return the words for what went wrong; what nobody foresaw goes to the console.
 * @param {Error} error
 * @returns {Failure}
 */
export function asFailure(error) {
  if (error instanceof Failure) return error;
  console.error(error);
  return new Failure("The page failed", "This is a defect of the page. Reload it.");
}

async function post(url, image, key, signal) {
  const headers = { accept: "application/json" };
  headers["content-type"] = image.type || "application/octet-stream";
  if (key !== null) headers["x-api-key"] = key;
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const either = signal ? AbortSignal.any([signal, limit]) : limit;
  try {
    const response = await fetch(url, { method: "POST", body: image, headers, signal: either });
    if (!response.ok) throw await failureOf(response);
    return await response.json();
  } catch (error) {
    if (error instanceof Failure || signal?.aborted) throw error;
    throw limit.aborted ? tooSlow() : gone();
  }
}

function query({ detect, maxFaces, minFace, prior }) {
  const values = new URLSearchParams({ detect });
  if (maxFaces !== null) values.set("max_faces", String(maxFaces));
  if (minFace !== "") values.set("min_face", minFace);
  if (prior !== "") values.set("prior", prior);
  return values;
}

function isWorthWaiting(error) {
  const waitS = error instanceof Failure && error.status === 503 ? error.retryAfterS : null;
  return waitS !== null && waitS <= LONGEST_WAIT_S;
}

/** Sleep, but wake to fail when the signal says so. */
function rest(seconds, signal) {
  return new Promise((resolve, reject) => {
    const wake = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", wake);
      resolve();
    }, 1000 * seconds);
    signal?.addEventListener("abort", wake, { once: true });
  });
}

async function failureOf(response) {
  const seconds = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  const retryAfterS = Number.isNaN(seconds) ? null : seconds;
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("application/problem+json")) {
    const { title, detail } = await response.json();
    return new Failure(title, detail, response.status, retryAfterS);
  }
  return new Failure(
    `The answer was an error (${response.status})`,
    "It does not come from the service, but from something in front of it. Try again later.",
    response.status,
    retryAfterS,
  );
}

function gone() {
  return new Failure(
    "The server does not answer",
    "It may have been stopped, or the network is down. Try again when it is back.",
  );
}

function tooSlow() {
  return new Failure("The answer took too long", "There was none within a minute. Try again later.");
}
