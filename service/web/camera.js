/** The camera: its frames to the service, one at a time, and what comes back to whom it concerns. */

import { Failure } from "./api.js";
import { toJpeg } from "./picture.js";

const LONGEST_PX = 640;
const QUALITY = 0.85;
const WISHES = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" };

/**
 * What is told of the camera.
 * @typedef {object} Viewer
 * @property {(size: {width: number, height: number}, mirrored: boolean) => void} started
 * @property {(answer: object, sentS: number, latencyMs: number) => void} answered
 * @property {(failure: Failure) => void} waiting - The service is busy, and will be asked again.
 */

/**
 * Run the camera until the signal says to stop. A frame is taken once the one before is answered,
 * so that never more than one is under way. The camera is released however it ends.
 * @param {HTMLVideoElement} video - Shows what the camera sees.
 * @param {Service} service
 * @param {() => Search} search
 * @param {Viewer} viewer
 * @param {AbortSignal} signal
 * @throws {Failure} Not where the signal ended it.
 */
export async function runCamera(video, service, search, viewer, signal) {
  const end = new AbortController();
  signal.addEventListener("abort", () => end.abort(signal.reason));
  try {
    const stream = await openCamera(end);
    await play(video, stream, end.signal);
    const canvas = canvasFor(video);
    viewer.started(canvas, !facesAway(stream));
    for (;;) {
      await nextFrame(video, end.signal);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const began = performance.now();
      const image = await toJpeg(canvas, QUALITY);
      const manner = { signal: end.signal, onWait: viewer.waiting };
      const answer = await service.predict(image, search(), manner);
      viewer.answered(answer, began / 1000, performance.now() - began);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    end.abort();
  }
}

/** Return the camera's stream, which ends with `end`, and ends it. */
async function openCamera(end) {
  // Browsers hide it from pages that came over an open line.
  if (navigator.mediaDevices === undefined) {
    throw new Failure(
      "The browser keeps the camera from this page",
      "Open the page over https, or on the computer itself as localhost.",
    );
  }
  const opening = navigator.mediaDevices.getUserMedia({ video: WISHES, audio: false });
  // Also if the user allows it only after they gave up.
  end.signal.addEventListener("abort", () => opening.then(release, () => {}));
  const stream = await orAborted(opening, end.signal).catch((error) => {
    throw end.signal.aborted ? error : words(error);
  });
  stream.getVideoTracks()[0].addEventListener("ended", () => {
    end.abort(new Failure("The camera stopped", "It was taken away. Start it again."));
  });
  return stream;
}

function release(stream) {
  stream.getTracks().forEach((track) => track.stop());
}

async function play(video, stream, signal) {
  video.srcObject = stream;
  signal.addEventListener("abort", () => {
    video.srcObject = null;
  });
  await orAborted(video.play(), signal);
}

function words({ name }) {
  if (name === "NotAllowedError") {
    return new Failure(
      "The camera was not allowed",
      "Allow it for this page in the browser's settings, then start it again.",
    );
  }
  if (name === "NotFoundError") {
    return new Failure("No camera was found", "Connect one, then start it again.");
  }
  return new Failure(
    "The camera cannot be used",
    "Another program may be using it. Close that, then start it again.",
  );
}

function nextFrame(video, signal) {
  const frame = new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
    else requestAnimationFrame(resolve);
  });
  return orAborted(frame, signal);
}

/** Wait for a promise, but no longer than the signal allows; nothing stays behind at the signal. */
function orAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(signal.reason);
    signal.addEventListener("abort", giveUp);
    if (signal.aborted) giveUp();
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", giveUp));
  });
}

function canvasFor(video) {
  const scale = Math.min(1, LONGEST_PX / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(scale * video.videoWidth);
  canvas.height = Math.round(scale * video.videoHeight);
  return canvas;
}

function facesAway(stream) {
  return stream.getVideoTracks()[0].getSettings().facingMode === "environment";
}
