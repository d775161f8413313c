// Runs a world beside the page, so that the page stays smooth. Every message {id, call, given} gets one answer:
// {id, result} or {id, error}. While a world loads there are messages {progress: [part, bytes, total]} between.

import { GenieError, World } from "./genie.mjs";

let world;
const progress = (...progress) => postMessage({ progress });
const CALLS = {
  // {url, threads}: fetch plan, weights and core. {plan, weights, wasm}: they are here already.
  async load({ url, threads, plan, weights, wasm }) {
    world = url
      ? await World.load(url, { threads, progress })
      : new World(plan, weights, await WebAssembly.instantiate(await WebAssembly.compile(wasm), {}));
    return { starts: world.starts, threads: world.threads };
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
    postMessage({ id, error: said(error, call) });
  }
});

function said(error, call) {
  if (error instanceof GenieError) return error.message;
  if (error instanceof RangeError) return "there is not enough memory for this world";
  // A plan that lacks what every plan has shows as a TypeError.
  return call === "load" && error instanceof TypeError ? "the world's plan is damaged" : `${error}`;
}
