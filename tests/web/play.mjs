// Plays an exported world in node: play.mjs PLAYER_FOLDER CORE.wasm WORLD_FOLDER JOB.json -> JSON on stdout.
// A job: {"start": rgba file, "seed": "3", "sampler": {...}, "actions": [...]}; the answer: each frame's RGB, hashed.
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [player, core, folder, job] = process.argv.slice(2);
const { GenieError, World, sha256 } = await import(pathToFileURL(path.join(player, "genie.mjs")));
const read = (name) => new Uint8Array(fs.readFileSync(path.join(folder, name)));
const hashed = (frame) => crypto.createHash("sha256").update(Buffer.from(frame.filter((_, i) => i % 4 !== 3))).digest("hex");

try {
  const plan = JSON.parse(new TextDecoder().decode(read("plan.json"))), weights = read("weights.bin");
  const instance = await WebAssembly.instantiate(await WebAssembly.compile(fs.readFileSync(core)), {});
  const world = new World(plan, weights, instance);
  const { start, seed, sampler, actions, hash } = JSON.parse(fs.readFileSync(job));
  Object.assign(world.sampler, sampler);
  const frames = [hashed(await world.reset(read(start), { seed }))];
  for (const action of actions) frames.push(hashed(await world.step(action)));
  const again = hashed(world.restore(world.save()));
  const memory = instance.exports.memory.buffer.byteLength;
  console.log(JSON.stringify({ frames, again, memory, hash: hash && sha256(new Uint8Array(Buffer.from(hash, "hex"))) }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message, ours: error instanceof GenieError }));
}
