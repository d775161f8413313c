/** Types of genie.mjs: plays a Genie world exported by `genie-cpp web`. */

/** A fault that a person can read: a damaged file, or something that this machine lacks. */
export class GenieError extends Error {}

export const PLAN_VERSION: number;

/** Whether this engine has 128-bit vectors; without them the scalar core plays. */
export function hasSimd(): boolean;
/** Whether a world can use several threads: in a worker of a page that is `crossOriginIsolated`, by COOP and COEP headers. */
export function hasThreads(): boolean;
export function fetchBytes(url: string, progress?: (bytes: number, total: number) => void): Promise<Uint8Array>;
/** Hexadecimal. */
export function sha256(bytes: Uint8Array): string;
/** A picture cropped to the middle and scaled, RGBA. Needs a browser. */
export function fitted(source: string | Blob | ImageBitmap, width: number, height: number): Promise<Uint8ClampedArray>;

export interface Sampler {
  steps: number;
  temperature: number;
  noise: number;
  threshold: number;
  /** 0 confidence, 1 random, 2 largest probability. */
  order: number;
  /** 0 cosine, 1 exponential, 2 cosine, rounded up. */
  schedule: number;
}

/** What was seen, not the model: `restore` takes it. Can be cloned to another worker. */
export interface State {
  number: number;
  seed: bigint;
  window: { ids: Int32Array; action: number; pixels?: Float32Array }[];
}

export interface LoadOptions {
  wasm?: WebAssembly.Module;
  /** As many where `hasThreads()`, else one. Default 1. */
  threads?: number;
  progress?: (part: string, bytes: number, total: number) => void;
}

export class World {
  /** url: of plan.json; the weights and start pictures lie beside it, the core beside genie.mjs. */
  static load(url: string | URL, options?: LoadOptions): Promise<World>;
  /** The core for this engine, for the constructor. */
  static core(folder: URL, threads?: number): Promise<object>;
  /** core: what `World.core` gives, or an instance of one of the modules that need no shared memory. */
  constructor(plan: unknown, weights: Uint8Array, core: object, base?: URL);

  readonly threads: number;

  readonly width: number;
  readonly height: number;
  /** How many actions; 0 in a world that goes on by itself. */
  readonly actions: number;
  readonly names: string[] | null;
  /** Addresses of pictures to start from. */
  readonly starts: string[];
  /** Can be changed at any time. */
  sampler: Sampler;

  /** Start from RGBA pixels of the frame's size, or in a browser from an address, a Blob or an ImageBitmap. */
  reset(picture: Uint8Array | Uint8ClampedArray | string | Blob | ImageBitmap, options?: { seed?: number | bigint | string }): Promise<Uint8ClampedArray>;
  /** The next frame, RGBA [height, width, 4], after an action: its number or name. */
  step(action?: number | string): Promise<Uint8ClampedArray>;
  save(): State;
  restore(state: State): Uint8ClampedArray;
}
