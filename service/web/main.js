/** The page: where pictures come from, and where each goes. */

import { Service } from "./api.js";
import { Card } from "./card.js";
import { Live } from "./live.js";

const MOST_CARDS = 24;

const at = (id) => document.getElementById(id);
const cards = new Set();
const page = { service: new Service(askForKey), search, announce };
const live = new Live(at("live"), page);
// Pictures are opened one after another, and asked about likewise: many dropped at once are
// neither a heap of memory nor a storm of requests.
let opening = Promise.resolve();
let asked = Promise.resolve();

function search() {
  const most = at("max-faces");
  const chosen = most.value !== "" && most.validity.valid;
  const maxFaces = chosen ? most.valueAsNumber : null;
  const [detect, minFace, prior] = ["detect", "min-face", "prior"].map((id) => at(id).value);
  return { detect, maxFaces, minFace, prior };
}

function announce(words) {
  at("announcer").textContent = words;
}

function complain(words) {
  at("trouble").textContent = words;
  at("trouble").hidden = words === "";
}

/* Pictures */

function take(files) {
  const room = Math.max(0, MOST_CARDS - cards.size);
  const taken = [...files].slice(0, room);
  complain(taken.length < files.length ? `The page holds ${MOST_CARDS} pictures; remove some.` : "");
  const fresh = taken.map((file) => new Card(file, file.name || "Pasted picture", page));
  at("cards").prepend(...fresh.map((card) => card.element));
  fresh.forEach(adopt);
}

function adopt(card) {
  cards.add(card);
  at("results-head").hidden = false;
  card.removeButton.addEventListener("click", () => {
    const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
    remove(card);
    (next?.querySelector(".remove") ?? at("choose")).focus();
  });
  opening = opening.then(() => cards.has(card) && card.open());
  ask(card, opening);
}

function ask(card, opened) {
  asked = asked.then(() => opened).then(() => cards.has(card) && card.ask());
}

function remove(card) {
  card.close();
  card.element.remove();
  cards.delete(card);
  at("results-head").hidden = cards.size === 0;
}

at("choose").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", ({ target }) => {
  take(target.files);
  target.value = ""; // so that the same file may be chosen again
});
at("clear").addEventListener("click", () => {
  cards.forEach(remove);
  at("choose").focus();
});
at("points").addEventListener("change", ({ target }) => {
  document.body.classList.toggle("pointing", target.value !== "");
});
for (const option of ["detect", "max-faces", "min-face", "prior"].map(at)) {
  option.addEventListener("change", () => {
    for (const card of cards) ask(card, opening);
  });
}

document.addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (files.length === 0) return;
  event.preventDefault();
  take(files);
});

/* Dropping: anywhere, for a file dropped beside the field would replace the page. */

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (relatedTarget === null) at("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const { files } = event.dataTransfer;
  if (files.length > 0) take(files);
  else complain("Only files can be dropped. Save the picture first, or copy and paste it.");
});

/* The camera */

async function goLive() {
  complain("");
  at("drop").hidden = true;
  const ended = live.run();
  at("stop").focus();
  const failure = await ended;
  at("drop").hidden = false;
  if (failure !== null) complain(`${failure.title}. ${failure.detail}`);
  at("start").focus();
}

at("start").addEventListener("click", goLive);
at("stop").addEventListener("click", () => live.stop());
at("keep").addEventListener("click", async () => {
  take([new File([await live.keep()], "Camera", { type: "image/jpeg" })]);
});
// Nobody is watched by a page that they do not see.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden || !live.on) return;
  live.stop();
  complain("The camera was released while the page was hidden.");
});
window.addEventListener("pagehide", () => live.stop());

/* The key */

let asking = null;

function askForKey(wrong) {
  asking ??= new Promise((resolve) => {
    at("key-wrong").hidden = !wrong;
    at("key").hidden = false;
    at("key-value").focus();
    at("key").addEventListener("submit", (event) => {
      event.preventDefault();
      asking = null;
      at("key").hidden = true;
      resolve(at("key-value").value);
      at("key-value").value = "";
    }, { once: true });
  });
  return asking;
}
