import { KERNEL_BASE64 } from './kernel-bytes.ts';
import { INPUT, KEY, MEMORY_PAGE_BYTES, NODE_BLOCK, OUT, SLACK_BYTES } from './memory-map.ts';
import type { Blake3Mode } from '../hash/blake3-tree.ts';

/** The kernel's functions; what they do is said where they are written (tree.ts, pages.ts). Numbers wrap to 32 bits. */
interface KernelFunctions {
  tree(length: number, counterLow: number, counterHigh: number, flags: number): void;
  parent(flags: number): void;
  value(counterLow: number, counterHigh: number): void;
  output(counterLow: number, counterHigh: number): void;
  zeroPages(at: number, count: number): number;
  dataPages(at: number, count: number, have: number, minPages: number, cutBelow: number): number;
  plainPages(at: number, count: number, have: number): void;
  endChunk(pages: number): void;
}

/** The part of the WebAssembly JavaScript API (W3C) that is used; not every set of types has it. */
interface WebAssemblyApi {
  compile(bytes: Uint8Array<ArrayBuffer>): Promise<object>;
  instantiate(module: object, imports: object): Promise<{ readonly exports: unknown }>;
  readonly Memory: new (size: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
}

function webAssembly(): WebAssemblyApi {
  const api = (globalThis as { WebAssembly?: WebAssemblyApi }).WebAssembly;
  if (api === undefined) throw new Error('there is no WebAssembly here');
  return api;
}

/** A compiled kernel, of which any number of instances can be made. */
export type KernelModule = object;

/** @throws CompileError where WebAssembly lacks SIMD or is forbidden. */
export async function compileKernel(): Promise<KernelModule> {
  return webAssembly().compile(Uint8Array.from(atob(KERNEL_BASE64), (char) => char.charCodeAt(0)));
}

/** One instance with its own memory, allocated once; it computes one thing at a time. */
export interface Kernel {
  readonly functions: KernelFunctions;
  /** Where input goes. */
  readonly input: Uint8Array<ArrayBuffer>;
  /** The 64 bytes of the last compression. */
  readonly out: Uint8Array<ArrayBuffer>;
  /** The 64 bytes of a parent's two values. */
  readonly block: Uint8Array<ArrayBuffer>;
  /** Sets the key for the calls that follow. */
  use(mode: Blake3Mode): void;
}

/** An instance for up to `inputBytes` of input. */
export async function openKernel(module: KernelModule, inputBytes: number): Promise<Kernel> {
  const api = webAssembly();
  const pages = Math.ceil((INPUT + inputBytes + SLACK_BYTES) / MEMORY_PAGE_BYTES);
  const memory = new api.Memory({ initial: pages, maximum: pages });
  const { exports } = await api.instantiate(module, { env: { memory } });
  const key = new Uint8Array(memory.buffer, KEY, 32);
  let current: Blake3Mode | undefined;
  return {
    functions: exports as KernelFunctions,
    input: new Uint8Array(memory.buffer, INPUT, inputBytes),
    out: new Uint8Array(memory.buffer, OUT, 64),
    block: new Uint8Array(memory.buffer, NODE_BLOCK, 64),
    use(mode) {
      if (mode === current) return;
      key.set(mode.key);
      current = mode;
    },
  };
}
