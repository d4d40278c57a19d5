/** From a file to what is shown of it and what is sent: upright, and no larger than is useful. */

const LONGEST_SENT_PX = 2048;
const LONGEST_SHOWN_PX = 1600;
const MOST_BYTES_AS_IS = 8 * 2 ** 20;
// What the service reads; anything else that the browser can open becomes a JPEG first.
const SENT_AS_IS = new Set(["jpeg", "png", "webp", "bmp", "gif", "tiff"].map((t) => `image/${t}`));

/**
 * A picture, ready to be shown and sent.
 * @typedef {object} Picture
 * @property {string} name
 * @property {?HTMLCanvasElement} shown - Upright; null where the browser cannot open the file.
 * @property {number} width - In pixels, upright, before any scaling; 0 where that is not known.
 * @property {number} height
 * @property {Blob} sent
 * @property {string} note - What was done to it before sending; empty where nothing was.
 */

/**
 * Open a file. One that the browser cannot open is sent as it is: the service may read it, and
 * says better what is wrong with it.
 * @param {Blob} file
 * @param {string} name
 * @returns {Promise<Picture>}
 */
export async function openPicture(file, name) {
  const image = await decode(file);
  if (image === null) return { name, shown: null, width: 0, height: 0, sent: file, note: "" };
  const { width, height } = image;
  const shown = draw(image, LONGEST_SHOWN_PX);
  const asIs = SENT_AS_IS.has(file.type) && file.size <= MOST_BYTES_AS_IS;
  let [sent, note] = [file, ""];
  if (!asIs || Math.max(width, height) > LONGEST_SENT_PX) {
    [sent, note] = await encode(draw(image, LONGEST_SENT_PX), image);
  }
  image.close();
  return { name, shown, width, height, sent, note };
}

/**
 * Return the picture made smaller, for a server that takes less than most.
 * @param {Picture} picture - One that is shown.
 * @returns {Promise<Picture>}
 */
export async function shrink(picture) {
  const [sent, note] = await encode(draw(picture.shown, LONGEST_SHOWN_PX / 2), picture);
  return { ...picture, sent, note };
}

/**
 * Draw what is in `source` onto a canvas of its own.
 * @param {CanvasImageSource & {width: number, height: number}} source
 * @param {number} longest - Pixels that the longer side is scaled down to, if it is longer.
 * @returns {HTMLCanvasElement}
 */
export function draw(source, longest) {
  const scale = Math.min(1, longest / Math.max(source.width, source.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(scale * source.width));
  canvas.height = Math.max(1, Math.round(scale * source.height));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  // What is transparent is seen on white, as the service sees it.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/**
 * Return a canvas as a JPEG.
 * @param {HTMLCanvasElement} canvas
 * @param {number} quality - 0 to 1.
 * @returns {Promise<Blob>}
 */
export function toJpeg(canvas, quality) {
  return new Promise((resolve) => {
    canvas.toBlob(resolve, "image/jpeg", quality);
  });
}

async function decode(file) {
  try {
    // Turned as its EXIF says, which the service does too.
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

async function encode(canvas, original) {
  const sent = await toJpeg(canvas, 0.9);
  const scaled = canvas.width !== original.width || canvas.height !== original.height;
  const note = scaled
    ? `scaled down to ${canvas.width} × ${canvas.height} before sending`
    : "made a JPEG before sending";
  return [sent, note];
}
