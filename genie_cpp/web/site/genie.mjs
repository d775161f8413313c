// Plays a Genie world with the WebAssembly core: in a page, a worker, or node. No dependency.
//
//   const world = await World.load("world/plan.json");
//   await world.reset(world.starts[0], { seed: 1 });    // or pixels: Uint8ClampedArray RGBA of the frame's size
//   const frame = await world.step("right");            // Uint8ClampedArray RGBA [height, width, 4]
//
// Python checked the world and wrote the plan: the parameters of each stack and where each tensor lies in the weights.
// This file executes that plan. A plan is a claim, so every number is checked before the core sees it. The core itself
// checks shapes, and cannot reach anything outside its own memory.

export const PLAN_VERSION = 1;
const ABI = 11;
// Of a core with threads: its memory at first (Makefile), each thread's stack, and threads_wasm.c's limit.
const SHARED_PAGES = 256, STACK_BYTES = 4 << 20, MOST_THREADS = 64;
const PARAMS_BYTES = 328, SAMPLER_BYTES = 32; // sizeof genie_stack_params, genie_sampler
const SIMD = new Uint8Array([ // (module (func (result v128) (i32x4.splat (i32.const 0))))
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 17, 11,
]);

// A fault that a person can read: the file is damaged, or the machine lacks something.
export class GenieError extends Error {}

const fail = (text) => {
  throw new GenieError(text);
};
const whole = (value, least, most, what) =>
  Number.isInteger(value) && value >= least && value <= most ? value : fail(`the world's plan is damaged: ${what} is ${JSON.stringify(value)}`);

// Whether this engine has 128-bit vectors. Without them the scalar core plays, several times slower.
export const hasSimd = () => WebAssembly.validate(SIMD);

// Whether a world can use several threads here: in a worker, because a page itself may not wait for others, and where
// memory may be shared (COOP and COEP headers).
export const hasThreads = () =>
  typeof WorkerGlobalScope === "function" && globalThis.crossOriginIsolated === true && typeof Worker === "function" && hasSimd();

// Reads a file piece by piece. progress(bytes so far, bytes in all or 0).
export async function fetchBytes(url, progress = () => {}) {
  const answer = await fetch(url).catch(() => fail(`${url} cannot be fetched`));
  if (!answer.ok) fail(`${url}: the server answers ${answer.status}`);
  if (!answer.body) return new Uint8Array(await answer.arrayBuffer());
  const total = Number(answer.headers.get("content-length")) || 0, parts = [];
  let size = 0;
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(() => fail(`${url} broke off after ${size} bytes`));
    if (done) break;
    parts.push(value);
    progress((size += value.length), total);
  }
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) all.set(part, at), (at += part.length);
  return all;
}

// SHA-256 (FIPS 180-4). crypto.subtle is missing on pages of plain http.
export function sha256(bytes) {
  const primes = [], roots = [], start = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  for (const p of primes) roots.push(fraction(Math.cbrt(p)));
  for (const p of primes.slice(0, 8)) start.push(fraction(Math.sqrt(p)));
  const hash = Int32Array.from(start), w = new Int32Array(64);
  const size = Math.ceil((bytes.length + 9) / 64) * 64, tail = new Uint8Array(128);
  const whole = bytes.length - (bytes.length % 64);
  tail.set(bytes.subarray(whole));
  tail[bytes.length - whole] = 128;
  const ends = new DataView(tail.buffer);
  ends.setUint32(size - whole - 8, Math.floor(bytes.length / 2 ** 29));
  ends.setUint32(size - whole - 4, (bytes.length * 8) >>> 0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < size; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = at < whole ? view.getInt32(at + 4 * i) : ends.getInt32(at - whole + 4 * i);
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ (a >>> 3)) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ (b >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + roots[i] + w[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (hash[i] += value));
  }
  return [...hash].map((value) => (value >>> 0).toString(16).padStart(8, "0")).join("");
}

const decode64 = (text) => Uint8Array.from(atob(String(text)), (c) => c.charCodeAt(0));

// The C core's functions, with what JavaScript needs around them: memory and errors.
class Core {
  // memory: shared with workers, for several threads.
  constructor(instance, memory = instance.exports.memory, threads = 1) {
    this.c = { ...instance.exports, memory };
    if (this.c.genie_abi_version() !== ABI) fail("the core is of another version than the page; reload both");
    this.pool = this.made("genie_pool_create", threads);
    this.threads = threads;
  }

  // A core with workers of its own, which wait for work in the module's C code. worker(): a new one, of thread.mjs.
  static async threaded(module, threads, worker) {
    const memory = new WebAssembly.Memory({ initial: SHARED_PAGES, maximum: 65536, shared: true });
    const core = new Core(await WebAssembly.instantiate(module, { env: { memory } }), memory, threads);
    const { c } = core, workers = [];
    const started = Array.from({ length: c.genie_wasm_wanted() }, (_, run) => new Promise((resolve, reject) => {
      const one = worker(), stack = core.alloc(STACK_BYTES) + STACK_BYTES, tls = core.alloc(c.__tls_size.value + 64);
      workers.push(one);
      one.onmessage = resolve;
      one.onerror = () => reject(new GenieError("a worker could not be started"));
      setTimeout(one.onerror, 10000);
      one.postMessage({ module, memory, run, stack: stack - (stack % 16), tls: tls + 64 - (tls % 64) });
    }));
    try {
      await Promise.all(started);
    } catch (error) {
      for (const one of workers) one.terminate();
      throw error;
    }
    return core;
  }

  get bytes() {
    return new Uint8Array(this.c.memory.buffer);
  }

  alloc(size) {
    return this.c.malloc(size) || fail("there is not enough memory for this world");
  }

  // Memory for `count` values of 4 bytes, and views of it. The buffer moves when memory grows, so views are made anew.
  array(count) {
    const at = this.alloc(4 * count), core = this;
    return {
      at,
      get floats() {
        return new Float32Array(core.c.memory.buffer, at, count);
      },
      get ints() {
        return new Int32Array(core.c.memory.buffer, at, count);
      },
    };
  }

  copied(bytes) {
    const at = this.alloc(bytes.length);
    this.bytes.set(bytes, at);
    return at;
  }

  check(status) {
    if (!status) return;
    const bytes = this.bytes, at = this.c.genie_last_error();
    fail(`the core refuses: ${new TextDecoder().decode(bytes.slice(at, bytes.indexOf(0, at)))}`);
  }

  // Calls a function whose last argument is where it puts what it makes.
  made(name, ...rest) {
    const place = this.alloc(4);
    this.check(this.c[name](...rest, place));
    const made = new DataView(this.c.memory.buffer).getUint32(place, true);
    this.c.free(place);
    return made;
  }
}

// A piece of the weights that a plan names.
function piece(weights, offset, bytes, what) {
  whole(bytes, 1, weights.length, `${what}'s size`);
  whole(offset, 0, weights.length - bytes, `${what}'s place`);
  return weights.subarray(offset, offset + bytes);
}

// One ST-transformer and its window.
class Stack {
  constructor(core, plan, name, weights) {
    const s = plan.stacks[name];
    this.core = core;
    this.tokens = whole(s.tokens, 1, 1 << 20, `${name}.tokens`);
    this.inputs = whole(s.input, 0, 1 << 20, `${name}.input`);
    this.outputs = whole(s.output, 1, 1 << 24, `${name}.output`);
    const params = decode64(s.params);
    if (params.length !== PARAMS_BYTES) fail(`the world's plan is damaged: parameters of ${name}`);
    const place = core.copied(params);
    this.stack = core.made("genie_stack_create", 0, place);
    core.c.free(place);
    for (const [block, sublayer, slot, type, rows, columns, offset, bytes] of s.tensors) {
      for (const value of [block, sublayer, slot, type]) whole(value, -1, 1 << 20, `a tensor of ${name}`);
      for (const value of [rows, columns]) whole(value, 1, 2 ** 40, `a shape of ${name}`);
      const data = core.copied(piece(weights, offset, bytes, name));
      core.check(core.c.genie_stack_set(this.stack, core.pool, block, sublayer, slot, type, BigInt(rows), BigInt(columns), data, bytes));
      core.c.free(data);
    }
    core.check(core.c.genie_stack_seal(this.stack));
    this.state = core.made("genie_state_create", this.stack);
    this.input = core.array(this.tokens * (this.inputs || 1));
    this.output = core.array(this.tokens * this.outputs);
  }

  get length() {
    return this.core.c.genie_state_length(this.state);
  }

  truncate(length) {
    this.core.check(this.core.c.genie_state_truncate(this.state, length));
  }

  // values: ids or features of one frame. The result is a view, good until the next call.
  forward(values, action = -1, { commit = true, output = true } = {}) {
    const { c } = this.core, ids = this.inputs ? 0 : this.input.at, features = this.inputs ? this.input.at : 0;
    (this.inputs ? this.input.floats : this.input.ints).set(values);
    this.core.check(c.genie_stack_forward(this.stack, this.state, this.core.pool, ids, features, action, +commit, output ? this.output.at : 0));
    return this.output.floats;
  }
}

// A convolutional half of the tokenizer. It has no past: its window only counts.
class Network {
  constructor(core, plan, name, weights) {
    const n = plan.networks[name];
    this.core = core;
    const sizes = n.params.slice(0, 4).map((v) => whole(v, 1, 1 << 16, `${name}'s size`));
    const params = core.array(5);
    params.ints.set(sizes);
    params.floats[4] = n.params[4];
    const layers = core.array(2 * n.layers.length);
    layers.ints.set(n.layers.flat().map((v) => whole(v, 0, 1 << 16, `a layer of ${name}`)));
    this.net = core.made("genie_conv_create", 0, params.at, layers.at, n.layers.length);
    for (const [layer, slot, type, rows, columns, offset, bytes] of n.tensors) {
      for (const value of [layer, slot, type]) whole(value, 0, 1 << 20, `a tensor of ${name}`);
      for (const value of [rows, columns]) whole(value, 1, 2 ** 40, `a shape of ${name}`);
      const data = core.copied(piece(weights, offset, bytes, name));
      core.check(core.c.genie_conv_set(this.net, core.pool, layer, slot, type, BigInt(rows), BigInt(columns), data, bytes));
      core.c.free(data);
    }
    core.check(core.c.genie_conv_seal(this.net));
    this.state = core.made("genie_conv_state_create", this.net, core.threads);
    const outputs = n.output.map((v) => whole(v, 1, 1 << 16, `${name}'s output`));
    this.input = core.array(sizes[0] * sizes[1] * sizes[2]);
    this.output = core.array(outputs[0] * outputs[1] * outputs[2]);
    this.length = 0;
  }

  truncate(length) {
    this.length = length;
  }

  run(x) {
    this.input.floats.set(x);
    this.core.check(this.core.c.genie_conv_run(this.net, this.state, this.core.pool, this.input.at, this.output.at));
    return this.output.floats;
  }
}

// A tokenizer's half, from patches [P, X] to latents [P, L] or back, whatever it is made of.
class Half {
  constructor(core, plan, name, weights) {
    this.convolves = name in plan.networks;
    this.encodes = name === "tokenizer.encoder";
    this.inner = this.convolves ? new Network(core, plan, name, weights) : new Stack(core, plan, name, weights);
    this.plan = plan;
  }

  get length() {
    return this.inner.length;
  }

  truncate(length) {
    this.inner.truncate(length);
  }

  forward(x, output = true) {
    if (!this.convolves) return this.inner.forward(x, -1, { output });
    this.inner.length++;
    if (!output) return null;
    if (this.encodes) return this.inner.run(join(x, this.plan, new Float32Array(x.length)));
    const picture = this.inner.run(x);
    return cut(picture, this.plan, new Float32Array(picture.length));
  }
}

// A picture [H, W, 3] -> patches [P, patch * patch * 3], and back.
function rearranged(from, { frame: [width, height], patch }, to, back) {
  let at = 0;
  for (let top = 0; top < height; top += patch)
    for (let left = 0; left < width; left += patch)
      for (let y = 0; y < patch; y++)
        for (let x = 0, place = ((top + y) * width + left) * 3; x < 3 * patch; x++, at++, place++)
          back ? (to[place] = from[at]) : (to[at] = from[place]);
  return to;
}
const cut = (picture, plan, to) => rearranged(picture, plan, to, false);
const join = (patches, plan, to) => rearranged(patches, plan, to, true);

const even = (x) => { // to the nearest whole number, ties to even, as numpy's rint
  const down = Math.floor(x), rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down;
};

const playable = (plan) =>
  plan?.version === PLAN_VERSION ? plan : fail(`the world's plan is of version ${plan?.version}; this page plays version ${PLAN_VERSION}`);

export class World {
  // url: of plan.json. wasm: a WebAssembly.Module; else one of those beside this file. threads: as many as that where the
  // page may share memory, else one. progress(part, bytes, total).
  static async load(url, { wasm, threads = 1, progress = () => {} } = {}) {
    const base = new URL(url, globalThis.location?.href ?? import.meta.url);
    const text = new TextDecoder().decode(await fetchBytes(base.href));
    let plan;
    try {
      plan = JSON.parse(text);
    } catch {
      fail("the world's plan is damaged or was cut off");
    }
    const here = new URL(".", import.meta.url);
    const core = wasm ? await WebAssembly.instantiate(wasm, {}) : await World.core(here, threads);
    if (playable(plan).weights?.file !== "weights.bin") fail("the world's plan is damaged: it names no weights");
    const weights = await fetchBytes(new URL(plan.weights.file, base).href, (n, all) => progress("weights", n, all));
    return new World(plan, weights, core, base);
  }

  // The core for this engine, from a folder, ready to be given to the constructor.
  static async core(folder, threads = 1) {
    const compiled = async (name) => WebAssembly.compile(await fetchBytes(new URL(name, folder).href));
    const worker = () => new Worker(new URL("thread.mjs", folder), { type: "module" });
    if (threads > 1 && hasThreads()) {
      try {
        return await Core.threaded(await compiled("genie-threads.wasm"), Math.min(threads, MOST_THREADS), worker);
      } catch (error) {
        console.warn(`one thread only: ${error.message}`); // such as a browser that refuses so much shared memory
      }
    }
    return WebAssembly.instantiate(await compiled(hasSimd() ? "genie-simd128.wasm" : "genie.wasm"), {});
  }

  // plan: the parsed plan.json. weights: Uint8Array. core: what World.core gives, or an instance of the module.
  constructor(plan, weights, core, base) {
    playable(plan);
    if (weights.length !== plan.weights.bytes) fail(`the weights have ${weights.length} bytes instead of ${plan.weights.bytes}: the download was cut off`);
    if (sha256(weights) !== plan.weights.sha256) fail("the weights are not those that the plan was made for");
    const [width, height] = plan.frame.map((side) => whole(side, 1, 4096, "the frame's size"));
    whole(plan.patch, 1, Math.min(width, height), "the patch size");
    if (width % plan.patch || height % plan.patch) fail("the world's plan is damaged: the frame is not whole patches");
    [this.plan, this.width, this.height] = [plan, width, height];
    this.tokens = (width / plan.patch) * (height / plan.patch);
    this.context = whole(plan.context, 2, 1024, "the window");
    this.codes = whole(plan.codebook_size, 2, 1 << 24, "the codebook's size");
    this.latents = whole(plan.latent_length, 1, 1 << 16, "the latents' length");
    this.bins = plan.bins === null ? 0 : whole(plan.bins, 2, 1 << 24, "the bins");
    this.actions = whole(plan.actions, 0, 1 << 16, "the number of actions");
    this.names = plan.action_names;
    this.starts = plan.starts.map((start) => (base ? new URL(start.file, base).href : start.file));
    this.sampler = { ...plan.sampler };
    this.core = core = core instanceof Core ? core : new Core(core);
    this.threads = core.threads;
    for (const part of ["encoder", "decoder"]) this[part] = new Half(core, plan, `tokenizer.${part}`, weights);
    this.dynamics = new Stack(core, plan, "dynamics", weights);
    if (this.dynamics.tokens !== this.tokens) fail("the world's plan is damaged: tokens of the dynamics");
    this.z = core.array(this.tokens * this.latents);
    this.ids = core.array(this.tokens);
    this.samplerAt = core.alloc(SAMPLER_BYTES);
    if (!this.bins) {
      if (plan.codebook.bytes !== 4 * this.codes * this.latents) fail("the world's plan is damaged: the codebook");
      this.codebook = core.copied(piece(weights, plan.codebook.offset, plan.codebook.bytes, "the codebook"));
    }
    this.window = [];
  }

  // Number of an action, from its number or name.
  action(wanted) {
    const number = typeof wanted === "string" && this.names ? this.names.indexOf(wanted) : Number(wanted);
    if (!Number.isInteger(number) || number < 0 || number >= Math.max(this.actions, 1)) fail(`there is no action ${wanted}`);
    return this.actions ? number : -1;
  }

  // Start from a picture: RGBA pixels of the frame's size, or in a browser an address, a Blob or a canvas. Returns the
  // frame as the tokenizer sees it. seed: 0 to 2^64 - 1.
  async reset(picture, { seed = 0n } = {}) {
    const pixels = ArrayBuffer.isView(picture) ? picture : await fitted(picture, this.width, this.height);
    if (pixels.length !== 4 * this.width * this.height) fail(`a picture must be RGBA, ${this.width} x ${this.height}`);
    this.seed = BigInt(seed);
    if (BigInt.asUintN(64, this.seed) !== this.seed) fail("the seed must be in 0…2^64-1");
    const rgb = new Float32Array(3 * this.width * this.height);
    for (let i = 0, at = 0; at < pixels.length; at += 4)
      for (let c = 0; c < 3; c++) rgb[i++] = Math.fround(pixels[at + c] / 255) - 0.5;
    const patches = cut(rgb, this.plan, new Float32Array(rgb.length));
    this.encoder.truncate(0);
    const ids = this.#nearest(this.encoder.forward(patches));
    this.number = 1;
    return this.#begin([this.#seen(ids, -1, patches)]);
  }

  // The state: what was seen, not the model. Give it to `restore`.
  save() {
    const { number, seed } = this;
    return { number, seed, window: this.window.map((frame) => ({ ...frame })) };
  }

  restore({ number, seed, window }) {
    [this.number, this.seed] = [number, seed];
    return this.#begin(window.map((frame) => ({ ...frame })));
  }

  // The next frame after an action (a number or a name), RGBA [height, width, 4].
  async step(wanted = 0) {
    const action = this.action(wanted), next = this.plan.prediction === "next-frame";
    this.#makeRoom();
    const ids = this.#sampled(action, next);
    const keeps = this.plan.window !== "retokenize" && this.window.length < this.context - 1;
    if (!next && keeps) this.dynamics.forward(ids, action, { output: false });
    this.number++;
    const patches = this.#decode(ids);
    this.window.push(this.#seen(ids, action, patches));
    return this.#shown(patches);
  }

  // A frame of the window. Pixels are kept only where they are tokenized again.
  #seen(ids, action, pixels) {
    return this.plan.window === "retokenize" ? { ids, action, pixels } : { ids, action };
  }

  #begin(window) {
    this.window = window;
    this.#replay(window.length - 1);
    return this.#shown(this.#decode(window.at(-1).ids));
  }

  // The window's frames, run again from time 0; the decoder sees the first `decoded`.
  #replay(decoded) {
    const behind = this.plan.prediction === "next-frame" ? 1 : 0;
    this.dynamics.truncate(0);
    this.decoder.truncate(0);
    for (let i = 0; i + behind < this.window.length; i++)
      this.dynamics.forward(this.window[i].ids, this.window[i + behind].action, { output: false });
    for (const frame of this.window.slice(0, decoded)) this.decoder.forward(this.#codes(frame.ids), false);
  }

  // What a full window does (docs/sampling.md).
  #makeRoom() {
    const { window, context } = this, policy = this.plan.window;
    if (policy === "retokenize") {
      this.window = window.slice(Math.max(0, window.length - context + 1));
      this.window[0].action = -1;
      this.encoder.truncate(0);
      for (const frame of this.window) frame.ids = this.#nearest(this.encoder.forward(frame.pixels));
      this.#replay(this.window.length);
    } else if (window.length >= context) {
      this.window = window.slice(context - (policy === "exact" ? context - 1 : (context + 1) >> 1));
      this.window[0] = { ...this.window[0], action: -1 };
      this.#replay(this.window.length);
    }
  }

  #sampled(action, next) {
    const { core, dynamics, sampler, samplerAt, codes } = this, view = new DataView(core.c.memory.buffer);
    view.setInt32(samplerAt, whole(sampler.steps, 1, 1024, "the number of steps"), true);
    view.setInt32(samplerAt + 4, sampler.order, true);
    view.setFloat32(samplerAt + 8, sampler.temperature, true);
    view.setFloat32(samplerAt + 12, sampler.noise, true);
    view.setFloat64(samplerAt + 16, sampler.threshold, true);
    view.setInt32(samplerAt + 24, sampler.schedule, true);
    const early = sampler.threshold > 0 || sampler.schedule === 1; // exponential: any step may be the last
    if (next) dynamics.forward(this.window.at(-1).ids, action);
    this.ids.ints.fill(codes);
    for (let step = 0; step < sampler.steps; step++) {
      const given = [dynamics.stack, dynamics.state, core.pool, samplerAt, step, this.seed, this.number];
      core.check(
        next
          ? core.c.genie_maskgit_fill(...given, dynamics.output.at, this.ids.at)
          : core.c.genie_maskgit_step(...given, action, this.ids.at, 0),
      );
      if (early && !this.ids.ints.includes(codes)) break;
    }
    return this.ids.ints.slice();
  }

  #nearest(latents) {
    const { core, ids, latents: length, tokens } = this, z = this.z.floats;
    z.set(latents);
    core.check(
      this.bins
        ? core.c.genie_fsq_nearest(this.bins, length, this.z.at, tokens, ids.at)
        : core.c.genie_vq_nearest(0, this.codebook, this.codes, length, this.z.at, tokens, ids.at),
    );
    return ids.ints.slice();
  }

  #codes(ids) {
    const { core, bins, latents: length } = this;
    if (bins) {
      const z = new Float32Array(ids.length * length);
      for (let i = 0, at = 0; i < ids.length; i++)
        for (let j = 0, rest = ids[i]; j < length; j++, rest = Math.floor(rest / bins))
          z[at++] = Math.fround(Math.fround(2 * (rest % bins)) / (bins - 1)) - 1;
      return z;
    }
    this.ids.ints.set(ids);
    core.check(core.c.genie_vq_lookup(this.codebook, this.codes, length, this.ids.at, ids.length, this.z.at));
    return this.z.floats.slice();
  }

  #decode(ids) {
    return this.decoder.forward(this.#codes(ids)).slice();
  }

  #shown(patches) {
    const rgb = join(patches, this.plan, new Float32Array(patches.length)), frame = new Uint8ClampedArray((4 * rgb.length) / 3);
    for (let i = 0, at = 0; i < rgb.length; at += 4) {
      for (let c = 0; c < 3; c++) frame[at + c] = even(Math.fround(Math.fround(rgb[i++] + 0.5) * 255));
      frame[at + 3] = 255;
    }
    return frame;
  }
}

// A picture cropped to the middle and scaled to the frame, RGBA. source: an address, a Blob, or what a canvas can draw.
export async function fitted(source, width, height) {
  let blob = source;
  if (typeof source === "string") blob = new Blob([await fetchBytes(source)]);
  const picture = blob instanceof Blob ? await createImageBitmap(blob).catch(() => fail("that is not a picture that this browser reads")) : blob;
  const scale = Math.max(width / picture.width, height / picture.height), w = width / scale, h = height / scale;
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // under transparent pictures
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (picture.width - w) / 2, (picture.height - h) / 2, w, h, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
