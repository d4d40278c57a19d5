/** Faces over time: which is which from frame to frame, and their probabilities smoothed. */

const EMOTION_MEMORY_S = 0.4;
const BOX_MEMORY_S = 0.12;
const FORGOTTEN_AFTER_S = 0.6;
const LEAST_OVERLAP = 0.25;

/**
 * A face followed over frames.
 * @typedef {object} Track
 * @property {number} number - From 1; that of a face that left is given to the next.
 * @property {{x: number, y: number, width: number, height: number}} box
 * @property {?number} detection
 * @property {Object<string, number>} probabilities - They sum to 1.
 * @property {string} emotion - The most probable.
 * @property {number} confidence - Its probability.
 * @property {number} seenS - When it was last found.
 */

/** Follows faces. A frame at a time, in order. */
export class Tracker {
  #tracks = [];
  #lastS = 0;

  /**
   * Take the faces of the next frame.
   * @param {object[]} faces - As the API answers them.
   * @param {number} nowS - The frame's time in seconds.
   * @returns {Track[]} Those found, and those only just missed, by number.
   */
  next(faces, nowS) {
    const elapsedS = nowS - this.#lastS;
    this.#lastS = nowS;
    const left = new Set(faces);
    for (const [track, face] of pairs(this.#tracks, faces)) {
      left.delete(face);
      follow(track, face, nowS, elapsedS);
    }
    this.#tracks = this.#tracks.filter((track) => nowS - track.seenS < FORGOTTEN_AFTER_S);
    for (const face of left) this.#tracks.push(this.#begin(face, nowS));
    this.#tracks.sort((a, b) => a.number - b.number);
    return this.#tracks;
  }

  #begin(face, nowS) {
    const taken = new Set(this.#tracks.map((track) => track.number));
    let number = 1;
    while (taken.has(number)) number += 1;
    const { box, emotion, confidence, probabilities, detection = null } = face;
    return { number, box, emotion, confidence, probabilities, detection, seenS: nowS };
  }
}

/**
 * Return how far two boxes cover the same place: what they share of what they cover together.
 * @returns {number} 0 to 1.
 */
export function overlap(a, b) {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  return shared / (a.width * a.height + b.width * b.height - shared);
}

/** Match tracks and faces one to one, those that overlap most first. */
function pairs(tracks, faces) {
  const all = tracks.flatMap((track) =>
    faces.map((face) => ({ track, face, share: overlap(track.box, face.box) })),
  );
  const used = new Set();
  const chosen = [];
  for (const { track, face, share } of all.sort((a, b) => b.share - a.share)) {
    if (share < LEAST_OVERLAP || used.has(track) || used.has(face)) continue;
    used.add(track).add(face);
    chosen.push([track, face]);
  }
  return chosen;
}

/** Move a track towards what was just seen: exponentially, whatever the frames' distance. */
function follow(track, face, nowS, elapsedS) {
  track.box = mix(track.box, face.box, 1 - Math.exp(-elapsedS / BOX_MEMORY_S));
  const weight = 1 - Math.exp(-elapsedS / EMOTION_MEMORY_S);
  track.probabilities = mix(track.probabilities, face.probabilities, weight);
  const ranked = Object.entries(track.probabilities).sort(([, p], [, q]) => q - p);
  [track.emotion, track.confidence] = ranked[0];
  track.detection = face.detection ?? null;
  track.seenS = nowS;
}

function mix(old, fresh, weight) {
  const names = Object.keys(fresh);
  return Object.fromEntries(names.map((n) => [n, old[n] + weight * (fresh[n] - old[n])]));
}
