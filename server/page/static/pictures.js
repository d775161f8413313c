// Pictures and sessions that a player brings: chosen, dropped or pasted. Large ones are made smaller here, and what the
// server cannot read but this browser can (SVG, AVIF, HEIC) becomes a PNG.

const MOST_SIDE = 2048; // of a picture that is sent
const MOST_PIXELS = 40e6; // that are decoded at a time
const SVG_SIDE = 1024; // of a drawing without a size

// The file as it is sent. ground: a colour for transparent parts. Rejects if this browser cannot read it.
export async function prepared(file, ground) {
  const head = new Uint8Array(await file.slice(0, 64).arrayBuffer());
  if (isSession(head)) return file;
  let picture;
  try {
    picture = await decoded(file);
  } catch {
    return file; // perhaps the server knows it; else it says what it is
  }
  const { width, height } = picture, scale = Math.min(1, MOST_SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const context = canvas.getContext("2d");
  context.fillStyle = ground;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close?.();
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// A saved session is JSON.
export const isSession = (head) => String.fromCharCode(...head).trimStart().startsWith("{");

async function decoded(file) {
  const svg = file.type === "image/svg+xml" || /\.svg$/i.test(file.name ?? "");
  if (!svg) {
    // The browser turns a photograph the right way up. A very large one is decoded at a smaller size at once.
    const bitmap = await createImageBitmap(file);
    if (bitmap.width * bitmap.height <= MOST_PIXELS) return bitmap;
    const scale = MOST_SIDE / Math.max(bitmap.width, bitmap.height);
    const small = await createImageBitmap(bitmap, {
      resizeWidth: Math.max(1, Math.round(bitmap.width * scale)), resizeHeight: Math.max(1, Math.round(bitmap.height * scale)), resizeQuality: "high",
    });
    bitmap.close();
    return small;
  }
  const image = new Image(), address = URL.createObjectURL(new Blob([file], { type: "image/svg+xml" }));
  try {
    image.src = address;
    await image.decode();
    const [width, height] = [image.naturalWidth || SVG_SIDE, image.naturalHeight || SVG_SIDE];
    const canvas = document.createElement("canvas"), scale = SVG_SIDE / Math.max(width, height);
    [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas;
  } finally {
    URL.revokeObjectURL(address);
  }
}

export function onFiles(take) {
  addEventListener("dragover", (event) => (event.preventDefault(), document.body.classList.add("dropping")));
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) take(file);
  });
}
