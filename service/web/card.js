/** One picture: shown, asked about, answered or failed, explained on request. */

import { asFailure } from "./api.js";
import { copyOf, partsOf, say, shape } from "./elements.js";
import { drawBoxes, FaceList, share } from "./faces.js";
import { openPicture, shrink } from "./picture.js";

/** The card of one picture. */
export class Card {
  #service;
  #search;
  #announce;
  #file;
  #parts;
  #list;
  #picture = null;
  #views = [];
  #explained = false;
  #work = new AbortController();

  /**
   * @param {Blob} file
   * @param {string} name
   * @param {{service: Service, search: () => Search, announce: (words: string) => void}} page
   */
  constructor(file, name, { service, search, announce }) {
    this.#service = service;
    this.#search = search;
    this.#announce = announce;
    this.#file = file;
    this.name = name;
    this.element = copyOf("card-template");
    this.#parts = partsOf(this.element);
    this.#list = new FaceList(this.#parts.faces);
    this.#parts.name.textContent = name;
    this.#parts.picture.setAttribute("aria-label", name);
    this.#parts.remove.setAttribute("aria-label", `Remove ${name}`);
    this.#parts.why.addEventListener("click", () => this.#toggleWhy());
    this.#parts.again.addEventListener("click", () => {
      this.#parts.name.focus(); // the button is about to go
      this.ask();
    });
    this.#parts.boxes.addEventListener("pointerover", (event) => this.#point(event.target));
    this.#parts.boxes.addEventListener("pointerleave", () => this.#point(null));
    this.#parts.faces.addEventListener("pointerover", (event) => this.#point(event.target));
    this.#parts.faces.addEventListener("pointerleave", () => this.#point(null));
  }

  /** The button that removes the card; what it does is up to who holds the cards. */
  get removeButton() {
    return this.#parts.remove;
  }

  /** Show the picture, before anything is known of it. */
  async open() {
    this.#picture = await openPicture(this.#file, this.name);
    const { shown } = this.#picture;
    if (shown === null) {
      this.#parts.frame.hidden = true;
      return;
    }
    shape(this.#parts.frame, this.#picture);
    this.#parts.picture.width = shown.width;
    this.#parts.picture.height = shown.height;
    this.#parts.picture.getContext("2d").drawImage(shown, 0, 0);
  }

  /** Ask the service about the picture, and show its answer. Asking again forgets the first. */
  async ask() {
    this.close();
    this.#work = new AbortController();
    const { signal } = this.#work;
    this.#clear("Looking for faces…");
    const began = performance.now();
    try {
      const answer = await this.#predict(signal);
      if (!signal.aborted) this.#show(answer, performance.now() - began);
    } catch (error) {
      if (!signal.aborted) this.#fail(error, false);
    }
    if (!signal.aborted) this.element.removeAttribute("aria-busy");
  }

  /** Give up whatever is under way. */
  close() {
    this.#work.abort();
  }

  async #predict(signal) {
    try {
      return await this.#service.predict(this.#picture.sent, this.#search(), this.#manner(signal));
    } catch (error) {
      if (error.status !== 413 || this.#picture.shown === null) throw error;
    }
    this.#picture = await shrink(this.#picture);
    return this.#service.predict(this.#picture.sent, this.#search(), this.#manner(signal));
  }

  #manner(signal) {
    const onWait = ({ title, retryAfterS }) =>
      say(this.#parts.state, `${title}. Trying again in ${retryAfterS} s…`);
    return { signal, onWait };
  }

  #clear(state) {
    this.element.setAttribute("aria-busy", "true");
    this.#parts.failure.hidden = true;
    this.#parts.again.hidden = true;
    this.#parts.why.hidden = true;
    this.#hideWhy();
    this.#parts.boxes.replaceChildren();
    this.#list.show([]);
    say(this.#parts.facts, "");
    say(this.#parts.state, state);
  }

  #show({ faces, image, timing, ...found }, elapsedMs) {
    const count = countOf(faces);
    say(this.#parts.state, faces.length > 0 ? missing(faces, found) : NO_FACE);
    say(this.#parts.facts, this.#facts(image, timing, elapsedMs));
    this.element.classList.toggle("several", faces.length > 1);
    drawBoxes(this.#parts.boxes, faces, image);
    this.#views = this.#list.show(faces);
    if (this.#picture.shown !== null) {
      this.#views.forEach((view, i) => view.cutOut(this.#picture.shown, faces[i].box, image));
    }
    this.#parts.why.hidden = faces.length === 0;
    const named = faces.slice(0, 5).map((face) => `${face.emotion} ${share(face.confidence)}`);
    this.#announce(`${this.name}: ${[count, ...named].join(", ")}`);
  }

  #facts(image, timing, elapsedMs) {
    const { width, height, note } = this.#picture;
    return [
      `${width || image.width} × ${height || image.height} pixels`,
      note,
      `${timing.total_ms.toFixed(0)} ms in the server, ${elapsedMs.toFixed(0)} ms in all`,
    ].filter(Boolean).join(" · ");
  }

  #fail(error, whileExplaining) {
    const { title, detail, status } = asFailure(error);
    say(this.#parts.title, title);
    say(this.#parts.detail, detail);
    say(this.#parts.state, "");
    this.#parts.failure.hidden = false;
    // What the service refused it will refuse again.
    this.#parts.again.hidden = whileExplaining || (status >= 400 && status < 500);
  }

  async #toggleWhy() {
    if (this.element.hasAttribute("aria-busy")) return;
    if (this.#explained) {
      this.#hideWhy();
      return;
    }
    const { signal } = this.#work;
    this.#parts.failure.hidden = true;
    this.element.setAttribute("aria-busy", "true");
    say(this.#parts.state, "Explaining…");
    try {
      const answer = await this.#service.explain(
        this.#picture.sent, this.#search(), this.#manner(signal),
      );
      if (!signal.aborted) this.#showWhy(answer);
    } catch (error) {
      if (!signal.aborted) this.#fail(error, true);
    }
    if (!signal.aborted) this.element.removeAttribute("aria-busy");
  }

  #showWhy({ faces, overlay }) {
    say(this.#parts.state, "");
    this.#explained = true;
    this.element.classList.add("explained");
    this.#parts.overlay.src = overlay;
    this.#parts.overlay.alt = `${this.name} with the evidence laid over its faces`;
    this.#parts.overlay.hidden = false;
    this.#views.forEach((view, i) => view.explain(faces[i] ?? null));
    this.#parts.why.setAttribute("aria-expanded", "true");
    this.#parts.why.textContent = "Hide why";
    this.#announce(`${this.name}: explained`);
  }

  #hideWhy() {
    this.#explained = false;
    this.element.classList.remove("explained");
    this.#parts.overlay.hidden = true;
    this.#parts.overlay.removeAttribute("src");
    this.#views.forEach((view) => view.explain(null));
    this.#parts.why.setAttribute("aria-expanded", "false");
    this.#parts.why.textContent = "Show why";
  }

  /** Show which box and which entry of the list are the same face. */
  #point(target) {
    const [boxes, faces] = [this.#parts.boxes.children, this.#parts.faces.children];
    if (boxes.length < 2) return;
    for (let i = 0; i < boxes.length; i += 1) {
      const here = target !== null && (boxes[i].contains(target) || faces[i].contains(target));
      boxes[i].classList.toggle("pointed", here);
      faces[i].classList.toggle("pointed", here);
    }
  }
}

const NO_FACE =
  "No face was found. If the picture is a face already cut out, say so in the options.";

/** What an answer leaves out, in words; empty where it leaves nothing out. */
function missing({ length }, { faces_found: all, truncated }) {
  if (all > length) return `${all} faces were found. The largest ${length} are shown.`;
  return truncated ? "Not all of the picture could be searched. Faces may be missing." : "";
}

function countOf({ length }) {
  if (length === 0) return "no face found";
  return length === 1 ? "one face" : `${length} faces`;
}
