import type { Gunzip, ZstdDecompress } from 'node:zlib';

import { DecantError, isDecantError, releaseBytes } from '@decant/core';

import type { ReadOptions } from './blob-source.ts';

/** Bytes that are fed at once: what they give mostly fits into one buffer of output. */
export const INPUT_BYTES = 64 * 1024;
export const OUTPUT_BYTES = 512 * 1024;

/** What a decoder reads from and writes to, by turns. */
export interface DecodingBuffers {
  readonly input: readonly [Uint8Array, Uint8Array];
  /** Undefined when the pieces are not lent: then each is memory of its own. */
  readonly output: readonly [Buffer, Buffer] | undefined;
}

export function createBuffers({ lend = false }: ReadOptions): DecodingBuffers {
  const output = () => Buffer.allocUnsafeSlow(OUTPUT_BYTES);
  return {
    input: [new Uint8Array(INPUT_BYTES), new Uint8Array(INPUT_BYTES)],
    output: lend ? [output(), output()] : undefined,
  };
}

/**
 * One of Node's decoders, fed part by part, with its output in two buffers that are used again: new ones for a gigabyte of
 * output cost the collector seconds. Node's streams have no way to be told where to write; where these fields of theirs
 * were not what they are, pieces would be new memory, and right all the same.
 */
export class Decoding {
  readonly #decoder: Gunzip | ZstdDecompress;
  readonly #output: DecodingBuffers['output'];
  #turn = 0;
  #fedBytes = 0;
  #atWork = false;
  #failure: { readonly error: unknown } | undefined;
  #wake: (() => void) | undefined;

  constructor(decoder: Gunzip | ZstdDecompress, output: DecodingBuffers['output']) {
    this.#decoder = decoder;
    this.#output = output;
    const wake = () => this.#wake?.();
    decoder.on('readable', wake);
    decoder.on('end', () => this.#done());
    decoder.on('error', (error) => this.#done(error));
    decoder.on('close', () => this.#done());
  }

  /** Begins to decode; the part must not change until it is finished. */
  begin(part: Uint8Array): void {
    this.#takeTurn();
    this.#fedBytes += part.length;
    this.#decoder.write(part, (error) => this.#done(error ?? undefined));
  }

  /** There are no more parts. */
  end(): void {
    this.#takeTurn();
    this.#decoder.end();
  }

  #takeTurn(): void {
    this.#atWork = true;
    const buffer = this.#output?.[this.#turn++ % 2];
    if (buffer !== undefined) Object.assign(this.#decoder, { _outBuffer: buffer, _outOffset: 0 });
  }

  #done(error?: unknown): void {
    if (error !== undefined) this.#failure ??= { error };
    this.#atWork = false;
    this.#wake?.();
  }

  /**
   * The next piece of output; undefined when there is no more of what was fed. @throws as `finished`
   */
  async output(): Promise<Uint8Array | undefined> {
    for (;;) {
      const piece: unknown = this.#decoder.read();
      if (piece instanceof Uint8Array) return piece;
      if (this.finished()) return undefined;
      const waked = Promise.withResolvers<void>();
      this.#wake = waked.resolve;
      await waked.promise;
    }
  }

  /**
   * Whether all that comes of what was fed has been given by `output`, once that was called.
   * @throws LAYER_INVALID for broken data, and for a part of which the decoder took only the beginning
   */
  finished(): boolean {
    const { bytesWritten } = this.#decoder;
    if (this.#failure !== undefined) throw brokenData(this.#failure.error, bytesWritten);
    if (this.#atWork) return false;
    if (bytesWritten === this.#fedBytes) return true;
    throw brokenData(new Error('there is something after the end of the compressed data'), bytesWritten);
  }

  /** Hands a piece on; when its reader comes back, what is not used again is given up. */
  *lend(piece: Uint8Array): Generator<Uint8Array, void, undefined> {
    yield piece;
    if (this.#output !== undefined && this.#output.every(({ buffer }) => buffer !== piece.buffer)) releaseBytes(piece);
  }
}

function brokenData(error: unknown, offset: number): unknown {
  if (isDecantError(error)) return error;
  const what = error instanceof Error ? error.message : String(error);
  return new DecantError('LAYER_INVALID', `The compressed layer is broken near byte ${offset}: ${what}.`, {
    details: { offset },
    cause: error,
  });
}
