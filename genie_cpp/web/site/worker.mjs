// Runs a world beside the page, so that the page stays smooth. Every message {id, call, given} gets one answer:
// {id, result} or {id, error}. While a world loads there are messages {progress: [part, bytes, total]} between.

import { GenieError, World } from "./genie.mjs";

let world;
const progress = (...progress) => postMessage({ progress });
const about = () => ({
  width: world.width, height: world.height, starts: world.starts, simd: world.simd, sampler: world.sampler,
});
const CALLS = {
  // {url}: fetch plan, weights and core. {plan, weights, wasm}: they are here already.
  async load({ url, plan, weights, wasm }) {
    world = url
      ? await World.load(url, { progress })
      : new World(plan, weights, await WebAssembly.instantiate(await WebAssembly.compile(wasm), {}));
    return about();
  },
  async reset({ picture, seed, sampler }) {
    Object.assign(world.sampler, sampler);
    return shown(await world.reset(picture, { seed }));
  },
  async step({ action, sampler }) {
    Object.assign(world.sampler, sampler);
    return shown(await world.step(action));
  },
  async restore({ state }) {
    return shown(world.restore(state));
  },
};
const shown = (frame) => ({ frame, state: world.save() });

addEventListener("message", async ({ data: { id, call, given } }) => {
  try {
    const begun = performance.now();
    const result = await CALLS[call](given);
    postMessage({ id, result: { ...result, ms: performance.now() - begun } });
  } catch (error) {
    const lacks = error instanceof RangeError || error instanceof WebAssembly.RuntimeError;
    const text = error instanceof GenieError ? error.message : lacks ? "there is not enough memory for this world" : `${error}`;
    postMessage({ id, error: text });
  }
});
