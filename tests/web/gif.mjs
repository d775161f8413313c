// Writes a GIF in node: gif.mjs MODULE FRAMES.rgba WIDTH HEIGHT SCALE DELAY OUT.gif -> JSON: how often it told its progress.
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const [module, rgba, width, height, scale, delay, to] = process.argv.slice(2);
const { gif } = await import(pathToFileURL(module));
const all = new Uint8Array(fs.readFileSync(rgba)), size = 4 * width * height, frames = [];
for (let at = 0; at < all.length; at += size) frames.push(all.subarray(at, at + size));
let told = 0;
fs.writeFileSync(to, await gif(frames, +width, +height, { scale: +scale, delay: +delay, progress: () => void told++ }));
console.log(JSON.stringify(told));
