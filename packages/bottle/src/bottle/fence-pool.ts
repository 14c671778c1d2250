import { Scope } from '@decant/core';

import type { Fence, FenceListeners, FenceListenersOptions, FenceOptions } from '../fence/fence.ts';
import { openFence, openFenceListeners } from '../fence/open-fence.ts';
import { checkedPorts, portsOf } from '../fence/ports.ts';

export interface FencePoolOptions extends Pick<FenceListenersOptions, 'sidecarUrl'> {
  /** Fences that stand ready at a time, 1 to 64. */
  readonly size: number;
  /** Ports besides 80 and 443 that they listen on; a bottle whose routes name others gets a new fence. */
  readonly ports?: readonly number[] | undefined;
}

/**
 * Fences that are opened ahead of the launches they are for: each has its own namespace, sidecar and authority, lets
 * nothing through, and is used for one bottle. They end with this process, however it ends.
 */
export interface FencePool extends AsyncDisposable {
  /** How many stand ready now. */
  readonly ready: number;
  /** Resolves when all of them stand ready. @throws what opening one throws. */
  filled(signal?: AbortSignal): Promise<void>;
  /** For a launch's `openFence`: a ready one when there is one that fits, else a new one. */
  readonly openFence: (options: FenceOptions) => Promise<Fence>;
}

/** Parts of the pool that a test of its bookkeeping replaces. */
export interface FencePoolParts {
  readonly openListeners: (options: FenceListenersOptions) => Promise<FenceListeners>;
  readonly openFence: (options: FenceOptions) => Promise<Fence>;
}

const MOST = 64;
/** By then a launch has what it needs of the processor. */
const REFILL_AFTER_MS = 500;

/** @throws RangeError for a size that is none; CONFIG_INVALID for the ports. */
export function openFencePool(
  options: FencePoolOptions,
  parts: FencePoolParts = { openListeners: openFenceListeners, openFence },
): FencePool {
  const { size } = options;
  if (!Number.isInteger(size) || size < 1 || size > MOST) throw new RangeError(`a pool has 1 to ${MOST} fences`);
  return new Pool(options, checkedPorts(options.ports ?? []), parts);
}

class Pool implements FencePool {
  readonly #options: FencePoolOptions;
  readonly #ports: readonly number[];
  readonly #parts: FencePoolParts;
  readonly #ready: FenceListeners[] = [];
  readonly #opening = new Set<Promise<void>>();
  #isOpen = true;

  constructor(options: FencePoolOptions, ports: readonly number[], parts: FencePoolParts) {
    this.#options = options;
    this.#ports = ports;
    this.#parts = parts;
    this.#fill();
  }

  get ready(): number {
    return this.#ready.length;
  }

  async filled(signal?: AbortSignal): Promise<void> {
    while (this.#isOpen && this.#ready.length < this.#options.size) {
      signal?.throwIfAborted();
      this.#fill();
      await Promise.all(this.#opening);
    }
  }

  readonly openFence = async (options: FenceOptions): Promise<Fence> => {
    const needed = checkedPorts([...portsOf(options.policy), ...(options.ports ?? [])]);
    const fits = options.network === 'new' && needed.every((port) => this.#ports.includes(port));
    const ready = fits ? this.#ready.shift() : undefined;
    if (ready === undefined) return await this.#parts.openFence(options);
    try {
      options.onNamespace?.(ready.networkNamespace);
      return await ready.configure(options, options.signal);
    } catch (error) {
      await ready[Symbol.asyncDispose]();
      throw error;
    } finally {
      // The next one is opened when this launch no longer needs the processor.
      setTimeout(() => this.#fill(), REFILL_AFTER_MS).unref();
    }
  };

  #fill(): void {
    while (this.#isOpen && this.#ready.length + this.#opening.size < this.#options.size) {
      const work = this.#open().finally(() => this.#opening.delete(work));
      this.#opening.add(work);
      // Whoever waits for the pool hears of it; a launch opens a fence of its own and hears of it there.
      work.catch(() => undefined);
    }
  }

  async #open(): Promise<void> {
    const { sidecarUrl } = this.#options;
    const listeners = await this.#parts.openListeners({ network: 'new', ports: this.#ports, sidecarUrl });
    this.#ready.push(listeners);
    void listeners.ended.then(() => {
      const index = this.#ready.indexOf(listeners);
      if (index >= 0) this.#ready.splice(index, 1);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOpen = false;
    // What comes into being meanwhile goes with the others.
    await Promise.allSettled(this.#opening);
    await using scope = new Scope();
    for (const listeners of this.#ready.splice(0)) scope.use(listeners);
  }
}
