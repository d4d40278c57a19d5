/** The live view: the camera's picture with boxes, bars and figures, from start to stop. */

import { asFailure } from "./api.js";
import { runCamera } from "./camera.js";
import { partsOf, say, shape } from "./elements.js";
import { drawBoxes, FaceList, share } from "./faces.js";
import { draw, toJpeg } from "./picture.js";
import { Tracker } from "./track.js";

const FIGURES_EVERY_S = 0.5;
const RATE_OVER_S = 2;
const LONGEST_KEPT_PX = 2048;
// A voice cannot follow faces at the pace of frames.
const ANNOUNCE_EVERY_S = 4;

/** The live view; off until it is started. */
export class Live {
  #element;
  #parts;
  #page;
  #work = null;

  /**
   * @param {HTMLElement} element
   * @param {{service: Service, search: () => Search, announce: (words: string) => void}} page
   */
  constructor(element, page) {
    this.#element = element;
    this.#parts = partsOf(element);
    this.#page = page;
  }

  /** Whether the camera is on, or about to be. */
  get on() {
    return this.#work !== null;
  }

  /**
   * Run until stopped.
   * @returns {Promise<?Failure>} Why it ended by itself; null where `stop` ended it.
   */
  async run() {
    this.#work = new AbortController();
    this.#reset();
    const { service, search } = this.#page;
    const viewer = new Viewer(this.#parts, this.#page.announce);
    try {
      await runCamera(this.#parts.video, service, search, viewer, this.#work.signal);
      return null;
    } catch (error) {
      return asFailure(error);
    } finally {
      this.#work = null;
      this.#element.hidden = true;
    }
  }

  /** End it, and release the camera. */
  stop() {
    this.#work?.abort();
  }

  /**
   * Return what the camera sees now, as a JPEG.
   * @returns {Promise<Blob>}
   */
  async keep() {
    const image = await createImageBitmap(this.#parts.video);
    return toJpeg(draw(image, LONGEST_KEPT_PX), 0.92);
  }

  #reset() {
    this.#element.hidden = false;
    this.#parts.boxes.replaceChildren();
    this.#parts.faces.replaceChildren();
    this.#parts.keep.disabled = true;
    this.#parts.rate.textContent = "–";
    this.#parts.latency.textContent = "–";
    this.#parts.video.classList.remove("mirrored");
    say(this.#parts.state, "Starting the camera…");
    shape(this.#parts.frame, { width: 640, height: 480 });
  }
}

/** Shows one run of the camera. */
class Viewer {
  #parts;
  #announce;
  #list;
  #tracker = new Tracker();
  #size = null;
  #mirrored = false;
  #answers = [];
  #shownS = 0;
  #announcedS = 0;
  #announced = "";

  constructor(parts, announce) {
    this.#parts = parts;
    this.#announce = announce;
    this.#list = new FaceList(parts.faces);
    // Handed over as a function, away from this object.
    this.waiting = this.waiting.bind(this);
  }

  started({ width, height }, mirrored) {
    this.#size = { width, height };
    this.#mirrored = mirrored;
    shape(this.#parts.frame, this.#size);
    this.#parts.video.classList.toggle("mirrored", mirrored);
    this.#parts.keep.disabled = false;
    say(this.#parts.state, "Looking for faces…");
  }

  answered({ faces }, sentS, latencyMs) {
    const tracks = this.#tracker.next(faces, sentS);
    say(this.#parts.state, tracks.length > 0 ? "" : "No face in view.");
    drawBoxes(this.#parts.boxes, tracks, this.#size, this.#mirrored);
    this.#list.show(tracks);
    this.#measure(latencyMs);
    this.#tell(tracks, sentS);
  }

  waiting({ title, retryAfterS }) {
    say(this.#parts.state, `${title}. Going on in ${retryAfterS} s…`);
  }

  #measure(latencyMs) {
    const nowS = performance.now() / 1000;
    this.#answers.push({ nowS, latencyMs });
    while (nowS - this.#answers[0].nowS > RATE_OVER_S) this.#answers.shift();
    const { length } = this.#answers;
    const spanS = nowS - this.#answers[0].nowS;
    if (length < 2 || nowS - this.#shownS < FIGURES_EVERY_S) return;
    this.#shownS = nowS;
    const meanMs = this.#answers.reduce((sum, answer) => sum + answer.latencyMs, 0) / length;
    this.#parts.rate.textContent = ((length - 1) / spanS).toFixed(1);
    this.#parts.latency.textContent = meanMs.toFixed(0);
  }

  #tell(tracks, nowS) {
    const words = tracks.map((track) => track.emotion).join(", ");
    if (words === this.#announced || nowS - this.#announcedS < ANNOUNCE_EVERY_S) return;
    this.#announced = words;
    this.#announcedS = nowS;
    const shown = tracks.map((track) => `${track.emotion} ${share(track.confidence)}`);
    this.#announce(`Camera: ${shown.join(", ") || "no face in view"}`);
  }
}
