/** What was found, drawn: boxes on a picture, and for each face its probabilities as bars. */

import { copyOf, partsOf, say } from "./elements.js";

/** A probability in words that are equally long each time. */
export function share(probability) {
  return probability.toFixed(2);
}

/** The faces of a picture, as a list. */
export class FaceList {
  #element;
  #views = [];

  /** @param {HTMLElement} element - The list; empty. */
  constructor(element) {
    this.#element = element;
  }

  /**
   * Show these faces. What is there already is used again, so that a live view does not flicker.
   * @param {object[]} faces - As the API answers them, or tracks.
   * @returns {FaceView[]}
   */
  show(faces) {
    while (this.#views.length > faces.length) this.#views.pop().element.remove();
    while (this.#views.length < faces.length) {
      this.#views.push(new FaceView());
      this.#element.append(this.#views.at(-1).element);
    }
    this.#views.forEach((view, i) => view.show(faces[i], numberOf(faces, i)));
    return this.#views;
  }
}

// Boxes narrower than this part of the picture are labelled with words on wide screens alone, or
// not at all. All of a picture alike, or it would look as if some faces were special.
const WIDE_PART = 0.2;
const SMALL_PART = 0.035;
const MOST_WORDS = 12;

/**
 * Draw boxes over a picture.
 * @param {HTMLElement} layer - Over the picture, and exactly as large.
 * @param {object[]} faces - As the API answers them, or tracks.
 * @param {{width: number, height: number}} size - Of the picture that the boxes are in.
 * @param {boolean} mirrored - Whether the picture is shown so.
 */
export function drawBoxes(layer, faces, size, mirrored = false) {
  while (layer.children.length < faces.length) layer.append(copyOf("box-template"));
  while (layer.children.length > faces.length) layer.lastElementChild.remove();
  faces.forEach((face, i) => {
    const left = mirrored ? size.width - face.box.x - face.box.width : face.box.x;
    place(layer.children[i], { ...face.box, x: left }, size);
    drawPoints(layer.children[i], face, mirrored);
    const { number, words } = partsOf(layer.children[i]);
    say(number, numberOf(faces, i));
    words.textContent = `${face.emotion} ${share(face.confidence)}`;
  });
  const part = Math.min(...faces.map((face) => face.box.width / size.width));
  const crowded = faces.length > 1 && (part < SMALL_PART || faces.length > MOST_WORDS);
  layer.classList.toggle("crowded", crowded);
  layer.classList.toggle("dense", faces.length > 1 && part < WIDE_PART);
}

/** Put eyes, nose and mouth into a face's box. They are seen where the page is told to show them. */
function drawPoints(element, { box, landmarks }, mirrored) {
  element.querySelectorAll(".point").forEach((point) => point.remove());
  for (const { x, y } of Object.values(landmarks ?? {})) {
    const point = document.createElement("span");
    point.className = "point";
    const across = (x - box.x) / box.width;
    point.style.left = `${100 * (mirrored ? 1 - across : across)}%`;
    point.style.top = `${(100 * (y - box.y)) / box.height}%`;
    element.append(point);
  }
}

// A lone face needs no number; tracks bring their own.
function numberOf(faces, i) {
  return faces.length > 1 ? String(faces[i].number ?? i + 1) : "";
}

function place(element, box, size) {
  element.style.left = `${(100 * box.x) / size.width}%`;
  element.style.top = `${(100 * box.y) / size.height}%`;
  element.style.width = `${(100 * box.width) / size.width}%`;
  element.style.height = `${(100 * box.height) / size.height}%`;
  const fills = (box.y + box.height) / size.height > 0.92;
  element.classList.toggle("at-top", box.y / size.height < 0.08 && !fills);
  element.classList.toggle("filling", box.y / size.height < 0.08 && fills);
  element.classList.toggle("at-right", (box.x + box.width / 2) / size.width > 0.6);
}

/** One face in a list. */
class FaceView {
  #parts;
  #bars = new Map();

  constructor() {
    this.element = copyOf("face-template");
    this.#parts = partsOf(this.element);
  }

  /**
   * Show a face's emotion and bars.
   * @param {object} face
   * @param {string} number - Empty for a lone face.
   */
  show(face, number) {
    say(this.#parts.number, number);
    this.#parts.emotion.textContent = face.emotion;
    this.#parts.confidence.textContent = share(face.confidence);
    say(this.#parts.found, origin(face));
    const names = Object.keys(face.probabilities);
    if (names.some((name) => !this.#bars.has(name))) this.#makeBars(names);
    for (const [name, probability] of Object.entries(face.probabilities)) {
      const { element, fill, value } = this.#bars.get(name);
      fill.style.transform = `scaleX(${probability})`;
      value.textContent = share(probability);
      element.classList.toggle("first", name === face.emotion);
    }
  }

  /**
   * Show the face itself, cut out of the picture.
   * @param {HTMLCanvasElement} picture
   * @param {object} box - In pixels of a picture of `size`.
   * @param {{width: number, height: number}} size
   */
  cutOut(picture, box, size) {
    const { crop } = this.#parts;
    const scale = picture.width / size.width;
    const side = scale * Math.max(box.width, box.height);
    const x = scale * (box.x + box.width / 2) - side / 2;
    const y = scale * (box.y + box.height / 2) - side / 2;
    crop.getContext("2d").drawImage(picture, x, y, side, side, 0, 0, crop.width, crop.height);
    crop.hidden = false;
  }

  /**
   * Show what the network saw of the face.
   * @param {?object} face - As /explain answers it; null hides what was shown.
   */
  explain(face) {
    const maps = face === null ? [] : describe(face).map(makeMap);
    this.#parts.maps.replaceChildren(...maps);
    this.#parts.maps.hidden = face === null;
  }

  #makeBars(names) {
    this.#bars.clear();
    for (const name of names) {
      const element = copyOf("bar-template");
      const parts = partsOf(element);
      parts.name.textContent = name;
      this.#bars.set(name, { element, ...parts });
    }
    this.#parts.bars.replaceChildren(...[...this.#bars.values()].map((bar) => bar.element));
  }
}

function origin(face) {
  if (face.detection === undefined) return "";
  if (face.detection === null) return "the whole picture";
  return `detection ${share(face.detection)}`;
}

function describe(face) {
  const { angle_deg: angle, scale } = face.straightening;
  const turned = `turned ${Math.abs(angle).toFixed(0)}°, scaled × ${scale.toFixed(2)}`;
  return [
    { image: face.straightened, title: "Aligned", words: turned },
    { image: face.attention, title: "Attention", words: "where it looked" },
    { image: face.evidence, title: "Evidence", words: `what speaks for ${face.emotion}` },
  ].filter(({ image }) => image); // a network without spatial attention has no map of it
}

function makeMap({ image, title, words }) {
  const figure = copyOf("map-template");
  const parts = partsOf(figure);
  parts.image.src = image;
  parts.image.alt = `${title}: ${words}`;
  const strong = document.createElement("b");
  strong.textContent = title;
  parts.caption.append(strong, ` ${words}`);
  return figure;
}
